import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    _discriminative,
    _refinement,
)
from sklearn_charlstm._device import Compute
from sklearn_charlstm._discriminative import (
    auto_epochs,
    join_models,
    joint_jobs,
    train_jointly,
)
from sklearn_charlstm._joint_batches import (
    MAX_GROUP,
    JointBatches,
    LabelledTexts,
    class_similarity,
    draw_groups,
)
from sklearn_charlstm._model import Model
from sklearn_charlstm._scoring import text_log_likelihood
from sklearn_charlstm._training import initial_state
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import IGNORE

CPU = Compute(torch.device("cpu"), torch.float32)


def labelled(texts, class_index, sample_weight=None):
    vocabulary = Vocabulary(texts, "char", False)
    weights = np.ones(len(texts)) if sample_weight is None else np.array(sample_weight)
    encoded = vocabulary.encode(texts)
    return vocabulary, LabelledTexts.balanced(encoded, np.array(class_index), weights)


def weights_of(clf):
    return [model.weights_ for model in clf.language_models_]


def assert_equal_weights(one, other):
    for weights, other_weights in zip(one, other, strict=True):
        for name, values in weights.items():
            np.testing.assert_array_equal(values, other_weights[name])


def test_every_class_has_the_same_weight():
    vocabulary, texts = labelled(["aaaa", "", "bb", "cc"], [0, 0, 1, 1], [1, 1, 1, 3])
    per_class = np.bincount(
        texts.class_index, weights=texts.weights * texts.encoded.lengths
    )
    np.testing.assert_allclose(per_class, per_class[0])
    assert texts.weights[3] == pytest.approx(3 * texts.weights[2])
    batches = JointBatches(
        texts, class_similarity(texts), vocabulary, maxlen=4, batch_size=8, seed=0
    )
    totals = np.zeros(2)
    for windows, (labels, weights) in batches:
        n_targets = (windows["targets"] != IGNORE).sum(axis=1)
        totals += np.bincount(labels, weights=weights * n_targets, minlength=2)
    np.testing.assert_allclose(totals, 4, rtol=1e-6)


def test_windows_know_their_class_beside_empty_texts():
    texts = ["", "aaaa", "", "bbbbbbbb", "aaa", ""]
    vocabulary, texts = labelled(texts, [0, 0, 1, 1, 0, 1])
    batches = JointBatches(
        texts, class_similarity(texts), vocabulary, maxlen=3, batch_size=2, seed=0
    )
    for _ in range(3):
        for windows, (labels, _) in batches:
            assert windows["targets"][:, 0].tolist() == labels.tolist()
    assert batches.epoch == 3


def test_similar_classes():
    texts = ["abcabcabc", "abcabcabcabc", "xyzxyz", "abcxyz", "c"]
    _, texts = labelled(texts, range(5))
    similarity = class_similarity(texts)
    assert similarity.shape == (5, 5)
    np.testing.assert_allclose(similarity, similarity.T)
    np.testing.assert_allclose(np.diag(similarity), 1)
    # The pairs of the first two texts are the same, but for the seam.
    assert similarity[0, 1] > 0.9
    assert similarity[0, 2] == 0
    assert 0 < similarity[0, 3] < similarity[0, 1]


@pytest.mark.parametrize("n_classes", [2, 4, 5, 9, 100])
def test_groups_hold_every_class_once_beside_similar_ones(n_classes):
    # Neighbours are alike.
    place = np.arange(n_classes)
    similarity = -abs(place[:, None] - place).astype(float)
    rng = np.random.default_rng(0)
    groups = draw_groups(similarity, rng)
    assert sorted(np.concatenate(groups).tolist()) == list(range(n_classes))
    sizes = [len(group) for group in groups]
    assert max(sizes) <= MAX_GROUP
    assert max(sizes) - min(sizes) <= 1
    assert np.ptp(groups[0]) < 2 * MAX_GROUP
    if n_classes > MAX_GROUP:
        other = draw_groups(similarity, rng)
        assert [*map(list, groups)] != [*map(list, other)]


def test_a_step_does_not_grow_with_the_classes():
    texts = [chr(97 + k) * 8 for k in range(20)]
    vocabulary, texts = labelled(texts, range(20))
    batches = JointBatches(
        texts, class_similarity(texts), vocabulary, maxlen=4, batch_size=3, seed=0
    )
    for windows, _ in batches:
        assert len(windows["group"]) <= MAX_GROUP


def make_texts(rng, n_texts=40):
    """Return texts of two classes that differ in what follows an 'a', now and then."""
    texts, labels = [], []
    for k, tail in enumerate(["bbbc", "bccc"]):
        for _ in range(n_texts):
            texts.append("".join("a" + rng.choice(list(tail)) for _ in range(8)))
            labels.append(k)
    return texts, labels


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_the_classes_are_told_apart_better(output):
    texts, labels = make_texts(np.random.default_rng(0))
    vocabulary, labelled_texts = labelled(texts, labels)
    params = {
        "n_inputs": vocabulary.n_inputs,
        "n_outputs": vocabulary.n_outputs,
        "n_networks": 2,
        "embedding_dim": 4,
        "hidden_size": 8,
        "num_layers": 1,
        "dropout": 0.0,
        "output": output,
    }
    start = [initial_state(params, 0).average] * 2
    seen: list[list[float]] = [[], []]
    jobs = joint_jobs(
        [Model(weights, params, vocabulary) for weights in start],
        labelled_texts,
        vocabulary,
        epochs=25,
        maxlen=8,
        batch_size=16,
        seed=0,
        reports=[of_networks.append for of_networks in seen],
    )
    how = {"lr": 0.02, "weight_decay": 0.0, "compute": CPU}
    trained, loss_curve = join_models([train_jointly(job, **how) for job in jobs])
    assert np.shape(seen) == (2, 25)
    np.testing.assert_allclose(np.mean(seen, axis=0), loss_curve)
    # Shorter windows and longer ones, but the best possible is below log 2.
    assert np.mean(loss_curve) < 0.6
    X, y = make_texts(np.random.default_rng(1))

    def cross_entropy(weights):
        encoded = vocabulary.encode(X)
        models = [Model(w, params, vocabulary) for w in weights]
        sums = text_log_likelihood(models, encoded, vocabulary, CPU)
        return log_loss(y, np.exp(sums - np.logaddexp.reduce(sums, 1, keepdims=True)))

    assert cross_entropy(start) == pytest.approx(np.log(2))
    # With the probabilities that the texts were drawn with it is 0.24.
    assert cross_entropy(trained) < 0.35


def test_zero_epochs_leave_the_models_as_they_were(tiny, texts, labels):
    apart = CharLMLanguageClassifier(**tiny, discriminative_epochs=0).fit(texts, labels)
    assert len(apart.discriminative_loss_curve_) == 0
    both = CharLMLanguageClassifier(**tiny, discriminative_epochs=2, warm_start=True)
    both.fit(texts, labels)
    assert len(both.discriminative_loss_curve_) == 2
    assert not np.array_equal(both.log_likelihood(texts), apart.log_likelihood(texts))
    # The training apart is kept for going on, and the joint one is not part of it.
    both.set_params(discriminative_epochs=0).fit(texts, labels)
    assert_equal_weights(weights_of(both), weights_of(apart))


def test_more_text_needs_fewer_epochs(monkeypatch):
    monkeypatch.undo()
    for n_tokens, epochs in [(1, 30), (10_000, 30), (50_000, 7), (10**6, 1)]:
        assert auto_epochs(n_tokens, n_classes=2) == epochs
    assert auto_epochs(50_000, n_classes=4) == auto_epochs(50_000, n_classes=99) == 3


@pytest.mark.parametrize(("boundaries", "n_tokens"), [(False, 10), (True, 14)])
def test_ends_of_texts_are_text_to_train_with(tiny, monkeypatch, boundaries, n_tokens):
    given = []

    def watch(*args):
        given.append(args)
        return 0

    monkeypatch.setattr(_refinement, "auto_epochs", watch)
    texts, labels = ["abab", "b", "cdc", "cd"], [0, 0, 1, 1]
    CharLMLanguageClassifier(**tiny, boundaries=boundaries, calibration_folds=0).fit(
        texts, labels
    )
    assert given == [(n_tokens, 2)]


def test_warm_start_in_steps_is_one_fit(tiny, texts, labels):
    tiny.update(discriminative_epochs=2)
    whole = CharLMLanguageClassifier(**tiny | {"epochs": 4}).fit(texts, labels)
    stepwise = CharLMLanguageClassifier(**tiny | {"epochs": 1}, warm_start=True)
    for epochs in (1, 3, 4):
        stepwise.set_params(epochs=epochs).fit(texts, labels)
    assert_equal_weights(weights_of(stepwise), weights_of(whole))
    np.testing.assert_array_equal(
        stepwise.discriminative_loss_curve_, whole.discriminative_loss_curve_
    )


def test_partial_fit_goes_on_from_the_joint_models(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=2, warm_start=True)
    fitted = weights_of(clf.fit(texts, labels))
    clf.set_params(lr=1e-9).partial_fit(texts, labels)
    for weights, before in zip(weights_of(clf), fitted, strict=True):
        for name, values in weights.items():
            np.testing.assert_allclose(values, before[name], atol=1e-6)
    # And fit from there.
    assert clf._generative_models == clf.language_models_


def test_joint_training_after_partial_fit(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=2, warm_start=True)
    clf.partial_fit(texts, labels, classes=["eng", "fra"]).fit(texts, labels)
    assert clf.n_iter_.tolist() == [3, 3]
    assert len(clf.discriminative_loss_curve_) == 2


def test_a_class_is_added_without_a_change_of_the_others(
    tiny, texts, labels, monkeypatch
):
    # A processor computes up to 32 numbers at a time. If some are left over they are
    # rounded in another way, and which they are goes by how many models read.
    params = tiny | {"hidden_size": 32, "discriminative_epochs": 2}
    clf = CharLMLanguageClassifier(**params, warm_start=True)
    clf.fit(texts, labels)
    before = clf.log_likelihood(texts)
    clf.add_class("deu", ["ß die Katze und der Hund"])
    np.testing.assert_array_equal(clf.log_likelihood(texts)[:, 1:], before)
    more = [*texts, "der Hund"], [*labels, "deu"]
    with monkeypatch.context() as patched:
        # Nothing is trained before.
        patched.setattr(CharLMLanguageClassifier, "_train", None)
        with pytest.raises(ValueError, match="add_class has given the models diff"):
            clf.set_params(epochs=4).fit(*more)
    clf.set_params(discriminative_epochs=0).fit(*more)
    assert clf.n_iter_.tolist() == [4, 4, 4]


def test_divergence_is_an_error(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=2, warm_start=True)
    clf.fit(texts, labels)
    before = clf.log_likelihood(texts)
    clf.set_params(lr=1e38)
    with pytest.raises(ValueError, match=r"all language models together diverged"):
        clf.fit(texts, labels)
    np.testing.assert_array_equal(clf.log_likelihood(texts), before)


def test_interrupt_leaves_the_classifier_as_it_was(tiny, texts, labels, monkeypatch):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=2)

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_discriminative, "joint_losses", interrupt)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(texts, labels)
    assert not hasattr(clf, "classes_")


def test_no_batch_waits_for_the_device(waits_counted, tiny, texts, labels):
    tiny.update(discriminative_epochs=2, calibration_folds=0)
    counts = []
    for n_texts in (8, 80):
        with waits_counted() as counted:
            CharLMLanguageClassifier(**tiny).fit(
                np.resize(texts, n_texts), np.resize(labels, n_texts)
            )
        counts.append(counted.n_waits)
    assert counts[0] == counts[1] > 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu(tiny, texts, labels):
    tiny.update(device="cuda", discriminative_epochs=20)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    assert clf.score(texts, labels) == 1


def test_batches_grow_with_the_classes_of_a_group():
    # Of every class eight windows.
    vocabulary, texts = labelled(["a" * 64, "b" * 64, "c" * 64], range(3))
    batches = JointBatches(
        texts, class_similarity(texts), vocabulary, maxlen=2, batch_size=8, seed=0
    )
    [group] = batches.of_groups()
    assert len(group) == 3 * 32 / (3 * 8)


def test_windows_are_others_in_every_epoch():
    vocabulary, texts = labelled(["abcdefgh" * 4, "hgfedcba" * 4], range(2))
    batches = JointBatches(
        texts, class_similarity(texts), vocabulary, maxlen=8, batch_size=64, seed=0
    )
    [(one, _)], [(other, _)] = batches, batches
    assert not np.array_equal(one["targets"], other["targets"])

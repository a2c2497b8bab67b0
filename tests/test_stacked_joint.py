import gc
import weakref

import numpy as np
import pytest
import torch

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    _padded_batches,
    _refinement,
    _stack,
    _stacked,
    _stacked_joint,
)
from sklearn_charlstm._device import Compute
from sklearn_charlstm._discriminative import (
    joint_jobs,
    train_jointly,
)
from sklearn_charlstm._joint_batches import LabelledTexts
from sklearn_charlstm._model import Model
from sklearn_charlstm._parallel import run
from sklearn_charlstm._stacked_joint import train_jointly_stacked
from sklearn_charlstm._training import initial_state
from sklearn_charlstm._vocabulary import Vocabulary

CPU = Compute(torch.device("cpu"), torch.float32)
HOW = {"lr": 0.02, "weight_decay": 0.01}


def make_jobs(n_classes, seen=None, epochs=3, **params):
    """Return the joint training of two networks of classes of other lengths."""
    letters = "abcdefghijklmnopqrst"
    texts = [(letters[k : k + 3] + "ab ") * (3 + 4 * k) for k in range(n_classes)]
    vocabulary = Vocabulary(texts, "char", True)
    vocabularies = [
        Vocabulary([text], "char", True, common=vocabulary) for text in texts
    ]
    module_params = [
        {
            "n_inputs": own.n_inputs,
            "n_outputs": own.n_outputs,
            "n_networks": 2,
            "embedding_dim": 4,
            "hidden_size": 8,
            "num_layers": 1,
            "dropout": 0.3,
            "output": "softmax",
            **params,
        }
        for own in vocabularies
    ]
    return joint_jobs(
        [
            Model(initial_state(params, k).average, params, own)
            for k, (params, own) in enumerate(
                zip(module_params, vocabularies, strict=True)
            )
        ],
        LabelledTexts.balanced(
            vocabulary.encode(texts), np.arange(n_classes), np.ones(n_classes)
        ),
        vocabulary,
        epochs=epochs,
        maxlen=8,
        batch_size=3,
        seed=0,
        reports=seen or [None, None],
    )


def assert_same(one, other, atol):
    for (weights, losses), (expected, expected_losses) in zip(one, other, strict=True):
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
        for of_class, expected_of_class in zip(weights, expected, strict=True):
            assert list(of_class) == list(expected_of_class)
            for name, values in of_class.items():
                np.testing.assert_allclose(values, expected_of_class[name], atol=atol)


@pytest.fixture(params=[{}, {"MIN_SETS": 1, "MAX_TARGETS": 1}])
def sets_at_once(request, monkeypatch):
    """By the bounds as they are, and by others in which little is done together."""
    for name, value in request.param.items():
        monkeypatch.setattr(_padded_batches, name, value)


@pytest.mark.usefixtures("sets_at_once")
@pytest.mark.parametrize(
    ("n_classes", "params", "max_values"),
    [
        (2, {}, 2**29),
        # Groups of three and of two.
        (5, {}, 2**29),
        (5, {}, 2**17),
        (5, {"output": "sigmoid", "dropout": 0.0}, 1),
        (12, {"output": "sigmoid"}, 2**29),
    ],
)
def test_each_is_trained_as_by_itself(n_classes, params, max_values, monkeypatch):
    monkeypatch.setattr(_stack, "MAX_VALUES", max_values)
    expected = [
        train_jointly(job, **HOW, compute=CPU) for job in make_jobs(n_classes, **params)
    ]
    seen = [[], []]
    jobs = make_jobs(n_classes, [of_job.append for of_job in seen], **params)
    found = train_jointly_stacked(jobs, **HOW, compute=CPU)
    assert_same(found, expected, atol=1e-5)
    for of_job, (_, losses) in zip(seen, found, strict=True):
        assert len(of_job) == 3
        assert of_job == losses


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("n_classes", [2, 5])
def test_on_a_gpu(n_classes):
    cuda = Compute(torch.device("cuda"), torch.float32)
    expected = [train_jointly(job, **HOW, compute=cuda) for job in make_jobs(n_classes)]
    found = train_jointly_stacked(make_jobs(n_classes), **HOW, compute=cuda)
    # Other roundings, and steps as long as their signs where gradients are small.
    assert_same(found, expected, atol=1e-4)


def test_gradients_are_cut_for_each_group(monkeypatch):
    for module in ("_stack", "_discriminative"):
        monkeypatch.setattr(f"sklearn_charlstm.{module}.MAX_GRADIENT_NORM", 1e-3)
    expected = [train_jointly(job, **HOW, compute=CPU) for job in make_jobs(5)]
    found = train_jointly_stacked(make_jobs(5), **HOW, compute=CPU)
    assert_same(found, expected, atol=1e-5)


def test_no_batch_waits_for_the_device(waits_counted):
    with waits_counted() as counted:
        train_jointly_stacked(make_jobs(5), **HOW, compute=CPU)
    assert counted.n_waits == 0


def test_memory_is_given_back(monkeypatch):
    kept = []
    monkeypatch.setattr(
        _stacked_joint._Training,
        "weights",
        lambda self, weights=_stacked_joint._Training.weights: (
            kept.append(weakref.ref(self)) or weights(self)
        ),
    )
    gc.disable()
    try:
        train_jointly_stacked(make_jobs(2, epochs=1), **HOW, compute=CPU)
        assert [ref() for ref in kept] == [None]
    finally:
        gc.enable()


def test_divergence_is_an_error():
    jobs = make_jobs(2)
    jobs[1].models[0].weights["networks.0.linear.bias"][:] = np.nan
    with pytest.raises(ValueError, match="all language models together diverged"):
        train_jointly_stacked(jobs, **HOW, compute=CPU)


@pytest.mark.parametrize(
    "train",
    [
        train_jointly_stacked,
        lambda jobs, **how: [train_jointly(j, **how) for j in jobs],
    ],
)
def test_divergence_that_no_loss_tells(train):
    jobs = make_jobs(2, epochs=1)
    # All outputs alike: the softmax does not see it.
    jobs[1].models[0].weights["networks.0.linear.bias"][:] = 1e13
    with pytest.raises(ValueError, match="together diverged: weights grew"):
        train(jobs, **HOW, compute=CPU)


def test_classifier_is_the_same(tiny, monkeypatch):
    tiny.update(discriminative_epochs=3, calibration_folds=2, n_networks=2)
    X = ["the cat", "und der hund", "le chat et le chien", "the dog and the cat"] * 2
    y = ["en", "de", "fr", "en"] * 2
    expected = CharLMLanguageClassifier(**tiny).fit(X, y)
    monkeypatch.setattr(_stacked, "_DEVICES", ("cpu",))
    n_stacked = []
    monkeypatch.setattr(
        _refinement,
        "train_jointly_stacked",
        lambda jobs, **how: (
            n_stacked.append(len(jobs)) or train_jointly_stacked(jobs, **how)
        ),
    )
    clf = CharLMLanguageClassifier(**tiny).fit(X, y)
    # Both networks, and those of both folds.
    assert n_stacked == [2, 2]
    np.testing.assert_allclose(
        clf.log_likelihood(X), expected.log_likelihood(X), rtol=1e-4
    )
    np.testing.assert_allclose(
        clf.discriminative_loss_curve_, expected.discriminative_loss_curve_, rtol=1e-4
    )


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize(("n_processes", "n_at_once"), [(1, [3]), (2, [2, 1])])
def test_folds_are_trained_side_by_side(
    tiny, monkeypatch, epochs, n_processes, n_at_once
):
    tiny.update(discriminative_epochs=epochs, calibration_folds=3, n_networks=1)
    # Each part has characters that the others do not have.
    X = ["abcdefgh the cat", "ijklmnop the dog", "qrstuvwx the fox", "12345678"]
    X += ["äöüß the hund", "éèà the chat", "ñ the gato und das auto"]
    y = ["en", "en", "en", "de", "de", "de", "de"]
    evidence, vocabularies = [], []
    held_out_evidence = _refinement.held_out_evidence

    def watch(models, vocabulary, *args, **kwargs):
        evidence.append(held_out_evidence(models, vocabulary, *args, **kwargs))
        vocabularies.append(set(vocabulary))
        return evidence[-1]

    monkeypatch.setattr(_refinement, "held_out_evidence", watch)
    clf = CharLMLanguageClassifier(**tiny).fit(X, y)
    expected, evidence[:] = evidence[:], []
    weight = clf.evidence_weight_
    monkeypatch.setattr(_stacked, "_DEVICES", ("cpu",))
    # As if there were several devices; one after the other, so that this is seen.
    monkeypatch.setattr(_refinement, "n_devices", lambda device: n_processes)
    monkeypatch.setattr(_refinement, "n_processes", lambda n_jobs: n_processes)
    monkeypatch.setattr(
        _refinement, "run", lambda names, jobs, *_: run(names, jobs, 1, CPU.device)
    )
    of_groups = []
    evidence_of_folds = _refinement._evidence_of_folds

    def note(classifiers, *args):
        of_groups.append(len(classifiers))
        return evidence_of_folds(classifiers, *args)

    monkeypatch.setattr(_refinement, "_evidence_of_folds", note)
    clf.fit(X, y)
    assert of_groups == n_at_once
    assert len(expected) == len(evidence) == 3
    assert len(set(map(len, vocabularies))) > 1
    # Dealt by turns.
    order = [0, 1, 2] if len(n_at_once) == 1 else [0, 2, 1]
    for number, found in zip(order, evidence, strict=True):
        for values, wanted in zip(found, expected[number], strict=True):
            np.testing.assert_allclose(values, wanted, rtol=1e-4)
    np.testing.assert_allclose(
        clf.evidence_weight_([1, 5, 20]), weight([1, 5, 20]), rtol=1e-3
    )


class Words:
    def __call__(self, text):
        return text.split()


class WordsOnce(Words):
    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")


@pytest.mark.parametrize("words", [Words(), WordsOnce()])
@pytest.mark.parametrize("devices", [(), ("cpu",)])
def test_an_analyzer_is_not_copied(tiny, monkeypatch, devices, words):
    monkeypatch.setattr(_stacked, "_DEVICES", devices)
    tiny.update(discriminative_epochs=1, calibration_folds=2)
    X, y = ["the cat and the dog", "le chat et le chien"] * 4, ["en", "fr"] * 4
    clf = CharLMLanguageClassifier(**tiny, analyzer=words).fit(X, y)
    usual = CharLMLanguageClassifier(**tiny, analyzer=str.split).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), usual.predict_proba(X))


def test_folds_that_are_not_trained_in_one_step_are_jobs(tiny, monkeypatch):
    monkeypatch.setattr(_stacked, "_DEVICES", ("cpu",))
    tiny.update(discriminative_epochs=1, calibration_folds=3)
    X = ["the cat and the dog", "und der hund", "le chat et le chien"] * 2
    y = ["en", "de", "fr"] * 2
    n_jobs = []

    def watch(names, jobs, *args):
        results = run(names, jobs, *args)
        n_jobs.append(len(results))
        return results

    monkeypatch.setattr(_refinement, "run", watch)

    def n_of_refining(**params):
        CharLMLanguageClassifier(**tiny | params).fit(X, y)
        return n_jobs[-1]

    assert n_of_refining() == 2
    assert n_of_refining(net_params={"callbacks": []}) == 4
    monkeypatch.setattr(_refinement, "MAX_SIDE_BY_SIDE", 6)
    assert n_of_refining() == 3
    monkeypatch.setattr(_refinement, "MAX_SMOOTHED", 3)
    assert n_of_refining() == 4

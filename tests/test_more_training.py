"""Weights of texts, and training in several calls: both estimators."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel

ESTIMATORS = [CharLMLanguageClassifier, CharLSTMLanguageModel]
both = pytest.mark.parametrize("estimator", ESTIMATORS)


@pytest.fixture
def texts():
    english = ["the cat", "and the dog", "is not here", "nor is it there"]
    french = ["le chat", "et le chien", "est parti", "il ne vient pas"]
    return [*english, *french]


@pytest.fixture
def labels():
    return np.repeat(["eng", "fra"], 4)


def scores(fitted, X):
    """Return all a fitted estimator says of texts."""
    return (
        fitted.log_likelihood(X)
        if hasattr(fitted, "classes_")
        else fitted.score_samples(X)
    )


# Weights of texts


@both
def test_a_text_of_weight_zero_is_as_if_not_given(estimator, tiny, texts, labels):
    weights = np.array([1.0, 0, 2, 1, 1, 1, 0, 3])
    kept = weights > 0
    weighted = estimator(**tiny).fit(texts, labels, sample_weight=weights)
    given = estimator(**tiny).fit(
        np.array(texts)[kept], labels[kept], sample_weight=weights[kept]
    )
    assert weighted.vocabulary_ == given.vocabulary_
    np.testing.assert_array_equal(scores(weighted, texts), scores(given, texts))
    assert "g" not in weighted.vocabulary_


@both
def test_only_the_ratios_of_weights_count(estimator, tiny, texts, labels):
    plain = estimator(**tiny).fit(texts, labels)
    for weights in (None, [4.0] * 8, np.full(8, 0.25), [2] * 8):
        fitted = estimator(**tiny).fit(texts, labels, sample_weight=weights)
        np.testing.assert_array_equal(scores(fitted, texts), scores(plain, texts))


@both
def test_heavy_texts_become_more_probable(estimator, tiny, texts, labels):
    tiny.update(epochs=20, lr=0.02)
    weights = np.ones(8)
    weights[[0, 4]] = 20
    plain = estimator(**tiny).fit(texts, labels)
    weighted = estimator(**tiny).fit(texts, labels, sample_weight=weights)
    gain = (scores(weighted, texts) - scores(plain, texts))[[0, 4]]
    assert (gain.diagonal() if gain.ndim == 2 else gain).min() > 1


@both
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 7, r"sample_weight.shape == \(7,\), expected \(8,\)"),
        ([-1.0] + [1.0] * 7, "[Nn]egative"),
        ([np.nan] + [1.0] * 7, "NaN"),
        ([[1.0]] * 8, "1D array"),
        ([0.0] * 8, "weight"),
        (np.nan, "finite"),
        (np.inf, "finite"),
        ([1e300] + [1e-300] * 7, r"factor of 1e\+290"),
        ([1e306] * 8, "above 1e300"),
    ],
)
def test_bad_weights(estimator, tiny, texts, labels, weights, message):
    with pytest.raises(ValueError, match=message):
        estimator(**tiny).fit(texts, labels, sample_weight=weights)


def test_a_class_without_weight_is_not_there(tiny, texts, labels):
    weights = (labels == "eng").astype(float)
    with pytest.raises(ValueError, match="one class only"):
        CharLMLanguageClassifier(**tiny).fit(texts, labels, sample_weight=weights)


# Priors


def test_priors(tiny, texts, labels):
    tiny.update(calibration_folds=0)
    X, y = texts[:6], labels[:6]
    uniform = CharLMLanguageClassifier(**tiny).fit(X, y)
    np.testing.assert_allclose(np.exp(uniform.class_log_prior_), [0.5, 0.5])
    empirical = CharLMLanguageClassifier(**tiny, class_prior="empirical").fit(X, y)
    np.testing.assert_allclose(np.exp(empirical.class_log_prior_), [2 / 3, 1 / 3])
    given = CharLMLanguageClassifier(**tiny, class_prior=[0.2, 0.8]).fit(X, y)
    np.testing.assert_allclose(np.exp(given.class_log_prior_), [0.2, 0.8])
    # They change the decision and not the likelihood.
    np.testing.assert_array_equal(
        given.log_likelihood(texts), uniform.log_likelihood(texts)
    )
    np.testing.assert_allclose(
        given.decision_function(texts), uniform.decision_function(texts) + np.log(4)
    )
    np.testing.assert_allclose(given.predict_proba([""]), [[0.2, 0.8]])


def test_empirical_priors_are_of_the_weights(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, class_prior="empirical")
    clf.fit(texts, labels, sample_weight=[1, 1, 1, 0, 3, 2, 1, 3])
    assert clf.class_count_.tolist() == [3, 9]
    np.testing.assert_allclose(np.exp(clf.class_log_prior_), [0.25, 0.75])


@pytest.mark.parametrize(
    "prior",
    [
        [0.5, 0.6],
        [1.0],
        [0.2, 0.3, 0.5],
        [1.0, 0.0],
        [1.5, -0.5],
        [[0.5, 0.5]],
        ["a", "b"],
        {"eng": 1},
    ],
)
def test_bad_priors(tiny, texts, labels, prior):
    clf = CharLMLanguageClassifier(**tiny, class_prior=prior)
    with pytest.raises(ValueError, match="an array of 2 positive probabilities"):
        clf.fit(texts, labels)
    assert not hasattr(clf, "classes_")


def test_a_masked_prior(tiny, texts, labels):
    prior = np.ma.array([0.5, 0.5], mask=[0, 1])
    with pytest.raises(ValueError, match=r"class_prior\[1\] is masked"):
        CharLMLanguageClassifier(**tiny, class_prior=prior).fit(texts, labels)


# Going on


@both
def test_warm_start_goes_on_as_if_it_had_not_stopped(estimator, tiny, texts, labels):
    tiny.update(dropout=0.3, epochs=5)
    whole = estimator(**tiny).fit(texts, labels)
    stepwise = estimator(**tiny, warm_start=True)
    for epochs in (1, 2, 2, 5):
        stepwise.set_params(epochs=epochs).fit(texts, labels)
        assert np.all(stepwise.n_iter_ == epochs)
        # In a file in between, too.
        stepwise = pickle.loads(pickle.dumps(stepwise))
    np.testing.assert_array_equal(scores(stepwise, texts), scores(whole, texts))
    np.testing.assert_array_equal(stepwise.loss_curve_, whole.loss_curve_)


@both
def test_without_warm_start_fit_begins_anew(estimator, tiny, texts, labels):
    fitted = estimator(**tiny).fit(texts, labels)
    before = scores(fitted, texts)
    np.testing.assert_array_equal(scores(fitted.fit(texts, labels), texts), before)
    assert np.all(fitted.n_iter_ == 3)


@both
def test_warm_start_after_a_fit_that_kept_no_state(estimator, tiny, texts, labels):
    tiny.update(epochs=20, lr=0.02)
    fitted = estimator(**tiny).fit(texts, labels)
    before = scores(fitted, texts)
    fitted.set_params(warm_start=True, epochs=40).fit(texts, labels)
    assert np.all(fitted.n_iter_ == 40)
    assert np.mean(scores(fitted, texts)) > np.mean(before)


@both
def test_warm_start_with_nothing_to_read(estimator, tiny, texts, labels):
    fitted = estimator(**tiny, warm_start=True).fit(texts, labels)
    before = scores(fitted, texts)
    with pytest.raises(ValueError, match="No character in the texts for the lang"):
        fitted.set_params(epochs=5).fit(["ЖЖ", "Жук"] * 4, labels)
    assert np.all(fitted.n_iter_ == 3)
    np.testing.assert_array_equal(scores(fitted, texts), before)


@both
def test_warm_start_with_fewer_epochs(estimator, tiny, texts, labels):
    fitted = estimator(**tiny, warm_start=True).fit(texts, labels)
    with pytest.raises(ValueError, match="epochs=2 is less than the 3 epochs done"):
        fitted.set_params(epochs=2).fit(texts, labels)


@both
@pytest.mark.parametrize(
    "change", [{"hidden_size": 9}, {"boundaries": True}, {"analyzer": "byte"}]
)
def test_training_cannot_go_on_with_another_network(
    estimator, tiny, texts, labels, change
):
    fitted = estimator(**tiny, warm_start=True).fit(texts, labels)
    fitted.set_params(**change, epochs=4)
    with pytest.raises(ValueError, match=f"`{next(iter(change))}` was .* and is now"):
        fitted.fit(texts, labels)
    with pytest.raises(ValueError, match="fit anew with warm_start=False"):
        fitted.partial_fit(texts, labels)
    fitted.set_params(warm_start=False).fit(texts, labels)
    assert np.all(fitted.n_iter_ == 4)


def test_warm_start_with_other_classes(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, warm_start=True).fit(texts, labels)
    with pytest.raises(ValueError, match="must be the same"):
        clf.fit(texts, np.char.replace(labels, "fra", "deu"))
    assert clf.classes_.tolist() == ["eng", "fra"]


@both
def test_partial_fit_of_the_same_texts_is_fit(
    estimator, tiny, texts, labels, monkeypatch
):
    # But for smoothing and joint training, which only `fit` has.
    monkeypatch.setattr("sklearn_charlstm._model_training.MAX_SMOOTHED", 0)
    kwargs = {}
    if estimator is CharLMLanguageClassifier:
        tiny.update(discriminative_epochs=0)
        kwargs = {"classes": ["fra", "eng"]}
        # Nor are there characters that one class does not have.
        texts = ["".join(dict.fromkeys("".join(texts))) + text for text in texts]
    whole = estimator(**tiny).fit(texts, labels)
    stepwise = estimator(**tiny)
    for _ in range(3):
        stepwise.partial_fit(texts, labels, **kwargs)
    np.testing.assert_array_equal(scores(stepwise, texts), scores(whole, texts))
    assert np.all(stepwise.n_iter_ == 3)
    # And goes on after fit, from the weights.
    before = scores(whole, texts)
    whole.partial_fit(texts, labels)
    assert np.all(whole.n_iter_ == 4)
    assert not np.array_equal(scores(whole, texts), before)


def test_partial_fit_goes_on_with_the_average_of_fit(tiny, texts, tmp_path):
    # One batch, and so one update, an epoch.
    tiny.update(batch_size=10_000, epochs=5)
    fitted = CharLSTMLanguageModel(**tiny).fit(texts)
    before = fitted.weights_
    fitted.save(tmp_path / "model.safetensors")
    loaded = CharLSTMLanguageModel.load(tmp_path / "model.safetensors")
    for model in (fitted, loaded):
        model.partial_fit(texts)
        last = model._training_state.weights
        for name, average in model.weights_.items():
            # The share of the sixth update, (3 + 1) / (6 + 3).
            expected = before[name] + 4 / 9 * (last[name] - before[name])
            np.testing.assert_allclose(average, expected, atol=1e-6)


@both
def test_the_alphabet_is_that_of_the_first_call(estimator, tiny, texts, labels):
    kwargs = {"classes": ["fra", "eng"]} if estimator is ESTIMATORS[0] else {}
    fitted = estimator(**tiny).partial_fit(texts[3:5], labels[3:5], **kwargs)
    alphabet = set("".join(texts[3:5]))
    assert set(fitted.vocabulary_) == alphabet
    fitted.partial_fit(["zzz Жи the", "ÿ quand"], labels[3:5])
    assert set(fitted.vocabulary_) == alphabet
    assert np.isfinite(scores(fitted, texts)).all()
    # Nothing but unknown characters: nothing to learn.
    before = scores(fitted, texts)
    fitted.partial_fit(["ЖЖ", "z"], labels[3:5])
    np.testing.assert_array_equal(scores(fitted, texts), before)


def test_a_class_without_texts_so_far(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, class_prior="empirical")
    clf.partial_fit(texts, labels, classes=["deu", "eng", "fra"])
    assert clf.classes_.tolist() == ["deu", "eng", "fra"]
    assert clf.n_iter_.tolist() == [0, 1, 1]
    assert clf.class_count_.tolist() == [0, 4, 4]
    proba = clf.predict_proba(texts)
    assert (proba[:, 0] == 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert "deu" not in clf.predict(texts)
    clf.partial_fit(["und die Katze"], ["deu"], sample_weight=[2.0])
    assert clf.class_count_.tolist() == [2, 4, 4]
    assert (clf.predict_proba(texts) > 0).all()


def test_errors_of_partial_fit(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        clf.partial_fit(texts, labels)
    with pytest.raises(ValueError, match="one class only"):
        clf.partial_fit(texts[:1], labels[:1], classes=["eng"])
    with pytest.raises(ValueError, match=r"classes\[1\] is a missing value"):
        clf.partial_fit(texts, labels, classes=["eng", None])
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        clf.partial_fit(["a", "b"], [0, 1], classes=[0, 0.5, 1])
    with pytest.raises(ValueError, match="All texts are empty"):
        clf.partial_fit(["", ""], ["eng", "fra"], classes=["eng", "fra"])
    with pytest.raises(ValueError, match=r"not in `classes`: \['fra'\]"):
        clf.partial_fit(texts, labels, classes=["eng", "deu"])
    assert not hasattr(clf, "classes_")
    clf.partial_fit(texts, labels, classes=["eng", "fra"])
    assert clf.discriminative_loss_curve_.shape == (0,)
    with pytest.raises(ValueError, match="not the same as on the first call"):
        clf.partial_fit(texts, labels, classes=["eng", "deu"])
    with pytest.raises(ValueError, match="does not support early_stopping"):
        clf.set_params(early_stopping=True).partial_fit(texts, labels)


@pytest.mark.parametrize("analyzer", [str.split, partial(str.split, sep=None)])
def test_a_callable_analyzer_comes_back_from_other_processes(
    tiny, texts, labels, analyzer
):
    tiny.update(analyzer=analyzer, n_jobs=2, warm_start=True)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    for model in clf.language_models_:
        assert model.vocabulary_.common is clf.vocabulary_
        assert model.analyzer is clf.analyzer
    clf.set_params(epochs=4).fit(texts, labels).partial_fit(texts, labels)
    assert clf.n_iter_.tolist() == [5, 5]
    clf.add_class("deu", ["und die"])
    again = pickle.loads(pickle.dumps(clf)).set_params(epochs=6)
    assert again.partial_fit(texts, labels).n_iter_.tolist() == [4, 6, 6]


# Early stopping


@both
def test_early_stopping_restores_the_best_epoch(estimator, tiny, labels):
    letters = np.random.default_rng(0).choice([*"abcdef"], size=(40, 9))
    texts = ["".join(row) for row in letters]
    y = np.arange(40) % 2
    tiny.update(epochs=100, lr=0.05, hidden_size=32)
    tiny.update(early_stopping=True, n_iter_no_change=4, validation_fraction=0.3)
    if estimator is CharLMLanguageClassifier:
        tiny.update(discriminative_epochs=0, calibration_folds=0)
    fitted = estimator(**tiny).fit(texts, y)
    model = getattr(fitted, "language_models_", [fitted])[0]
    curve = model.validation_loss_curve_
    assert model.n_iter_ == len(curve) == len(model.loss_curve_) < 100
    assert np.argmin(curve) == len(curve) - 1 - 4

    # The best epoch's model is what as many epochs without a sequel give.
    best = estimator(**tiny).set_params(epochs=int(np.argmin(curve)) + 1)
    best_model = getattr(best.fit(texts, y), "language_models_", [best])[0]
    np.testing.assert_array_equal(
        model.score_samples(texts), best_model.score_samples(texts)
    )


def test_other_texts_set_aside_begin_another_curve(tiny):
    letters = np.random.default_rng(0).choice([*"abcdef"], size=(40, 9))
    texts = ["".join(row) for row in letters]
    tiny.update(epochs=4, early_stopping=True, n_iter_no_change=1, warm_start=True)
    model = CharLSTMLanguageModel(**tiny, lr=0.3).fit(texts[:20])
    stopped = model.n_iter_
    assert stopped == len(model.validation_loss_curve_) < 4
    model.set_params(epochs=30).fit(texts[:20])
    assert model.n_iter_ == stopped
    model.fit(texts[20:])
    assert model.n_iter_ > stopped
    assert len(model.validation_loss_curve_) == model.n_iter_ - stopped
    model.set_params(early_stopping=False).fit(texts[:20])
    assert model.validation_loss_curve_ is None


@pytest.mark.parametrize("fraction", [1e-9, 0.999])
def test_any_share_of_few_texts_can_be_set_aside(tiny, fraction):
    tiny.update(early_stopping=True, validation_fraction=fraction)
    assert CharLSTMLanguageModel(**tiny).fit(["ab", "ba", "abb"]).n_iter_ == 3


def test_the_validation_loss_is_per_character(tiny):
    # Whole texts are set aside; each of their characters counts the same.
    texts = ["a", "b", "ab" * 20, "ba" * 30]
    tiny.update(epochs=1, lr=1e-30)
    model = CharLSTMLanguageModel(
        **tiny, early_stopping=True, validation_fraction=0.5
    ).fit(texts)
    [loss] = model.validation_loss_curve_
    pairs = [(i, j) for i in range(4) for j in range(i)]
    losses = [
        np.log(2) * model.bits_per_character([texts[i], texts[j]]) for i, j in pairs
    ]
    assert np.abs(np.array(losses) - loss).min() < 1e-5


def test_validation_texts_have_their_weights(tiny):
    texts = ["abc" * 5, "cab" * 2, "bbb", "ccccc"]
    tiny.update(epochs=1, lr=1e-30, early_stopping=True, validation_fraction=0.5)
    plain = CharLSTMLanguageModel(**tiny).fit(texts)
    even = CharLSTMLanguageModel(**tiny).fit(texts, sample_weight=[2] * 4)
    uneven = CharLSTMLanguageModel(**tiny).fit(texts, sample_weight=[1, 5, 10, 30])
    assert even.validation_loss_curve_ == plain.validation_loss_curve_
    assert uneven.validation_loss_curve_ != plain.validation_loss_curve_


@both
def test_without_early_stopping_nothing_is_set_aside(estimator, tiny, texts, labels):
    fitted = estimator(**tiny).fit(texts, labels)
    model = getattr(fitted, "language_models_", [fitted])[0]
    assert model.validation_loss_curve_ is None


def test_one_text_cannot_be_set_aside(tiny):
    tiny.update(early_stopping=True)
    with pytest.raises(ValueError, match="two texts that are not empty to train"):
        CharLSTMLanguageModel(**tiny).fit(["one long text", ""])
    with pytest.raises(ValueError, match="class 'eng', got 1; cut long texts"):
        CharLMLanguageClassifier(**tiny).fit(["one", "un"], ["eng", "fra"])


# One more class


def test_add_class_leaves_the_others_as_they_are(tiny, texts, labels):
    tiny.update(epochs=30, lr=0.02, hidden_size=16)
    clf = CharLMLanguageClassifier(**tiny, class_prior="empirical").fit(texts, labels)
    greek = ["ο γάτος", "και ο σκύλος"]
    X = [*texts, *greek, "Жук", ""]
    before = clf.log_likelihood(X)
    models = clf.language_models_
    old_vocabularies = [clf.vocabulary_, *(dict(m.vocabulary_) for m in models)]
    assert clf.add_class("ell", greek) is clf
    assert clf.classes_.tolist() == ["ell", "eng", "fra"]
    assert clf.class_count_.tolist() == [2, 4, 4]
    np.testing.assert_allclose(np.exp(clf.class_log_prior_), [0.2, 0.4, 0.4])
    # Other characters are known, so other prefixes are read side by side.
    np.testing.assert_allclose(clf.log_likelihood(X)[:, 1:], before, rtol=1e-6)
    assert clf.language_models_[1:] == models
    assert [models[0].vocabulary_.common, *(m.vocabulary_ for m in models)] == (
        old_vocabularies
    )
    assert set(clf.vocabulary_) == set(old_vocabularies[0]) | set("".join(greek))
    assert set(clf.language_models_[0].vocabulary_) == set("".join(greek))
    assert clf.predict(greek).tolist() == ["ell", "ell"]
    assert clf.predict(texts).tolist() == labels.tolist()
    assert clf.n_iter_.tolist() == [30] * 3
    assert len(clf.loss_curve_) == 3
    # What no class has seen is no evidence between old classes and new ones.
    proba = clf.log_likelihood(["Ж"])
    assert proba[0, 0] == proba[0, 1] == proba[0, 2]


def test_the_class_that_is_added_is_seeded_as_if_it_had_been_there(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    one = copy.deepcopy(clf).add_class("zul", ["ikati nenja"])
    other = copy.deepcopy(clf).add_class("zul", ["ikati nenja"])
    np.testing.assert_array_equal(
        one.log_likelihood(texts), other.log_likelihood(texts)
    )
    seeds = [model.random_state for model in one.language_models_]
    assert len(set(seeds)) == 3
    # And again, and further training of all.
    one.add_class("xho", ["ikati nenja nam"]).partial_fit(
        ["ikati", "the"], ["xho", "eng"]
    )
    assert one.classes_.tolist() == ["eng", "fra", "xho", "zul"]
    assert one.n_iter_.tolist() == [4, 3, 4, 3]


@pytest.mark.parametrize(
    ("classes", "label"),
    [
        ([1, 0], 7),
        ([1.0, 0.0], 7),
        (["b", "a"], "a longer one"),
        (np.array(["b", "a"], dtype=object), "c"),
    ],
)
def test_add_class_keeps_the_type_of_the_labels(tiny, texts, classes, label):
    y = np.repeat(classes, 4)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, y).add_class(label, ["xyz"])
    assert clf.classes_.dtype.kind == y.dtype.kind
    assert clf.classes_.tolist() == sorted([*y[::4], label])
    assert set(clf.predict(texts)) <= set(clf.classes_)
    with pytest.raises(ValueError, match="already"):
        clf.add_class(label, ["xyz"])


@pytest.mark.parametrize(
    "change", [{"hidden_size": 9}, {"boundaries": True}, {"analyzer": "word"}]
)
def test_a_class_that_is_added_has_the_network_of_the_others(
    tiny, texts, labels, change
):
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels).set_params(**change)
    with pytest.raises(ValueError, match="at the start of training and is now"):
        clf.add_class("deu", ["und die Katze"])


@pytest.mark.parametrize(
    ("dtype", "label"), [("uint8", 2), ("uint8", np.uint8(2)), ("int64", np.uint8(2))]
)
def test_integers_of_any_size_are_labels(tiny, texts, dtype, label):
    y = np.repeat(np.array([0, 1], dtype=dtype), 4)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, y).add_class(label, ["xyz"])
    assert clf.classes_.dtype == dtype
    assert clf.classes_.tolist() == [0, 1, 2]
    if dtype == "uint8":
        with pytest.raises(ValueError, match="300 does not fit into uint8"):
            clf.add_class(300, ["xyz"])


@pytest.mark.parametrize("label", [float("nan"), 0.5])
def test_labels_that_fit_would_refuse(tiny, texts, label):
    clf = CharLMLanguageClassifier(**tiny).fit(texts, [0.0, 1.0] * 4)
    with pytest.raises(ValueError, match=r"not of the type|continuous"):
        clf.add_class(label, ["xyz"])


def test_errors_of_add_class(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, class_prior=[0.5, 0.5]).fit(texts, labels)
    with pytest.raises(ValueError, match=r"class 'eng' already"):
        clf.add_class("eng", ["text"])
    with pytest.raises(ValueError, match=r"label \['a'\] is not of the type"):
        clf.add_class(["a"], ["text"])
    with pytest.raises(ValueError, match=r"label 3 is not of the type"):
        clf.add_class(3, ["text"])
    with pytest.raises(ValueError, match="put a single text in a list"):
        clf.add_class("deu", "text")
    with pytest.raises(TypeError, match=r"sequence of texts .* got NoneType"):
        clf.add_class("deu", None)
    with pytest.raises(ValueError, match=r"sample_weight.shape == \(1,\)"):
        clf.add_class("deu", ["a", "b"], sample_weight=[1])
    with pytest.raises(ValueError, match="All texts are empty"):
        clf.add_class("deu", [""])
    with pytest.raises(ValueError, match="an array of 3 positive probabilities"):
        clf.add_class("deu", ["text"])
    clf.set_params(class_prior=[0.4, 0.3, 0.3]).add_class("deu", ["text"])
    np.testing.assert_allclose(np.exp(clf.class_log_prior_), [0.4, 0.3, 0.3])
    with pytest.raises(ValueError, match="not of the type"):
        CharLMLanguageClassifier(**tiny).fit(texts, [0, 1] * 4).add_class("deu", ["t"])


def test_add_class_needs_models_and_parameters_in_range(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny)
    with pytest.raises(NotFittedError):
        clf.add_class("deu", ["text"])
    clf.fit(texts, labels).set_params(lr=-1.0)
    with pytest.raises(ValueError, match="'lr' parameter"):
        clf.add_class("deu", ["text"])


# Interrupts and errors


class _InterruptAtUpdate(Callback):
    def on_batch_end(self, net, **kwargs):
        raise KeyboardInterrupt


@both
def test_an_interrupt_leaves_the_estimator_as_it_was(estimator, tiny, texts, labels):
    interrupted = {"net_params": {"callbacks": [_InterruptAtUpdate()]}}
    fresh = estimator(**tiny, **interrupted)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(texts, labels)
    assert not [name for name in vars(fresh) if name.endswith("_")]

    fitted = estimator(**tiny, warm_start=True).fit(texts, labels)
    before = pickle.dumps(fitted.set_params(epochs=5))
    fitted.set_params(**interrupted)
    calls = [fitted.fit, fitted.partial_fit]
    if hasattr(fitted, "add_class"):
        calls.append(lambda X, _: fitted.add_class("deu", X))
    for call in calls:
        with pytest.raises(KeyboardInterrupt):
            call(texts, labels)
    fitted.set_params(net_params=None)
    expected = pickle.loads(before)
    np.testing.assert_array_equal(scores(fitted, texts), scores(expected, texts))
    # To the last moment of the optimizer.
    np.testing.assert_array_equal(
        scores(fitted.fit(texts, labels), texts),
        scores(expected.fit(texts, labels), texts),
    )


@both
def test_state_is_kept_only_where_training_can_go_on(estimator, tiny, texts, labels):
    tiny.update(hidden_size=64)
    size = len(pickle.dumps(estimator(**tiny).fit(texts, labels)))
    size_of_warm = len(
        pickle.dumps(estimator(**tiny, warm_start=True).fit(texts, labels))
    )
    # Weights, and beside them: weights without average, two moments of Adam.
    assert 3.5 * size < size_of_warm < 6 * size

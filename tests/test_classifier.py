import numpy as np
import pandas as pd
import pytest
import torch
from joblib import parallel_config
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_charlstm import CharLMLanguageClassifier
from sklearn_charlstm._calibration import EvidenceWeight
from sklearn_charlstm._vocabulary import Vocabulary


class StubModel:
    """A language model with log-likelihoods of texts set by hand."""

    def __init__(self, log_likelihood):
        self.log_likelihood = log_likelihood

    def _as_model(self):
        return self.log_likelihood


@pytest.fixture
def stubbed(monkeypatch):
    """Return a function that makes a classifier of such models."""

    def score(log_likelihoods, encoded, vocabulary, compute, n_jobs):
        return np.array(log_likelihoods, dtype=float).T[: len(encoded.lengths)]

    def make(log_likelihoods, classes, slope=1.0, half_length=np.inf):
        clf = CharLMLanguageClassifier()
        clf.evidence_weight_ = EvidenceWeight(slope, half_length)
        clf.vocabulary_ = Vocabulary(["a"], "char", False)
        clf.classes_ = np.array(classes)
        clf.class_log_prior_ = np.full(len(classes), -np.log(len(classes)))
        clf.language_models_ = [StubModel(row) for row in log_likelihoods]
        return clf

    monkeypatch.setattr("sklearn_charlstm._classifier.text_log_likelihood", score)
    return make


def test_two_classes_decide_by_the_log_likelihood_ratio(stubbed):
    clf = stubbed([[-1.0, -5, -3], [-2.0, -1, -3]], ["a", "b"])
    X = ["x", "y", "z"]
    np.testing.assert_allclose(clf.decision_function(X), [-1, 4, 0])
    assert clf.predict(X).tolist() == ["a", "b", "a"]
    expected = 1 / (1 + np.exp([-1, 4, 0]))
    np.testing.assert_allclose(clf.predict_proba(X)[:, 0], expected)
    np.testing.assert_allclose(clf.log_likelihood(X)[:, 1], [-2, -1, -3])
    np.testing.assert_allclose(
        clf.predict_joint_log_proba(X), clf.log_likelihood(X) - np.log(2)
    )
    np.testing.assert_allclose(
        clf.score_samples(X[2:]), [np.log((np.exp(-1) + np.exp(-2)) / 2)]
    )


def test_more_classes_decide_by_the_log_odds(stubbed):
    rng = np.random.default_rng(0)
    clf = stubbed(rng.normal(-20, 3, size=(5, 100)), list("abcde"))
    X = [""] * 100
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    decision = clf.decision_function(X)
    assert decision.shape == (100, 5)
    np.testing.assert_allclose(decision, np.log(proba) - np.log1p(-proba), rtol=1e-6)
    labels = clf.classes_[decision.argmax(axis=1)]
    assert labels.tolist() == clf.predict(X).tolist()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_evidence_counts_as_much_as_its_weight(stubbed, n_classes):
    rng = np.random.default_rng(0)
    log_likelihoods = rng.normal(-20, 3, size=(n_classes, 5))
    # The only known character is a.
    X = ["", "aaaa", "aa", "bbbb", "a" * 12]
    weight = EvidenceWeight(slope=0.8, half_length=4.0)
    np.testing.assert_allclose(weight([0, 4, 12]), [0.8, 0.4, 0.2])
    classes = list("abc")[:n_classes]
    clf = stubbed(log_likelihoods, classes, 0.8, 4.0)
    clf.class_log_prior_ = np.log([0.9, 0.06, 0.04] if n_classes == 3 else [0.9, 0.1])
    weights = np.array([0.8, 0.4, 0.8 / 1.5, 0.8, 0.2])
    scores = weights * log_likelihoods + clf.class_log_prior_[:, None]
    expected = np.exp(scores) / np.exp(scores).sum(axis=0)
    np.testing.assert_allclose(clf.predict_proba(X), expected.T)
    assert clf.predict(X).tolist() == clf.classes_[expected.argmax(axis=0)].tolist()
    decision = clf.decision_function(X)
    if n_classes == 2:
        ratio = log_likelihoods[1] - log_likelihoods[0]
        np.testing.assert_allclose(decision, ratio + np.log(0.1 / 0.9) / weights)
    else:
        np.testing.assert_allclose(decision, np.log(expected / (1 - expected)).T)
    joint = log_likelihoods + clf.class_log_prior_[:, None]
    np.testing.assert_allclose(clf.predict_joint_log_proba(X), joint.T)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_very_long_texts_stay_exact(stubbed, n_classes):
    rows = [[-20_000.0, -20_001.5, -90_000.0][:n_classes]]
    clf = stubbed(np.transpose(rows), list("abc")[:n_classes])
    assert clf.predict([""]) == ["a"]
    np.testing.assert_allclose(
        clf.predict_log_proba([""])[0, 1] + 1.5, -np.log1p(np.exp(-1.5))
    )
    decision = clf.decision_function([""]).ravel()
    assert np.isfinite(decision).all()
    np.testing.assert_allclose(abs(decision[0]), 1.5)


@pytest.fixture
def clf(tiny, texts, labels):
    return CharLMLanguageClassifier(**tiny).fit(texts, labels)


def test_end_to_end(tiny, texts, labels):
    tiny.update(epochs=20, hidden_size=16, lr=0.02)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    assert clf.classes_.tolist() == ["eng", "fra"]
    assert clf.class_count_.tolist() == [4, 4]
    np.testing.assert_allclose(clf.class_log_prior_, np.log([0.5, 0.5]))
    assert clf.n_iter_.tolist() == [20, 20]
    assert [curve.shape for curve in clf.loss_curve_] == [(20,), (20,)]
    assert (clf.device_, clf.precision_) == ("cpu", "float32")
    assert clf.predict(["the dog", "le chien"]).tolist() == ["eng", "fra"]
    assert clf.score(texts, labels) == 1
    assert roc_auc_score(labels, clf.decision_function(texts)) == 1


def test_all_models_share_the_alphabet(clf, texts):
    assert set(clf.vocabulary_) == set("".join(texts))
    known = sorted(set("".join(texts)))
    n_unknown = 0x110000 - len(known)
    for k, model in enumerate(clf.language_models_):
        assert set(model.vocabulary_) == set("".join(texts[k::2]))
        *of_known, of_unknown = np.exp(model.score_samples([*known, "Ж"]))
        assert sum(of_known) + n_unknown * of_unknown == pytest.approx(1, abs=1e-6)


def test_foreign_characters_are_as_likely_as_each_other(clf):
    english, french = clf.language_models_
    # Of the alphabet, and only in the texts of the other class.
    first, second, own = english.score_samples(["l", "i", "a"])
    assert first == second < own
    first, second = french.score_samples(["g", "d"])
    assert first == second
    # After one it is as after an unknown one.
    [[_, after_foreign], [_, after_unknown]] = english.char_log_likelihood(["la", "Жa"])
    assert after_foreign == after_unknown


def test_unknown_characters_are_no_evidence(clf):
    first = clf.language_models_[0].char_log_likelihood(["Жthe"])[0][0]
    assert first == clf.language_models_[1].char_log_likelihood(["Жthe"])[0][0]
    np.testing.assert_allclose(clf.decision_function(["Ж"]), 0)


def test_order_and_subset_of_rows(clf):
    rng = np.random.default_rng(0)
    alphabet = list(clf.vocabulary_)
    X = ["".join(rng.choice(alphabet, size=n)) for n in rng.integers(0, 30, 200)]
    decision = clf.decision_function(X)
    order = rng.permutation(len(X))
    np.testing.assert_array_equal(
        clf.decision_function([X[i] for i in order]), decision[order]
    )
    one_by_one = np.concatenate([clf.log_likelihood([text]) for text in X])
    # Other batch shapes sum in another order, in float32.
    np.testing.assert_allclose(one_by_one, clf.log_likelihood(X), rtol=1e-5)


def test_n_jobs_changes_nothing(clf, texts, labels, tiny):
    parallel = CharLMLanguageClassifier(**tiny, n_jobs=2).fit(texts, labels)
    expected = clf.decision_function(texts)
    np.testing.assert_allclose(parallel.decision_function(texts), expected, rtol=1e-5)
    with parallel_config(backend="threading", n_jobs=2):
        threaded = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    np.testing.assert_allclose(threaded.decision_function(texts), expected, rtol=1e-5)


def test_the_device_may_be_set_anew_after_fit(clf, texts):
    clf.set_params(device="cuda:99")
    with pytest.raises(ValueError, match="'cuda:99' cannot be used"):
        clf.predict(texts)


def test_random_states_are_left_alone(texts, labels, tiny):
    torch_state = torch.get_rng_state()
    numpy_state = np.random.mtrand._rand.get_state(legacy=False)["state"]
    CharLMLanguageClassifier(**tiny).fit(texts, labels).predict_proba(texts)
    assert torch.equal(torch.get_rng_state(), torch_state)
    after = np.random.mtrand._rand.get_state(legacy=False)["state"]
    assert after["pos"] == numpy_state["pos"]
    np.testing.assert_array_equal(after["key"], numpy_state["key"])


def test_random_state_none_draws_anew_and_an_instance_goes_on(texts, labels, tiny):
    tiny.update(random_state=np.random.RandomState(0))
    clf = CharLMLanguageClassifier(**tiny)
    first = clf.fit(texts, labels).decision_function(texts)
    assert not np.array_equal(clf.fit(texts, labels).decision_function(texts), first)


@pytest.mark.parametrize(
    "classes",
    [
        [0, 1],
        [-1, 1],
        [False, True],
        [0.0, 2.0],
        ["b", "a"],
        np.array(["b", "a"], dtype=object),
        [3, 1, 2],
    ],
)
def test_labels_of_any_type(tiny, classes):
    texts = ["one text", "un texte", "ein Text"] * 2
    y = [classes[i % len(classes)] for i in range(6)]
    clf = CharLMLanguageClassifier(**tiny).fit(texts, y)
    assert clf.classes_.tolist() == sorted(set(y))
    predicted = clf.predict(texts)
    assert predicted.shape == (6,)
    assert predicted.dtype == clf.classes_.dtype
    assert set(predicted.tolist()) <= set(y)
    n_columns = (6,) if len(clf.classes_) == 2 else (6, 3)
    assert clf.decision_function(texts).shape == n_columns


def test_labels_as_series(tiny, texts, labels):
    y = pd.Series(labels, index=range(10, 18), dtype="category")
    clf = CharLMLanguageClassifier(**tiny).fit(pd.Series(texts, index=y.index), y)
    assert clf.classes_.tolist() == ["eng", "fra"]


@pytest.mark.parametrize("where", ["search", "classifier", "both", "neither"])
def test_grid_search(tiny, texts, labels, where):
    clf = CharLMLanguageClassifier(
        **tiny, n_jobs=2 if where in ("classifier", "both") else None
    )
    search = GridSearchCV(
        clf,
        {"maxlen": [3, 6], "epochs": [1, 2]},
        cv=2,
        scoring="roc_auc",
        n_jobs=2 if where in ("search", "both") else None,
    ).fit(texts, labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.maxlen == search.best_params_["maxlen"]
    assert search.predict(texts).shape == (8,)


def _lower(X):
    return [text.lower() for text in X]


def test_pipeline(tiny, texts, labels):
    pipeline = make_pipeline(
        FunctionTransformer(_lower), CharLMLanguageClassifier(**tiny)
    )
    grid = {"charlmlanguageclassifier__maxlen": [3, 6]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(texts, labels)
    plain = search.best_estimator_.decision_function(texts)
    shouted = search.best_estimator_.decision_function([text.upper() for text in texts])
    np.testing.assert_array_equal(plain, shouted)
    assert roc_auc_score(labels, plain) >= 0


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_verbose_is_a_line_over_all_classes(tiny, texts, labels, n_jobs, capsys):
    tiny.update(n_jobs=n_jobs)
    CharLMLanguageClassifier(**tiny).fit(texts, labels)
    assert capsys.readouterr() == ("", "")
    CharLMLanguageClassifier(**tiny, verbose=1).fit(texts, labels)
    out, err = capsys.readouterr()
    assert out == ""
    apart, jointly, end = err.split("\n")
    assert "6/6" in apart
    assert "bits/char" in apart
    # Two epochs and three folds.
    assert "5/5" in jointly
    assert "bits/class" in jointly
    assert end == ""


def test_divergence_names_the_class(tiny, texts, labels):
    tiny.update(lr=1e38, net_params={"optimizer": torch.optim.SGD})
    with pytest.raises(ValueError, match=r"class 'eng' diverged: .* in epoch"):
        CharLMLanguageClassifier(**tiny).fit(texts, labels)


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        ("text", ["a"], ValueError, "put a single text in a list"),
        (["a", None], [0, 1], ValueError, r"X\[1\] is a missing value"),
        (["a", b"b"], [0, 1], TypeError, r"X\[1\] is bytes"),
        (["a", 2], [0, 1], TypeError, r"X\[1\] is int"),
        ([["a"], ["b"]], [0, 1], ValueError, "not one text; join its parts"),
        ([], [], ValueError, r"0 sample\(s\)"),
        (
            ["a", "b"],
            [0, 1, 1],
            ValueError,
            r"inconsistent numbers of samples: \[2, 3\]",
        ),
        (["a", "b"], None, ValueError, "requires y to be passed"),
        (["a", "b"], [0, 0], ValueError, r"one class only \(0\); the classifier"),
        (["a", "b"], [0.5, 1.5], ValueError, "Unknown label type: continuous"),
        (["a", "b"], [0, np.nan], ValueError, r"y\[1\] is a missing value"),
        (["a", "b"], ["x", None], ValueError, r"y\[1\] is a missing value"),
        (["a", "b"], [[0, 1], [1, 0]], ValueError, "y should be a 1d array"),
        (["a", "", "b"], ["x", "y", "x"], ValueError, "texts of class 'y' are empty"),
        (["", ""], ["x", "y"], ValueError, "texts of class 'x' are empty"),
    ],
)
def test_bad_input(X, y, error, message):
    with pytest.raises(error, match=message):
        CharLMLanguageClassifier().fit(X, y)


def test_column_of_labels_warns(tiny, texts, labels):
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        CharLMLanguageClassifier(**tiny).fit(texts, labels[:, None])


@pytest.mark.parametrize(
    "method",
    [
        "predict",
        "predict_proba",
        "predict_log_proba",
        "predict_joint_log_proba",
        "decision_function",
        "log_likelihood",
        "score_samples",
    ],
)
def test_before_fit_and_bad_input(clf, method):
    with pytest.raises(NotFittedError):
        getattr(CharLMLanguageClassifier(), method)(["a"])
    with pytest.raises(ValueError, match="put a single text in a list"):
        getattr(clf, method)("text")
    with pytest.raises(ValueError, match=r"X\[1\] is a missing value"):
        getattr(clf, method)(["a", None])
    odd = getattr(clf, method)(["", "q", "😀", "e\u0301"])
    assert len(odd) == 4
    if method != "predict":
        assert np.isfinite(odd).all()


def test_bfloat16_from_fit_to_prediction(half, tiny, texts, labels):
    tiny.update(epochs=20, hidden_size=16, lr=0.02)
    clf = CharLMLanguageClassifier(precision=half.precision, **tiny).fit(texts, labels)
    assert clf.precision_ == "bfloat16"
    lower = clf.decision_function(texts)
    exact = clf.set_params(precision="float32").decision_function(texts)
    assert (lower != exact).all()
    np.testing.assert_allclose(lower, exact, rtol=0.02)
    assert roc_auc_score(labels, lower) == 1


def test_priors_with_names(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, calibration_folds=0)
    for index in (None, ["eng", "fra"]):
        clf.set_params(class_prior=pd.Series([0.3, 0.7], index)).fit(texts, labels)
        np.testing.assert_allclose(np.exp(clf.class_log_prior_), [0.3, 0.7])
    clf.set_params(class_prior=pd.Series({"fra": 0.7, "eng": 0.3}))
    with pytest.raises(ValueError, match=r"labelled \['fra', 'eng'\], and the order"):
        clf.fit(texts, labels)


def test_priors_that_hardly_sum_to_one(tiny, texts, labels, tmp_path):
    clf = CharLMLanguageClassifier(**tiny, class_prior=[0.499999, 0.5])
    clf.fit(texts, labels)
    expected = np.log([0.499999 / 0.999999, 0.5 / 0.999999])
    np.testing.assert_allclose(clf.class_log_prior_, expected, rtol=1e-12)
    clf.save(tmp_path / "clf.safetensors")
    path = tmp_path / "clf.safetensors"
    loaded = CharLMLanguageClassifier.load(path, device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(texts), clf.predict_proba(texts))


@pytest.mark.parametrize("classes", [2, "eng"])
def test_classes_that_are_no_list(tiny, texts, labels, classes):
    with pytest.raises(TypeError, match="`classes` must be the labels of all classes"):
        CharLMLanguageClassifier(**tiny).partial_fit(texts, labels, classes)

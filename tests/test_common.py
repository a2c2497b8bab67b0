"""The scikit-learn contract, as far as it can be checked without numbers in X."""

import copy
import inspect
import pickle

import joblib
import numpy as np
import pytest
from numpydoc.docscrape import ClassDoc
from sklearn.base import clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel

ESTIMATORS = [CharLMLanguageClassifier, CharLSTMLanguageModel]


@parametrize_with_checks([estimator() for estimator in ESTIMATORS])
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "check",
    [
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_estimators_unfitted",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_param_validation",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_checks_without_text(estimator, check):
    getattr(estimator_checks, check)(estimator.__name__, estimator())


def test_both_estimators_have_the_same_parameters():
    signatures = {e: dict(inspect.signature(e).parameters) for e in ESTIMATORS}
    docs = {
        e: {p.name: (p.type, p.desc) for p in ClassDoc(e)["Parameters"]}
        for e in ESTIMATORS
    }
    for described in (signatures, docs):
        # One model has nothing to train side by side, and nothing to choose from.
        del described[CharLMLanguageClassifier]["n_jobs"]
        del described[CharLMLanguageClassifier]["class_prior"]
        del described[CharLMLanguageClassifier]["beam"]
        del described[CharLMLanguageClassifier]["discriminative_epochs"]
        del described[CharLMLanguageClassifier]["calibration_folds"]
        classifier, model = (described[estimator] for estimator in ESTIMATORS)
        assert list(classifier.items()) == list(model.items())


both = pytest.mark.parametrize("estimator", ESTIMATORS)


def said_by(fitted, X):
    """Return what a fitted estimator says of texts, method by method."""
    methods = [
        "score_samples",
        "char_log_likelihood",
        "log_likelihood",
        "predict",
        "predict_proba",
        "predict_log_proba",
        "predict_joint_log_proba",
        "decision_function",
    ]
    return {
        method: np.concatenate([np.ravel(part) for part in getattr(fitted, method)(X)])
        for method in methods
        if hasattr(fitted, method)
    }


def assert_same_said(one, other):
    for method, values in one.items():
        np.testing.assert_array_equal(values, other[method], err_msg=method)


@both
def test_fit_returns_self_and_leaves_the_parameters_alone(
    estimator, tiny, texts, labels
):
    tiny.update(net_params={"callbacks": []}, random_state=np.random.RandomState(0))
    unfitted = estimator(**tiny)
    params = unfitted.get_params()
    values = joblib.hash({k: v for k, v in params.items() if k != "random_state"})
    assert unfitted.fit(texts, labels) is unfitted
    assert unfitted.get_params() == params
    del params["random_state"]
    assert joblib.hash(params) == values
    public = {name for name in vars(unfitted) if not name.startswith("_")}
    fitted_attributes = {name for name in public if name.endswith("_")}
    assert public - fitted_attributes == set(unfitted.get_params())


@both
def test_fitting_again_gives_the_same(estimator, tiny, texts, labels):
    fitted = estimator(**tiny).fit(texts, labels)
    first = said_by(fitted, texts)
    assert_same_said(said_by(fitted.fit(texts, labels), texts), first)
    assert_same_said(said_by(clone(fitted).fit(texts, labels), texts), first)
    # Something else in between leaves no trace.
    fitted.fit(["xyz", "uvw"], ["fra", "eng"])
    assert_same_said(said_by(fitted.fit(texts, labels), texts), first)


@both
@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_pickle_joblib_and_copies(estimator, tiny, texts, labels, tmp_path, mmap_mode):
    fitted = estimator(**tiny).fit(texts, labels)
    expected = said_by(fitted, texts)
    assert_same_said(said_by(pickle.loads(pickle.dumps(fitted)), texts), expected)
    assert_same_said(said_by(copy.deepcopy(fitted), texts), expected)
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    loaded = joblib.load(tmp_path / "fitted.joblib", mmap_mode=mmap_mode)
    assert_same_said(said_by(loaded, texts), expected)
    loaded.partial_fit(texts, labels)
    unfitted = pickle.loads(pickle.dumps(estimator(**tiny)))
    assert_same_said(said_by(unfitted.fit(texts, labels), texts), expected)


@both
def test_order_and_number_of_rows(estimator, tiny, texts, labels):
    fitted = estimator(**tiny).fit(texts, labels)
    X = [*texts, "", "a", "zq", "le chat et le chien et le chat" * 5]
    scores = fitted.score_samples(X)
    np.testing.assert_array_equal(fitted.score_samples(X[::-1]), scores[::-1])
    # A batch of another shape sums in another order, in float32.
    alone = np.concatenate([fitted.score_samples([text]) for text in X])
    np.testing.assert_allclose(alone, scores, rtol=1e-5)


@both
def test_predicting_leaves_the_estimator_alone(estimator, tiny, texts, labels):
    fitted = estimator(**tiny).fit(texts, labels)
    before = joblib.hash(vars(fitted))
    said_by(fitted, texts)
    assert joblib.hash(vars(fitted)) == before


@both
def test_texts_are_not_written_to(estimator, tiny, texts, labels):
    X = np.array(texts, dtype=object)
    X.flags.writeable = False
    labels.flags.writeable = False
    given = list(texts)
    assert_same_said(
        said_by(estimator(**tiny).fit(X, labels), X),
        said_by(estimator(**tiny).fit(given, labels), given),
    )
    assert given == texts


def test_agreement_of_the_predictions(tiny, texts):
    labels = np.array(["a", "b", "c", "a"] * 2)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    X = [*texts, "", "xyz", "the chien"]
    proba, decision = clf.predict_proba(X), clf.decision_function(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(proba), clf.predict_log_proba(X))
    np.testing.assert_array_equal(clf.classes_[proba.argmax(axis=1)], clf.predict(X))
    np.testing.assert_array_equal(proba.argsort(axis=0), decision.argsort(axis=0))

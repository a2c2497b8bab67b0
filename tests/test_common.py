"""The scikit-learn contract, as far as it can be checked without numbers in X."""

import inspect

import numpy as np
import pytest
from numpydoc.docscrape import ClassDoc
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
        classifier, model = (described[estimator] for estimator in ESTIMATORS)
        assert list(classifier.items()) == list(model.items())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_docstring_names_every_fitted_attribute(estimator, tiny, texts, labels):
    fitted = estimator(**tiny).fit(texts, labels)
    names = {name for name in vars(fitted) if name.endswith("_")}
    assert {attribute.name for attribute in ClassDoc(estimator)["Attributes"]} == names


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_predicting_leaves_the_estimator_alone(estimator, tiny, texts, labels):
    fitted = estimator(**tiny).fit(texts, labels)
    before = dict(vars(fitted))
    fitted.score_samples(texts)
    assert vars(fitted) == before


def test_arrays_of_text_are_not_written_to(tiny, texts, labels):
    X = np.array(texts, dtype=object)
    X.flags.writeable = False
    labels.flags.writeable = False
    CharLMLanguageClassifier(**tiny).fit(X, labels).predict(X)

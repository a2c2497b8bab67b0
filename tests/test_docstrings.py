"""Docstrings, signatures, constraints and fitted attributes agree."""

import inspect

import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc
from numpydoc.validate import validate
from sklearn.base import BaseEstimator

import sklearn_charlstm
from sklearn_charlstm import datasets

CLASSES = [getattr(sklearn_charlstm, name) for name in sklearn_charlstm.__all__]
FUNCTIONS = [getattr(datasets, name) for name in datasets.__all__]
# Ours, not those that scikit-learn's base classes bring.
METHODS = [
    method
    for class_ in CLASSES
    for name, method in inspect.getmembers(class_, inspect.isfunction)
    if not name.startswith("_") and method.__module__.startswith("sklearn_charlstm")
]

# What scikit-learn does not do either.
IGNORED = {
    "ES01": "no extended summary",
    "EX01": "no example: classes have one",
    "SA01": "no See Also: classes have one",
    "RT02": "a name before the type of what is returned",
}


@pytest.mark.parametrize("thing", [*CLASSES, *FUNCTIONS, *METHODS])
def test_numpydoc_finds_nothing_wrong(thing):
    module = "sklearn_charlstm" if thing in CLASSES else thing.__module__
    errors = validate(f"{module}.{thing.__qualname__}")["errors"]
    if thing in CLASSES or thing.__name__ == "load_languages":
        ignored = set(IGNORED) - {"EX01"}
    else:
        ignored = set(IGNORED)
    assert [error for error in errors if error[0] not in ignored] == []


@pytest.mark.parametrize("thing", [*FUNCTIONS, *METHODS])
def test_every_error_that_a_user_can_meet_is_documented(thing):
    if thing.__name__.startswith(("fit", "partial_fit", "add_class", "load")):
        assert FunctionDoc(thing)["Raises"]


@pytest.mark.parametrize("class_", CLASSES)
def test_the_constraints_are_those_of_the_signature(class_):
    assert issubclass(class_, BaseEstimator)
    assert set(class_._parameter_constraints) == set(
        inspect.signature(class_).parameters
    )


@pytest.mark.parametrize("class_", CLASSES)
def test_docstrings_tell_the_defaults(class_):
    documented = {p.name: p.type for p in ClassDoc(class_)["Parameters"]}
    for name, parameter in inspect.signature(class_).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            assert "default" not in documented[name]
            continue
        default = documented[name].partition("default=")[2]
        if isinstance(parameter.default, str):
            assert default == repr(parameter.default)
        elif isinstance(parameter.default, float):
            assert float(default) == parameter.default or default == "nan"
        else:
            assert default == str(parameter.default)


@pytest.mark.parametrize("class_", CLASSES)
def test_every_fitted_attribute_is_documented(class_, tiny, texts, labels):
    estimator = (
        class_(sklearn_charlstm.CharLMLanguageClassifier(**tiny), {"epochs": [1]}, cv=2)
        if class_ is sklearn_charlstm.WarmStartGridSearchCV
        else class_(**tiny)
    )
    fitted = estimator.fit(texts, labels)
    names = {name for name in vars(fitted) if name.endswith("_")}
    attributes = ClassDoc(class_)["Attributes"]
    assert {attribute.name for attribute in attributes} == names
    assert all(attribute.type and attribute.desc for attribute in attributes)


@pytest.mark.parametrize("thing", [*CLASSES, *FUNCTIONS, *METHODS])
def test_the_public_interface_is_typed(thing):
    function = thing.__init__ if thing in CLASSES else thing
    signature = inspect.signature(function)
    for name, parameter in signature.parameters.items():
        assert name == "self" or parameter.annotation is not parameter.empty, name
    assert signature.return_annotation is not signature.empty

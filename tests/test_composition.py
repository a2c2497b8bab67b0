"""The estimators inside scikit-learn's meta-estimators, as users combine them."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier, OutputCodeClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel


@pytest.fixture
def clf(tiny):
    # Without joint training, which makes good for few epochs, and calibration.
    tiny.update(epochs=15, hidden_size=16, lr=0.02)
    tiny.update(discriminative_epochs=0, calibration_folds=0)
    return CharLMLanguageClassifier(**tiny)


@pytest.fixture
def texts():
    return [
        *["the cat and the dog", "with the other", "this is the end", "they think"],
        *["le chat et le chien", "avec les autres", "est la fin", "ils pensent"],
        *["die Katze und der Hund", "mit den anderen", "das Ende", "sie denken"],
    ] * 2


@pytest.fixture
def labels():
    return np.repeat(["eng", "fra", "deu"] * 2, 4)


def n_grams():
    return make_pipeline(CountVectorizer(analyzer="char"), MultinomialNB())


def _lower_column(series):
    return series.str.lower().to_frame()


def _clean(X):
    return [" ".join(text.lower().split()) for text in X]


def test_halving_grid_search(clf, texts, labels):
    search = HalvingGridSearchCV(
        clf,
        {"maxlen": [2, 8], "lr": [1e-5, 0.02]},
        resource="epochs",
        min_resources=2,
        max_resources=6,
        factor=3,
        cv=2,
        random_state=0,
    ).fit(texts, labels)
    assert search.n_resources_ == [2, 6]
    assert search.best_estimator_.epochs == 6
    assert search.best_params_["lr"] == 0.02


def test_halving_grid_search_over_texts(clf, texts, labels):
    search = HalvingGridSearchCV(
        clf, {"maxlen": [2, 8], "epochs": [1, 15]}, cv=2, random_state=0, factor=2
    ).fit(np.array(texts), labels)
    assert search.best_params_["epochs"] == 15


def test_grid_search_inside_a_pipeline_with_a_text_cleaner(clf, texts, labels):
    pipeline = make_pipeline(FunctionTransformer(_clean), clf)
    name = "charlmlanguageclassifier"
    grid = {f"{name}__maxlen": [4, 8], f"{name}__epochs": [1, 15]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(texts, labels)
    assert search.best_params_[f"{name}__epochs"] == 15
    shouted = [f"  {text.upper()}\n" for text in texts]
    assert search.predict(shouted).tolist() == search.predict(texts).tolist()


@pytest.mark.parametrize(
    ("method", "shape"),
    [
        ("predict", (24,)),
        ("predict_proba", (24, 3)),
        ("predict_log_proba", (24, 3)),
        ("decision_function", (24, 3)),
    ],
)
def test_cross_val_predict(clf, texts, labels, method, shape):
    predicted = cross_val_predict(clf, texts, labels, cv=2, method=method)
    assert predicted.shape == shape
    if method == "predict":
        assert np.mean(predicted == labels) > 0.8


def test_cross_val_score_of_the_density_estimator(tiny, texts):
    scores = cross_val_score(CharLSTMLanguageModel(**tiny), texts, cv=3)
    assert scores.shape == (3,)
    assert (scores < 0).all()


def test_column_of_a_data_frame(clf, texts, labels):
    frame = pd.DataFrame({"text": texts, "year": range(len(texts))})
    # A single name hands over a Series; what a ColumnTransformer returns has two
    # dimensions again.
    column = ColumnTransformer([("text", FunctionTransformer(_lower_column), "text")])
    pipeline = make_pipeline(column, FunctionTransformer(np.ravel), clf)
    assert pipeline.fit(frame, labels).score(frame, labels) > 0.9
    assert clone(clf).fit(frame["text"], labels).score(frame["text"], labels) > 0.9
    with pytest.raises(ValueError, match="pass one column"):
        clone(clf).fit(frame[["text"]], labels)


@pytest.mark.parametrize("voting", ["hard", "soft"])
def test_voting_beside_n_grams(clf, texts, labels, voting):
    vote = VotingClassifier([("lstm", clf), ("ngrams", n_grams())], voting=voting)
    assert vote.fit(texts, labels).score(texts, labels) > 0.9


def test_stacking_beside_n_grams(clf, texts, labels):
    stack = StackingClassifier(
        [("lstm", clf), ("ngrams", n_grams())], LogisticRegression(), cv=2, n_jobs=2
    ).fit(texts, labels)
    assert stack.score(texts, labels) > 0.9
    # decision_function or predict_proba of three classes, from each of the two.
    assert stack.final_estimator_.coef_.shape == (3, 6)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("ensemble", [True, False])
def test_calibration(clf, texts, labels, method, ensemble):
    calibrated = CalibratedClassifierCV(clf, method=method, cv=2, ensemble=ensemble)
    proba = calibrated.fit(texts, labels).predict_proba(texts)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert calibrated.score(texts, labels) > 0.8


@pytest.mark.filterwarnings("ignore:.*joblib.*:UserWarning")
def test_one_against_the_rest(clf, texts, labels):
    multi = OneVsRestClassifier(clf, n_jobs=2).fit(np.array(texts), labels)
    assert multi.score(np.array(texts), labels) > 0.9
    assert [e.classes_.tolist() for e in multi.estimators_] == [[0, 1]] * 3


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        np.array,
        lambda texts: np.array(texts, dtype=object),
        pytest.param(
            lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
            marks=pytest.mark.skipif(
                np.lib.NumpyVersion(np.__version__) < "2.2.0",
                reason="NumPy before 2.2 loses strings when such arrays are indexed",
            ),
        ),
        lambda texts: pd.Series(texts, index=range(100, 100 + len(texts))),
        lambda texts: pd.Series(texts, dtype="string"),
        lambda texts: pd.Series(texts, dtype="category"),
        pl.Series,
        lambda texts: pl.Series(texts, dtype=pl.Categorical),
    ],
)
def test_containers_of_texts(clf, texts, labels, container):
    expected = clone(clf).fit(texts, labels).log_likelihood(texts)
    X = container(texts)
    fitted = clone(clf).fit(X, labels)
    np.testing.assert_array_equal(fitted.log_likelihood(X), expected)
    search = GridSearchCV(clf, {"epochs": [1, 15]}, cv=2, scoring="neg_log_loss")
    assert search.fit(X, labels).best_params_["epochs"] == 15


@pytest.mark.parametrize(
    "container", [list, pd.Series, pl.Series, lambda y: pd.Series(y, dtype="category")]
)
def test_containers_of_labels(clf, texts, labels, container):
    fitted = clf.fit(texts, container(labels))
    assert fitted.classes_.tolist() == ["deu", "eng", "fra"]
    assert fitted.score(texts, container(labels)) > 0.9


def test_clone_and_set_params(clf, texts, labels):
    def prior_of_two():
        return np.array([0.3, 0.7])

    prior = prior_of_two()
    clf.set_params(class_prior=prior, net_params={"callbacks": []}, analyzer=str.split)
    copy = clone(clf)
    np.testing.assert_array_equal(copy.class_prior, prior_of_two())
    assert copy.get_params().keys() == clf.get_params().keys()
    assert copy.analyzer is str.split
    fitted = copy.set_params(class_prior=None).fit(texts, labels)
    assert not hasattr(clone(fitted), "classes_")
    with pytest.raises(ValueError, match="Invalid parameter 'max_epochs'"):
        clf.set_params(max_epochs=3)


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("_routing")
def test_metadata_routing(clf, texts, labels):
    weights = np.r_[np.zeros(12), np.ones(12)]
    clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    pipeline = make_pipeline(FunctionTransformer(_clean), clf)
    pipeline.fit(texts, labels, sample_weight=weights)
    assert pipeline[-1].class_count_.tolist() == [4, 4, 4]
    search = GridSearchCV(clf, {"epochs": [1, 2]}, cv=2)
    search.fit(texts, labels, sample_weight=np.full(24, 2.0))
    assert search.best_estimator_.class_count_.tolist() == [16, 16, 16]
    clf.set_fit_request(sample_weight=False)
    search.fit(texts, labels, sample_weight=np.full(24, 2.0))
    assert search.best_estimator_.class_count_.tolist() == [8, 8, 8]


@pytest.mark.usefixtures("_routing")
def test_routing_of_the_classes_of_partial_fit(clf, texts, labels):
    # The rest of a request is what it was by default.
    request = clf.set_partial_fit_request(classes=True, sample_weight=False)
    assert request.get_metadata_routing().partial_fit.requests == {
        "classes": True,
        "sample_weight": False,
    }


def test_roc_auc_as_written(clf, texts, labels):
    two = labels != "deu"
    X, y = [t for t, kept in zip(texts, two, strict=True) if kept], labels[two]
    assert roc_auc_score(y, clf.fit(X, y).decision_function(X)) > 0.9
    many = clf.fit(texts, labels).predict_proba(texts)
    assert roc_auc_score(labels, many, multi_class="ovr") > 0.9


def test_error_correcting_codes(clf, texts, labels):
    codes = OutputCodeClassifier(clf, code_size=2, random_state=0)
    assert codes.fit(np.array(texts), labels).score(np.array(texts), labels) > 0.8


def test_a_subclass_has_parameters_of_its_own(tiny, texts, labels, tmp_path):
    class LowerCase(CharLMLanguageClassifier):
        def __init__(self, *, epochs=1, lower=True):
            super().__init__(**{**tiny, "epochs": epochs}, calibration_folds=2)
            self.lower = lower

        @property
        def epochs(self):
            return self._epochs

        @epochs.setter
        def epochs(self, value):
            self._epochs = value

    its_own = LowerCase(epochs=2).fit(texts, labels)
    usual = CharLMLanguageClassifier(**{**tiny, "epochs": 2}, calibration_folds=2)
    np.testing.assert_array_equal(
        its_own.predict_proba(texts), usual.fit(texts, labels).predict_proba(texts)
    )
    with pytest.raises(ValueError, match="LowerCase has no parameter 'analyzer'"):
        its_own.save(tmp_path / "its.own")

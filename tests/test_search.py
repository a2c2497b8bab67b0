from functools import partial

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    CharLSTMLanguageModel,
    WarmStartGridSearchCV,
)

GRID = {"maxlen": [8, 3], "epochs": [4, 1, 2]}


def assert_same_results(search, expected):
    results, others = search.cv_results_, expected.cv_results_
    assert list(results) == list(others)
    assert results["params"] == others["params"]
    for column, values in others.items():
        if column.startswith("param_"):
            assert results[column].tolist() == values.tolist()
        elif "time" not in column and column != "params":
            np.testing.assert_array_equal(results[column], values, err_msg=column)
    assert search.best_params_ == expected.best_params_
    assert search.best_index_ == expected.best_index_
    assert search.best_score_ == expected.best_score_


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_same_numbers_as_grid_search(tiny, texts, labels, n_jobs):
    tiny.update(discriminative_epochs=1, calibration_folds=2)
    clf = CharLMLanguageClassifier(**tiny)
    settings = {"cv": 2, "scoring": "neg_log_loss", "return_train_score": True}
    search = WarmStartGridSearchCV(clf, GRID, n_jobs=n_jobs, **settings)
    search.fit(texts, labels)
    expected = GridSearchCV(clf, GRID, **settings).fit(texts, labels)
    assert_same_results(search, expected)
    assert (
        search.best_estimator_.n_iter_.tolist() == [search.best_params_["epochs"]] * 2
    )
    np.testing.assert_array_equal(
        search.predict_proba(texts), expected.predict_proba(texts)
    )
    assert search.score(texts, labels) == expected.score(texts, labels)
    assert search.classes_.tolist() == ["eng", "fra"]


@pytest.mark.parametrize("random_state", [0, 1, 2])
def test_same_numbers_with_early_stopping(tiny, random_state):
    # Random letters: there is nothing to learn for other texts.
    letters = np.random.default_rng(random_state).choice([*"abcdef"], size=(12, 9))
    texts, labels = ["".join(row) for row in letters], [0, 1] * 6
    tiny.update(random_state=random_state, early_stopping=True, n_iter_no_change=1)
    clf = CharLMLanguageClassifier(
        **tiny,
        discriminative_epochs=1,
        calibration_folds=0,
        lr=0.05,
        validation_fraction=0.3,
    )
    grid = {"epochs": [1, 3, 30]}
    settings = {"cv": 2, "scoring": "neg_log_loss"}
    assert_same_results(
        WarmStartGridSearchCV(clf, grid, **settings).fit(texts, labels),
        GridSearchCV(clf, grid, **settings).fit(texts, labels),
    )
    # For this to mean something a run must have stopped early.
    clf.set_params(epochs=30).fit(texts, labels)
    assert clf.n_iter_.min() < 30


def test_every_epoch_is_trained_once(tiny, texts, labels, monkeypatch):
    trained = []
    train = CharLSTMLanguageModel._train

    def watch(self, *args, epochs, **kwargs):
        trained.append(epochs)
        return train(self, *args, epochs=epochs, **kwargs)

    monkeypatch.setattr(CharLSTMLanguageModel, "_train", watch)
    tiny.update(discriminative_epochs=1, calibration_folds=0)
    clf = CharLMLanguageClassifier(**tiny)
    WarmStartGridSearchCV(clf, GRID, cv=2, refit=False).fit(texts, labels)
    # Two classes, two folds, two maxlen: four epochs each, not seven.
    assert sum(trained) == 2 * 2 * 2 * 4


def _lower(X):
    return [text.lower() for text in X]


def test_several_grids_over_a_pipeline(tiny, texts, labels):
    pipeline = Pipeline(
        [
            ("lower", FunctionTransformer(_lower)),
            (
                "clf",
                CharLMLanguageClassifier(
                    **tiny, discriminative_epochs=1, calibration_folds=0
                ),
            ),
        ]
    )
    grids = [
        {"clf__epochs": [2, 1], "clf__hidden_size": [4, 8]},
        {"clf__epochs": [3], "clf__boundaries": [True]},
    ]
    settings = {"cv": 2, "scoring": "neg_log_loss"}
    assert_same_results(
        WarmStartGridSearchCV(
            pipeline, grids, warm_start_param="clf__epochs", **settings
        ).fit(texts, labels),
        GridSearchCV(pipeline, grids, **settings).fit(texts, labels),
    )


def test_density_estimator_without_labels(tiny, texts):
    model = CharLSTMLanguageModel(**tiny)
    grid = {"epochs": [1, 4]}
    search = WarmStartGridSearchCV(model, grid, cv=2).fit(texts)
    assert_same_results(search, GridSearchCV(model, grid, cv=2).fit(texts))
    assert search.best_params_ == {"epochs": 4}


def test_weights_are_split_with_the_texts(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=1, calibration_folds=0)
    weights = np.linspace(0, 2, len(texts))
    settings = {"cv": 2, "scoring": "neg_log_loss"}
    grid = {"epochs": [1, 2]}
    assert_same_results(
        WarmStartGridSearchCV(clf, grid, **settings).fit(
            texts, labels, sample_weight=weights
        ),
        GridSearchCV(clf, grid, **settings).fit(texts, labels, sample_weight=weights),
    )


def test_another_estimator_that_starts_warm():
    X, y = make_classification(random_state=0)
    boosting = GradientBoostingClassifier(random_state=0)
    grid = {"n_estimators": [20, 5, 10], "max_depth": [1, 2]}
    search = WarmStartGridSearchCV(boosting, grid, warm_start_param="n_estimators")
    assert_same_results(search.fit(X, y), GridSearchCV(boosting, grid).fit(X, y))


def test_a_candidate_that_fails(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=1, calibration_folds=0)
    grid = {"epochs": [1, 2], "lr": [0.01, -1.0]}
    search = WarmStartGridSearchCV(clf, grid, cv=2)
    with pytest.warns(Warning, match="fits failed|non-finite"):
        search.fit(texts, labels)
    failed = np.array([p["lr"] < 0 for p in search.cv_results_["params"]])
    np.testing.assert_array_equal(
        np.isnan(search.cv_results_["mean_test_score"]), failed
    )
    assert search.best_params_["lr"] == 0.01
    with pytest.raises(ValueError, match="'lr' parameter"):
        search.set_params(error_score="raise").fit(texts, labels)


def test_a_grid_without_the_parameter(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=1, calibration_folds=0)
    search = WarmStartGridSearchCV(clf, {"maxlen": [2, 4]}, cv=2)
    with pytest.raises(
        ValueError, match=r"without warm_start_param='epochs': \{'maxlen"
    ):
        search.fit(texts, labels)
    search.set_params(param_grid={"epochs": ["x", 2]})
    with pytest.raises(ValueError, match=r"epochs='x'; it must be a number"):
        search.fit(texts, labels)
    search.set_params(param_grid=[])
    with pytest.raises(ValueError, match="No fits were performed"):
        search.fit(texts, labels)
    search.set_params(param_grid={"epochs": 5})
    with pytest.raises(TypeError, match="Parameter grid for parameter 'epochs'"):
        search.fit(texts, labels)


@pytest.mark.parametrize("name", ["discriminative_epochs", "calibration_folds"])
def test_what_comes_after_the_epochs(name, tiny, texts, labels):
    params = {"discriminative_epochs": 1, "calibration_folds": 0, "epochs": 2}
    clf = CharLMLanguageClassifier(**{**tiny, **params})
    settings = {"cv": 2, "scoring": "neg_log_loss", "refit": False}
    grid = {name: [0, 3]}
    search = WarmStartGridSearchCV(clf, grid, warm_start_param=name, **settings)
    expected = GridSearchCV(clf, grid, **settings).fit(texts, labels)
    assert_same_results(search.fit(texts, labels), expected)
    assert np.ptp(search.cv_results_["mean_test_score"]) > 0


def test_a_parameter_that_training_began_with(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=1, calibration_folds=0)
    search = WarmStartGridSearchCV(clf, {"lr": [0.1, 0.01]}, warm_start_param="lr")
    with pytest.raises(ValueError, match=r"'lr' would find other .*be epochs or disc"):
        search.fit(texts, labels)
    model = CharLSTMLanguageModel(hidden_size=4)
    pipeline = Pipeline([("lm", model)])
    grid = {"lm__maxlen": [2, 4]}
    search = WarmStartGridSearchCV(pipeline, grid, warm_start_param="lm__maxlen")
    with pytest.raises(ValueError, match=r"'lm__maxlen' .*LanguageModel .*be epochs"):
        search.fit(texts)


def test_only_the_values_that_fail_fail(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=1, calibration_folds=0)
    grids = [{"epochs": [1, 0, 2.5, 2]}, {"epochs": [1], "lr": [-1.0]}]
    settings = {"cv": 2, "scoring": "neg_log_loss"}
    with pytest.warns(Warning, match="fits failed|non-finite"):
        search = WarmStartGridSearchCV(clf, grids, **settings).fit(texts, labels)
    with pytest.warns(Warning, match="fits failed|non-finite"):
        expected = GridSearchCV(clf, grids, **settings).fit(texts, labels)
    assert_same_results(search, expected)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [0, 1, 1, 0, 1]


def test_several_scores_and_values_of_any_kind(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=1, calibration_folds=0)
    grid = {
        "epochs": [2, 1, 2],
        "class_prior": [None, np.array([0.3, 0.7])],
        "analyzer": ["char", partial(str.split, sep=None)],
    }
    settings = {"cv": 2, "scoring": ["accuracy", "neg_log_loss"]}
    settings["refit"] = "neg_log_loss"
    search = WarmStartGridSearchCV(clf, grid, **settings).fit(texts, labels)
    expected = GridSearchCV(clf, grid, **settings).fit(texts, labels)
    results, others = search.cv_results_, expected.cv_results_
    assert list(results) == list(others)
    for column in ("mean_test_accuracy", "split1_test_neg_log_loss"):
        np.testing.assert_array_equal(results[column], others[column])
    assert search.best_index_ == expected.best_index_
    assert search.scorer_.keys() == expected.scorer_.keys()
    assert search.multimetric_


@pytest.mark.parametrize("routing", [False, True])
def test_weights_and_groups_reach_who_wants_them(tiny, texts, labels, routing):
    with sklearn.config_context(enable_metadata_routing=routing):
        clf, scoring = (
            CharLMLanguageClassifier(
                **tiny, discriminative_epochs=1, calibration_folds=0
            ),
            get_scorer("neg_log_loss"),
        )
        cv = GroupKFold(2)
        if routing:
            clf.set_fit_request(sample_weight="w")
            scoring.set_score_request(sample_weight="w")
        params = {
            "w" if routing else "sample_weight": np.linspace(0.5, 2, len(texts)),
            "groups": np.arange(len(texts)) // 2,
        }
        settings = {"scoring": scoring, "cv": cv}
        grid = {"epochs": [1, 2]}
        search = WarmStartGridSearchCV(clf, grid, **settings)
        expected = GridSearchCV(clf, grid, **settings)
        assert_same_results(
            search.fit(texts, labels, **params), expected.fit(texts, labels, **params)
        )


def test_callbacks_are_not_taken_in_silence(tiny):
    search = WarmStartGridSearchCV(CharLMLanguageClassifier(**tiny), {"epochs": [1]})
    # scikit-learn asks before it passes on those of what is around it, and warns.
    assert not hasattr(search, "set_callbacks")
    with pytest.raises(AttributeError, match="Use GridSearchCV for callbacks"):
        search.set_callbacks()


@pytest.mark.parametrize("refit", ["accuracy", False])
def test_a_callable_that_returns_several_scores(tiny, texts, labels, refit):
    def scoring(estimator, X, y):
        # Nothing is more accurate, but one that has failed has no score.
        return {"accuracy": estimator.score(X, y), "epochs": estimator.epochs}

    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=0, calibration_folds=0)
    grids = [{"epochs": [2, 1]}, {"epochs": [1], "lr": [-1.0]}]
    settings = {"cv": 2, "scoring": scoring, "refit": refit}
    with pytest.warns(Warning, match="fits failed|non-finite"):
        search = WarmStartGridSearchCV(clf, grids, **settings).fit(texts, labels)
    with pytest.warns(Warning, match="fits failed|non-finite"):
        expected = GridSearchCV(clf, grids, **settings).fit(texts, labels)
    results, others = search.cv_results_, expected.cv_results_
    assert list(results) == list(others)
    for column in ("mean_test_accuracy", "split1_test_epochs"):
        np.testing.assert_array_equal(results[column], others[column])
    assert search.multimetric_
    assert search.scorer_ is scoring
    if refit:
        assert search.best_index_ == expected.best_index_
        assert search.best_score_ == expected.best_score_
    else:
        assert not hasattr(search, "best_index_")


def test_what_is_set_is_kept(tiny):
    settings = {
        "warm_start_param": "n_networks",
        "scoring": "neg_log_loss",
        "n_jobs": 2,
        "refit": False,
        "cv": 2,
        "verbose": 1,
        "pre_dispatch": 3,
        "error_score": "raise",
        "return_train_score": True,
    }
    clf = CharLMLanguageClassifier(**tiny)
    search = WarmStartGridSearchCV(clf, {"epochs": [1]}, **settings)
    assert settings.items() <= search.get_params(deep=False).items()

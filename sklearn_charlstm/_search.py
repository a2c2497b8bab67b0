"""Grid search that trains once for all values of a parameter like `epochs`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from itertools import product
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.model_selection._validation import (
    _fit_and_score,
    _insert_error_scores,
    _warn_or_raise_about_fit_failures,
)
from sklearn.utils import indexable
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

from sklearn_charlstm._base import DocumentationLinkMixin, fit_context

__all__ = ["WarmStartGridSearchCV"]


def _fit_and_score_run(
    estimator: Any,
    candidates: list[dict[str, Any]],
    warm_start_param: str,
    *args: Any,
    **kwargs: Any,
) -> list[dict[str, Any]]:
    """Fit and score one estimator, which starts warm, candidate after candidate."""
    first, *others = candidates
    changes = [{warm_start_param: other[warm_start_param]} for other in others]
    return [
        _fit_and_score(estimator, *args, parameters=parameters, **kwargs)
        for parameters in (first, *changes)
    ]


class WarmStartGridSearchCV(DocumentationLinkMixin, GridSearchCV):
    """Grid search that trains once for all values of `epochs`.

    It finds what :class:`sklearn.model_selection.GridSearchCV` finds, with the same
    scores, but the candidates that differ in nothing but the number of epochs share
    one training run in each fold: it is scored after 5 epochs, goes on to 10, is
    scored again, and so on. Epochs of 5, 10 and 20 cost 20 epochs a fold, not 35.

    Parameters
    ----------
    estimator : estimator object
        With a parameter `warm_start`, and for which training that goes on gives what
        training from the start would have given. A Pipeline serves too; its other
        steps are fitted anew for each value.
    param_grid : dict or list of dict
        Lists of values by the name of the parameter.
    warm_start_param : str, default='epochs'
        The parameter whose values share a run; in a Pipeline ``'step__epochs'``. For
        the classifier `discriminative_epochs` and `calibration_folds` serve too, which
        come after the epochs; not those that training began with, such as `lr`.
    scoring : str, callable, list, tuple or dict, default=None
        One score or several, as in GridSearchCV; None is the estimator's own.
    n_jobs : int, default=None
        Training runs, of one candidate in one fold, at the same time.
    refit : bool, str or callable, default=True
        Whether to fit the best candidate to all texts at the end; of several scores
        which one decides.
    cv : int, cross-validation generator or iterable, default=None
        As in GridSearchCV: None is five folds, stratified by class.
    verbose : int, default=0
        Higher numbers print more.
    pre_dispatch : int or str, default='2*n_jobs'
        Runs that are sent to workers in advance.
    error_score : 'raise' or float, default=nan
        Score of a candidate that cannot be fitted.
    return_train_score : bool, default=False
        Whether to score on the training folds too.

    Attributes
    ----------
    cv_results_ : dict of str to ndarray
        As in GridSearchCV. The time of a fit is that of the epochs it adds to the run.
    best_estimator_ : estimator object
        The best candidate, fitted to all texts, if `refit`.
    best_score_ : float
        Mean score of the best candidate.
    best_params_ : dict
        Its parameters.
    best_index_ : int
        Its place in `cv_results_`.
    scorer_ : callable or dict of str to callable
        The scorer or scorers.
    n_splits_ : int
        The number of folds.
    refit_time_ : float
        Seconds for the last fit, if `refit`.
    multimetric_ : bool
        Whether there are several scores.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : Trains for each value from the start.

    Notes
    -----
    What `fit` does after the epochs it does anew for every value: the joint training
    and the calibration of :class:`CharLMLanguageClassifier`.
    ``discriminative_epochs=0`` and ``calibration_folds=0`` leave them out.

    An estimator that is a value in the grid itself, as the step of a Pipeline can be,
    needs ``warm_start=True`` of its own: without it each of its candidates is trained
    from the start, to the same scores.

    Examples
    --------
    >>> from sklearn_charlstm import CharLMLanguageClassifier, WarmStartGridSearchCV
    >>> texts = ["the cat and the dog ", "le chat et le chien "] * 10
    >>> labels = ["eng", "fra"] * 10
    >>> clf = CharLMLanguageClassifier(
    ...     n_networks=1,
    ...     hidden_size=16,
    ...     discriminative_epochs=0,
    ...     calibration_folds=0,
    ...     random_state=0,
    ... )
    >>> grid = {"maxlen": [4, 8], "epochs": [1, 20]}
    >>> search = WarmStartGridSearchCV(clf, grid, scoring="neg_log_loss")
    >>> search = search.fit(texts, labels)
    >>> len(search.cv_results_["params"])
    4
    >>> search.best_params_["epochs"]
    20
    """

    _parameter_constraints: dict[str, Any] = {
        **GridSearchCV._parameter_constraints,
        "warm_start_param": [str],
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: dict[str, Sequence[Any]] | list[dict[str, Sequence[Any]]],
        *,
        warm_start_param: str = "epochs",
        scoring: str
        | Callable[..., Any]
        | Sequence[str]
        | dict[str, Any]
        | None = None,
        n_jobs: int | None = None,
        refit: bool | str | Callable[..., int] = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: float | str = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.warm_start_param = warm_start_param

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Collection[Any], y: ArrayLike | None = None, **params: Any
    ) -> Self:
        """Find the best candidate by cross-validation.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what the estimator reads.
        y : array-like of shape (n_samples,), default=None
            Their labels.
        **params : dict
            Passed on to the `fit` of the estimator, to the splitter (`groups`) and to
            the scorer, as GridSearchCV does.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If `warm_start_param` is none that training goes on with, is not in a grid
            or has a value that is no number, or if no candidate can be fitted.
        """
        base_estimator = self._base_estimator()
        # What follows is the `fit` of GridSearchCV with other units of work.
        scorers, refit_metric = self._get_scorers()
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        routed_params = self._get_routed_params_for_fit(params)
        fit_params = routed_params.estimator.fit
        cv = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(cv.split(X, y, **routed_params.splitter.split))
        candidates = list(ParameterGrid(self.param_grid))
        runs = self._runs(candidates)
        if self.verbose > 0:
            print(
                f"Fitting {len(splits)} folds for each of {len(candidates)} candidates "
                f"in {len(runs)} runs, totalling {len(splits) * len(runs)} runs"
            )
        results_of_runs = Parallel(n_jobs=self.n_jobs, pre_dispatch=self.pre_dispatch)(
            delayed(_fit_and_score_run)(
                clone(base_estimator),
                [candidates[number] for number in run],
                self.warm_start_param,
                X,
                y,
                train=train,
                test=test,
                scorer=scorers,
                verbose=self.verbose,
                fit_params=fit_params,
                score_params=routed_params.scorer.score,
                return_train_score=self.return_train_score,
                return_n_test_samples=True,
                return_times=True,
                error_score=self.error_score,
            )
            for run in runs
            for train, test in splits
        )
        by_candidate: dict[tuple[int, int], dict[str, Any]] = {}
        numbered_runs = product(runs, range(len(splits)))
        for (run, split), results in zip(numbered_runs, results_of_runs, strict=True):
            for number, result in zip(run, results, strict=True):
                by_candidate[number, split] = result
        out = [by_candidate[key] for key in sorted(by_candidate)]
        if not out:
            raise ValueError("No fits were performed: `param_grid` or `cv` is empty.")
        _warn_or_raise_about_fit_failures(out, self.error_score)
        if callable(self.scoring):
            _insert_error_scores(out, self.error_score)
        self.n_splits_ = len(splits)
        self.cv_results_ = self._format_results(candidates, len(splits), out)
        self.scorer_ = getattr(scorers, "_scorers", scorers)
        self.multimetric_ = isinstance(out[0]["test_scores"], dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(out[0]["test_scores"])
            refit_metric = self.refit

        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(
                self.refit, refit_metric, self.cv_results_
            )
            self.best_params_ = candidates[self.best_index_]
            if not callable(self.refit):
                scores = self.cv_results_[f"mean_test_{refit_metric}"]
                self.best_score_ = scores[self.best_index_]
        if self.refit:
            best_params = clone(self.best_params_, safe=False)
            best_estimator = clone(self.estimator).set_params(**best_params)
            start = time.perf_counter()
            args = (X,) if y is None else (X, y)
            self.best_estimator_ = best_estimator.fit(*args, **fit_params)
            self.refit_time_ = time.perf_counter() - start
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        return self

    @property
    def set_callbacks(self) -> Any:
        """Not available: the runs that candidates share have no callbacks."""
        raise AttributeError(
            "WarmStartGridSearchCV has no callbacks: candidates share a run. Use "
            "GridSearchCV for callbacks, or `verbose`."
        )

    def _base_estimator(self) -> Any:
        """Return the estimator as it goes on from one value to the next."""
        step, separator, name = self.warm_start_param.rpartition("__")
        warm = {f"{step}{separator}warm_start": True}
        base = clone(self.estimator).set_params(**warm)
        trained = base.get_params()[step] if step else base
        # Of other estimators it is their user who knows.
        names = getattr(trained, "_goes_on_with", [name])
        if name not in names:
            raise ValueError(
                f"warm_start_param={self.warm_start_param!r} would find other scores "
                f"than GridSearchCV: {type(trained).__name__} goes on from what it was "
                f"trained to with another {name}. It can be {' or '.join(names)}."
            )
        return base

    def _runs(self, candidates: list[dict[str, Any]]) -> list[list[int]]:
        """Return the numbers of the candidates that share a run, in its order."""
        runs: dict[tuple[Any, ...], list[int]] = {}
        for number, candidate in enumerate(candidates):
            if self.warm_start_param not in candidate:
                raise ValueError(
                    f"The grid has candidates without warm_start_param="
                    f"{self.warm_start_param!r}: {candidate}; add its values, set "
                    "`warm_start_param` to the name it has in this grid (inside a "
                    "pipeline 'step__epochs'), or use GridSearchCV."
                )
            epochs = candidate[self.warm_start_param]
            if not isinstance(epochs, Real):
                raise ValueError(
                    f"The grid has {self.warm_start_param}={epochs!r}; it must be a "
                    "number, to go on from the lower ones to the higher."
                )
            # Candidates of one grid share the very values; they need not be hashable.
            shared = sorted(
                (name, id(value))
                for name, value in candidate.items()
                if name != self.warm_start_param
            )
            runs.setdefault(tuple(shared), []).append(number)
        return [
            sorted(run, key=lambda number: candidates[number][self.warm_start_param])
            for run in runs.values()
        ]

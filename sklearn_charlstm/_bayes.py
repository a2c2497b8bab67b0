"""Bayes' rule: from log-likelihoods to decisions."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Collection
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin

from sklearn_charlstm._analysis import refuse_masked

__all__ = ["BayesRuleMixin"]


class BayesRuleMixin(ClassifierMixin):
    """The predictions of a classifier with a likelihood for each class.

    A subclass has `class_prior`, `beam`, `classes_`, `class_count_`,
    `class_log_prior_` and `_evidence`.
    """

    class_prior: ArrayLike | str | None
    beam: float | None
    classes_: NDArray[Any]
    class_count_: NDArray[np.float64]
    class_log_prior_: NDArray[np.float64]

    def _as_it_is(self) -> Self:
        """Return what stays as it is if another thread fits this one meanwhile."""
        # `copy.copy` would take twenty times as long.
        clf = object.__new__(type(self))
        clf.__dict__.update(self.__dict__)
        return clf

    def log_likelihood(self, X: Collection[Any]) -> NDArray[np.float64]:
        """Compute the log-likelihood of every text under the model of each class.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples, n_classes), float64
            Logarithm of p(text | class), in nats.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        log_likelihood, _ = self._as_it_is()._evidence(X)
        return log_likelihood

    def _evidence(
        self, X: Collection[Any], beam: float | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return log-likelihoods, and what a nat of them counts in each text.

        With a beam the log-likelihoods are -inf for classes that are not within it;
        for a class that is alone there it is that of the pass that left it alone.
        """
        raise NotImplementedError

    def _scores(
        self, X: Collection[Any], beam: float | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return log p(class | text) up to a constant, and the evidence weights."""
        log_likelihood, weight = self._evidence(X, beam)
        ratios = log_likelihood - log_likelihood.max(axis=1, keepdims=True)
        return weight[:, None] * ratios + self.class_log_prior_, weight

    def _log_prior(self) -> NDArray[np.float64]:
        """Return the logarithms of the priors that `class_prior` stands for."""
        n_classes = len(self.classes_)
        if self.class_prior is None:
            return np.full(n_classes, -np.log(n_classes))
        if isinstance(self.class_prior, str) and self.class_prior == "empirical":
            # A class without a text so far cannot be predicted.
            with np.errstate(divide="ignore"):
                return np.log(self.class_count_ / self.class_count_.sum())
        index = getattr(self.class_prior, "index", None)
        # Of a Series; a list has a method of that name.
        if index is not None and not callable(index):
            named = [*index]
            if named not in ([*range(n_classes)], self.classes_.tolist()):
                raise ValueError(
                    f"`class_prior` is labelled {named}, and the order of the classes "
                    f"is {self.classes_}; pass its values in that order."
                )
        refuse_masked(self.class_prior, "class_prior")
        try:
            prior = np.asarray(self.class_prior, dtype=float)
        except (TypeError, ValueError):
            prior = np.empty(0)
        if (
            prior.shape != (n_classes,)
            or not (prior > 0).all()
            or not np.isclose(prior.sum(), 1)
        ):
            raise ValueError(
                f"`class_prior` must be an array of {n_classes} positive probabilities "
                f"that sum to 1, in the order of the classes {self.classes_}, got "
                f"{self.class_prior!r}."
            )
        return np.log(prior / prior.sum())

    def predict_joint_log_proba(self, X: Collection[Any]) -> NDArray[np.float64]:
        """Compute the joint log-probability of every text and each class.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        joint : ndarray of shape (n_samples, n_classes), float64
            Logarithm of p(text, class) = p(text | class) p(class), in nats, as the
            language models have it: without the correction of `predict_proba`.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        clf = self._as_it_is()
        log_likelihood, _ = clf._evidence(X)
        return log_likelihood + clf.class_log_prior_

    def score_samples(self, X: Collection[Any]) -> NDArray[np.float64]:
        """Compute the log-likelihood of every text under all classes together.

        It is low for a text that is like no class.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            Logarithm of p(text), in nats.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        return np.logaddexp.reduce(self.predict_joint_log_proba(X), axis=1)

    def predict_log_proba(self, X: Collection[Any]) -> NDArray[np.float64]:
        """Compute the log-probability of each class given the text.

        By Bayes' rule, with log-likelihoods that count as much as they are worth on
        text that was set aside in `fit`.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes), float64
            Logarithm of p(class | text), in nats, in the order of `classes_`.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        scores, _ = self._as_it_is()._scores(X)
        return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)

    def predict_proba(self, X: Collection[Any]) -> NDArray[np.float64]:
        """Compute the probability of each class given the text.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), float64
            Probabilities p(class | text), in the order of `classes_`; each row sums
            to one.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        return np.exp(self.predict_log_proba(X))

    def decision_function(self, X: Collection[Any]) -> NDArray[np.float64]:
        """Compute the log-likelihood ratio, or log-odds, of the classes.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        decision : ndarray, float64
            In nats. Two classes: shape (n_samples,), the log-likelihood ratio
            log p(text | classes_[1]) - log p(text | classes_[0]), positive where
            `predict` gives ``classes_[1]``; with other than equal priors their
            log-ratio is added, divided by what a nat of evidence counts in
            `predict_proba`. More: shape (n_samples, n_classes), the log-odds
            log p(class | text) - log p(any other class | text) of `predict_proba`.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        scores, weight = self._as_it_is()._scores(X)
        if scores.shape[1] == 2:
            return (scores[:, 1] - scores[:, 0]) / weight
        # The log-sum over the other classes is that over all less one term, which
        # cancels badly where the term is most of the sum: there sum the others.
        log_total = np.logaddexp.reduce(scores, axis=1, keepdims=True)
        best = np.argmax(scores, axis=1, keepdims=True)
        others = scores.copy()
        np.put_along_axis(others, best, -np.inf, axis=1)
        log_rest_of_best = np.logaddexp.reduce(others, axis=1, keepdims=True)
        log_rest = log_total + np.log1p(-np.exp(others - log_total))
        # Classes that are equally likely get the same, to the last bit.
        is_best = scores == np.take_along_axis(scores, best, axis=1)
        return scores - np.where(is_best, log_rest_of_best, log_rest)

    def predict(self, X: Collection[Any]) -> NDArray[Any]:
        """Predict the class of every text.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            The most probable class of each text, one of `classes_`; with `beam`, of
            the classes within it.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        clf = self._as_it_is()
        scores, _ = clf._scores(X, clf.beam)
        return clf.classes_[np.argmax(scores, axis=1)]

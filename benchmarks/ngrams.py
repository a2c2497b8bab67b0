"""Character n-gram language models: the honest rivals of an LSTM on little text."""

# SPDX-License-Identifier: BSD-3-Clause

import sys
from collections import Counter, defaultdict
from functools import lru_cache

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

# Of each model. Without a bound hundreds of them fill the memory of a machine.
CACHED = 2**12
UNKNOWN_MASS = 1e-3
N_CODE_POINTS = sys.maxunicode + 1


class WittenBell:
    """Interpolated n-grams with Witten-Bell smoothing.

    p(c | h) = (n(hc) + t(h) p(c | h')) / (n(h) + t(h)), where h' is h without its
    first character and t(h) the number of different characters seen after h
    (Bell, Cleary and Witten, "Text compression", 1990). Nothing is counted from one
    text to the next.
    """

    def __init__(self, texts, alphabet, order):
        self.alphabet, self.order = alphabet, order
        self.counts = defaultdict(Counter)
        for text in texts:
            for n in range(order):
                for i in range(len(text) - n):
                    self.counts[text[i : i + n]][text[i + n]] += 1
        self.totals = {h: sum(after.values()) for h, after in self.counts.items()}
        self.probability = lru_cache(CACHED)(self._probability)

    def _probability(self, c, h):
        shorter = 1 / len(self.alphabet) if not h else self.probability(c, h[1:])
        after = self.counts.get(h)
        if after is None:
            return shorter
        return (after[c] + len(after) * shorter) / (self.totals[h] + len(after))

    def log_likelihood(self, text):
        """Return log p(text) of a fragment, in nats."""
        log_p = 0.0
        for i, c in enumerate(text):
            if c in self.alphabet:
                h = text[max(0, i - self.order + 1) : i]
                log_p += np.log((1 - UNKNOWN_MASS) * self.probability(c, h))
        return log_p


class KneserNey(WittenBell):
    """Interpolated n-grams with modified Kneser-Ney smoothing.

    Where the history is whole, or all there is of a fragment, counts are counts;
    below, they are numbers of different characters before (Chen and Goodman, "An
    empirical study of smoothing techniques for language modeling", 1999).
    """

    def __init__(self, texts, alphabet, order):
        super().__init__(texts, alphabet, order)
        self.continuations = defaultdict(Counter)
        for h, after in self.counts.items():
            if h:
                for c in after:
                    self.continuations[h[1:]][c] += 1
        self.discounts = {
            (kind, n): _discounts(table, n)
            for kind, table in (("n", self.counts), ("c", self.continuations))
            for n in range(order)
        }
        # Of each history, what all counts are and what is taken from them.
        self.sums = {
            kind: {
                h: (
                    sum(after.values()),
                    sum(
                        self.discounts[kind, len(h)][min(n, 3)] for n in after.values()
                    ),
                )
                for h, after in table.items()
            }
            for kind, table in (("n", self.counts), ("c", self.continuations))
        }

    def _probability(self, c, h, kind="n"):
        lower = 1 / len(self.alphabet) if not h else self._cached_continuation(c, h[1:])
        after = (self.counts if kind == "n" else self.continuations).get(h)
        if not after:
            return lower
        total, taken = self.sums[kind][h]
        count = after.get(c, 0)
        kept = max(count - self.discounts[kind, len(h)][min(count, 3)], 0)
        return (kept + taken * lower) / total

    @property
    def _cached_continuation(self):
        if not hasattr(self, "_continuation"):
            self._continuation = lru_cache(CACHED)(
                lambda c, h: self._probability(c, h, "c")
            )
        return self._continuation


def _discounts(table, length):
    """Estimate the discounts of counts 1, 2 and 3 or more."""
    n = Counter(
        count
        for h, after in table.items()
        if len(h) == length
        for count in after.values()
    )
    if not (n[1] and n[2]):
        return (0, 0.5, 0.5, 0.5)
    y = n[1] / (n[1] + 2 * n[2])
    raw = [k - (k + 1) * y * n[k + 1] / n[k] if n[k] else 0.5 for k in (1, 2, 3)]
    return (0, *(min(max(d, 0.05), 0.95 * k) for k, d in enumerate(raw, start=1)))


class NGramLanguageClassifier(ClassifierMixin, BaseEstimator):
    """One n-gram language model per class, equal priors."""

    def __init__(self, smoothing=WittenBell, order=5):
        self.smoothing = smoothing
        self.order = order

    def fit(self, X, y):
        """Count the n-grams of each class, over one alphabet."""
        self.classes_ = np.unique(y)
        alphabet = frozenset("".join(X))
        self.models_ = [
            self.smoothing(
                [text for text, label in zip(X, y, strict=True) if label == k],
                alphabet,
                self.order,
            )
            for k in self.classes_
        ]
        return self

    def predict_log_proba(self, X):
        """Return log p(class | text), of shape (n_samples, n_classes)."""
        joint = np.array(
            [[model.log_likelihood(text) for model in self.models_] for text in X]
        )
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)

    def predict(self, X):
        """Return the most probable class of each text."""
        return self.classes_[self.predict_log_proba(X).argmax(axis=1)]

    def bits_per_character(self, k, text):
        """Return the cross-entropy of a text under the model of one class.

        What no class has seen has a share of the unknown mass.
        """
        alphabet = self.models_[k].alphabet
        n_unknown = sum(c not in alphabet for c in text)
        log_unknown = np.log(UNKNOWN_MASS / (N_CODE_POINTS - len(alphabet)))
        log_p = self.models_[k].log_likelihood(text) + n_unknown * log_unknown
        return -log_p / len(text) / np.log(2)

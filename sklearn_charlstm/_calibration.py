"""What the characters of a text count as evidence, learned from held-out text."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from sklearn_charlstm._analysis import LabelledSequences
from sklearn_charlstm._language_model import CharLSTMLanguageModel
from sklearn_charlstm._vocabulary import Vocabulary

__all__ = [
    "SLOPES",
    "Evidence",
    "EvidenceWeight",
    "Fold",
    "folds",
    "held_out_evidence",
]

# Characters of each class that are enough to learn two numbers from.
ENOUGH_TOKENS = 20_000

# Fragments scored in a fold, all classes together, and the lengths that are read off
# their running sums.
N_FRAGMENTS = 1_000
LENGTHS = 3 * 2 ** np.arange(7)

# What a nat counts at least and at most in a short text.
SLOPES = 0.01, 10.0

_Ints = NDArray[np.intp]


class Evidence(NamedTuple):
    """Log-likelihoods of fragments that the models have not seen.

    Attributes
    ----------
    log_likelihood : ndarray of shape (n_fragments, n_classes)
    class_index : ndarray of shape (n_fragments,), integer
    weights : ndarray of shape (n_fragments,)
    n_known : ndarray of shape (n_fragments,), integer
        Characters of the alphabet in each.
    """

    log_likelihood: NDArray[np.float64]
    class_index: _Ints
    weights: NDArray[np.float64]
    n_known: _Ints

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Join the evidence of several folds."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


@dataclass(frozen=True)
class EvidenceWeight:
    """What a nat of log-likelihood counts in a text of a given length.

    What a language model has learned wrongly is wrong again and again in a text: its
    characters are less evidence than the sum of their log-likelihoods. Called with
    numbers of characters n, it returns slope / (1 + n / half_length).

    Attributes
    ----------
    slope : float
        What the first characters count.
    half_length : float
        Length in characters at which each counts half of that.
    """

    slope: float = 1.0
    half_length: float = np.inf

    def __call__(self, n_characters: ArrayLike) -> NDArray[np.float64]:
        return self.slope / (1 + np.asarray(n_characters) / self.half_length)

    def cross_entropy(self, evidence: Evidence) -> float:
        """Compute the cross-entropy of the classes in nats, with equal priors."""
        log_likelihood, class_index, weights, n_known = evidence
        weights = weights / np.bincount(class_index, weights=weights)[class_index]
        scores = self(n_known)[:, None] * log_likelihood
        of_class = scores[np.arange(len(scores)), class_index]
        losses = logsumexp(scores, axis=1) - of_class
        return float(np.average(losses, weights=weights))

    @classmethod
    def fitted(cls, evidence: Evidence) -> Self:
        """Choose the two numbers that minimise the cross-entropy of the classes."""
        result = minimize(
            lambda logarithms: cls(*np.exp(logarithms)).cross_entropy(evidence),
            np.log([0.5, 100]),
            method="L-BFGS-B",
            bounds=np.log([SLOPES, (1, 1e6)]),
        )
        return cls(*np.exp(result.x).tolist())


class Fold(NamedTuple):
    """A part of all texts that is set aside, not yet cut out of them.

    Attributes
    ----------
    texts : LabelledSequences
        All there are.
    first, last : ndarrays of shape (n_texts,), integer
        Of each text ``sequence[first:last]``, which may be empty.
    """

    texts: LabelledSequences
    first: _Ints
    last: _Ints

    def split(self) -> tuple[LabelledSequences, LabelledSequences]:
        """Return what is left to train with, and what is set aside."""
        sequences, *_ = self.texts
        training, held_out = [], []
        for row, (sequence, a, b) in enumerate(
            zip(sequences, self.first.tolist(), self.last.tolist(), strict=True)
        ):
            held_out.append((sequence[a:b], row))
            training += [(sequence[:a], row), (sequence[b:], row)]
        return self._joined(training), self._joined(held_out)

    def _joined(
        self, pieces: list[tuple[Sequence[Hashable], int]]
    ) -> LabelledSequences:
        _, class_index, weights = self.texts
        pieces = [(piece, row) for piece, row in pieces if len(piece)]
        rows = np.array([row for _, row in pieces], dtype=int)
        return LabelledSequences(
            [piece for piece, _ in pieces], class_index[rows], weights[rows]
        )


def folds(
    texts: LabelledSequences, n_folds: int, rng: np.random.Generator, *, whole: bool
) -> Iterator[Fold]:
    """Set aside one part after another of the text of every class.

    The parts are contiguous: what is near in a running text is alike. Whole texts are
    dealt out, as lists are often sorted, and equal ones together: a name that several
    classes share must not be new to the models of some only. There are as many parts
    as hold enough characters, at most `n_folds`; one that leaves a class without text
    is left out.

    Parameters
    ----------
    texts : LabelledSequences
        All there are.
    n_folds : int
        Into how many parts the text is divided.
    rng : Generator
    whole : bool
        Whether texts may not be cut.

    Yields
    ------
    fold : Fold
    """
    sequences, class_index, _ = texts
    lengths = np.array([len(sequence) for sequence in sequences])
    totals = texts.n_tokens_of_classes()
    end = np.empty_like(lengths)
    for k in range(len(totals)):
        of_class = class_index == k
        end[of_class] = np.cumsum(lengths[of_class])
    start = end - lengths
    if whole:
        keys = [s if isinstance(s, str) else tuple(s) for s in sequences]
        distinct = dict.fromkeys(keys)
        dealt = rng.permutation(len(distinct)) * n_folds // len(distinct)
        part_of = dict(zip(distinct, dealt, strict=True))
        part_of_text = np.array([part_of[key] for key in keys])
    n_needed = min(n_folds, -(-ENOUGH_TOKENS * n_folds // totals.min()))
    for number in range(n_folds):
        if not n_needed:
            return
        if whole:
            first = np.zeros_like(lengths)
            last = np.where(part_of_text == number, lengths, 0)
        else:
            borders = np.array([totals * n // n_folds for n in (number, number + 1)])
            first, last = np.clip(borders[:, class_index] - start, 0, lengths)
        n_held_out = np.bincount(class_index, weights=last - first)
        if ((n_held_out > 0) & (n_held_out < totals)).all():
            n_needed -= 1
            yield Fold(texts, first, last)


def held_out_evidence(
    models: list[CharLSTMLanguageModel],
    vocabulary: Vocabulary,
    held_out: LabelledSequences,
    rng: np.random.Generator,
) -> Evidence:
    """Score fragments of several lengths, or whole texts where boundaries count.

    Parameters
    ----------
    models : list of n_classes CharLSTMLanguageModel
    vocabulary : Vocabulary
        Their common alphabet.
    held_out : LabelledSequences
        Texts that the models have not seen.
    rng : Generator
        Draws the fragments: of each class the same number.

    Returns
    -------
    evidence : Evidence
    """
    n_of_class = -(-N_FRAGMENTS // len(models))
    fragments, rows = [], []
    for k in range(len(models)):
        rows_of_class = np.flatnonzero(held_out.class_index == k)
        if vocabulary.boundaries:
            drawn = rng.permutation(rows_of_class)[:n_of_class]
            fragments += [held_out.sequences[row] for row in drawn]
        else:
            lengths = np.array([len(held_out.sequences[row]) for row in rows_of_class])
            # Every place of the text of the class is as likely to begin one.
            places = rng.integers(lengths.sum(), size=n_of_class)
            texts = np.searchsorted(np.cumsum(lengths), places, side="right")
            begins = places - (np.cumsum(lengths) - lengths)[texts]
            drawn = rows_of_class[texts]
            fragments += [
                held_out.sequences[row][begin : begin + LENGTHS[-1]]
                for row, begin in zip(drawn, begins, strict=True)
            ]
        rows += drawn.tolist()
    encoded = vocabulary.encode(fragments)
    n_known = np.append(0, np.cumsum(encoded.ids != vocabulary.unknown))
    starts, ends = encoded.starts, encoded.ends
    if vocabulary.boundaries:
        fragment, end = np.arange(len(ends)), ends
    else:
        fragment, step = np.nonzero(encoded.lengths[:, None] >= LENGTHS)
        end = starts[fragment] + LENGTHS[step]
        is_short = np.flatnonzero(~np.isin(encoded.lengths, LENGTHS))
        fragment, end = np.append(fragment, is_short), np.append(end, ends[is_short])
    start = starts[fragment]
    row = np.array(rows)[fragment]
    log_likelihood = np.empty((len(start), len(models)))
    for k, model in enumerate(models):
        of_tokens = model._token_log_likelihood(model.vocabulary_.encode(fragments))
        # Running sums over all fragments, from which those of each begin.
        totals = np.append(0, np.cumsum(of_tokens))
        log_likelihood[:, k] = totals[end] - totals[start]
    return Evidence(
        log_likelihood,
        held_out.class_index[row],
        held_out.weights[row],
        n_known[end] - n_known[start],
    )

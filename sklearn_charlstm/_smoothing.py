"""What may follow in the training texts, and how likely: Kneser-Ney smoothing."""

# SPDX-License-Identifier: BSD-3-Clause

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["ORDER", "KneserNey"]

# The length of the longest n-grams that are counted.
ORDER = 5

_Ints = NDArray[np.int64]
_Floats = NDArray[np.floating]


class _Table(NamedTuple):
    """How often tokens follow histories, and the sums of the weights of the texts."""

    counts: csr_array
    sums: csr_array

    @classmethod
    def of(
        cls, rows: _Ints, ids: _Ints, weights: _Floats, shape: tuple[int, int]
    ) -> "_Table":
        """Count the pairs of a history and a token."""
        table = cls(
            csr_array((np.ones(len(ids)), (rows, ids)), shape=shape),
            csr_array((weights, (rows, ids)), shape=shape),
        )
        for pairs in table:
            # Older versions of SciPy keep each pair as often as it occurs.
            pairs.sum_duplicates()
        return table

    def continuations(self, shorter: _Ints, n_shorter: int) -> "_Table":
        """Count the tokens before the histories without their first token instead."""
        rows, ids = self.counts.tocoo().coords
        return self.of(
            shorter[rows],
            ids,
            self.sums.data / self.counts.data,
            (n_shorter, self.counts.shape[1]),
        )

    def discounted(self) -> tuple[csr_array, _Floats]:
        """Return what is kept of each probability and, of each history, what is not."""
        totals = np.repeat(self.sums.sum(axis=1), np.diff(self.sums.indptr))
        kept = self.sums.copy()
        kept.data *= (1 - _discounts(self.counts.data) / self.counts.data) / totals
        return kept, 1 - kept.sum(axis=1)


def _discounts(counts: _Floats) -> _Floats:
    """Estimate the discount of every count from how many counts are 1, 2, 3 and 4."""
    n = np.bincount(np.minimum(counts, 5).astype(int), minlength=6).astype(float)
    by_count = np.full(4, 0.5)
    if n[1] and n[2]:
        y = n[1] / (n[1] + 2 * n[2])
        for k in range(1, 4):
            if n[k]:
                by_count[k] = np.clip(k - (k + 1) * y * n[k + 1] / n[k], 0.05, 0.95 * k)
    return by_count[np.minimum(counts, 3).astype(int)]


class KneserNey:
    """Smoothed distributions of the tokens of texts, given the tokens before them.

    A text shows one token after a history. Which others might have been there, and how
    likely, is told by what follows shorter histories: interpolated n-grams with
    modified Kneser-Ney smoothing [1]_. Where texts have weights an n-gram counts the
    sum of them, and its discount goes by how often it occurs.

    Parameters
    ----------
    encoded : EncodedTexts
        With at least one token of the alphabet.
    weights : ndarray of shape (n_texts,)
    vocabulary : Vocabulary

    References
    ----------
    .. [1] S. Chen and J. Goodman, "An empirical study of smoothing techniques for
       language modeling", Computer Speech and Language 13(4), 1999.
    """

    def __init__(
        self, encoded: EncodedTexts, weights: _Floats, vocabulary: Vocabulary
    ) -> None:
        ids = encoded.ids.astype(np.int64)
        weights = np.repeat(weights, encoded.lengths)
        histories, shorter = _histories(encoded, vocabulary)
        tables = []
        for history in histories:
            used = (history >= 0) & (ids != vocabulary.unknown)
            shape = (history.max() + 1, vocabulary.n_outputs)
            tables.append(_Table.of(history[used], ids[used], weights[used], shape))
        # A node is a history: the probabilities that its discounted counts give, and
        # the node of the history without its first token, which shares out the rest.
        # Node 0 stands for what is before all counts, where every token is as likely
        # not in its row, which would be the only dense one.
        kept = [csr_array((1, vocabulary.n_outputs))]
        rest: list[_Floats] = [np.ones(1)]
        shorter_nodes = [np.zeros(1, dtype=np.int64)]
        n_nodes = 1
        below = np.zeros(1, dtype=np.int64)
        self._nodes = np.empty((ORDER, len(ids)), dtype=np.int64)
        for length, table in enumerate(tables):
            n_histories = table.counts.shape[0]
            # A history is used as it is, with the counts of its tokens, or for what
            # longer ones leave, with the counts of different tokens before it.
            self._nodes[length] = n_nodes + histories[length]
            used_as = [table]
            if length + 1 < ORDER:
                longer = tables[length + 1]
                used_as.append(longer.continuations(shorter[length + 1], n_histories))
            for used in used_as:
                kept_here, rest_here = used.discounted()
                kept.append(kept_here)
                rest.append(rest_here)
                shorter_nodes.append(below[shorter[length]])
            n_nodes += n_histories * len(used_as)
            below = n_nodes - n_histories + np.arange(n_histories)
        self._kept = vstack(kept, format="csr", dtype=np.float32)
        self._rest = np.concatenate(rest).astype(np.float32)
        self._shorter = np.concatenate(shorter_nodes)
        sizes = vocabulary.output_sizes
        self._base = (sizes / sizes.sum()).astype(np.float32)

    def distributions(
        self, places: NDArray[np.integer], n_before: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Return the smoothed distributions at places of the texts.

        Parameters
        ----------
        places : ndarray of integer
            Which tokens: positions in ``encoded.ids``.
        n_before : ndarray of the same shape, integer
            How many tokens of their history count, <bos> among them; at most as many
            as there are.

        Returns
        -------
        probabilities : ndarray of the same shape and n_outputs, float32
        """
        node = self._nodes[np.minimum(n_before, ORDER - 1), places].ravel()
        shares = np.empty((len(node), ORDER), dtype=np.float32)
        nodes = np.empty((len(node), ORDER), dtype=np.int64)
        share = np.ones(len(node), dtype=np.float32)
        for step in range(ORDER):
            nodes[:, step] = node
            shares[:, step] = share
            share = share * self._rest[node]
            node = self._shorter[node]
        begins = np.arange(0, nodes.size + 1, ORDER)
        n_nodes, n_outputs = self._kept.shape
        mixture = csr_array(
            (shares.ravel(), nodes.ravel(), begins), shape=(len(nodes), n_nodes)
        )
        probabilities = (mixture @ self._kept).toarray() + share[:, None] * self._base
        return probabilities.reshape(*places.shape, n_outputs)


def _histories(
    encoded: EncodedTexts, vocabulary: Vocabulary
) -> tuple[list[_Ints], list[_Ints]]:
    """Give numbers to the histories of every length.

    Returns
    -------
    histories : list of ORDER ndarrays of shape (n_tokens,)
        The history of that length of every token; -1 where fewer tokens are before it.
    shorter : list of ORDER ndarrays of shape (n_histories,)
        What each history is without its first token.
    """
    ids = encoded.ids.astype(np.int64)
    n_tokens = len(ids)
    starts = np.cumsum(encoded.lengths) - encoded.lengths
    place = np.arange(n_tokens) - np.repeat(starts, encoded.lengths)
    histories = [np.zeros(n_tokens, dtype=np.int64)]
    shorter = [np.zeros(1, dtype=np.int64)]
    for length in range(1, ORDER):
        there = np.flatnonzero(place + vocabulary.boundaries >= length)
        first = np.where(place[there] >= length, ids[there - length], vocabulary.bos)
        suffix = histories[-1][there]
        _, index, inverse = np.unique(
            suffix * vocabulary.n_inputs + first,
            return_index=True,
            return_inverse=True,
        )
        history = np.full(n_tokens, -1)
        history[there] = inverse
        histories.append(history)
        shorter.append(suffix[index])
    return histories, shorter

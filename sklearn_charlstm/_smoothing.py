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

# Probabilities that are computed once, four megabytes for each class: after all
# histories in ten thousand characters of most languages, after the short ones in more.
MAX_TABLE = 2**20

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
        """Return the discounted probabilities, and the back-off weights."""
        totals = np.repeat(self.sums.sum(axis=1), np.diff(self.sums.indptr))
        discounted = self.sums.copy()
        discounted.data *= (
            1 - _discounts(self.counts.data) / self.counts.data
        ) / totals
        return discounted, 1 - discounted.sum(axis=1)


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

    Attributes
    ----------
    table : ndarray of shape (n_short, n_outputs), float32
        The distributions after the first nodes, which are the shortest histories.
    discounted : csr_array of shape (n_nodes, n_outputs), float32
        For the others what the discounts leave of the probability of each token. To it
        comes `backoff_weight` times its probability at the node `backoff`. There is
        none at the nodes of the table: `backoff_weight` is one there, and each is its
        own `backoff`.
    backoff_weight : ndarray of shape (n_nodes,), float32
    backoff : ndarray of shape (n_nodes,), int64

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
        # Node 0 stands for what is before all counts, where every token is as likely.
        sizes = vocabulary.output_sizes
        base = (sizes / sizes.sum()).astype(np.float32)
        discounted = [csr_array((1, vocabulary.n_outputs))]
        backoff_weight: list[_Floats] = [np.ones(1)]
        backoff = [np.zeros(1, dtype=np.int64)]
        # Where the nodes of the histories of each length end.
        ends = [1]
        below = np.zeros(1, dtype=np.int64)
        self._nodes = np.empty((ORDER, len(ids)), dtype=np.int64)
        for length, table in enumerate(tables):
            n_histories = table.counts.shape[0]
            # A history is used as it is, with the counts of its tokens, or for what
            # longer ones leave, with the counts of different tokens before it.
            self._nodes[length] = ends[-1] + histories[length]
            used_as = [table]
            if length + 1 < ORDER:
                longer = tables[length + 1]
                used_as.append(longer.continuations(shorter[length + 1], n_histories))
            for used in used_as:
                probabilities, weights_of_nodes = used.discounted()
                discounted.append(probabilities)
                backoff_weight.append(weights_of_nodes)
                backoff.append(below[shorter[length]])
            ends.append(ends[-1] + n_histories * len(used_as))
            below = ends[-1] - n_histories + np.arange(n_histories)
        self.discounted = vstack(discounted, format="csr", dtype=np.float32)
        self.backoff_weight = np.concatenate(backoff_weight).astype(np.float32)
        self.backoff = np.concatenate(backoff)
        # The distributions after short histories are looked up, and the way to them
        # ends there.
        fits = [end * vocabulary.n_outputs <= MAX_TABLE for end in ends]
        n_in_table = ends[max(fits.count(True) - 1, 0)]
        self._n_levels = fits.count(False)
        self.table = self._distributions(n_in_table, base)
        none = csr_array((n_in_table, vocabulary.n_outputs), dtype=np.float32)
        self.discounted = vstack([none, self.discounted[n_in_table:]], format="csr")
        self._n_discounted = np.diff(self.discounted.indptr)
        self.backoff_weight[:n_in_table] = 1
        self.backoff[:n_in_table] = np.arange(n_in_table)

    def _distributions(self, n_nodes: int, base: NDArray[np.float32]) -> _Floats:
        """Compute those after the first nodes."""
        node = np.arange(n_nodes)
        shares = np.empty((n_nodes, ORDER), dtype=np.float32)
        nodes = np.empty((n_nodes, ORDER), dtype=np.int64)
        share = np.ones(n_nodes, dtype=np.float32)
        for step in range(ORDER):
            nodes[:, step] = node
            shares[:, step] = share
            share = share * self.backoff_weight[node]
            node = self.backoff[node]
        mixture = csr_array(
            (shares.ravel(), nodes.ravel(), np.arange(0, nodes.size + 1, ORDER)),
            shape=(n_nodes, self.discounted.shape[0]),
        )
        return (mixture @ self.discounted).toarray() + share[:, None] * base

    def nodes(
        self, places: NDArray[np.integer], n_before: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Return the histories of tokens of the texts.

        Parameters
        ----------
        places : ndarray of integer
            Which tokens: positions in ``encoded.ids``.
        n_before : ndarray of the same shape, integer
            How many tokens of their history count, <bos> among them; at most as many
            as there are.

        Returns
        -------
        nodes : ndarray of the same shape, int64
        """
        return self._nodes[np.minimum(n_before, ORDER - 1), places]

    def n_discounted(self, nodes: NDArray[np.integer]) -> list[int]:
        """Count the discounted probabilities at nodes, and after each step back.

        As many steps as lead from the longest histories to the table.
        """
        numbers = []
        for _ in range(self._n_levels):
            numbers.append(int(self._n_discounted[nodes].sum()))
            nodes = self.backoff[nodes]
        return numbers


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
    place = np.arange(n_tokens) - np.repeat(encoded.starts, encoded.lengths)
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

"""Distinct texts and distinct numbers, and which of them each one is."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sklearn_charlstm._vocabulary import EncodedTexts

__all__ = ["distinct_numbers", "distinct_texts", "values_in"]

# Texts of one length, of so few tokens, are compared token by token, all at once, where
# there are so many times as many as tokens in each; else one after the other, which
# takes less to start and less for a token.
FEW_TOKENS = 64
MANY_TEXTS = 16

# Values looked up at a time: as indices they take eight bytes, as ids one or two.
BLOCK = 2**14

_LARGEST = np.iinfo(np.int64).max

# Where so many times as many numbers are possible as there are, a table of them is
# faster than to sort.
FEW_POSSIBLE = 16

_Ints = NDArray[np.int64]


def distinct_texts(encoded: EncodedTexts) -> tuple[_Ints, _Ints]:
    """Return a row of every distinct text, and the number among them of each row.

    They are in an order of their own, the longest first and those with the same
    beginning together: batches, and with them roundings, are the same in every order
    of the rows.
    """
    lengths = encoded.lengths
    if len(lengths) < MANY_TEXTS:
        return _distinct_keys(encoded.bytes_of(slice(None)))
    longest_first = np.argsort(-lengths, kind="stable")
    borders = np.flatnonzero(np.diff(lengths[longest_first])) + 1
    begins = np.append(0, borders)
    sizes = np.diff(begins, append=len(lengths))
    of_runs = lengths[longest_first[begins]]
    are_many = (sizes >= MANY_TEXTS * of_runs) & (of_runs <= FEW_TOKENS)
    few = longest_first[np.repeat(~are_many, sizes)]
    parts = [(few, *_distinct_keys(encoded.bytes_of(few)))]
    starts = encoded.starts
    runs = (of_run[are_many] for of_run in (begins, sizes, of_runs))
    for begin, size, length in zip(*runs, strict=True):
        many = longest_first[begin : begin + size]
        parts.append((many, *_distinct_rows(encoded.rows_at(starts[many], length))))
    rows = np.concatenate([of_part[one] for of_part, one, _ in parts])
    order = np.argsort(-lengths[rows], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    number = np.empty(len(lengths), dtype=np.int64)
    n_before = 0
    for of_part, one, which in parts:
        number[of_part] = rank[n_before + which]
        n_before += len(one)
    return rows[order], number


def _distinct_keys(keys: Sequence[bytes]) -> tuple[_Ints, _Ints]:
    """Return one place of each distinct key, the longest first, and which it is."""
    place = dict(zip(keys, range(len(keys)), strict=True))
    # First by the bytes: pairs of length and bytes would be compared much more slowly.
    ordered = sorted(sorted(place), key=len, reverse=True)
    number = dict(zip(ordered, range(len(ordered)), strict=True))
    one = np.fromiter(map(place.__getitem__, ordered), np.int64, len(ordered))
    return one, np.fromiter(map(number.__getitem__, keys), np.int64, len(keys))


def _distinct_rows(ids: NDArray[np.integer]) -> tuple[_Ints, _Ints]:
    """Return one place of each distinct row, in their order, and which it is.

    Beginnings of rows have numbers, and those that are a token longer have others until
    no integer holds more of them: then the ones that are there are counted.
    """
    n_ids = int(ids.max(initial=0)) + 1
    one, which = np.zeros(1, dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
    n_possible = 1
    for n_left, column in zip(reversed(range(ids.shape[1])), ids.T, strict=True):
        which *= n_ids
        which += column
        n_possible *= n_ids
        if not n_left or n_possible * n_ids > _LARGEST:
            one, which = distinct_numbers(which, n_possible)
            n_possible = len(one)
            if n_possible == len(ids):
                break
    return one, which


def distinct_numbers(numbers: _Ints, n_possible: int) -> tuple[_Ints, _Ints]:
    """Return one place of each distinct number, the smallest first, and which it is.

    As `np.unique` does, but it sorts only where that is the best that can be done.

    Parameters
    ----------
    numbers : ndarray of shape (n,), integer
        At least one, from 0 to `n_possible` - 1.
    n_possible : int
    """
    # Texts of one length are in order.
    steps = np.diff(numbers)
    if not np.any(steps < 0):
        is_first = np.append(True, steps > 0)
        return np.flatnonzero(is_first), np.cumsum(is_first) - 1
    if n_possible <= FEW_POSSIBLE * len(numbers):
        one = np.full(n_possible, -1)
        one[numbers] = np.arange(len(numbers))
        is_there = one >= 0
        return one[is_there], (np.cumsum(is_there) - 1)[numbers]
    # `np.unique` would find the first place of each, which takes longer.
    order = np.argsort(numbers)
    is_first = np.append(True, np.diff(numbers[order]) > 0)
    which = np.empty_like(order)
    which[order] = np.cumsum(is_first) - 1
    return order[is_first], which


def values_in(numbers: NDArray[np.integer], n_possible: int) -> tuple[_Ints, _Ints]:
    """Return the distinct numbers in ascending order, and where each possible one is.

    Parameters
    ----------
    numbers : ndarray of any shape, integer
        From 0 to `n_possible` - 1.
    n_possible : int

    Returns
    -------
    values : ndarray of shape (n_values,)
    place : ndarray of shape (n_possible,)
        Of each number that is there, its place in `values`.
    """
    is_there = np.zeros(n_possible, dtype=bool)
    flat = numbers.ravel()
    for begin in range(0, len(flat), BLOCK):
        is_there[flat[begin : begin + BLOCK]] = True
    return np.flatnonzero(is_there), np.cumsum(is_there) - 1

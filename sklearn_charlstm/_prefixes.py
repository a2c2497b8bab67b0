"""The prefixes of texts, each once while many texts begin alike."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_charlstm._distinct import distinct_numbers

__all__ = ["Level", "PrefixTree", "TextsInOrder"]

# One text of so many that shares its history is not worth looking for.
FEW_SHARE = 64

# So few texts, with so many steps to come, are each read by itself, whatever they have
# in common: torch's LSTM is so much faster.
FEW_ALIKE = 4
MANY_STEPS = 256

_Ints = NDArray[np.int64]


class Level(NamedTuple):
    """The distinct prefixes of one length, and what predicts their last tokens.

    A *history* is a distinct prefix that is one token shorter and goes on. Where texts
    are apart each has its own.

    Attributes
    ----------
    source : ndarray of shape (n_histories,)
        Of each history, the row of its own history in the level before.
    inputs : ndarray of shape (n_histories,)
        The last token of each history.
    history : ndarray of shape (n_prefixes,)
        Which history each prefix has.
    targets : ndarray of shape (n_prefixes,)
        The last token of each prefix.
    prefix : ndarray of shape (n_texts,)
        Which prefix each text has, of those that are long enough: the first ones.
    """

    source: _Ints
    inputs: _Ints
    history: _Ints
    targets: _Ints
    prefix: _Ints


class TextsInOrder(NamedTuple):
    """Texts that are read side by side, the longest first.

    Attributes
    ----------
    token_at : callable
        From places to the tokens that are there, less than `first_input`.
    starts, lengths : ndarrays of shape (n_texts,), integer
        Where each text begins and how many tokens it has.
    first_input : int
        What is read before the first token.
    """

    token_at: Callable[[_Ints], _Ints]
    starts: _Ints
    lengths: _Ints
    first_input: int


class PrefixTree:
    """The beginnings of texts, a token longer at a time.

    What a language model computes of a text it computes of its prefixes. Short texts
    share many: strings of 5 letters have far fewer different beginnings than letters.

    Parameters
    ----------
    texts : TextsInOrder
    are_compared : bool
        Whether to look for histories in common.

    Attributes
    ----------
    are_apart : bool
        Whether hardly two texts, of those that are long enough, have a history in
        common, or there are few that go on for long, or nobody looks: each text has
        its own.
    """

    def __init__(self, texts: TextsInOrder, *, are_compared: bool) -> None:
        self._texts = texts
        self._are_compared = are_compared
        self._n_ids = texts.first_input + 1
        self._length = 0
        # Of every text its prefix; of every prefix its last token and its history.
        self._prefix = np.zeros(len(texts.starts), dtype=np.int64)
        self._last = np.array([texts.first_input])
        self._history = np.zeros(1, dtype=np.int64)
        self.are_apart = len(texts.starts) == 1

    def next_level(self) -> Level:
        """Read one more token of the texts that have one, until all are apart."""
        token_at, starts, lengths, _ = self._texts
        n_texts = int(np.count_nonzero(lengths > self._length))
        # What is left of the longest but one: two have no more in common.
        n_shared = lengths[:2][-1] - self._length
        tokens = token_at(starts[:n_texts] + self._length)
        self._length += 1
        prefixes = self._prefix[:n_texts]
        if n_texts == len(self._prefix):
            # No text has ended: all prefixes go on.
            used, history = np.arange(len(self._last)), prefixes
        else:
            one, history = distinct_numbers(prefixes, len(self._last))
            used = prefixes[one]
        self.are_apart = (
            not self._are_compared
            or len(used) >= n_texts - n_texts // FEW_SHARE
            or (n_texts <= FEW_ALIKE and n_shared >= MANY_STEPS)
        )
        if self.are_apart:
            # From here on text i is history i is prefix i.
            each = np.arange(n_texts)
            level = Level(
                self._history[prefixes], self._last[prefixes], each, tokens, each
            )
        else:
            codes = history * self._n_ids + tokens
            one, prefix = distinct_numbers(codes, len(used) * self._n_ids)
            level = Level(
                self._history[used],
                self._last[used],
                history[one],
                tokens[one],
                prefix,
            )
        self._prefix, self._last = level.prefix, level.targets
        self._history = level.history
        return level

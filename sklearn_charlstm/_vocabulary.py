"""The alphabet: tokens to integer ids, the special symbols, the unknown mass."""

# SPDX-License-Identifier: BSD-3-Clause

import sys
from itertools import chain
from typing import NamedTuple

import numpy as np

__all__ = ["EncodedTexts", "Vocabulary"]

# The probability that the next token is one never seen in `fit`. The same in every
# class, so that an unknown token is no evidence for any of them.
UNKNOWN_MASS = 1e-3

_N_CODE_POINTS = sys.maxunicode + 1
_N_BYTES = 256


class EncodedTexts(NamedTuple):
    """Texts as ids, one after the other.

    Attributes
    ----------
    ids : ndarray of shape (n_tokens,), unsigned integer
    lengths : ndarray of shape (n_texts,), int64
    """

    ids: np.ndarray
    lengths: np.ndarray


class Vocabulary(dict):
    """The alphabet of a language model, a dict from token to id.

    The tokens have the ids 0 to ``len(vocabulary) - 1`` in the order in which they
    first occur in the training texts; `bos`, `eos`, `unknown` and `cut` follow. A
    token that is not in the alphabet gets the id `unknown`.

    The model predicts the tokens (and `eos`, where boundaries count); all unknown
    tokens together have the fixed probability `UNKNOWN_MASS`, shared equally, and
    the predicted ones share the rest. So the distribution over all possible tokens
    sums to one.

    Parameters
    ----------
    sequences : iterable of sequences of hashable tokens
        The training texts, analyzed.
    analyzer : {'char', 'byte', 'word'} or callable
        What the tokens are; it tells how many unknown ones there can be: the code
        points or bytes not in the alphabet, or, for words and other tokens, the
        unknown token as one event.
    """

    def __init__(self, sequences, analyzer):
        tokens = dict.fromkeys(chain.from_iterable(sequences))
        super().__init__((token, id_) for id_, token in enumerate(tokens))
        n_tokens = len(tokens)
        # One id for both: as input it begins a text, as target it ends one.
        self.bos = self.eos = n_tokens
        self.unknown = n_tokens + 1
        self.cut = n_tokens + 2
        self.n_inputs = n_tokens + 3
        if analyzer == "char":
            n_unknown = _N_CODE_POINTS - n_tokens
        elif analyzer == "byte":
            n_unknown = _N_BYTES - n_tokens
        else:
            n_unknown = 1
        if n_unknown:
            self.log_known = np.log1p(-UNKNOWN_MASS)
            self.log_unknown = np.log(UNKNOWN_MASS / n_unknown)
        else:
            self.log_known, self.log_unknown = 0.0, -np.inf

    def __missing__(self, token):
        return self.unknown

    def __repr__(self):
        return f"{type(self).__name__}({len(self)} tokens)"

    def encode(self, sequences):
        """Turn analyzed texts into ids.

        Parameters
        ----------
        sequences : list of sequences of hashable tokens

        Returns
        -------
        encoded : EncodedTexts
            `ids` in the smallest unsigned dtype that holds every id.
        """
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        ids = np.fromiter(
            map(self.__getitem__, chain.from_iterable(sequences)),
            dtype=np.min_scalar_type(self.n_inputs),
            count=lengths.sum(),
        )
        return EncodedTexts(ids, lengths)

"""The alphabet: tokens to integer ids, the special symbols, the unknown mass."""

# SPDX-License-Identifier: BSD-3-Clause

import sys
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sklearn_charlstm._analysis import Analyzer

__all__ = ["EncodedTexts", "Vocabulary"]

# The probability that the next token is one never seen in `fit`. The same in every
# class, so that an unknown token is no evidence for any of them.
UNKNOWN_MASS = 1e-3

# How many tokens there can be. Of words and other tokens nobody knows: there the
# unknown token is one event.
_N_CODE_POINTS = sys.maxunicode + 1
_N_BYTES = 256

# In nats: a probability that is a float32, which those of all alphabets are by far.
_LOG_SMALLEST = float(np.log(np.finfo(np.float32).tiny))

# Characters that are looked up together.
BLOCK = 2**16


# Texts are cut out together where so many of one length follow each other on average.
MANY_OF_ONE_LENGTH = 16


class EncodedTexts(NamedTuple):
    """Texts as ids, one after the other.

    Attributes
    ----------
    ids : ndarray of shape (n_tokens,), unsigned integer
        Or what else there is of each token, such as its log-likelihood.
    lengths : ndarray of shape (n_texts,), int64
    """

    ids: NDArray[Any]
    lengths: NDArray[np.int64]

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each text ends in `ids`, and the next one starts."""
        return np.cumsum(self.lengths)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each text starts in `ids`."""
        return self.ends - self.lengths

    def take(self, rows: NDArray[np.integer]) -> Self:
        """Select texts.

        Parameters
        ----------
        rows : ndarray of shape (n_rows,), integer

        Returns
        -------
        texts : EncodedTexts
        """
        lengths = self.lengths[rows]
        borders = np.flatnonzero(lengths[1:] != lengths[:-1]) + 1
        # Positions of all tokens would take many times the memory of the tokens.
        if len(rows) >= MANY_OF_ONE_LENGTH * (1 + len(borders)):
            starts = self.starts[rows]
            runs = zip(np.split(starts, borders), lengths[[0, *borders]], strict=True)
            ids = np.concatenate([self.rows_at(*run).ravel() for run in runs])
        else:
            # Of a bytearray: an array of bytes could not be written to.
            data = bytearray().join(self.bytes_of(rows))
            ids = np.frombuffer(data, dtype=self.ids.dtype)
        return self._replace(ids=ids, lengths=lengths)

    def rows_at(self, starts: NDArray[np.int64], length: int) -> NDArray[Any]:
        """Return the ids of texts of one length as rows.

        Parameters
        ----------
        starts : ndarray of shape (n_rows,)
        length : int

        Returns
        -------
        ids : ndarray of shape (n_rows, length)
        """
        if not length:
            return np.empty((len(starts), 0), dtype=self.ids.dtype)
        return sliding_window_view(self.ids, length)[starts]

    def bytes_of(self, rows: NDArray[np.integer] | slice) -> list[bytes]:
        """Return the ids of texts as bytes, which are cut faster than arrays.

        Parameters
        ----------
        rows : ndarray of shape (n_rows,), integer, or slice

        Returns
        -------
        data : list of n_rows bytes
        """
        data = self.ids.tobytes()
        ends = self.ends[rows] * self.ids.itemsize
        starts = ends - self.lengths[rows] * self.ids.itemsize
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        return [data[start:end] for start, end in spans]

    def where(self, is_taken: NDArray[np.bool_]) -> Self:
        """Select texts in the order in which they are, which is faster.

        Parameters
        ----------
        is_taken : ndarray of shape (n_texts,), bool

        Returns
        -------
        texts : EncodedTexts
        """
        return self._replace(
            ids=self.ids[np.repeat(is_taken, self.lengths)],
            lengths=self.lengths[is_taken],
        )

    def count_of(self, token: int) -> NDArray[np.int64]:
        """Count how often an id is in every text.

        Parameters
        ----------
        token : int

        Returns
        -------
        counts : ndarray of shape (n_texts,)
        """
        places = np.flatnonzero(self.ids == token)
        text = np.searchsorted(self.ends, places, side="right")
        return np.bincount(text, minlength=len(self.lengths))


class Vocabulary(dict[Hashable, int]):
    """The alphabet of a language model, a dict from token to id.

    The tokens have the ids 0 to ``len(vocabulary) - 1`` in the order in which they
    first occur in the training texts; `bos`, `eos`, `unknown` and `cut` follow. A
    token that is not in the alphabet gets the id `unknown`.

    The model predicts the tokens (and `eos`, where boundaries count); all unknown
    tokens together have a fixed probability, shared equally, and the predicted ones
    share the rest. So the distribution over all possible tokens sums to one.

    The models of several classes have a common alphabet, and each tells apart only the
    tokens of its class. The others have one id, `foreign`, and share its probability
    equally: a network does not grow with the number of classes.

    Parameters
    ----------
    sequences : iterable of sequences of hashable tokens
        The training texts, analyzed.
    analyzer : {'char', 'byte', 'word'} or callable
        What the tokens are; it tells how many unknown ones there can be: the code
        points or bytes not in the alphabet, or, for words and other tokens, the
        unknown token as one event.
    boundaries : bool
        Whether the beginning and the end of a text are evidence: it then starts
        with <bos> and ends with <eos>, else with <cut>, like any fragment.
    common : Vocabulary or None
        Of all classes, where the texts are those of one.

    Attributes
    ----------
    analyzer, boundaries, common
        As the parameters.
    bos, eos, unknown, cut, foreign : int
        Ids of the beginning and the end of a text, of tokens that are not in the
        alphabet, of a cut, and of the tokens of other classes, -1 if there are none.
    first_input : int
        What is read before the first token of a text: `bos` or `cut`.
    n_inputs, n_outputs : int
        Sizes of the input and of the predicted alphabet.
    n_foreign : int
        How many tokens are those of other classes only.
    log_unknown, log_known : float
        Logarithms, in nats, of the probability of each unknown token and of all that
        are predicted together.

    Raises
    ------
    ValueError
        If there is no token in any text.
    """

    def __init__(
        self,
        sequences: Iterable[Iterable[Hashable]],
        analyzer: Analyzer,
        boundaries: bool,
        common: "Vocabulary | None" = None,
    ) -> None:
        tokens = dict.fromkeys(chain.from_iterable(sequences))
        if not tokens:
            raise ValueError("All texts are empty; pass at least one character.")
        super().__init__((token, id_) for id_, token in enumerate(tokens))
        self.analyzer = analyzer
        # A grid over an array has numpy's.
        self.boundaries = bool(boundaries)
        self.common = common
        self.n_foreign = 0 if common is None else len(common) - len(tokens)
        # Where there are none it is no id.
        self.foreign = len(tokens) if self.n_foreign else -1
        n_ids = len(tokens) + bool(self.n_foreign)
        # One id for both: as input it begins a text, as target it ends one.
        self.bos = self.eos = n_ids
        self.unknown = n_ids + 1
        self.cut = n_ids + 2
        self.n_inputs = n_ids + 3
        self.n_outputs = n_ids + bool(boundaries)
        self.first_input = self.bos if boundaries else self.cut
        if common is not None:
            self.set_log_unknown(common.log_unknown)
        elif n_unknown := self._n_unknown():
            self.set_log_unknown(np.log(UNKNOWN_MASS / n_unknown))
        else:
            self.set_log_unknown(-np.inf)

    def _n_unknown(self) -> int:
        if self.analyzer == "char":
            return _N_CODE_POINTS - len(self) - self.n_foreign
        if self.analyzer == "byte":
            return _N_BYTES - len(self) - self.n_foreign
        return 1

    def can_share(self, log_unknown: float) -> bool:
        """Tell whether each unknown token can have this log-probability, in nats.

        Parameters
        ----------
        log_unknown : float

        Returns
        -------
        can : bool
        """
        if not self._n_unknown():
            return log_unknown <= 0
        return _LOG_SMALLEST < log_unknown < -np.log(self._n_unknown())

    def set_log_unknown(self, log_unknown: float) -> None:
        """Set the log-probability of each unknown token, in nats.

        Parameters
        ----------
        log_unknown : float
        """
        self.log_unknown = log_unknown
        self.log_known = np.log1p(-self._n_unknown() * np.exp(log_unknown))

    def extended(self, sequences: Iterable[Iterable[Hashable]]) -> "Vocabulary":
        """Return the alphabet with the tokens of more texts, for a new model.

        A token that is still unknown has the probability it has here, so that it
        is no evidence between models of the two alphabets.

        Parameters
        ----------
        sequences : iterable of sequences of hashable tokens

        Returns
        -------
        vocabulary : Vocabulary
        """
        extended = Vocabulary(chain([self], sequences), self.analyzer, self.boundaries)
        extended.set_log_unknown(self.log_unknown)
        return extended

    def __missing__(self, token: Hashable) -> int:
        if self.common is not None and token in self.common:
            return self.foreign
        return self.unknown

    @property
    def output_sizes(self) -> NDArray[np.float64]:
        """How many tokens each output stands for, of shape (n_outputs,)."""
        sizes = np.ones(self.n_outputs)
        if self.n_foreign:
            sizes[self.foreign] = self.n_foreign
        return sizes

    def shares(
        self, ids: NDArray[Any]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
        """Return how the probability of each id follows from the outputs.

        Parameters
        ----------
        ids : ndarray of integer

        Returns
        -------
        known : ndarray of the same shape, bool
            Whether it depends on the outputs.
        outputs : ndarray of the same shape, int64
            On which; where it does not, on any.
        log_share : ndarray of the same shape, float64
            What to add to the log-probability of the output; where it does not
            depend on the outputs, the log-probability of the id itself.
        """
        known = ids != self.unknown
        outputs = np.where(known, ids, 0)
        log_size = np.log(self.output_sizes)[outputs]
        return (
            known,
            outputs,
            np.where(known, self.log_known - log_size, self.log_unknown),
        )

    def log_n_events(self, n_new: int) -> float:
        """Return how many events the unknown token is if others tell tokens apart.

        Words and other tokens that nobody has seen are one event. Of those that a later
        alphabet has each is an event, and the rest is one more; they have equal shares
        of its probability. Each unknown character is an event as it is.

        Parameters
        ----------
        n_new : int
            How many tokens are told apart that are unknown here.

        Returns
        -------
        log_n : float
            The logarithm of their number.
        """
        return 0.0 if self.analyzer in ("char", "byte") else float(np.log1p(n_new))

    def as_inputs(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Return the ids as a network reads them: foreign tokens as unknown ones.

        It is trained with texts that have neither.

        Parameters
        ----------
        ids : ndarray of integer

        Returns
        -------
        ids : ndarray of the same shape, integer
        """
        if not self.n_foreign:
            return ids
        return np.where(ids == self.foreign, self.unknown, ids)

    def ids_from(self, common: "Vocabulary") -> NDArray[np.int64]:
        """Return the id here of every id of the common alphabet.

        Parameters
        ----------
        common : Vocabulary

        Returns
        -------
        ids : ndarray of shape (common.n_inputs,), int64
        """
        if common is self:
            return np.arange(self.n_inputs)
        special = [self.bos, self.unknown, self.cut]
        if common is not self.common:
            return np.array([*map(self.__getitem__, common), *special])
        # Most of the tokens of many classes are foreign: only one's own are looked up.
        ids = np.full(common.n_inputs, self.foreign)
        ids[[*map(common.__getitem__, self)]] = np.arange(len(self))
        ids[-len(special) :] = special
        return ids

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens)"

    def encode(self, sequences: Sequence[Sequence[Hashable]]) -> EncodedTexts:
        """Turn analyzed texts into the ids that a model has to predict.

        Parameters
        ----------
        sequences : list of sequences of hashable tokens

        Returns
        -------
        encoded : EncodedTexts
            The ids of every text and, where boundaries count, of its end, in the
            smallest unsigned dtype that holds `n_inputs`.
        """
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        # For less text a table takes longer than it saves.
        if self.analyzer == "char" and lengths.sum() > self.n_inputs:
            characters: Any = sequences
            ids = self._ids_of_characters("".join(characters))
        else:
            ids = np.fromiter(
                map(self.__getitem__, chain.from_iterable(sequences)),
                dtype=np.min_scalar_type(self.n_inputs),
                count=lengths.sum(),
            )
        if self.boundaries:
            ids = np.insert(ids, np.cumsum(lengths), self.eos)
            lengths += 1
        return EncodedTexts(ids, lengths)

    def _ids_of_characters(self, text: str) -> NDArray[Any]:
        """Look up the id of every character by its code point."""
        known: Any = self if self.common is None else self.common
        largest = max(map(ord, known))
        table = np.full(
            largest + 2, self.unknown, dtype=np.min_scalar_type(self.n_inputs)
        )
        for character in known:
            table[ord(character)] = self[character]
        ids = np.empty(len(text), dtype=table.dtype)
        # In blocks: code points and places in the table take many times the memory.
        for begin in range(0, len(text), BLOCK):
            part = text[begin : begin + BLOCK].encode("utf-32-le", "surrogatepass")
            codes = np.frombuffer(part, dtype="<u4")
            ids[begin : begin + BLOCK] = table.take(codes, mode="clip")
        return ids

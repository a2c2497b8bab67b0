"""Language models as writers: what may come next, samples, suggestions, gaps."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from tqdm import tqdm

from sklearn_charlstm._device import Compute, reproducibly
from sklearn_charlstm._model import Model
from sklearn_charlstm._module import CharLSTM
from sklearn_charlstm._reading import MAX_TOKENS

__all__ = [
    "Choice",
    "likeliest_gap",
    "likeliest_runs",
    "next_log_proba",
    "sample_tokens",
]

# Texts that are continued side by side.
MAX_ROWS = 2**10

# Log-probabilities that are computed at a time while a beginning is read.
MAX_OUTPUTS = 2**20

# Runs of characters that a search for completions reads side by side, and the outputs
# of all networks after them: twenty bytes each.
MAX_RUNS = 2**16
MAX_OUTPUTS_OF_RUNS = 2**26

# What comes later says little about a gap.
MAX_END = 64

_Tokens = Sequence[Hashable]
_LogProba = NDArray[np.float64]


class _Reader:
    """A model that has read the beginnings of texts and reads on, token by token.

    Parameters
    ----------
    model : Model
    tokens : sequence of tokens
        That may come, in the alphabet of the model or not.
    beginnings : list of sequences of tokens, all of one length
        The rows at first.
    compute : Compute

    Attributes
    ----------
    log_proba : ndarray of shape (n_rows, n_columns), float64
        Of what may come next: the tokens in their order and, where boundaries count,
        the end of the text.
    log_likelihood : ndarray of shape (n_rows,), float64
        Of what was read.
    """

    def __init__(
        self,
        model: Model,
        tokens: _Tokens,
        beginnings: Sequence[_Tokens],
        compute: Compute,
    ) -> None:
        weights, params, vocabulary = model
        self._module = CharLSTM.from_weights(weights, params).to(*compute.of_lstm)
        self._device = compute.device
        columns = [*map(vocabulary.__getitem__, tokens)]
        if vocabulary.boundaries:
            columns.append(vocabulary.eos)
        self._inputs = vocabulary.as_inputs(np.array(columns))
        known, outputs, log_shares = vocabulary.shares(np.array(columns))
        # What another model writes, of a class that was added after this one.
        n_new = int(np.count_nonzero(~known))
        log_shares[~known] -= vocabulary.log_n_events(n_new)
        self._shares = known, outputs, log_shares
        ids = np.array(
            [[*map(vocabulary.__getitem__, beginning)] for beginning in beginnings],
            dtype=np.int64,
        )
        self.log_likelihood = np.zeros(len(ids))
        self._state: Any = None
        last_input = np.full((len(ids), 1), vocabulary.first_input)
        # In blocks: there is a row of all outputs for each token.
        n_steps = max(1, MAX_OUTPUTS // (len(ids) * vocabulary.n_outputs))
        for begin in range(0, ids.shape[1], n_steps):
            block = ids[:, begin : begin + n_steps]
            inputs = np.hstack([last_input, vocabulary.as_inputs(block)])
            steps = self._advance(inputs[:, :-1])
            known, outputs, log_share = vocabulary.shares(block)
            of_ids = np.take_along_axis(steps, outputs[:, :, None], axis=2)
            of_tokens = np.where(known, of_ids.squeeze(2), 0) + log_share
            self.log_likelihood += of_tokens.sum(axis=1)
            last_input = inputs[:, -1:]
        self._read_on(last_input)

    def _advance(self, inputs: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read, and return the log-probabilities of the outputs after each step."""
        logits, self._state = self._module(
            torch.from_numpy(inputs).to(self._device), self._state
        )
        log_proba: NDArray[np.float32] = (
            self._module.log_probabilities(logits).cpu().numpy()
        )
        return log_proba

    def _read_on(self, inputs: NDArray[np.int64]) -> None:
        """Read one more input in every row, and see what may come next."""
        log_proba = self._advance(inputs)[:, 0]
        known, outputs, log_share = self._shares
        self.log_proba = np.where(known, log_proba[:, outputs], 0) + log_share

    def select(self, rows: NDArray[np.int64]) -> None:
        """Go on with these rows, each as often as it is named."""
        on_device = torch.from_numpy(rows).to(self._device)
        hidden, cell = self._state
        self._state = hidden[:, on_device], cell[:, on_device]
        self.log_proba = self.log_proba[rows]
        self.log_likelihood = self.log_likelihood[rows]

    def read(self, columns: NDArray[np.int64]) -> None:
        """Read one more token in every row, by its column."""
        self.log_likelihood = (
            self.log_likelihood + self.log_proba[np.arange(len(columns)), columns]
        )
        self._read_on(self._inputs[columns][:, None])


class _Mixture:
    """Readers as one: each counts as much as what it has read is likely under it.

    Parameters
    ----------
    readers : list of _Reader
        Of the same text.
    """

    def __init__(self, readers: Sequence[_Reader]) -> None:
        self._readers = readers

    @property
    def log_proba(self) -> _LogProba:
        """Log-probabilities of what may come next, as of `_Reader`."""
        log_weight = np.stack([reader.log_likelihood for reader in self._readers])
        log_weight -= logsumexp(log_weight, axis=0)
        log_proba = np.stack([reader.log_proba for reader in self._readers])
        return logsumexp(log_weight[:, :, None] + log_proba, axis=0)

    def select(self, rows: NDArray[np.int64]) -> None:
        for reader in self._readers:
            reader.select(rows)

    def read(self, columns: NDArray[np.int64]) -> None:
        for reader in self._readers:
            reader.read(columns)


@contextmanager
def _inference() -> Iterator[None]:
    # As in scoring: matrices so small that threads would wait for each other.
    with reproducibly(), torch.inference_mode():
        yield


def next_log_proba(
    model: Model, beginnings: Sequence[_Tokens], compute: Compute
) -> _LogProba:
    """Compute the log-probability of every token after each beginning.

    Parameters
    ----------
    model : Model
    beginnings : list of n sequences of tokens
    compute : Compute

    Returns
    -------
    log_proba : ndarray of shape (n, n_columns), float64
        In nats: of the tokens of the alphabet in its order and, where boundaries
        count, of the end of the text.
    """
    tokens = [*model.vocabulary]
    log_proba = np.empty(
        (len(beginnings), len(tokens) + model.vocabulary.boundaries), dtype=np.float64
    )
    lengths = np.array([len(beginning) for beginning in beginnings])
    with _inference():
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            n_rows = max(1, min(MAX_ROWS, MAX_TOKENS // (length + 1)))
            for first in range(0, len(rows), n_rows):
                part = rows[first : first + n_rows]
                of_part = [beginnings[row] for row in part]
                log_proba[part] = _Reader(model, tokens, of_part, compute).log_proba
    return log_proba


class Choice(NamedTuple):
    """How the next token is drawn.

    Attributes
    ----------
    temperature : float
        The log-probabilities are divided by it: below 1 likely tokens become
        likelier.
    top_k : int or None
        Only so many of the likeliest tokens can be drawn.
    top_p : float or None
        Only the likeliest tokens, as many as have this probability together: nucleus
        sampling [1]_.

    References
    ----------
    .. [1] A. Holtzman et al., "The curious case of neural text degeneration", ICLR
       2020.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def draw(
        self, log_proba: _LogProba, random_state: np.random.RandomState
    ) -> NDArray[np.int64]:
        """Draw one column in every row."""
        # Before the division: the lower the temperature, the larger the numbers.
        below_best = log_proba - log_proba.max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):
            proba = np.exp(below_best / self.temperature)
        proba /= proba.sum(axis=1, keepdims=True)
        order = np.argsort(-proba, axis=1, kind="stable")
        ranked = np.take_along_axis(proba, order, axis=1)
        if self.top_k is not None:
            ranked[:, self.top_k :] = 0
        if self.top_p is not None:
            # The one that reaches the share is in.
            ranked[np.cumsum(ranked, axis=1) - ranked >= self.top_p] = 0
        cumulative = np.cumsum(ranked, axis=1)
        drawn = random_state.random_sample(len(ranked)) * cumulative[:, -1]
        ranks = (cumulative <= drawn[:, None]).sum(axis=1)
        return np.take_along_axis(order, ranks[:, None], axis=1)[:, 0]


def sample_tokens(
    model: Model,
    beginning: _Tokens,
    n_samples: int,
    max_length: int,
    choice: Choice,
    random_state: np.random.RandomState,
    compute: Compute,
    *,
    rivals: Sequence[Model],
    guidance: float,
    verbose: int,
) -> list[list[Hashable]]:
    """Draw continuations of a text.

    Parameters
    ----------
    model : Model
    beginning : sequence of tokens
    n_samples, max_length : int
    choice : Choice
    random_state : RandomState
    compute : Compute
    rivals : list of Model
        Models of other classes.
    guidance : float
        How many times the log-likelihood ratio of a token, of the model to the
        mixture of its rivals given all tokens before it, is added to its
        log-probability.
    verbose : int
        0 draws no progress bar.

    Returns
    -------
    samples : list of n_samples lists of tokens
        Without the beginning.
    """
    tokens = [*model.vocabulary]
    samples: list[list[Hashable]] = [[] for _ in range(n_samples)]
    n_steps = -(-n_samples // MAX_ROWS) * max_length
    with (
        _inference(),
        tqdm(total=n_steps, desc="Sampling", disable=not verbose, unit="step") as bar,
    ):
        for first in range(0, n_samples, MAX_ROWS):
            rows = np.arange(first, min(first + MAX_ROWS, n_samples))
            writer, *others = (
                _Reader(m, tokens, [beginning], compute)
                for m in (model, *(rivals if guidance else ()))
            )
            mixture = _Mixture(others)
            for reader in (writer, mixture):
                reader.select(np.zeros(len(rows), dtype=np.int64))
            for step in range(max_length):
                log_proba = writer.log_proba
                if guidance:
                    log_proba = log_proba + guidance * (log_proba - mixture.log_proba)
                columns = choice.draw(log_proba, random_state)
                goes_on = np.flatnonzero(columns < len(tokens))
                rows, columns = rows[goes_on], columns[goes_on]
                for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                    samples[row].append(tokens[column])
                bar.update()
                if not len(rows) or step == max_length - 1:
                    break
                for reader in (writer, mixture):
                    reader.select(goes_on)
                    reader.read(columns)
    return samples


def likeliest_runs(
    model: Model,
    beginning: _Tokens,
    n: int,
    goes_on: NDArray[np.bool_],
    min_length: int,
    max_length: int,
    compute: Compute,
) -> list[tuple[list[Hashable], float]]:
    """Find the most probable runs of tokens before the first that ends a run.

    A longer run is never more probable than its beginning, so runs are extended only
    while they are more probable than the n-th best so far: the result is exact.

    Parameters
    ----------
    model : Model
    beginning : sequence of tokens
    n : int
    goes_on : ndarray of shape (n_columns,), bool
        Whether a token, or the end of the text, is part of a run.
    min_length, max_length : int
        Other runs are left out.
    compute : Compute

    Returns
    -------
    runs : list of at most n tuples (tokens, log-probability in nats)
        The most probable first.

    Raises
    ------
    ValueError
        If there are more at a time to be extended than memory allows.
    """
    n_outputs = model.module_params["n_networks"] * model.vocabulary.n_outputs
    max_runs = min(MAX_RUNS, MAX_OUTPUTS_OF_RUNS // n_outputs)
    complete: list[tuple[float, tuple[int, ...]]] = []
    runs: list[tuple[int, ...]] = [()]
    log_proba_of_run = np.zeros(1)
    tokens = [*model.vocabulary]
    inside = np.flatnonzero(goes_on)
    with _inference():
        reader = _Reader(model, tokens, [beginning], compute)
        for length in range(max_length + 1):
            if length >= min_length:
                log_end = logsumexp(reader.log_proba[:, ~goes_on], axis=1)
                ended = (log_proba_of_run + log_end).tolist()
                complete = sorted([*complete, *zip(ended, runs, strict=True)])[-n:]
            worst = complete[0][0] if len(complete) == n else -np.inf
            log_proba = log_proba_of_run[:, None] + reader.log_proba[:, inside]
            rows, places = np.nonzero(log_proba > worst)
            if not len(rows) or length == max_length:
                break
            if len(rows) > max_runs:
                raise ValueError(
                    f"More than {max_runs} runs of characters are as probable as the "
                    f"completions found so far, because a word seldom ends or `n={n}` "
                    "is large; set a smaller `n` or `max_length`."
                )
            columns = inside[places]
            log_proba_of_run = log_proba[rows, places]
            runs = [
                (*runs[row], column)
                for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            ]
            reader.select(rows)
            reader.read(columns)
    return [
        ([tokens[column] for column in run], log_proba)
        for log_proba, run in reversed(complete)
    ]


def likeliest_gap(
    model: Model,
    beginning: _Tokens,
    length: int,
    end: _Tokens,
    width: int,
    compute: Compute,
) -> list[Hashable]:
    """Find the most probable tokens between two parts of a text, by beam search.

    Parameters
    ----------
    model : Model
    beginning, end : sequences of tokens
        What is before and after the gap; of the end the first `MAX_END` count.
    length : int
        Of the gap.
    width : int
        Texts kept at every token of the gap, and then read to the end.
    compute : Compute

    Returns
    -------
    gap : list of `length` tokens
    """
    n_tokens = len(model.vocabulary)
    tokens = [*model.vocabulary, *end[:MAX_END]]
    gaps: list[list[Hashable]] = [[]]
    with _inference():
        reader = _Reader(model, tokens, [beginning], compute)
        for _ in range(length):
            # Of the texts so far; they all begin alike.
            of_text = reader.log_likelihood[:, None] + reader.log_proba[:, :n_tokens]
            best = np.argsort(-of_text, axis=None, kind="stable")[:width]
            rows, columns = np.unravel_index(best, of_text.shape)
            gaps = [
                [*gaps[row], tokens[column]]
                for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            ]
            reader.select(rows)
            reader.read(columns)
        for column in range(n_tokens, len(tokens)):
            reader.read(np.full(len(gaps), column))
        log_likelihood = reader.log_likelihood
        if model.vocabulary.boundaries and len(end) <= MAX_END:
            log_likelihood = log_likelihood + reader.log_proba[:, -1]
    return gaps[int(np.argmax(log_likelihood))]

"""Log-likelihoods of encoded texts, token by token."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import cpu_count, effective_n_jobs
from numpy.typing import NDArray
from torch.nn import functional as F

from sklearn_charlstm._device import Compute, one_thread
from sklearn_charlstm._module import CharLSTM, Weights, at_least_float32
from sklearn_charlstm._prefixes import Level, PrefixTree
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = [
    "Model",
    "Networks",
    "in_threads",
    "text_log_likelihood",
    "token_log_likelihood",
]

# Bounds on memory: texts read side by side, their tokens before the scores are handed
# on, and the logits of these. On a CPU the states of more texts do not fit into its
# cache.
MAX_TEXTS = {"cpu": 2**10, "cuda": 2**14, "mps": 2**14}
MAX_TOKENS = 2**14
MAX_LOGITS = 2**24
MAX_STEPS = 256

# More steps than that, of texts with nothing in common, are left to torch's LSTM.
MIN_STEPS = 32

# Fewer tokens are read before threads have started.
MIN_TOKENS = 2**11

_State = tuple[torch.Tensor, torch.Tensor]
_Scores = NDArray[np.float64]
_Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class Model(NamedTuple):
    """What is needed of a language model to score with it.

    Attributes
    ----------
    weights : dict of str to ndarray
        Of a `CharLSTM`.
    module_params : dict
        Its arguments.
    vocabulary : Vocabulary
    """

    weights: Weights
    module_params: dict[str, Any]
    vocabulary: Vocabulary


class Networks:
    """The networks of one language model, side by side, a token at a time.

    Parameters
    ----------
    model : Model
    common : Vocabulary
        The alphabet of the texts.
    tokens : ndarray of shape (n_tokens,), integer
        The tokens of the texts, each once: ids of `common`.
    compute : Compute
    """

    def __init__(
        self,
        model: Model,
        common: Vocabulary,
        tokens: NDArray[np.int64],
        compute: Compute,
    ) -> None:
        weights, params, vocabulary = model
        self._model = model
        self._compute = compute
        self._device = compute.device
        self._is_sigmoid = params["output"] == "sigmoid"
        n_networks = params["n_networks"]

        def stacked(name: str) -> torch.Tensor:
            arrays = [weights[f"networks.{i}.{name}"] for i in range(n_networks)]
            return torch.from_numpy(np.stack(arrays)).to(*compute)

        ids = vocabulary.ids_from(common)[tokens]
        # Last what is read before the first token of a text and of a part of it.
        before = [vocabulary.first_input, vocabulary.cut]
        self._input = np.append(vocabulary.as_inputs(ids), before)
        distinct, rows = np.unique(self._input, return_inverse=True)
        self._row = torch.from_numpy(rows).to(self._device)
        layers = range(params["num_layers"])
        self._recurrent = [stacked(f"lstm.weight_hh_l{layer}").mT for layer in layers]
        biases = [
            stacked(f"lstm.bias_ih_l{layer}") + stacked(f"lstm.bias_hh_l{layer}")
            for layer in layers
        ]
        biases.append(stacked("linear.bias"))
        weights_up = [stacked(f"lstm.weight_ih_l{layer}") for layer in layers]
        weights_up.append(stacked("linear.weight"))
        first, *self._upwards = [
            (bias[:, None], weight.mT)
            for bias, weight in zip(biases, weights_up, strict=True)
        ]
        # The product of embedding and first weights, once for every token.
        bias, weight = first
        embedding = stacked("embedding.weight")[:, torch.from_numpy(distinct)]
        self._table = torch.baddbmm(bias, embedding, weight)
        self._initial = self._table.new_zeros(n_networks, 1, params["hidden_size"])
        self._known, self._output, self._log_share = vocabulary.shares(ids)
        self._module: CharLSTM | None = None
        self.start()

    def start(self) -> None:
        """Forget what was read."""
        self._state = [(self._initial, self._initial)] * len(self._recurrent)

    def _on_device(self, *arrays: NDArray[np.int64]) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self._device) for array in arrays]

    def read_levels(self, levels: "_Levels") -> _Scores:
        """Compute log p(target | history) of all prefixes, level after level."""
        steps = zip(levels.source, levels.inputs, strict=True)
        hidden = torch.cat([self._read_level(*step) for step in steps], dim=1)
        # The outputs of all levels in one product.
        bias, weight = self._upwards[-1]
        logits = at_least_float32(torch.baddbmm(bias, hidden, weight))
        if self._is_sigmoid:
            logits = F.logsigmoid(logits)
        log_total = torch.logsumexp(logits, dim=2)
        outputs = torch.from_numpy(self._output[levels.targets]).to(self._device)
        log_proba = logits[:, levels.history, outputs] - log_total[:, levels.history]
        scores = torch.logsumexp(log_proba, dim=0) - math.log(len(log_proba))
        return self._shared(scores, levels.targets)

    def read_pairs(
        self, previous: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> _Scores:
        """Compute log p(target | the token before it), with nothing before that.

        Parameters
        ----------
        previous, targets : ndarrays of shape (n_pairs,)
            Tokens; before the first one of a text their number.

        Returns
        -------
        log_likelihood : ndarray of shape (n_pairs,)
        """
        first, cut = len(self._input) - 2, len(self._input) - 1
        # Different tokens may be the same to this model.
        _, one, number = np.unique(
            self._input[previous], return_index=True, return_inverse=True
        )
        inputs = previous[one]
        order = np.argsort(number, kind="stable")
        scores = np.empty(len(targets))
        n_logits = len(self._initial) * self._upwards[-1][0].shape[2]
        n_inputs = max(1, MAX_LOGITS // n_logits)
        for begin in range(0, len(inputs), n_inputs):
            part = inputs[begin : begin + n_inputs]
            first_pair, end = np.searchsorted(
                number, [begin, begin + len(part)], sorter=order
            )
            pairs = order[first_pair:end]
            # The first two histories are those before a token.
            history = np.where(previous[pairs] == first, 0, number[pairs] - begin + 2)
            source = [np.zeros(2, dtype=np.int64), np.ones_like(part)]
            levels = _Levels(
                self._on_device(*source),
                self._on_device(np.array([first, cut]), part),
                torch.from_numpy(history).to(self._device),
                targets[pairs],
            )
            self.start()
            scores[pairs] = self.read_levels(levels)
        return scores

    def read_texts(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> _Scores:
        """Compute log p(target | history) where every text has its own histories.

        Parameters
        ----------
        inputs, targets : ndarrays of shape (n_texts, n_steps)
            Padded with any tokens; of the texts that were read, the first ones.

        Returns
        -------
        log_likelihood : ndarray of shape (n_texts, n_steps)
        """
        if self._module is None:
            # torch's own loop over the steps.
            weights, params, _ = self._model
            self._module = CharLSTM.from_weights(weights, params)
            self._module.to(*self._compute)
        # Here a state of shape (networks, texts, hidden) for each layer, there one of
        # (networks * layers, texts, hidden).
        hidden, cell = (
            torch.stack([part[:, : len(inputs)] for part in parts], dim=1).flatten(0, 1)
            for parts in zip(*self._state, strict=True)
        )
        logits, state = self._module(
            torch.from_numpy(self._input[inputs]).to(self._device), (hidden, cell)
        )
        hidden, cell = (part.unflatten(0, (-1, len(self._state))) for part in state)
        self._state = list(zip(hidden.unbind(1), cell.unbind(1), strict=True))
        outputs = torch.from_numpy(self._output[targets]).to(self._device)
        log_proba = self._module.log_probabilities(logits)
        return self._shared(
            log_proba.gather(2, outputs[:, :, None]).squeeze(2), targets
        )

    def _shared(self, scores: torch.Tensor, targets: NDArray[np.int64]) -> _Scores:
        """Share the probability of an output among the tokens that it stands for."""
        on_cpu = scores.cpu().numpy().astype(np.float64)
        return np.where(self._known[targets], on_cpu, 0) + self._log_share[targets]

    def _read_level(self, source: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Advance all histories of a level by their last token.

        Returns
        -------
        hidden : tensor of shape (n_networks, n_histories, hidden_size)
            Of the last layer.
        """
        gates = self._table[:, self._row[inputs]]
        for layer, (hidden, cell) in enumerate(self._state):
            if layer:
                bias, weight = self._upwards[layer - 1]
                gates = torch.baddbmm(bias, self._state[layer - 1][0], weight)
            gates.baddbmm_(hidden[:, source], self._recurrent[layer])
            self._state[layer] = _lstm_cell(gates, cell[:, source])
        return self._state[-1][0]


def _lstm_cell(gates: torch.Tensor, cell: torch.Tensor) -> _State:
    """Compute hidden and cell state from the four gates, in torch's order."""
    size = cell.shape[2]
    gates[..., : 2 * size].sigmoid_()
    gates[..., 2 * size : 3 * size].tanh_()
    gates[..., 3 * size :].sigmoid_()
    take_in, keep, candidate, give_out = gates.chunk(4, dim=2)
    cell = (keep * cell).addcmul_(take_in, candidate)
    return give_out * torch.tanh(cell), cell


def token_log_likelihood(
    model: Model, encoded: EncodedTexts, compute: Compute
) -> _Scores:
    """Compute log p(token | the tokens before it) for every token of every text.

    Parameters
    ----------
    model : Model
    encoded : EncodedTexts
        By its vocabulary.
    compute : Compute

    Returns
    -------
    log_likelihood : ndarray of shape (n_tokens,), float64
        In nats, in the order of `encoded.ids`.
    """
    distinct, number = _distinct(encoded)
    log_likelihood = np.empty(len(distinct.ids))
    with in_threads(1, 1, len(encoded.ids)) as each:
        scored = _scored([model], distinct, model.vocabulary, compute, each)
        for _, places, scores in scored:
            log_likelihood[places] = scores
    return distinct._replace(ids=log_likelihood).take(number).ids


def text_log_likelihood(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    n_jobs: int | None = None,
    followed: NDArray[np.bool_] | None = None,
) -> _Scores:
    """Compute log p(text) under several models.

    Parameters
    ----------
    models : list of n_models Model
    encoded : EncodedTexts
    vocabulary : Vocabulary
        What the texts are encoded with: the common alphabet.
    compute : Compute
    n_jobs : int or None
        Models that score at the same time, each in a thread.
    followed : ndarray of shape (n_texts, n_models), bool, or None
        Which models read which texts; None: all of them all.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats; -inf where a model did not read a text.
    """
    with in_threads(n_jobs, len(models), len(encoded.ids)) as each:
        if followed is None:
            return _sums(models, encoded, vocabulary, compute, each)
        log_likelihood = np.full(followed.shape, -np.inf)

        def read(k: int) -> None:
            [rows] = np.nonzero(followed[:, k])
            texts, of_class = encoded.take(rows), models[k : k + 1]
            scores = _sums(of_class, texts, vocabulary, compute, map)
            log_likelihood[rows, k] = scores[:, 0]

        for _ in each(read, range(len(models))):
            pass
    return log_likelihood


def _sums(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    each: _Map,
) -> _Scores:
    """Compute log p(text) of all texts under all models."""
    distinct, number = _distinct(encoded)
    lengths = distinct.lengths
    log_likelihood = np.zeros((len(lengths), len(models)))
    ends = np.cumsum(lengths)
    for k, places, scores in _scored(models, distinct, vocabulary, compute, each):
        text = np.searchsorted(ends, places, side="right")
        np.add.at(log_likelihood[:, k], text, scores)
    return log_likelihood[number]


@contextmanager
def in_threads(n_jobs: int | None, n_models: int, n_tokens: int) -> Iterator[_Map]:
    """Yield a `map` over models: each in a thread, and torch in one thread in each.

    Parameters
    ----------
    n_jobs : int or None
        Models at the same time.
    n_models : int
    n_tokens : int
        Of the texts that they read.
    """
    n_threads = min(effective_n_jobs(n_jobs), cpu_count(), n_models)
    if n_tokens < MIN_TOKENS:
        n_threads = 1
    with one_thread(), ThreadPoolExecutor(n_threads) as pool:
        yield map if n_threads == 1 else pool.map


def _distinct(encoded: EncodedTexts) -> tuple[EncodedTexts, NDArray[np.int64]]:
    """Return every text once, and the number among them of each that was given.

    They are in an order of their own, the longest first and those with the same
    beginning together: batches, and with them roundings, are the same in every order
    of the rows.
    """
    ids, lengths = encoded
    ends = np.cumsum(lengths)
    spans = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    keys = [ids[start:end].tobytes() for start, end in spans]
    row = {key: row for row, key in enumerate(keys)}
    number = {
        key: number
        for number, key in enumerate(sorted(row, key=lambda key: (-len(key), key)))
    }
    rows = np.array([row[key] for key in number], dtype=np.int64)
    return encoded.take(rows), np.array([number[key] for key in keys], dtype=np.int64)


def _scored(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    each: _Map,
) -> Iterator[tuple[int, NDArray[np.int64], _Scores]]:
    """Yield the number of a model, the places of some tokens, and their scores.

    Memory does not grow with the number and the length of the texts.
    """
    # Tokens by their number among those of the texts, found as they are read: texts
    # are long, an id takes a byte or two. In blocks, because a copy is sorted.
    blocks = np.array_split(encoded.ids, len(encoded.ids) // MAX_TOKENS + 1)
    tokens = np.unique(np.concatenate([np.unique(block) for block in blocks]))

    def token_at(places: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(tokens, encoded.ids[places])

    lengths = encoded.lengths
    starts = np.cumsum(lengths) - lengths
    with torch.inference_mode():
        networks = [Networks(model, vocabulary, tokens, compute) for model in models]
    n_logits = max(
        model.module_params["n_networks"] * model.vocabulary.n_outputs
        for model in models
    )
    max_tokens = max(1, min(MAX_TOKENS, MAX_LOGITS // n_logits))
    max_texts = min(MAX_TEXTS[compute.device.type], max_tokens)
    for rows in _side_by_side(lengths, max_texts, max_tokens):
        of_rows = starts[rows], lengths[rows]
        tree = PrefixTree(token_at, *of_rows, first_input=len(tokens))
        for of_model in networks:
            of_model.start()
        done, longest = 0, of_rows[1][0]
        apart = False
        while done < longest:
            n_steps = min(longest - done, MAX_STEPS, max_tokens)
            apart |= tree.are_apart and longest - done >= MIN_STEPS
            if apart:
                step = _next_texts(token_at, *of_rows, done, n_steps)
            else:
                step = _next_levels(tree, starts[rows], done, n_steps, compute.device)
            for k, scores_of_model in enumerate(each(step.scores, networks)):
                yield k, step.places, scores_of_model
            done += step.n_steps


def _side_by_side(
    lengths: NDArray[np.int64], max_texts: int, max_tokens: int
) -> Iterator[slice]:
    """Yield which texts are read side by side; of none without a token."""
    begin, n_texts = 0, np.count_nonzero(lengths)
    while begin < n_texts:
        n_steps = min(lengths[begin], MAX_STEPS)
        end = begin + min(max_texts, max(1, max_tokens // n_steps))
        yield slice(begin, min(end, n_texts))
        begin = end


class _Levels(NamedTuple):
    """Levels one after the other, where all models find them.

    Attributes
    ----------
    source, inputs : lists of n_levels tensors
        As of each `Level`.
    history : tensor of shape (n_prefixes,)
        Which history each prefix has, of those of all levels.
    targets : ndarray of shape (n_prefixes,)
        The last token of each prefix.
    """

    source: list[torch.Tensor]
    inputs: list[torch.Tensor]
    history: torch.Tensor
    targets: NDArray[np.int64]

    @classmethod
    def joined(cls, levels: list[Level], device: torch.device) -> "_Levels":
        """Put them on a device."""
        n_before = np.cumsum([0] + [len(level.inputs) for level in levels[:-1]])
        history = np.concatenate(
            [level.history + n for level, n in zip(levels, n_before, strict=True)]
        )
        return cls(
            [torch.from_numpy(level.source).to(device) for level in levels],
            [torch.from_numpy(level.inputs).to(device) for level in levels],
            torch.from_numpy(history).to(device),
            np.concatenate([level.targets for level in levels]),
        )


class _Step(NamedTuple):
    """Some more tokens of all texts: where they are, and how they are read."""

    n_steps: int
    places: NDArray[np.int64]
    read: Callable[[Networks], _Scores]

    def scores(self, networks: Networks) -> _Scores:
        """Let one model read them, in any thread."""
        with torch.inference_mode():
            return self.read(networks)


def _next_levels(
    tree: PrefixTree,
    starts: NDArray[np.int64],
    done: int,
    n_steps: int,
    device: torch.device,
) -> _Step:
    """Read prefixes that texts have in common, as long as there are any."""
    levels = [tree.next_level()]
    is_short = n_steps < MIN_STEPS
    while len(levels) < n_steps and (is_short or not tree.are_apart):
        levels.append(tree.next_level())
    places, prefix = [], []
    n_before = 0
    for step, level in enumerate(levels):
        places.append(starts[: len(level.prefix)] + done + step)
        prefix.append(level.prefix + n_before)
        n_before += len(level.targets)
    of_texts = np.concatenate(prefix)
    joined = _Levels.joined(levels, device)
    return _Step(
        len(levels),
        np.concatenate(places),
        lambda networks: networks.read_levels(joined)[of_texts],
    )


def _next_texts(
    token_at: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    done: int,
    n_steps: int,
) -> _Step:
    """Read texts that have nothing more in common."""
    n_texts = np.count_nonzero(lengths > done)
    steps = done + np.arange(n_steps)
    inside = steps < lengths[:n_texts, None]
    places = starts[:n_texts, None] + np.where(inside, steps, done)
    targets = token_at(places)
    inputs = token_at(places - 1)
    return _Step(
        n_steps,
        places[inside],
        lambda networks: networks.read_texts(inputs, targets)[inside],
    )

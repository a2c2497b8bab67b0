"""The networks of language models, fast: one step for many histories."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sklearn_charlstm._device import Compute, on_device
from sklearn_charlstm._distinct import distinct_numbers, values_in
from sklearn_charlstm._fused_lstm import fused_cell
from sklearn_charlstm._levels import Levels
from sklearn_charlstm._model import Model
from sklearn_charlstm._module import at_least_float32, network_log_probabilities
from sklearn_charlstm._side_by_side import side_by_side, stacked
from sklearn_charlstm._vocabulary import Vocabulary

__all__ = ["MAX_LOGITS", "Networks"]

# Logits computed together, a bound on memory.
MAX_LOGITS = 2**24

# So many histories get their logits at a time on a CPU, where a cache still holds the
# hidden states and will hold the logits. A GPU waits for Python: all at once.
HISTORIES_IN_CACHE = 2**10

# What the hidden and the cell state are multiplied with on a CPU. No digit is lost.
_CPU_FACTORS = -1, 2

_State = tuple[torch.Tensor, torch.Tensor]
_Scores = NDArray[np.float64]


class Networks:
    """The networks of some language models, side by side, a token at a time.

    Parameters
    ----------
    models : list of n_models Model
        Their arguments differ in the numbers of inputs and outputs only.
    common : Vocabulary
        The alphabet of the texts.
    tokens : ndarray of shape (n_tokens,), integer
        The tokens of the texts, each once: ids of `common`.
    compute : Compute
    """

    def __init__(
        self,
        models: Sequence[Model],
        common: Vocabulary,
        tokens: NDArray[np.int64],
        compute: Compute,
    ) -> None:
        params = models[0].module_params
        self._models = models
        self._compute = compute
        self._device = compute.device
        self._on_gpu = compute.device.type == "cuda"
        self._n_at_once = math.inf if self._on_gpu else HISTORIES_IN_CACHE
        self._sign = 1 if self._on_gpu else _CPU_FACTORS[0]
        self._kind = params["output"]
        self._n_networks = params["n_networks"]
        self._set_tokens(common, tokens)
        self._n_layers = params["num_layers"]
        self._weights = side_by_side(models, compute)
        self._set_table()
        self._initial = self._table.new_zeros(len(self._row), 1, params["hidden_size"])
        self.start()

    def _set_tokens(self, common: Vocabulary, tokens: NDArray[np.int64]) -> None:
        """Find what the tokens of the texts are to each model."""
        shares = []
        self._input = np.empty((len(self._models), len(tokens) + 2), dtype=np.int64)
        for inputs, (_, _, vocabulary) in zip(self._input, self._models, strict=True):
            ids = vocabulary.ids_from(common)[tokens]
            inputs[:-2] = vocabulary.as_inputs(ids)
            # What is read before the first token of a text and of a part of it.
            inputs[-2:] = vocabulary.first_input, vocabulary.cut
            is_known, outputs, log_shares = vocabulary.shares(ids)
            # Tokens that came with a class that was added after this one.
            is_new = ~is_known & (tokens != common.unknown)
            if is_new.any():
                n_new = len(common) - len(vocabulary.common or vocabulary)
                log_shares[is_new] -= vocabulary.log_n_events(n_new)
            shares.append((is_known, outputs, log_shares))
        known, output, log_share = map(np.array, zip(*shares, strict=True))
        self._output = on_device(output, self._device)
        # Sums of many need float64, which not every device has.
        self._shares_on = self._device if self._on_gpu else torch.device("cpu")
        self._known, self._log_share = (
            on_device(array, self._shares_on) for array in (known, log_share)
        )

    def _set_table(self) -> None:
        """Compute what the first layer makes of a token, once for every token."""
        bias, weight = self._weights.inward[0]
        tables, rows = [], []
        n_rows = 0
        number = np.arange(self._n_networks)[:, None]
        of_models = zip(
            self._models,
            self._input,
            bias.chunk(len(self._models)),
            weight.chunk(len(self._models)),
            strict=True,
        )
        for model, inputs, its_bias, its_weight in of_models:
            # Different tokens may be the same to a model.
            distinct, place = values_in(inputs, model.vocabulary.n_inputs)
            embedding = stacked(
                "embedding.weight", [model], self._compute, itemgetter(distinct)
            )
            table = torch.baddbmm(its_bias, embedding, its_weight)
            tables.append(table.flatten(0, 1))
            rows.append(n_rows + number * len(distinct) + place[inputs])
            n_rows += number.size * len(distinct)
        self._table = torch.cat(tables)
        if self._on_gpu:
            # As `fused_cell` takes it.
            self._table = self._table.float()
        self._row = on_device(np.concatenate(rows), self._device)

    def start(self) -> None:
        """Forget what was read."""
        self._state = [(self._initial, self._initial)] * self._n_layers

    @torch.inference_mode()
    def read_levels(self, levels: Levels) -> torch.Tensor:
        """Compute log p(target | history) of all prefixes, level after level.

        Returns
        -------
        log_likelihood : tensor of shape (n_models, n_prefixes), float64
        """
        # Tokens of all levels are looked up together: less to start.
        rows = self._row.index_select(1, levels.inputs)
        of_levels = rows.split(levels.sizes, dim=1)
        outputs = self._output.index_select(1, levels.targets)
        scores: list[torch.Tensor] = []
        hidden: list[torch.Tensor] = []
        n_before = n_histories = begin = 0
        steps = zip(levels.source, of_levels, levels.ends, strict=True)
        for source, of_level, end in steps:
            hidden.append(self._read_level(source, of_level))
            n_histories += of_level.shape[1]
            is_last = n_histories == len(levels.inputs)
            if is_last or n_histories - n_before >= self._n_at_once:
                history = levels.history[begin:end] - n_before
                scores.append(self._predict(hidden, history, outputs[:, begin:end]))
                hidden = []
                n_before, begin = n_histories, end
        return self._shared(torch.cat(scores, dim=1), levels.targets)

    def _predict(
        self, hidden: list[torch.Tensor], history: torch.Tensor, outputs: torch.Tensor
    ) -> torch.Tensor:
        """Compute log p(output | history) from the hidden states of some levels.

        Parameters
        ----------
        hidden : list of tensors of shape (networks of all models, any, hidden_size)
        history : tensor of shape (n_prefixes,)
            Which of them, one level after the other.
        outputs : tensor of shape (n_models, n_prefixes)

        Returns
        -------
        log_likelihood : tensor of shape (n_models, n_prefixes)
        """
        states = hidden[0] if len(hidden) == 1 else torch.cat(hidden, dim=1)
        states = states.to(self._compute.dtype)
        scores = []
        for k, (bias, weight) in enumerate(self._weights.outward):
            of_model = states[k * self._n_networks : (k + 1) * self._n_networks]
            logits = torch.baddbmm(bias, of_model, weight, alpha=self._sign)
            of_outputs = history * logits.shape[2] + outputs[k]
            log_proba = network_log_probabilities(at_least_float32(logits), self._kind)
            log_proba = log_proba.flatten(1).index_select(1, of_outputs)
            # Each by itself: roundings are the same whatever models are beside it.
            is_one = self._n_networks == 1
            scores.append(log_proba[0] if is_one else torch.logsumexp(log_proba, dim=0))
        return torch.stack(scores) - math.log(self._n_networks)

    def read_windows(
        self, windows: NDArray[np.int64], n_before: NDArray[np.int64]
    ) -> _Scores:
        """Compute log p(last token | those before it in a window, and nothing else).

        Parameters
        ----------
        windows : ndarray of shape (n_windows, n_history + 1)
            Tokens: those before the last, the earliest first, perhaps any others, and
            in the last column the last.
        n_before : ndarray of shape (n_windows,)
            How many tokens of a text are before the last, in ascending order. If they
            are more than a window has, its beginning is read as a cut.

        Returns
        -------
        log_likelihood : ndarray of shape (n_models, n_windows)
        """
        n_rows = self._input.shape[1]
        # Different tokens may be the same to all these models.
        number, one = np.zeros(n_rows, dtype=np.int64), np.zeros(1, dtype=np.int64)
        for of_model in self._input:
            n_inputs = int(of_model.max()) + 1
            codes = number * n_inputs + of_model
            one, number = distinct_numbers(codes, len(one) * n_inputs)
        same = one[number]
        scores = np.empty((len(self._models), len(windows)))
        n_logits = self._n_networks * max(
            bias.shape[2] for bias, _ in self._weights.outward
        )
        # At most all have different histories, whose beginnings have logits too.
        size = max(1, MAX_LOGITS // (n_logits * windows.shape[1]))
        for begin in range(0, len(windows), size):
            part = slice(begin, begin + size)
            *history, targets = windows[part].T
            start = n_rows - 2 + (n_before[part] >= windows.shape[1])
            levels = Levels.of_windows(
                [same[column] for column in (start, *history)],
                targets,
                n_before[part],
                n_rows,
                self._device,
            )
            self.start()
            scores[:, part] = self.read_levels(levels).cpu().numpy()
        return scores

    @torch.inference_mode()
    def read_with_torch(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> torch.Tensor:
        """Compute log p(target | history) with torch's loop over the steps, on a CPU.

        It has less to do between steps than that of Python, and more in each.

        Parameters
        ----------
        inputs, targets : ndarrays of shape (n_steps, n_texts)
            Padded with any tokens; of the texts that were read, the first ones. Each
            has its own histories.

        Returns
        -------
        log_likelihood : tensor of shape (n_models, n_steps, n_texts), float64
        """
        # Here a state of shape (networks of all models, texts, hidden) for each layer,
        # there one of (layers, texts, hidden) for each network.
        hidden, cell = (
            torch.stack([part[:, : inputs.shape[1]] for part in parts], dim=1)
            .div_(factor)
            .to(self._compute.dtype)
            for factor, *parts in zip(_CPU_FACTORS, *self._state, strict=True)
        )
        read = []
        for i, weights in enumerate(self._weights.of_torch(self._models)):
            k, number = divmod(i, self._n_networks)
            embedding = self._models[k].weights[f"networks.{number}.embedding.weight"]
            embedded = torch.from_numpy(embedding[self._input[k, inputs.T]])
            read.append(
                torch.lstm(
                    embedded.to(self._compute.dtype),
                    (hidden[i], cell[i]),
                    weights,
                    has_biases=True,
                    num_layers=self._n_layers,
                    dropout=0.0,
                    train=False,
                    bidirectional=False,
                    batch_first=True,
                )
            )
        of_steps, *last = map(torch.stack, zip(*read, strict=True))
        del read
        of_layers = (
            state.mul_(factor).unbind(1)
            for factor, state in zip(_CPU_FACTORS, last, strict=True)
        )
        self._state = list(zip(*of_layers, strict=True))
        histories = of_steps.flatten(1, 2).mul_(self._sign)
        next_ones = torch.from_numpy(targets)
        scores = self._predict(
            [histories],
            torch.arange(histories.shape[1]),
            self._output[:, next_ones.T].flatten(1),
        )
        return self._shared(scores.unflatten(1, inputs.T.shape).mT, next_ones)

    def _shared(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Share the probability of an output among the tokens that it stands for."""
        index = targets.flatten().to(self._shares_on)
        known, log_share = (
            table.index_select(1, index).view(scores.shape)
            for table in (self._known, self._log_share)
        )
        scores = scores.to(self._shares_on).double()
        return torch.where(known, scores, 0).add_(log_share)

    def _read_level(
        self, source: torch.Tensor | None, rows: torch.Tensor
    ) -> torch.Tensor:
        """Advance all histories of a level by their last token.

        `index_select` takes a tenth of the time of an index in brackets.

        Parameters
        ----------
        source : tensor of shape (n_histories,) or None
        rows : tensor of shape (networks of all models, n_histories)
            Of `_table`.

        Returns
        -------
        hidden : tensor of shape (networks of all models, n_histories, hidden_size)
            Of the last layer.
        """
        gates = F.embedding(rows, self._table)
        for layer, state in enumerate(self._state):
            if layer:
                bias, weight = self._weights.inward[layer]
                below = self._state[layer - 1][0].to(weight.dtype)
                gates = torch.baddbmm(bias, below, weight, alpha=self._sign)
                gates = gates.to(self._table.dtype)
            hidden, cell = state
            if source is not None:
                hidden, cell = (part.index_select(1, source) for part in state)
            elif rows.shape[1] < hidden.shape[1]:
                hidden, cell = (part[:, : rows.shape[1]] for part in state)
            recurrent = self._weights.recurrent[layer]
            if self._on_gpu:
                hidden, cell, _ = fused_cell(gates, hidden, cell, recurrent)
            else:
                gates.baddbmm_(hidden, recurrent, alpha=self._sign)
                hidden, cell = _lstm_cell(gates, cell)
            self._state[layer] = hidden, cell
        return self._state[-1][0]


def _lstm_cell(gates: torch.Tensor, cell: torch.Tensor) -> _State:
    """Compute hidden and cell state from the four gates, in torch's order.

    tanh(x) is 2 sigmoid(2x) - 1, which takes torch less than half the time on a CPU.
    The candidate is doubled already. In float32: a difference needs the digits. Both
    states are times `_CPU_FACTORS`, which saves two operations of nine.
    """
    sigmoids = gates.float().sigmoid_()
    take_in, keep, candidate, give_out = sigmoids.chunk(4, dim=2)
    cell = (keep * cell).addcmul_(take_in, candidate, value=4).sub_(take_in, alpha=2)
    hidden = torch.addcmul(give_out, give_out, cell.sigmoid(), value=-2)
    return hidden.to(gates.dtype), cell

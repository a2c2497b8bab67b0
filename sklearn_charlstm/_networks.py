"""The networks of a language model, fast: one step for many histories."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sklearn_charlstm._device import Compute
from sklearn_charlstm._module import CharLSTM, Weights, at_least_float32
from sklearn_charlstm._prefixes import Level
from sklearn_charlstm._vocabulary import Vocabulary

__all__ = ["MAX_LOGITS", "Levels", "Model", "Networks"]

# Logits computed together, a bound on memory.
MAX_LOGITS = 2**24

_State = tuple[torch.Tensor, torch.Tensor]
_Scores = NDArray[np.float64]


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


class Levels(NamedTuple):
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
    def joined(cls, levels: list[Level], device: torch.device) -> "Levels":
        """Put them on a device."""
        sizes = [len(level.inputs) for level in levels]
        n_before = np.cumsum([0, *sizes[:-1]])
        # Each in one copy: a GPU is waited for in every one.
        source, inputs, history = (
            torch.from_numpy(np.concatenate(parts)).to(device)
            for parts in (
                [level.source for level in levels],
                [level.inputs for level in levels],
                [level.history + n for level, n in zip(levels, n_before, strict=True)],
            )
        )
        return cls(
            list(source.split(sizes)),
            list(inputs.split(sizes)),
            history,
            np.concatenate([level.targets for level in levels]),
        )


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
            of_all = torch.from_numpy(np.stack(arrays)).to(*compute)
            if name.startswith("lstm."):
                # As `_lstm_cell` takes the candidate. No digit is lost.
                of_all.chunk(4, dim=1)[2].mul_(2)
            return of_all

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

    def read_levels(self, levels: Levels) -> _Scores:
        """Compute log p(target | history) of all prefixes, level after level."""
        # Now: once the steps are on their way a GPU would end them before it copies.
        outputs = torch.from_numpy(self._output[levels.targets]).to(self._device)
        steps = zip(levels.source, levels.inputs, strict=True)
        hidden = torch.cat([self._read_level(*step) for step in steps], dim=1)
        # The outputs of all levels in one product.
        bias, weight = self._upwards[-1]
        logits = at_least_float32(torch.baddbmm(bias, hidden, weight))
        if self._is_sigmoid:
            logits = F.logsigmoid(logits)
        of_outputs = levels.history * logits.shape[2] + outputs
        log_proba = torch.log_softmax(logits, dim=2).flatten(1)
        log_proba = log_proba.index_select(1, of_outputs)
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
            levels = Levels(
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
            self._module.to(*self._compute.of_lstm)
        # Here a state of shape (networks, texts, hidden) for each layer, there one of
        # (networks * layers, texts, hidden).
        hidden, cell = (
            torch.stack([part[:, : len(inputs)] for part in parts], dim=1)
            .flatten(0, 1)
            .to(*self._compute.of_lstm)
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

        `index_select` takes a tenth of the time of an index in brackets.

        Returns
        -------
        hidden : tensor of shape (n_networks, n_histories, hidden_size)
            Of the last layer.
        """
        gates = self._table.index_select(1, self._row.index_select(0, inputs))
        for layer, (hidden, cell) in enumerate(self._state):
            if layer:
                bias, weight = self._upwards[layer - 1]
                gates = torch.baddbmm(bias, self._state[layer - 1][0], weight)
            gates.baddbmm_(hidden.index_select(1, source), self._recurrent[layer])
            self._state[layer] = _lstm_cell(gates, cell.index_select(1, source))
        return self._state[-1][0]


def _lstm_cell(gates: torch.Tensor, cell: torch.Tensor) -> _State:
    """Compute hidden and cell state from the four gates, in torch's order.

    tanh(x) is 2 sigmoid(2x) - 1, which takes torch less than half the time on a CPU.
    The candidate is doubled already. In float32: a difference needs the digits.
    """
    sigmoids = at_least_float32(gates).sigmoid_()
    take_in, keep, candidate, give_out = sigmoids.chunk(4, dim=2)
    cell = (keep * cell).addcmul_(take_in, candidate, value=2).sub_(take_in)
    hidden = torch.addcmul(-give_out, give_out, (2 * cell).sigmoid_(), value=2)
    return hidden.to(gates.dtype), cell

"""Weights of language models, side by side as the steps of reading take them."""

# SPDX-License-Identifier: BSD-3-Clause

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute
from sklearn_charlstm._model import Model

__all__ = ["side_by_side", "stacked"]

# So many weights that were laid out last are kept on a CPU, perhaps in two ways: to lay
# them out takes about as long as to read a short text.
MAX_KEPT = 2**24


def stacked(
    name: str,
    models: Sequence[Model],
    compute: Compute,
    laid_out: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray,
) -> torch.Tensor:
    """Lay a parameter of all networks of models side by side."""
    arrays = [
        laid_out(weights[f"networks.{number}.{name}"])
        for weights, params, _ in models
        for number in range(params["n_networks"])
    ]
    # In memory of torch: that of numpy is aligned less, and products take longer.
    of_all = torch.empty(len(arrays), *arrays[0].shape, dtype=torch.float32)
    for part, array in zip(of_all.numpy(), arrays, strict=True):
        part[...] = array
    return of_all.to(*compute)


class SideBySide:
    """The weights of the networks of some models, those of each one after the other.

    On a CPU what makes the candidate is doubled: tanh(x) is 2 sigmoid(2x) - 1.

    Parameters
    ----------
    models : list of n_models Model
        Their arguments differ in the numbers of inputs and outputs only.
    compute : Compute

    Attributes
    ----------
    inward : list of (bias, weight) of each layer
        From what it reads to the gates: tensors of shape (n_networks, 1, 4 *
        hidden_size) and (n_networks, width, 4 * hidden_size).
    recurrent : list of tensors of shape (n_networks, hidden_size, 4 * hidden_size)
        Of each layer, from the hidden states to the gates.
    outward : list of (bias, weight) of each model
        From the hidden states to the logits: tensors of shape (networks of the model,
        1, n_outputs) and (networks of the model, hidden_size, n_outputs).
    """

    def __init__(self, models: Sequence[Model], compute: Compute) -> None:
        self._compute = compute
        self._on_gpu = compute.device.type == "cuda"
        self._layers = range(models[0].module_params["num_layers"])
        self._of_torch: list[list[torch.Tensor]] | None = None
        self.inward = [self._of_inputs(models, layer) for layer in self._layers]
        self.recurrent = [self._of_state(models, layer) for layer in self._layers]
        self.outward = [
            (
                stacked("linear.bias", [model], compute)[:, None],
                stacked("linear.weight", [model], compute).mT,
            )
            for model in models
        ]

    def _of_inputs(
        self, models: Sequence[Model], layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        bias, other, weight = (
            stacked(f"lstm.{name}_l{layer}", models, self._compute)
            for name in ("bias_ih", "bias_hh", "weight_ih")
        )
        bias = self._for_cell(bias.add_(other), 1)
        return bias[:, None], self._for_cell(weight, 1).mT

    def _for_cell(self, of_gates: torch.Tensor, dim: int) -> torch.Tensor:
        if not self._on_gpu:
            # No digit is lost.
            of_gates.chunk(4, dim=dim)[2].mul_(2)
        return of_gates

    def _of_state(self, models: Sequence[Model], layer: int) -> torch.Tensor:
        name = f"lstm.weight_hh_l{layer}"
        if self._on_gpu:
            return stacked(name, models, self._compute).mT
        # With a transposed matrix a product of few rows takes a CPU twice the time.
        weight = stacked(name, models, self._compute, np.transpose)
        return self._for_cell(weight, 2)

    def of_torch(self, models: Sequence[Model]) -> list[list[torch.Tensor]]:
        """Return the weights of each network as `torch.lstm` takes them.

        A module with them would take longer to make than it takes to read a text.

        Parameters
        ----------
        models : list of n_models Model
            The same. They are not kept: their arrays could not be forgotten.
        """
        if self._of_torch is None:
            of_layers = [
                stacked(f"lstm.{name}_l{layer}", models, self._compute)
                for layer in self._layers
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            self._of_torch = [[*weights] for weights in zip(*of_layers, strict=True)]
        return self._of_torch


# By what they were made of, with its size first; those used last come last. Threads
# only pop and set: one that finds nothing lays out anew.
_kept: dict[tuple[Any, ...], tuple[SideBySide, list[weakref.ref[Any]]]] = {}


def side_by_side(models: Sequence[Model], compute: Compute) -> SideBySide:
    """Lay out the weights of models, or take those that were kept.

    On a CPU the arrays become read-only: what is kept would not follow a change. Nor
    does it follow one through another array that shares their memory. It is forgotten
    with the first of them that is.

    Parameters
    ----------
    models, compute
        As of `SideBySide`.
    """
    named = [item for model in models for item in model.weights.items()]
    n_weights = sum(array.size for _, array in named)
    if compute.device.type != "cpu" or n_weights > MAX_KEPT:
        return SideBySide(models, compute)
    key = (n_weights, compute, *((name, id(array)) for name, array in named))
    kept = _kept.pop(key, None)
    if kept is None:
        forget = partial(_forget, _kept, key)
        references = []
        for _, array in named:
            array.flags.writeable = False
            references.append(weakref.ref(array, forget))
        kept = SideBySide(models, compute), references
    _kept[key] = kept
    n_in_all = 0
    for other in reversed([*_kept]):
        n_in_all += other[0]
        if n_in_all > MAX_KEPT:
            _kept.pop(other, None)
    return kept[0]


def _forget(kept: dict[tuple[Any, ...], Any], key: tuple[Any, ...], _: object) -> None:
    kept.pop(key, None)

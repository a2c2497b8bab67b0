"""Networks of several language models as rows of one tensor, and their training."""

# SPDX-License-Identifier: BSD-3-Clause

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from sklearn_charlstm._loop import MAX_GRADIENT_NORM, average_share
from sklearn_charlstm._lstm import hidden_states
from sklearn_charlstm._module import (
    Weights,
    at_least_float32,
    join_networks,
    split_networks,
)

__all__ = ["NEVER", "Stack", "StackState", "n_at_once", "stacked", "unstacked"]

# Numbers that a step has in memory, two gigabytes: several processes may share a GPU.
# Padding comes on top, where some classes have long texts and others short ones, and
# the tables of the estimates, up to four megabytes a class.
MAX_VALUES = 2**29

# Of AdamW, as torch has them by default.
BETAS = (0.9, 0.999)
EPS = 1e-8

# The logit of a padded output, or the log-likelihood of a class that is not there. Not
# -inf, which times 0 is NaN, and so are sums of it.
NEVER = -1e30


def stacked(weights: Sequence[Weights]) -> Weights:
    """Put the weights of several models into one array for each weight of a network.

    Parameters
    ----------
    weights : sequence of dicts of str to ndarray
        Of `CharLSTM`, of the same sizes but for the alphabets.

    Returns
    -------
    arrays : dict of str to ndarray of shape (n_models * n_networks, ...)
        By the names of the first network. What belongs to an alphabet is padded with
        zeros to the size of the largest.
    """
    networks = [part for of_model in weights for part in split_networks(of_model)]
    return {name: _padded([part[name] for part in networks]) for name in networks[0]}


def unstacked(arrays: Weights, like: Sequence[Weights]) -> list[Weights]:
    """Return what `stacked` got.

    Parameters
    ----------
    arrays : dict of str to ndarray
    like : sequence of dicts of str to ndarray
        Of the same shapes as what is returned.
    """
    row = 0
    weights = []
    for of_model in like:
        networks = []
        for network in split_networks(of_model):
            networks.append(
                {
                    name: arrays[name][row, : len(values)].copy()
                    for name, values in network.items()
                }
            )
            row += 1
        weights.append(join_networks(networks))
    return weights


def _padded(arrays: Sequence[np.ndarray]) -> NDArray[np.float32]:
    """Put arrays of other lengths into one, with zeros at their ends."""
    tensors = [*map(torch.tensor, arrays)]
    padded: NDArray[np.float32] = pad_sequence(tensors, batch_first=True).numpy()
    return padded


def n_at_once(
    n_targets: int, n_rows: int, params: dict[str, Any], n_outputs: int
) -> int:
    """Return how many sets are trained together, by the memory that they take.

    Parameters
    ----------
    n_targets : int
        Of a batch of one set.
    n_rows : int
        Networks of a set.
    params : dict
        Arguments of `CharLSTM`.
    n_outputs : int
        Of the largest alphabet.
    """
    # Gates, states and logits, what comes between them, and the gradients of all that
    # are there together: a fifth more than was found with 96 and 256 units.
    of_network = params["embedding_dim"] + 15 * params["hidden_size"] + 8 * n_outputs
    return max(1, MAX_VALUES // (n_targets * n_rows * of_network))


class StackState(NamedTuple):
    """Where the training of networks is.

    Attributes
    ----------
    weights, average, first, second : dicts of str to ndarray of shape (n_rows, ...)
        As of `stacked`: the weights, their running average, and AdamW's averages of
        the gradients and of their squares.
    n_updates, n_steps : ndarrays of shape (n_rows,)
        How often the average was updated, and steps of AdamW.
    """

    weights: Weights
    average: Weights
    first: Weights
    second: Weights
    n_updates: NDArray[np.float64]
    n_steps: NDArray[np.float64]


class Stack:
    """Networks of one layer, the rows of one tensor, read and trained in one pass.

    So many rows one after the other are a set: their gradients are cut together, and
    they are updated together or not at all. A step is that of AdamW and of
    `RunningAverage`, in which every row counts its own steps.

    Parameters
    ----------
    state : StackState
        Where to start from.
    n_outputs : ndarray of shape (n_rows,), integer
        Sizes of the alphabets, which are padded to the size of the largest.
    lr, weight_decay : float
    device : torch.device
    """

    def __init__(
        self,
        state: StackState,
        n_outputs: NDArray[np.integer],
        *,
        lr: float,
        weight_decay: float,
        device: torch.device,
    ) -> None:
        self._lr, self._weight_decay = lr, weight_decay
        self._shapes = {name: w.shape[1:] for name, w in state.weights.items()}
        is_padding = np.arange(n_outputs.max()) >= n_outputs[:, None]
        padding = np.where(is_padding, np.float32(NEVER), np.float32(0))
        # All that belongs to a row.
        self._tensors = [
            torch.tensor(array, device=device)
            for array in (
                *(_flat(weights) for weights in state[:4]),
                *(numbers[:, None] for numbers in state[4:]),
                padding,
            )
        ]

    def like(self, n_rows: int) -> Self:
        """Return a stack of so many rows, for `load`."""
        other = copy.copy(self)
        other._tensors = [
            tensor.new_zeros(n_rows, tensor.shape[1]) for tensor in self._tensors
        ]
        return other

    def load(self, other: "Stack", rows: torch.Tensor) -> None:
        """Become some rows of another stack, from the first row on.

        What there is stays where it is.
        """
        for mine, theirs in zip(self._tensors, other._tensors, strict=True):
            mine[: len(rows)] = theirs.index_select(0, rows)

    def store(self, other: "Stack", rows: torch.Tensor) -> None:
        """Give back to the other stack what `load` took."""
        for mine, theirs in zip(self._tensors, other._tensors, strict=True):
            theirs.index_copy_(0, rows, mine[: len(rows)])

    def parameters(self, n_rows: int) -> torch.Tensor:
        """Return the weights of the first rows, for `logits` and `update`."""
        return self._tensors[0][:n_rows].detach().requires_grad_()

    def logits(
        self, parameters: torch.Tensor, inputs: torch.Tensor, *masks: torch.Tensor
    ) -> torch.Tensor:
        """Compute the logits of the next token at every position.

        Parameters
        ----------
        parameters : tensor of shape (n_rows, n_values)
        inputs : tensor of shape (n_rows, n_windows, n_steps), int64
        *masks : tensor of shape (n_rows, n_windows, 1, hidden_size)
            What dropout leaves of the hidden states; none without dropout.

        Returns
        -------
        logits : tensor of shape (n_rows, n_windows, n_steps, n_outputs)
            Of float32.
        """
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        embedding, of_input, of_state, input_bias, state_bias, output, output_bias = (
            part.unflatten(1, shape)
            for part, shape in zip(
                parameters.split(sizes, dim=1), self._shapes.values(), strict=True
            )
        )
        hidden = hidden_states(
            inputs, embedding, of_input, of_state, input_bias + state_bias
        )
        for mask in masks:
            hidden = hidden * mask
        logits = torch.baddbmm(output_bias[:, None], hidden.flatten(1, 2), output.mT)
        padding = self._tensors[-1][: len(inputs), None]
        return (at_least_float32(logits) + padding).unflatten(1, inputs.shape[1:])

    def update(
        self, loss: torch.Tensor, parameters: torch.Tensor, is_there: torch.Tensor
    ) -> None:
        """Make a step.

        Parameters
        ----------
        loss : tensor of shape ()
            The sum of the losses of the sets.
        parameters : tensor of shape (n_rows, n_values)
            What it was computed from.
        is_there : tensor of shape (n_sets,), float32
            1 for a set that has a loss, 0 for one that stays as it is.
        """
        n_sets = len(is_there)
        [gradient] = torch.autograd.grad(loss, parameters)
        norms = torch.linalg.vector_norm(gradient.view(n_sets, -1), dim=1)
        shares = (MAX_GRADIENT_NORM / (norms + 1e-6)).clamp(max=1)
        shares, is_there = (
            of_sets.repeat_interleave(len(gradient) // n_sets)[:, None]
            for of_sets in (shares, is_there)
        )
        values, average, first, second, n_updates, n_steps = (
            tensor[: len(gradient)] for tensor in self._tensors[:6]
        )
        n_updates.add_(is_there)
        n_steps.add_(is_there)
        # A row without a step stays as it is, whatever this would make of it.
        corrections = [1 - beta ** n_steps.clamp(min=1) for beta in BETAS]
        root = corrections[1].sqrt()
        rates = (-self._lr * root / corrections[0]).float() * is_there
        gradient.mul_(shares)
        first.lerp_(gradient, (1 - BETAS[0]) * is_there)
        second.lerp_(gradient.square_(), (1 - BETAS[1]) * is_there)
        scale = second.sqrt().add_((EPS * root).float())
        values.mul_(1 - self._lr * self._weight_decay * is_there)
        values.addcmul_(torch.div(first, scale, out=scale), rates)
        average.lerp_(values, average_share(n_updates).float() * is_there)

    def state(self) -> StackState:
        """Return where the training is."""
        arrays = [tensor.cpu().numpy() for tensor in self._tensors]
        weights, average, first, second = map(self._by_name, arrays[:4])
        n_updates, n_steps = arrays[4:6]
        return StackState(
            weights, average, first, second, n_updates[:, 0], n_steps[:, 0]
        )

    def _by_name(self, flat: NDArray[np.float32]) -> Weights:
        ends = np.cumsum([math.prod(shape) for shape in self._shapes.values()])
        parts = np.split(flat, ends[:-1], axis=1)
        return {
            name: part.reshape(len(part), *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }


def _flat(weights: Weights) -> NDArray[np.float32]:
    """Put all weights of a row one after the other."""
    parts = [values.reshape(len(values), -1) for values in weights.values()]
    return np.concatenate(parts, axis=1)

"""The networks of several language models in one tensor for each weight."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sklearn_charlstm._loop import MAX_GRADIENT_NORM
from sklearn_charlstm._lstm import hidden_states
from sklearn_charlstm._module import (
    Weights,
    at_least_float32,
    join_networks,
    split_networks,
)

__all__ = ["Stack", "stacked", "unstacked"]

# The logit of a padded output. Not -inf, which times a probability of 0 is NaN.
_NEVER = -1e30


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
    longest = max(map(len, arrays))
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype=np.float32)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded


class Stack:
    """The networks of several models, of one layer, read in one pass.

    Alphabets are padded to the size of the largest.

    Parameters
    ----------
    module_params : sequence of n_models dicts
        Arguments of `CharLSTM`.
    weights : sequence of n_models dicts of str to ndarray
        Where to start from.
    sizes : sequence of int
        Of groups of models, one after the other, that are always trained together.
    device : torch.device

    Attributes
    ----------
    rows : list of slices
        Where the networks of each group are in the tensors of all.
    groups : list of dicts of str to Parameter
        The weights of each group, by the names of `stacked`: parts of the tensors of
        all, where they can be changed.
    n_outputs : int
        Of the largest alphabet.
    output : {'softmax', 'sigmoid'}
    """

    def __init__(
        self,
        module_params: Sequence[dict[str, Any]],
        weights: Sequence[Weights],
        sizes: Sequence[int],
        device: torch.device,
    ) -> None:
        params = module_params[0]
        self.output = params["output"]
        self._n_networks = params["n_networks"]
        self._dropout = params["dropout"]
        self._hidden_size = params["hidden_size"]
        self._device = device
        self._n_models = len(weights)
        self._tensors = {
            name: torch.from_numpy(array).to(device).requires_grad_()
            for name, array in stacked(weights).items()
        }
        ends = np.cumsum(sizes) * self._n_networks
        begins = [0, *ends[:-1]]
        self.rows = [slice(*group) for group in zip(begins, ends, strict=True)]
        self.groups = [
            {
                name: nn.Parameter(tensor[rows].detach())
                for name, tensor in self._tensors.items()
            }
            for rows in self.rows
        ]
        n_outputs = np.array([params["n_outputs"] for params in module_params])
        self.n_outputs = int(n_outputs.max())
        is_padding = np.arange(self.n_outputs) >= n_outputs[:, None]
        padding = torch.from_numpy(np.where(is_padding, _NEVER, 0)).float()
        self._padding = padding[:, None, None, None].to(device)

    def dropout_masks(
        self, n_windows: Sequence[int], generators: Sequence[torch.Generator]
    ) -> torch.Tensor | None:
        """Draw what the `CharLSTM` of each model would draw by itself.

        Parameters
        ----------
        n_windows : sequence of int
            Of the first models.
        generators : sequence of torch.Generator

        Returns
        -------
        masks : tensor of shape (n_models * n_networks, n_windows, 1, hidden_size)
            None without dropout.
        """
        keep = 1 - self._dropout
        if keep == 1:
            return None
        shape = (len(n_windows), self._n_networks, max(n_windows), 1, self._hidden_size)
        masks = torch.zeros(shape, device=self._device)
        for of_model, n, generator in zip(masks, n_windows, generators, strict=True):
            for mask in of_model:
                mask[:n].bernoulli_(keep, generator=generator)
        return masks.flatten(0, 1).div_(keep)

    def logits(self, inputs: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        """Compute the logits of the next token at every position.

        Parameters
        ----------
        inputs : tensor of shape (n_models, n_windows, n_steps), int64
            Of the first models.
        masks : tensor or None
            From `dropout_masks`.

        Returns
        -------
        logits : tensor of shape (n_models, n_networks, n_windows, n_steps, n_outputs)
            Of float32.
        """
        n_models, n_windows, n_steps = inputs.shape
        n_rows = n_models * self._n_networks
        embedding, of_input, of_state, input_bias, state_bias, output, output_bias = (
            tensor[:n_rows] for tensor in self._tensors.values()
        )
        of_networks = inputs.repeat_interleave(self._n_networks, dim=0)
        hidden = hidden_states(
            of_networks, embedding, of_input, of_state, input_bias + state_bias
        )
        if masks is not None:
            hidden = hidden * masks
        logits = torch.baddbmm(output_bias[:, None], hidden.flatten(1, 2), output.mT)
        logits = at_least_float32(logits)
        shape = (n_models, self._n_networks, n_windows, n_steps, self.n_outputs)
        return logits.view(shape) + self._padding[:n_models]

    def backward(self, loss: torch.Tensor, n_models: int) -> None:
        """Compute the gradients of the first models, each cut to its norm.

        Parameters
        ----------
        loss : tensor of shape ()
            The sum of the losses of the models.
        n_models : int
            The others have no gradients then.
        """
        for tensor in self._tensors.values():
            tensor.grad = None
        loss.backward()
        gradients = [
            tensor.grad.view(self._n_models, -1)
            for tensor in self._tensors.values()
            if tensor.grad is not None
        ]
        squares = [gradient.square().sum(dim=1) for gradient in gradients]
        norms = torch.stack(squares).sum(dim=0).sqrt()
        shares = (MAX_GRADIENT_NORM / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(shares[:, None])
        for rows, group in zip(self.rows, self.groups, strict=True):
            is_read = rows.stop <= n_models * self._n_networks
            for part, tensor in zip(
                group.values(), self._tensors.values(), strict=True
            ):
                part.grad = tensor.grad[rows] if is_read else None  # type: ignore[index]

    def weights(self) -> Weights:
        """Return the weights of all networks, as of `stacked`."""
        return {
            name: tensor.detach().cpu().numpy()
            for name, tensor in self._tensors.items()
        }

"""The networks of several language models in one tensor for each weight."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_charlstm._loop import MAX_GRADIENT_NORM
from sklearn_charlstm._module import Weights, at_least_float32, split_networks

__all__ = ["Stack"]

# The logit of a padded output. Not -inf, which times a probability of 0 is NaN.
_NEVER = -1e30


class Stack:
    """The networks of several models, of one layer, read in one pass.

    Alphabets are padded to the size of the largest.

    Parameters
    ----------
    module_params : sequence of n_models dicts
        Arguments of `CharLSTM`.
    weights : sequence of n_models dicts of str to ndarray
        Where to start from.
    device : torch.device

    Attributes
    ----------
    models : list of n_models dicts of str to Parameter
        The weights of each model, by the names of its `CharLSTM`: parts of the tensors
        of all, where they can be changed.
    n_outputs : int
        Of the largest alphabet.
    output : {'softmax', 'sigmoid'}
    """

    def __init__(
        self,
        module_params: Sequence[dict[str, Any]],
        weights: Sequence[Weights],
        device: torch.device,
    ) -> None:
        params = module_params[0]
        self.output = params["output"]
        self._n_networks = params["n_networks"]
        self._dropout = params["dropout"]
        self._hidden_size = params["hidden_size"]
        self._device = device
        networks = [part for of_model in weights for part in split_networks(of_model)]
        self._tensors = {
            name: _padded([network[name] for network in networks]).to(device)
            for name in networks[0]
        }
        self.models: list[dict[str, nn.Parameter]] = []
        # Of each weight of a model: itself, its tensor, its place there.
        self._parts: list[list[tuple[nn.Parameter, torch.Tensor, Any]]] = []
        for k, of_model in enumerate(weights):
            self.models.append({})
            self._parts.append([])
            for name, values in of_model.items():
                _, number, weight = name.split(".", 2)
                tensor = self._tensors[f"networks.0.{weight}"]
                place = k * self._n_networks + int(number), slice(len(values))
                part = nn.Parameter(tensor[place])
                self.models[-1][name] = part
                self._parts[-1].append((part, tensor, place))
        for tensor in self._tensors.values():
            tensor.requires_grad_()
        sizes = np.array([params["n_outputs"] for params in module_params])
        self.n_outputs = int(sizes.max())
        is_padding = np.arange(self.n_outputs) >= sizes[:, None]
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
        # Every network has its own rows in the one table of all.
        first_row = torch.arange(n_rows, device=self._device) * embedding.shape[1]
        rows = inputs[:, None] + first_row.view(n_models, self._n_networks, 1, 1)
        embedded = F.embedding(rows, embedding.flatten(0, 1))
        # (networks, steps * windows, embedding)
        embedded = embedded.flatten(0, 1).transpose(1, 2).flatten(1, 2)
        bias = (input_bias + state_bias)[:, None]
        gates = torch.baddbmm(bias, embedded, of_input.mT)
        hidden = _lstm(gates.unflatten(1, (n_steps, n_windows)), of_state.mT)
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
            tensor.grad.view(len(self.models), -1)
            for tensor in self._tensors.values()
            if tensor.grad is not None
        ]
        squares = [gradient.square().sum(dim=1) for gradient in gradients]
        norms = torch.stack(squares).sum(dim=0).sqrt()
        shares = (MAX_GRADIENT_NORM / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(shares[:, None])
        for k, parts in enumerate(self._parts):
            for part, tensor, place in parts:
                part.grad = tensor.grad[place] if k < n_models else None  # type: ignore[index]


def _padded(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """Put arrays of other lengths into one tensor, with zeros at their ends."""
    longest = max(map(len, arrays))
    stacked = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype=np.float32)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(stacked)


def _lstm(gates: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
    """Read windows with several LSTMs.

    Parameters
    ----------
    gates : tensor of shape (n_networks, n_steps, n_windows, 4 * hidden_size)
        What the inputs add to the gates, in torch's order.
    recurrent : tensor of shape (n_networks, hidden_size, 4 * hidden_size)

    Returns
    -------
    hidden : tensor of shape (n_networks, n_windows, n_steps, hidden_size)
    """
    # autocast would do it at every step.
    recurrent = recurrent.to(gates.dtype)
    shape = (len(gates), gates.shape[2], recurrent.shape[1])
    hidden = gates.new_zeros(shape)
    # A sum over all steps: float32 whatever the gates are.
    cell = gates.new_zeros(shape, dtype=torch.float32)
    steps = []
    for gates_of_step in gates.unbind(1):
        both = torch.baddbmm(gates_of_step, hidden, recurrent)
        take_in, keep, candidate, give_out = both.chunk(4, dim=2)
        cell = keep.sigmoid() * cell + take_in.sigmoid() * candidate.tanh()
        hidden = (give_out.sigmoid() * cell.tanh()).to(gates.dtype)
        steps.append(hidden)
    return torch.stack(steps, dim=2)

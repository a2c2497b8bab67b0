"""The networks of several language models in one tensor for each weight."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from sklearn_charlstm._loop import MAX_GRADIENT_NORM
from sklearn_charlstm._module import (
    Weights,
    at_least_float32,
    join_networks,
    split_networks,
)
from sklearn_charlstm._training import TrainingState

__all__ = ["Stack"]

# The logit of a padded output. Not -inf, which times a probability of 0 is NaN.
_NEVER = -1e30

# Of AdamW.
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Stack:
    """The networks of several models as one tensor for each weight.

    First come the first networks of all models, then the second ones and so on.
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
    weights : dict of str to tensor
        By the names of a `CharLSTM` of one network.
    """

    def __init__(
        self,
        module_params: Sequence[dict[str, Any]],
        weights: Sequence[Weights],
        device: torch.device,
    ) -> None:
        self._params = module_params
        self._device = device
        self._shape = (module_params[0]["n_networks"], len(module_params))
        self._names = [*weights[0]]
        self.output = module_params[0]["output"]
        self.weights = {
            name: torch.from_numpy(values).to(device).requires_grad_()
            for name, values in self.stacked(weights).items()
        }
        sizes = [params["n_outputs"] for params in module_params]
        self.n_outputs = max(sizes)
        padding = np.arange(self.n_outputs) >= np.array(sizes)[:, None]
        self._padding = torch.from_numpy(np.where(padding, _NEVER, 0)).float()
        self._padding = self._padding[:, None, None].to(device)

    def stacked(self, weights: Sequence[Weights]) -> Weights:
        """Return the weights of all networks as one array for each name."""
        by_model = map(split_networks, weights)
        networks = [network for ones in zip(*by_model, strict=True) for network in ones]
        stacks = {}
        for name in networks[0]:
            arrays = [network[name] for network in networks]
            length = max(map(len, arrays))
            stacks[name] = np.zeros(
                (len(arrays), length, *arrays[0].shape[1:]), dtype=np.float32
            )
            for row, array in zip(stacks[name], arrays, strict=True):
                row[: len(array)] = array
        return stacks

    def unstacked(self, stacks: dict[str, torch.Tensor]) -> list[Weights]:
        """Return the weights of each model."""
        n_networks, n_models = self._shape
        arrays = {name: stack.detach().cpu().numpy() for name, stack in stacks.items()}
        models = []
        for k, params in enumerate(self._params):
            lengths = {
                "networks.0.embedding.weight": params["n_inputs"],
                "networks.0.linear.weight": params["n_outputs"],
                "networks.0.linear.bias": params["n_outputs"],
            }
            networks = [
                {
                    name: values[i * n_models + k, : lengths.get(name)].copy()
                    for name, values in arrays.items()
                }
                for i in range(n_networks)
            ]
            models.append(join_networks(networks))
        return models

    def load_moments(
        self, optimizer: torch.optim.Optimizer, states: Sequence[TrainingState]
    ) -> None:
        """Let AdamW go on from where it was with each model, if it was."""
        moments = [state.optimizer[1] for state in states if state.optimizer]
        if not moments:
            return
        by_key = {
            key: self.stacked(
                [
                    {
                        name: values[key].numpy()
                        for name, values in zip(
                            self._names, of_model.values(), strict=True
                        )
                    }
                    for of_model in moments
                ]
            )
            for key in _MOMENTS
        }
        for name, weight in self.weights.items():
            optimizer.state[weight] = {
                "step": moments[0][0]["step"].to(self._device, copy=True),
                **{
                    key: torch.from_numpy(by_key[key][name]).to(self._device)
                    for key in _MOMENTS
                },
            }

    def moments(self, optimizer: torch.optim.Optimizer) -> list[dict[Any, Any]]:
        """Return the state of AdamW for each model, by number of the weight."""
        states = {name: optimizer.state[w] for name, w in self.weights.items()}
        [step, *_] = [state["step"].cpu() for state in states.values()]
        by_key = {
            key: self.unstacked({name: state[key] for name, state in states.items()})
            for key in _MOMENTS
        }
        return [
            {
                number: {
                    "step": step.clone(),
                    **{key: torch.from_numpy(by_key[key][k][name]) for key in _MOMENTS},
                }
                for number, name in enumerate(self._names)
            }
            for k in range(len(self._params))
        ]

    def dropout_masks(
        self, n_windows: Sequence[int], generators: Sequence[torch.Generator]
    ) -> torch.Tensor | None:
        """Draw what `CharLSTM` would draw for each model by itself.

        Returns
        -------
        masks : tensor of shape (n_networks * n_models, n_windows, 1, hidden_size)
        """
        params = self._params[0]
        keep = 1 - params["dropout"]
        if keep == 1:
            return None
        masks = torch.zeros(
            *self._shape, max(n_windows), 1, params["hidden_size"], device=self._device
        )
        for of_models in masks:
            for mask, n, generator in zip(
                of_models, n_windows, generators, strict=True
            ):
                mask[:n].bernoulli_(keep, generator=generator)
        return masks.flatten(0, 1).div_(keep)

    def logits(self, inputs: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        """Compute the logits of the next token at every position.

        Parameters
        ----------
        inputs : tensor of shape (n_models, n_windows, n_steps), int64
        masks : tensor or None
            From `dropout_masks`.

        Returns
        -------
        logits : tensor of shape (n_networks, n_models, n_windows, n_steps, n_outputs)
            Of float32.
        """
        embedding, input_weight, recurrent, *biases, output_weight, output_bias = (
            self.weights.values()
        )
        n_windows, n_steps = inputs.shape[1:]
        # Every network has its own rows in the one table of all.
        first_row = torch.arange(len(embedding), device=self._device)
        first_row = first_row.view(*self._shape, 1, 1) * embedding.shape[1]
        embedded = F.embedding(inputs + first_row, embedding.flatten(0, 1))
        # (networks, steps * windows, embedding)
        embedded = embedded.flatten(0, 1).transpose(1, 2).flatten(1, 2)
        bias_of_input, bias_of_state = biases
        bias = (bias_of_input + bias_of_state)[:, None]
        gates = torch.baddbmm(bias, embedded, input_weight.mT)
        hidden = _lstm(gates.unflatten(1, (n_steps, n_windows)), recurrent.mT)
        if masks is not None:
            hidden = hidden * masks
        logits = torch.baddbmm(
            output_bias[:, None], hidden.flatten(1, 2), output_weight.mT
        )
        return (
            at_least_float32(logits).view(*self._shape, n_windows, n_steps, -1)
            + self._padding
        )

    def clip_gradients(self) -> None:
        """Cut the gradients of each model to norm `MAX_GRADIENT_NORM`."""
        gradients = [
            weight.grad.view(*self._shape, -1)
            for weight in self.weights.values()
            if weight.grad is not None
        ]
        squares = [gradient.square().sum(dim=(0, 2)) for gradient in gradients]
        norms = torch.stack(squares).sum(dim=0).sqrt()
        shares = (MAX_GRADIENT_NORM / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(shares[:, None])


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
    hidden, cell, steps = None, None, []
    for gates_of_step in gates.unbind(1):
        if hidden is not None:
            gates_of_step = torch.baddbmm(gates_of_step, hidden, recurrent)
        take_in, keep, candidate, give_out = gates_of_step.chunk(4, dim=2)
        added = take_in.sigmoid() * candidate.tanh()
        cell = added if cell is None else keep.sigmoid() * cell + added
        hidden = give_out.sigmoid() * cell.tanh()
        steps.append(hidden)
    return torch.stack(steps, dim=2)

"""The steps of LSTM layers on a GPU, each a matrix product and torch's kernel."""

# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import torch
from torch.autograd.function import once_differentiable

__all__ = ["fused_cell", "fused_hidden_states"]


def _kernels() -> tuple[Any, Any]:
    """Return what torch's own `LSTMCell` calls on a GPU, and its gradient.

    All that is done with the gates is one operation instead of ten.
    """
    aten = torch.ops.aten
    return aten._thnn_fused_lstm_cell, aten._thnn_fused_lstm_cell_backward_impl


def fused_cell(
    of_input: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    recurrent: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make a step with several networks.

    Parameters
    ----------
    of_input : tensor of shape (n_networks, n_rows, 4 * hidden_size), float32
        What the inputs and biases add to the gates.
    hidden, cell : tensors of shape (n_networks, n_rows, hidden_size), float32
    recurrent : tensor of shape (n_networks, hidden_size, 4 * hidden_size)
        Of any precision: that of the product.

    Returns
    -------
    hidden, cell : tensors of the same shapes
    gates : tensor of the shape of `of_input`
        For the gradient.
    """
    forward, _ = _kernels()
    of_hidden = torch.bmm(hidden.to(recurrent.dtype), recurrent).to(of_input.dtype)
    parts = (of_input.flatten(0, 1), of_hidden.flatten(0, 1), cell.flatten(0, 1))
    hidden, cell, gates = (
        part.unflatten(0, (len(recurrent), -1)) for part in forward(*parts)
    )
    return hidden, cell, gates


def fused_hidden_states(
    of_inputs: torch.Tensor, recurrent: torch.Tensor
) -> torch.Tensor:
    """Read sequences with several networks.

    Parameters
    ----------
    of_inputs : tensor of shape (n_steps, n_networks, n_rows, 4 * hidden_size), float32
        What the inputs and biases add to the gates.
    recurrent : tensor of shape (n_networks, hidden_size, 4 * hidden_size)
        Of any precision: that of the products.

    Returns
    -------
    hidden : tensor of shape (n_steps, n_networks, n_rows, hidden_size), float32
    """
    return _FusedLSTM.apply(of_inputs, recurrent)


class _FusedLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, of_inputs: torch.Tensor, recurrent: torch.Tensor
    ) -> torch.Tensor:
        n_networks, n_rows, n_gates = of_inputs.shape[1:]
        hidden = cell = of_inputs.new_zeros(n_networks, n_rows, n_gates // 4)
        states, cells, gates = [], [cell], []
        for of_input in of_inputs:
            hidden, cell, gates_of_step = fused_cell(of_input, hidden, cell, recurrent)
            states.append(hidden)
            cells.append(cell)
            gates.append(gates_of_step)
        ctx.save_for_backward(recurrent, *states, *cells, *gates)
        return torch.stack(states)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        _, backward = _kernels()
        recurrent, *tensors = ctx.saved_tensors
        n_steps = len(of_hidden)
        states, cells = tensors[:n_steps], tensors[n_steps : 2 * n_steps + 1]
        gates = tensors[2 * n_steps + 1 :]
        of_cell = None
        of_gates: list[torch.Tensor] = []
        for t in reversed(range(n_steps)):
            of_hidden_t = of_hidden[t]
            if of_gates:
                after = torch.bmm(of_gates[-1].to(recurrent.dtype), recurrent.mT)
                of_hidden_t = of_hidden_t + after
            of_gates_t, of_cell, _ = backward(
                of_hidden_t.flatten(0, 1),
                of_cell,
                cells[t].flatten(0, 1),
                cells[t + 1].flatten(0, 1),
                gates[t].flatten(0, 1),
                False,
            )
            of_gates.append(of_gates_t.unflatten(0, (len(recurrent), -1)))
        of_gates.reverse()
        of_recurrent = torch.zeros_like(recurrent)
        if n_steps > 1:
            before = torch.cat(states[:-1], dim=1).to(recurrent.dtype)
            after = torch.cat(of_gates[1:], dim=1).to(recurrent.dtype)
            of_recurrent = torch.bmm(before.mT, after)
        return torch.stack(of_gates), of_recurrent

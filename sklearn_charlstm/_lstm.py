"""The LSTM layers of several networks side by side, and their gradients."""

# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sklearn_charlstm._fused_lstm import fused_hidden_states

__all__ = ["hidden_states"]


def _double_candidate(gates: torch.Tensor) -> torch.Tensor:
    """Double what adds up to the candidate, the third quarter of the last dimension.

    tanh(x) is 2 sigmoid(2x) - 1, and a sigmoid takes torch less than half the time on
    a CPU. All four gates are sigmoids then.
    """
    factors = gates.new_ones(gates.shape[-1])
    factors.chunk(4)[2].fill_(2)
    return gates * factors


def hidden_states(
    inputs: torch.Tensor,
    embedding: torch.Tensor,
    of_input: torch.Tensor,
    of_state: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Read windows with several networks of one layer.

    Where there are fewer tokens in the alphabet than in the windows, each embedding is
    multiplied with the weights once, not wherever its token occurs.
    Under autocast a GPU's products with the hidden states are of the lower precision.

    Parameters
    ----------
    inputs : tensor of shape (n_networks, n_windows, n_steps), int64
    embedding : tensor of shape (n_networks, n_inputs, embedding_dim)
    of_input : tensor of shape (n_networks, 4 * hidden_size, embedding_dim)
    of_state : tensor of shape (n_networks, 4 * hidden_size, hidden_size)
    bias : tensor of shape (n_networks, 4 * hidden_size)
        The sum of torch's two.

    Returns
    -------
    hidden : tensor of shape (n_networks, n_windows, n_steps, hidden_size), float32
    """
    device = inputs.device.type
    on_gpu = device == "cuda"
    recurrent, of_input = of_state.mT, of_input.mT
    if not on_gpu:
        bias, of_input, recurrent = map(_double_candidate, (bias, of_input, recurrent))
    elif torch.is_autocast_enabled(device):
        recurrent = recurrent.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        n_networks, n_inputs, _ = embedding.shape
        first_row = torch.arange(n_networks, device=inputs.device) * n_inputs
        rows = inputs.transpose(1, 2).flatten(1) + first_row[:, None]
        if n_inputs < rows.shape[1]:
            table = torch.baddbmm(bias[:, None], embedding, of_input)
            gates = F.embedding(rows, table.flatten(0, 1))
        else:
            embedded = F.embedding(rows, embedding.flatten(0, 1))
            gates = torch.baddbmm(bias[:, None], embedded, of_input)
        if on_gpu:
            of_steps = gates.unflatten(1, (inputs.shape[2], -1)).transpose(0, 1)
            hidden = fused_hidden_states(of_steps.contiguous(), recurrent)
            return hidden.permute(1, 2, 0, 3)
        hidden, _ = _LSTM.apply(gates, recurrent, inputs.shape[2])
    return hidden.transpose(1, 2)


class _LSTM(torch.autograd.Function):
    """The steps: torch would differentiate them one by one, each in many operations.

    ``flat``, of shape (n_networks, n_steps * n_windows, 4 * hidden_size), is what the
    inputs add to the gates in torch's order, ``recurrent`` of shape (n_networks,
    hidden_size, 4 * hidden_size); the candidate is doubled in both. ``flat`` is
    overwritten with the sigmoids.
    """

    @staticmethod
    def forward(
        ctx: Any, flat: torch.Tensor, recurrent: torch.Tensor, n_steps: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.mark_dirty(flat)
        gates = flat.unflatten(1, (n_steps, -1))
        ctx.set_materialize_grads(False)
        hidden = gates.new_empty(*gates.shape[:3], gates.shape[3] // 4)
        # Of twice the cell state, and the sigmoids of that.
        cell, squashed = torch.empty_like(hidden), torch.empty_like(hidden)
        steps = zip(
            gates.unbind(1),
            *(gate.unbind(1) for gate in gates.chunk(4, dim=3)),
            cell.unbind(1),
            squashed.unbind(1),
            hidden.unbind(1),
            strict=True,
        )
        # Transposed, as it comes, it is slow here and fast in `backward`.
        by_rows = recurrent.contiguous()
        last_cell = last_hidden = None
        for gates_t, take_in, keep, candidate, give_out, cell_t, squashed_t, h in steps:
            if last_hidden is not None:
                gates_t.baddbmm_(last_hidden, by_rows)
            gates_t.sigmoid_()
            torch.mul(take_in, candidate, out=cell_t).mul_(4).sub_(take_in, alpha=2)
            if last_cell is not None:
                cell_t.addcmul_(keep, last_cell)
            torch.sigmoid(cell_t, out=squashed_t)
            torch.mul(give_out, squashed_t, out=h).mul_(2).sub_(give_out)
            last_cell, last_hidden = cell_t, h
        ctx.save_for_backward(flat, cell, squashed, hidden, recurrent)
        return hidden, flat

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_hidden: torch.Tensor, _: None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        flat, cell, squashed, hidden, recurrent = ctx.saved_tensors
        gates = flat.unflatten(1, (hidden.shape[1], -1))
        take_in, keep, candidate, give_out = gates.chunk(4, dim=3)
        # The derivative of a sigmoid s is s - s * s. For all steps at once: how the
        # cell changes with three gates, the hidden state with the fourth and the cell.
        of_gates = torch.addcmul(gates, gates, gates, value=-1)
        by_take_in, by_keep, by_candidate, by_give_out = of_gates.chunk(4, dim=3)
        by_take_in.mul_((2 * candidate).sub_(1))
        by_keep[:, 1:].mul_(cell[:, :-1]).div_(2)
        by_keep[:, 0].zero_()
        by_candidate.mul_(take_in).mul_(2)
        by_give_out.mul_((2 * squashed).sub_(1))
        by_cell = torch.addcmul(squashed, squashed, squashed, value=-1)
        by_cell.mul_(give_out).mul_(4)
        # Back through the steps, what they are multiplied with.
        by_gate = of_gates.unflatten(3, (4, -1))
        steps = zip(
            of_gates.unbind(1),
            by_gate[..., :3, :].unbind(1),
            by_give_out.unbind(1),
            by_cell.unbind(1),
            keep.unbind(1),
            # Of the step before, where there is one.
            [None, *of_hidden[:, :-1].unbind(1)],
            strict=True,
        )
        of_hidden_t = of_hidden[:, -1]
        of_cell_t = torch.zeros_like(of_hidden_t)
        for of_gates_t, first_three, last_one, by_cell_t, keep_t, earlier in reversed(
            [*steps]
        ):
            of_cell_t = torch.addcmul(of_cell_t, of_hidden_t, by_cell_t)
            last_one.mul_(of_hidden_t)
            first_three.mul_(of_cell_t[:, :, None])
            if earlier is not None:
                of_hidden_t = earlier.clone().baddbmm_(of_gates_t, recurrent.mT)
                of_cell_t.mul_(keep_t)
        before = hidden[:, :-1].flatten(1, 2)
        after = of_gates[:, 1:].flatten(1, 2)
        return of_gates.flatten(1, 2), torch.bmm(before.mT, after), None

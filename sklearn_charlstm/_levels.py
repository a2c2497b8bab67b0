"""Histories and what comes after them, one level after the other, on a device."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import on_device
from sklearn_charlstm._distinct import distinct_numbers
from sklearn_charlstm._prefixes import Level

__all__ = ["Levels"]


class Levels(NamedTuple):
    """Levels one after the other, where all models find them.

    Attributes
    ----------
    source : list of n_levels tensors or None
        As of each `Level`; None where the first histories go on in their order.
    inputs : tensor of shape (n_histories,)
        The last token of each history, of one level after the other.
    sizes : list of n_levels int
        How many histories each level has.
    history : tensor of shape (n_prefixes,)
        Which history each prefix has, of those of all levels.
    targets : tensor of shape (n_prefixes,)
        The last token of each prefix.
    ends : list of n_levels int
        How many prefixes have a history of this level or of one before, the first ones.
    """

    source: Sequence[torch.Tensor | None]
    inputs: torch.Tensor
    sizes: list[int]
    history: torch.Tensor
    targets: torch.Tensor
    ends: list[int]

    @classmethod
    def joined(cls, levels: list[Level], device: torch.device) -> "Levels":
        """Put them on a device."""
        sizes = [len(level.inputs) for level in levels]
        n_before = np.cumsum([0, *sizes[:-1]])
        # Each in one copy.
        source, inputs, history, targets = (
            on_device(np.concatenate(parts), device)
            for parts in (
                [level.source for level in levels],
                [level.inputs for level in levels],
                [level.history + n for level, n in zip(levels, n_before, strict=True)],
                [level.targets for level in levels],
            )
        )
        ends = np.cumsum([len(level.targets) for level in levels]).tolist()
        return cls(source.split(sizes), inputs, sizes, history, targets, ends)

    @classmethod
    def apart(
        cls,
        inputs: NDArray[np.int64],
        targets: NDArray[np.int64],
        inside: NDArray[np.bool_],
        device: torch.device,
    ) -> "Levels":
        """Let each text have histories of its own.

        Parameters
        ----------
        inputs, targets, inside : ndarrays of shape (n_steps, n_texts)
            The last token of each history, the next one, and whether there is one; the
            longest text first.
        device : torch.device
        """
        of_steps, next_ones = (
            on_device(tokens[inside], device) for tokens in (inputs, targets)
        )
        sizes = inside.sum(axis=1)
        source = [None] * len(sizes)
        history = torch.arange(len(next_ones), device=device)
        ends = sizes.cumsum().tolist()
        return cls(source, of_steps, sizes.tolist(), history, next_ones, ends)

    @classmethod
    def of_windows(
        cls,
        inputs: Sequence[NDArray[np.int64]],
        targets: NDArray[np.int64],
        n_before: NDArray[np.int64],
        n_inputs: int,
        device: torch.device,
    ) -> "Levels":
        """Let windows that begin alike have histories in common.

        Parameters
        ----------
        inputs : sequence of ndarrays of shape (n_windows,)
            What each window reads first, then its tokens, the earliest first: from 0 to
            `n_inputs` - 1.
        targets : ndarray of shape (n_windows,)
        n_before : ndarray of shape (n_windows,)
            How many of the tokens are read, in ascending order; all, if it is more.
        n_inputs : int
        device : torch.device
        """
        source, last_inputs = [], []
        n_histories, n_shorter = 0, 1
        prefix = np.zeros(len(targets), dtype=np.int64)
        history = np.empty_like(prefix)
        lengths = range(1, len(inputs))
        ends = [*np.searchsorted(n_before, lengths).tolist(), len(targets)]
        for n_done, column in zip([0, *ends], inputs, strict=False):
            if n_done == len(targets):
                break
            long = slice(n_done, None)
            shorter, last = prefix[long], column[long]
            row, longer = distinct_numbers(
                shorter * n_inputs + last, n_shorter * n_inputs
            )
            source.append(shorter[row])
            last_inputs.append(last[row])
            prefix[long] = longer
            history[long] = n_histories + longer
            n_shorter = len(row)
            n_histories += n_shorter
        sizes = [*map(len, last_inputs)]
        of_all = tuple(source), np.concatenate(last_inputs), history, targets
        rows, inputs_of_all, history_of_all, next_ones = on_device(of_all, device)
        return cls(
            rows, inputs_of_all, sizes, history_of_all, next_ones, ends[: len(sizes)]
        )

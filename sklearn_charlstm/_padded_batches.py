"""The batches of several trainings side by side, of few different shapes."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import on_device

__all__ = ["dropout_masks", "most_batches_first", "steps_of"]

# Targets that are made, and put on the device, together.
MAX_TARGETS = 2**22

# Where there are fewer sets, those that have no batches left are not worth leaving out.
MIN_SETS = 16

# The arrays of a batch, and what else is known of it.
_Batch = tuple[Sequence[NDArray[Any]], Any]


def most_batches_first(n_batches: Sequence[int]) -> list[int]:
    """Return an order in which those that still have batches are the first ones."""
    return sorted(range(len(n_batches)), key=lambda k: -n_batches[k])


def steps_of(
    ways: Sequence[Iterator[_Batch]],
    n_batches: Sequence[int],
    n_targets: int,
    fill: Sequence[Any],
    device: torch.device,
) -> Iterator[tuple[list[_Batch], list[torch.Tensor]]]:
    """Yield the batches of an epoch, step after step.

    What is made for a shape, such as a graph of the computation, serves again: the
    sizes are rounded up.

    Parameters
    ----------
    ways : sequence of n_sets iterators of tuple of arrays and anything
        The batches of each set, in the order of `most_batches_first`: arrays of shape
        (n_windows, n_steps) or (n_windows,). The first one has both.
    n_batches : sequence of int
        How many each has.
    n_targets : int
        Of all batches, as a bound on memory.
    fill : sequence
        What each of the arrays is padded with.
    device : torch.device

    Yields
    ------
    batches : list
        Of the sets that have one.
    tensors : list of tensors of shape (n_read, n_windows, n_steps) or less
        The arrays of the first `n_read` sets on the device, and at the end one of shape
        (n_read,), float32: 1 where there is a batch, else 0.
    """
    n_steps = n_batches[0]
    n_together = max(1, n_steps * MAX_TARGETS // n_targets)
    n_there = [sum(n > number for n in n_batches) for number in range(n_steps)]
    for begin in range(0, n_steps, n_together):
        steps = [
            [next(way) for way in ways[:n]] for n in n_there[begin : begin + n_together]
        ]
        tensors = on_device(tuple(_padded(steps, fill)), device)
        for batches, *of_step in zip(steps, *tensors, strict=True):
            n_read = _n_read(len(steps[0]), len(batches))
            yield batches, [tensor[:n_read] for tensor in of_step]


def _n_read(n_sets: int, n_there: int) -> int:
    """Return how many sets take part in a step: one of few numbers."""
    while n_sets > MIN_SETS and n_sets // 2 >= n_there:
        n_sets //= 2
    return n_sets


def _rounded(n: int) -> int:
    """Round up to four binary digits: to few numbers, and by an eighth at most."""
    unit = 2 ** max(0, int(n).bit_length() - 4)
    return math.ceil(n / unit) * unit


def _padded(
    steps: Sequence[Sequence[_Batch]], fill: Sequence[Any]
) -> Iterator[NDArray[Any]]:
    """Put the arrays of all batches into one, and say where there are batches."""
    sizes = [arrays[0].shape for batches in steps for arrays, _ in batches]
    n_windows, n_steps = np.max(sizes, axis=0)
    shape = (len(steps), len(steps[0]), _rounded(n_windows), _rounded(n_steps))
    [[(first, _), *_], *_] = steps
    for number, (like, value) in enumerate(zip(first, fill, strict=True)):
        padded = np.full(shape[: 2 + like.ndim], value, dtype=like.dtype)
        for of_step, batches in zip(padded, steps, strict=True):
            for of_set, (arrays, _) in zip(of_step, batches, strict=False):
                array = arrays[number]
                of_set[*map(slice, array.shape)] = array
        yield padded
    n_there = np.array([len(batches) for batches in steps])
    yield (np.arange(shape[1]) < n_there[:, None]).astype(np.float32)


def dropout_masks(
    dropout: float,
    shape: tuple[int, int, int, int],
    sizes: Sequence[tuple[int, int]],
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> list[torch.Tensor]:
    """Draw what the networks of each set would draw one after the other.

    Parameters
    ----------
    dropout : float
    shape : tuple of n_sets, n_rows, n_windows and hidden_size
        With padding.
    sizes : sequence of tuples of n_rows and n_windows
        Of the first sets. The others have none.
    generators : sequence of torch.Generator
        One for each set.
    device : torch.device

    Returns
    -------
    masks : list of tensor of shape (n_sets * n_rows, n_windows, 1, hidden_size)
        For `Stack.logits`: one, or none without dropout.
    """
    if not dropout:
        return []
    masks = torch.zeros(shape, dtype=torch.float32, device=device)
    for of_set, size, generator in zip(masks, sizes, generators, strict=False):
        n_rows, n_windows = size
        for mask in of_set[:n_rows]:
            mask[:n_windows].bernoulli_(1 - dropout, generator=generator)
    return [masks.flatten(0, 1).div_(1 - dropout)[:, :, None]]

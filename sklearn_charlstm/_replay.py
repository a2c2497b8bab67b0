"""Functions of tensors that a GPU gets in one launch."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Replayed"]


class Replayed:
    """A function of tensors, called with the same shapes again and again.

    Its tensors are always on one device, and each of one type.

    A step of small networks is hundreds of operations, and a GPU has done one before
    the next is launched. Of the second call with the same shapes it makes a CUDA graph
    [1]_, and those that follow are one launch each.

    Parameters
    ----------
    function : callable
        Returns nothing, and changes only what stays where it is. Does not wait for the
        device.

    References
    ----------
    .. [1] A. Gray, "Getting started with CUDA graphs", NVIDIA developer blog, 2019.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._replays: dict[
            tuple[torch.Size, ...], tuple[list[torch.Tensor], Callable[[], None]] | None
        ] = {}
        # Graphs that take turns use the same memory, on one stream.
        self._pool: Any = None
        self._stream: Any = None

    def __call__(self, *tensors: torch.Tensor) -> None:
        """Call the function; on another device than a GPU as it is."""
        shapes = tuple(tensor.shape for tensor in tensors)
        if tensors[0].device.type != "cuda" or shapes not in self._replays:
            # What torch prepares in a first call cannot be part of a graph.
            self._replays[shapes] = None
            self._function(*tensors)
            return
        replay = self._replays[shapes]
        if replay is None:
            kept = [torch.empty_like(tensor) for tensor in tensors]
            replay = self._replays[shapes] = kept, self._captured(kept)
        kept, run = replay
        torch._foreach_copy_(kept, [*tensors])
        run()

    def _captured(self, tensors: list[torch.Tensor]) -> Callable[[], None]:
        """Return what does with these tensors what the function does."""
        graph = torch.cuda.CUDAGraph()
        # torch's own stream for graphs is on the GPU of the first graph of a process.
        with torch.cuda.device(tensors[0].device):
            self._stream = self._stream or torch.cuda.Stream()
            with torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                # Other threads may use the GPU in the meantime.
                capture_error_mode="thread_local",
            ):
                self._function(*tensors)
        self._pool = graph.pool()
        return graph.replay

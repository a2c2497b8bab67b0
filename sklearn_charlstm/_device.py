"""Where the computation runs, and in which precision."""

# SPDX-License-Identifier: BSD-3-Clause

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = [
    "Compute",
    "for_training",
    "n_devices",
    "nth_gpu",
    "on_device",
    "reproducibly",
    "reseed",
    "resolve_compute",
    "seed_of",
    "seeded",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# The number of threads and the random state belong to the process.
_PROCESS_STATE = threading.RLock()


def _unlock() -> None:
    global _PROCESS_STATE
    _PROCESS_STATE = threading.RLock()


# A forked process has none of the threads of which one may hold the lock.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


class Compute(NamedTuple):
    """Where the computation runs, and in which precision.

    Attributes
    ----------
    device : torch.device
    dtype : torch.dtype
        Of the factors of matrix products. In training the weights and all else stay
        float32.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    def precision(self) -> str:
        """The name of the precision."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def of_lstm(self) -> tuple[torch.device, torch.dtype]:
        """Where torch's own LSTM writes and in which precision.

        On a GPU in float32: torch does not lay out other weights as cuDNN needs them,
        and would do it anew in every call.
        """
        dtype = torch.float32 if self.device.type == "cuda" else self.dtype
        return self.device, dtype

    @property
    def can_train(self) -> bool:
        """Whether torch can: oneDNN's LSTM multiplies bfloat16 on some processors."""
        return (
            self.dtype != torch.bfloat16
            or self.device.type != "cpu"
            or not torch.backends.mkldnn.is_available()
            or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )

    def autocast(self) -> torch.autocast:
        """Let torch choose what is computed in the lower precision for a while."""
        if not self.can_train:
            raise ValueError(
                "precision='bfloat16' cannot be used for training on this processor, "
                "which has no instructions for it, such as AVX-512; use 'float32', or "
                "'auto', which takes bfloat16 where it pays."
            )
        enabled = self.dtype == torch.bfloat16
        # Within an autocast of the caller torch would keep the cast weights from step
        # to step, whatever the optimizer makes of them.
        return torch.autocast(
            self.device.type, self.dtype, enabled=enabled, cache_enabled=False
        )


def resolve_compute(device: str, precision: str) -> Compute:
    """Turn the parameters `device` and `precision` into what is there.

    Parameters
    ----------
    device : str
        'auto' (CUDA, else CPU) or the name of a torch device.
    precision : {'float32', 'bfloat16', 'auto'}
        'auto': bfloat16 on processors with AMX.

    Returns
    -------
    compute : Compute

    Raises
    ------
    ValueError
        If there is no such device on this machine, or no such precision.
    """
    if precision not in (*DTYPES, "auto"):
        # It may have been set since `fit`.
        raise ValueError(
            f"precision={precision!r} is not known; use 'float32', 'bfloat16' or "
            "'auto'."
        )
    where = _resolve_device(device)
    if precision == "auto":
        # AVX-512 BF16 alone pays on some processors and takes longer on others, a GPU
        # gains by it with wide networks only.
        pays = where.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16")
        precision = "bfloat16" if pays else "float32"
    return Compute(where, DTYPES[precision])


def _resolve_device(device: str) -> torch.device:
    if device == "auto":
        # Not MPS, where torch's LSTM has been wrong in silence more than once.
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not a torch device; use 'auto', 'cpu', 'cuda', "
            "'cuda:1' or 'mps'."
        ) from error
    if resolved.type == "cuda":
        n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        usable = (resolved.index or 0) < n_gpus
        seen = f"torch sees {n_gpus} CUDA device(s)"
    elif resolved.type == "mps":
        usable = torch.backends.mps.is_available()
        seen = "torch sees no MPS device"
    else:
        usable = resolved.type == "cpu"
        seen = "only CPU, CUDA and MPS devices are supported"
    if not usable:
        raise ValueError(
            f"device={device!r} cannot be used: {seen}; use device='auto' or 'cpu'."
        )
    return resolved


def n_devices(device: torch.device) -> int:
    """Return how many devices jobs side by side can have: "cuda" is any of several."""
    return torch.cuda.device_count() if device == torch.device("cuda") else 1


def on_device(arrays: Any, device: torch.device) -> Any:
    """Return arrays as tensors that are on a device, or will be when they are needed.

    Parameters
    ----------
    arrays : ndarray, or dict or tuple of what may hold some
    device : torch.device
    """
    if isinstance(arrays, dict):
        return {name: on_device(part, device) for name, part in arrays.items()}
    if isinstance(arrays, tuple):
        return tuple(on_device(part, device) for part in arrays)
    if not isinstance(arrays, np.ndarray):
        return arrays
    tensor = torch.from_numpy(arrays)
    if device.type != "cuda":
        return tensor.to(device)
    # Only from pinned memory does a copy not wait for all that came before it.
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def nth_gpu(number: int) -> Iterator[None]:
    """Let "cuda" be another GPU for every number, by turns, in this thread."""
    # This machine may be another than where the jobs come from, and have none.
    n_gpus = torch.cuda.device_count()
    with torch.cuda.device(number % n_gpus) if n_gpus else nullcontext():
        yield


@contextmanager
def _as_by_default() -> Iterator[None]:
    """Let the default device and the autocast of a caller not count.

    The default dtype does not either: it is that of all threads, so tensors are made of
    float32 wherever they are made.
    """
    with ExitStack() as stack:
        # What is not needed would make every operation slower.
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def reproducibly() -> Iterator[None]:
    """Let torch compute in one thread for a while, and nothing else beside it.

    Sums in another order have other roundings, and training multiplies them: a model
    must not depend on the number of cores or jobs. And the matrices are so small that
    threads wait for each other longer than they compute.

    On a GPU float32 is float32: by default cuDNN's LSTM, but not the other products,
    rounds to the 10 bits of TF32, and what is computed by the one or the other depends
    on what is trained together.
    """
    lstm: Any = torch.backends.cudnn.rnn
    with _PROCESS_STATE, _as_by_default():
        n_threads = torch.get_num_threads()
        precision = lstm.fp32_precision
        try:
            torch.set_num_threads(1)
            lstm.fp32_precision = "ieee"
            yield
        finally:
            lstm.fp32_precision = precision
            torch.set_num_threads(n_threads)


@contextmanager
def for_training() -> Iterator[None]:
    """Compute `reproducibly`, with gradients, whatever a caller has switched off."""
    with reproducibly(), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch for a while, on the CPU and on `device`, and then restore it.

    To be used within `reproducibly`.
    """
    cuda_devices = [device] if device.type == "cuda" else []
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(cuda_devices):
        try:
            _seed(device, seed)
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


def reseed(device: torch.device, *seeds: int) -> None:
    """Seed torch anew, within `seeded`, from several numbers together."""
    _seed(device, seed_of(*seeds))


def seed_of(*seeds: int) -> int:
    """Return one seed made of several numbers."""
    [seed] = np.random.SeedSequence(seeds).generate_state(1)
    return int(seed)


def _seed(device: torch.device, seed: int) -> None:
    # `torch.manual_seed` would seed every GPU of the machine.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)

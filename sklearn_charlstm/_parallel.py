"""Jobs side by side, and what to say when a process is gone."""

# SPDX-License-Identifier: BSD-3-Clause

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from joblib import effective_n_jobs
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed

from sklearn_charlstm._device import n_devices, nth_gpu

__all__ = ["dealt", "gathered", "n_processes", "run"]

_Item = TypeVar("_Item")


def n_processes(n_jobs: int | None) -> int:
    """Return how many jobs `run` has in processes of their own.

    Threads, which joblib uses within its processes too, would train by turns.
    """
    backend, _ = get_active_backend()
    threads = getattr(backend, "uses_threads", False)
    return 1 if threads else effective_n_jobs(n_jobs)


def _numbered(number: int, by_turns: bool, job: Callable[[], Any]) -> tuple[int, Any]:
    with nth_gpu(number) if by_turns else nullcontext():
        result = job()
        if torch.cuda.is_initialized():
            # torch keeps what was freed, and other processes want it.
            torch.cuda.empty_cache()
        return number, result


def dealt(items: Sequence[_Item], n_groups: int) -> list[Sequence[_Item]]:
    """Deal items to groups by turns."""
    return [items[number::n_groups] for number in range(n_groups)]


def gathered(groups: Sequence[Sequence[_Item]]) -> list[_Item]:
    """Return the items of `dealt` groups in their order."""
    n_items = sum(map(len, groups))
    return [groups[k % len(groups)][k // len(groups)] for k in range(n_items)]


def run(
    names: Sequence[str],
    jobs: Iterable[Callable[[], Any]],
    n_jobs: int | None,
    device: torch.device,
) -> list[Any]:
    """Run jobs side by side with joblib, on all GPUs by turns.

    Parameters
    ----------
    names : sequence of str
        What each job does, for messages.
    jobs : iterable of callables
        Taken from it one by one, as there is somebody to do them.
    n_jobs : int or None
    device : torch.device
        Where the jobs compute.

    Returns
    -------
    results : list
        In the order of the jobs.

    Raises
    ------
    RuntimeError
        If a worker process was killed.
    """
    by_turns = n_devices(device) > 1 and effective_n_jobs(n_jobs) > 1
    numbered = (
        delayed(_numbered)(number, by_turns, job) for number, job in enumerate(jobs)
    )
    try:
        # Each result as soon as it is there: it tells what was running at the end.
        parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    except ValueError:
        # From multiprocessing and Ray they come all together.
        parallel = Parallel(n_jobs=n_jobs)
    results: dict[int, Any] = {}
    try:
        with warnings.catch_warnings():
            # Where the C library keeps freed memory, joblib takes it for a leak and
            # starts the process anew; nothing is lost.
            warnings.filterwarnings("ignore", "A worker stopped while", UserWarning)
            results.update(parallel(numbered))
    except TerminatedWorkerError as error:
        n_workers = effective_n_jobs(n_jobs)
        left = [name for number, name in enumerate(names) if number not in results]
        raise RuntimeError(
            "A worker process was killed, probably for want of memory, while these "
            f"were running: {', '.join(left[:n_workers])}. Set a smaller `n_jobs` "
            f"than {n_workers}."
        ) from error
    return [results[number] for number in range(len(names))]

"""One live line for the training of several models, also in other processes."""

# SPDX-License-Identifier: BSD-3-Clause

import math
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

__all__ = ["progress_line"]

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Report:
    """Append an epoch's result to the file that the line is drawn from.

    A file reaches the worker processes of joblib without a server of our own.
    """

    path: str
    name: str
    unit: str

    def __call__(self, loss: float) -> None:
        bits = loss / math.log(2)
        # Not created here: on another machine there is no such file and no line. A
        # line is no reason to stop whatever else the system has against it.
        with suppress(OSError):
            # One line, whatever the label.
            line = f"{' '.join(self.name.split())}: {bits:.3f} {self.unit}\n"
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(file, line.encode("utf-8", "replace"))
            finally:
                os.close(file)


@contextmanager
def progress_line(
    names: list[str],
    n_steps: int,
    verbose: int,
    *,
    desc: str = "Training",
    unit: str = "bits/char",
    step: str = "epoch",
) -> Iterator[Sequence[_Report | None]]:
    """Draw one tqdm line over all steps of all models on standard error.

    Parameters
    ----------
    names : list of str
        What each model is called in the line.
    n_steps : int
        Steps of all of them together.
    verbose : int
        0 draws nothing.
    desc : str
        What is going on.
    unit : str
        What the loss is, in bits.
    step : str
        What a step is.

    Yields
    ------
    reports : list of callables, or of None where nothing is drawn
        One for each model, to be called as ``report(loss)``, from this
        process or another.
    """
    if not (verbose and n_steps):
        yield [None] * len(names)
        return
    # Windows does not delete what another process, or one that scans it, has open.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = os.path.join(folder, "epochs")
        with open(path, "w", encoding="utf-8"):
            pass
        line = _Line(path, {"total": n_steps, "desc": desc, "unit": step})
        try:
            line.start()
            yield [_Report(path, name, unit) for name in names]
            line.is_complete = True
        finally:
            line.done.set()
            # An interrupt may have come before the thread.
            with suppress(RuntimeError):
                line.join()


class _Line(threading.Thread):
    """Draw the line until all is done.

    From beginning to end in a thread of its own, where no signal raises anything:
    an interrupt within tqdm would leave its lock locked, and the next line waiting.

    Parameters
    ----------
    path : str
        The file of the reports.
    settings : dict
        Arguments of tqdm.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.settings = settings
        self.done = threading.Event()
        self.is_complete = False

    def run(self) -> None:
        with (
            open(self.path, encoding="utf-8", errors="replace") as file,
            tqdm(**self.settings) as bar,
        ):
            done = False
            while not done:
                done = self.done.wait(POLL_SECONDS)
                lines = file.readlines()
                if lines:
                    bar.set_postfix_str(lines[-1].strip(), refresh=False)
                    bar.update(len(lines))
            if self.is_complete:
                # Models that stopped early have no more epochs to wait for.
                bar.total = bar.n
                bar.refresh()

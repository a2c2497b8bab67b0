"""Training over ready batches with skorch, and what is done in every training."""

# SPDX-License-Identifier: BSD-3-Clause

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_charlstm._device import Compute, on_device, reseed
from sklearn_charlstm._module import MAX_WEIGHT, Weights

__all__ = [
    "MAX_GRADIENT_NORM",
    "BatchesNet",
    "EpochReport",
    "RunningAverage",
    "average_share",
    "check_finite",
    "check_weights",
    "report_losses",
]

MAX_GRADIENT_NORM = 1.0

# The running average gives the weights after update t the share (a + 1) / (t + a):
# with a = 3 two thirds of the average are of the last quarter of training, however
# long it has been.
AVERAGE_DECAY = 3


def average_share(n_updates: Any) -> Any:
    """Return what the weights after so many updates count in their running average."""
    return (AVERAGE_DECAY + 1) / (n_updates + AVERAGE_DECAY)


class RunningAverage:
    """The running average of weights: polynomial-decay averaging.

    Parameters
    ----------
    parameters : dict of str to tensor
        The weights.
    average : dict of str to ndarray
        The average so far.
    n_updates : int
        Updates of the weights so far.
    """

    def __init__(
        self, parameters: dict[str, Any], average: Weights, n_updates: int
    ) -> None:
        self.parameters = parameters
        self.averages = {
            name: torch.tensor(average[name], device=parameter.device)
            for name, parameter in parameters.items()
        }
        self.n_updates = n_updates

    def update(self) -> None:
        """Take the weights after one more update into account."""
        self.n_updates += 1
        share = average_share(self.n_updates)
        with torch.no_grad():
            torch._foreach_lerp_(
                [*self.averages.values()], [*self.parameters.values()], share
            )

    def weights(self) -> Weights:
        """Return the average as it is now."""
        return {
            name: average.cpu().numpy().copy()
            for name, average in self.averages.items()
        }


def check_finite(loss: float, name: str, epoch: int) -> None:
    """Raise an error if the loss of an epoch says that training has diverged."""
    if not math.isfinite(loss):
        raise ValueError(
            f"Training of {name} diverged: the loss is {loss} in epoch {epoch}; use a "
            "smaller `lr`."
        )


def check_weights(weights: Weights, name: str) -> None:
    """Raise an error if training has diverged in the last update.

    The losses are of the weights before it.
    """
    if not all((np.abs(values) <= MAX_WEIGHT).all() for values in weights.values()):
        raise ValueError(
            f"Training of {name} diverged: weights grew beyond {MAX_WEIGHT:.0e}; use a "
            "smaller `lr`."
        )


def report_losses(
    jobs: Sequence[Any], loss_curves: Sequence[list[float]], losses: Sequence[float]
) -> None:
    """Keep the losses of an epoch of several trainings and pass them on.

    Parameters
    ----------
    jobs : sequence with the attributes `name`, `report` and `batches`
    loss_curves : sequence of list of float
        What each loss is added to.
    losses : sequence of float
    """
    for job, loss_curve, loss in zip(jobs, loss_curves, losses, strict=True):
        check_finite(loss, job.name, job.batches.epoch)
        loss_curve.append(loss)
        if job.report is not None:
            job.report(loss)


class EpochReport(Callback):
    """Seed each epoch, keep its loss per target and pass it on.

    skorch's own `train_loss` weights the batches by windows, which is not exact
    where they are padded.

    Parameters
    ----------
    name : str
        What is trained, for messages.
    report : callable or None
        Called with the loss of each epoch.
    batches : iterable with the attributes `seed` and `epoch`
    """

    def __init__(
        self, name: str, report: Callable[[float], None] | None, batches: Any
    ) -> None:
        self.name = name
        self.report = report
        self.batches = batches

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        # An epoch is drawn from the seed and its number: training that goes on is
        # the same as training that never stopped.
        reseed(net.device, self.batches.seed, self.batches.epoch)
        self.sum_ = torch.zeros((), dtype=torch.float32, device=net.device)
        self.n_targets_ = torch.zeros((), dtype=torch.int64, device=net.device)

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.sum_ += net.reported_loss_
        self.n_targets_ += net.n_targets_

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        loss = float(self.sum_) / int(self.n_targets_)
        epoch = self.batches.epoch
        check_finite(loss, self.name, epoch)
        net.history.record("train_loss", loss)
        if self.report is not None:
            self.report(loss)


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Take note of the signals that raise KeyboardInterrupt."""
    noted: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    # Elsewhere no signal raises anything.
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and callable(previous)):
        yield noted
        return

    def handler(signum: int, frame: FrameType | None) -> None:
        try:
            previous(signum, frame)
        except KeyboardInterrupt:
            noted.append(signum)
            raise

    try:
        signal.signal(signal.SIGINT, handler)
        yield noted
    finally:
        signal.signal(signal.SIGINT, previous)


class BatchesNet(NeuralNet):
    """skorch's net, its steps and its callbacks, for ready batches.

    Callbacks get the batches as they are on the device.

    Parameters
    ----------
    *args, **kwargs
        As of the net of skorch.
    compute : Compute

    Attributes
    ----------
    reported_loss_, n_targets_ : tensor of one number
        The sum of the losses of a batch, as they are reported, and the number of its
        targets. `get_loss` of a subclass sets both: what it has just computed is still
        in the cache of a CPU.
    """

    reported_loss_: torch.Tensor
    n_targets_: torch.Tensor

    def __init__(self, *args: Any, compute: Compute, **kwargs: Any) -> None:
        super().__init__(
            *args, device=compute.device, train_split=None, verbose=0, **kwargs
        )
        self.compute = compute

    def infer(self, x: Any, **fit_params: Any) -> Any:
        with self.compute.autocast():
            return super().infer(x, **fit_params)

    # skorch goes through all modules in every step, and in the joint training of many
    # classes there are hundreds, of which a step needs a few.

    def _set_training(self, training: bool = True) -> None:
        if self.module_.training != training:
            super()._set_training(training)

    def get_all_learnable_params(self) -> Any:
        if not hasattr(self, "learnable_"):
            self.learnable_ = list(super().get_all_learnable_params())
        return iter(self.learnable_)

    @property
    def _default_callbacks(self) -> list[Any]:
        return []

    def train_epochs(self, batches: Any, epochs: int) -> None:
        """Train for some epochs, or until a callback wants to stop early.

        skorch's own loop waits for the device in each step, to record the loss, and
        takes every Ctrl-C for a wish to stop early.

        Raises
        ------
        KeyboardInterrupt
            If there was a signal for one.
        """
        datasets = {"dataset_train": batches, "dataset_valid": None}
        with _noted_interrupts() as noted:
            self.notify("on_train_begin", X=batches, y=None)
            for _ in range(epochs):
                self.notify("on_epoch_begin", **datasets)
                for batch in batches:
                    batch = on_device(batch, self.compute.device)
                    self.notify("on_batch_begin", batch=batch, training=True)
                    step = self.train_step(batch)
                    self.history.record_batch("train_batch_size", len(batch[1][0]))
                    self.notify("on_batch_end", batch=batch, training=True, **step)
                try:
                    self.notify("on_epoch_end", **datasets)
                except KeyboardInterrupt:
                    # That is how callbacks of skorch stop early.
                    break
            self.notify("on_train_end", X=batches, y=None)
        if noted:
            raise KeyboardInterrupt

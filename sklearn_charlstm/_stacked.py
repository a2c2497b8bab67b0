"""Training of many language models in one step, where one leaves the device idle."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, one_thread, seed_of
from sklearn_charlstm._loop import RunningAverage, check_finite, on_device
from sklearn_charlstm._module import mean_log_probabilities
from sklearn_charlstm._stack import Stack
from sklearn_charlstm._training import CRITERIA, TrainingJob, TrainingState
from sklearn_charlstm._windows import IGNORE

__all__ = ["can_stack", "train_stacked"]

# Networks in one step, which bounds the memory that it takes.
MAX_NETWORKS = 256

_Batch = tuple[NDArray[Any], ...]


def can_stack(jobs: Sequence[TrainingJob]) -> bool:
    """Tell whether models can be trained in one step.

    Their networks are the same but for their alphabets, of one layer and as far
    trained, and there is as much to do.
    """

    def kind(job: TrainingJob) -> tuple[Any, ...]:
        alphabet = {"n_inputs", "n_outputs"}
        params = [item for item in job.module_params.items() if item[0] not in alphabet]
        state = job.state
        return job.epochs, state.n_updates, state.optimizer is None, *sorted(params)

    return (
        len({kind(job) for job in jobs}) == 1
        and jobs[0].module_params["num_layers"] == 1
        and all(job.batches.estimates is not None for job in jobs)
        and all(
            job.state.optimizer is None or job.state.optimizer[0] == "AdamW"
            for job in jobs
        )
    )


def train_stacked(
    jobs: Sequence[TrainingJob],
    *,
    lr: float,
    weight_decay: float,
    compute: Compute,
) -> list[tuple[TrainingState, list[float]]]:
    """Fit several language models, each as `train` does, up to roundings.

    The weights of all networks lie in one tensor, so that a step of all models takes
    the launches of one: on a GPU those are what takes time. A core of a CPU is as fast
    with one model after the other, and faster where they are large.

    Each goes its own way through its epochs; those that have less text are done
    earlier, and leave.

    Parameters
    ----------
    jobs : sequence of TrainingJob
        `can_stack` says which.
    lr, weight_decay : float
    compute : Compute

    Returns
    -------
    results : list of tuples
        State and loss curve of each model, as of `train`.
    """
    ways = [_Way(job, compute.device) for job in jobs]
    with one_thread():
        at_once = max(1, MAX_NETWORKS // jobs[0].module_params["n_networks"])
        by_length = sorted(ways, key=lambda way: way.n_steps)
        for begin in range(0, len(ways), at_once):
            left = by_length[begin : begin + at_once]
            while left:
                _train_together(left, left[0].n_steps, lr, weight_decay, compute)
                left = [way for way in left if way.n_steps]
    return [(way.state, way.loss_curve) for way in ways]


class _Way:
    """The way of one model through its epochs.

    Attributes
    ----------
    state : TrainingState
    n_steps : int
        How many are left.
    generator : torch.Generator
        Of dropout.
    loss_sum : tensor
        Of the epoch so far.
    loss_curve : list of float
    """

    def __init__(self, job: TrainingJob, device: torch.device) -> None:
        self.job = job
        self.state = job.state
        self.n_steps = job.epochs * len(job.batches)
        self.generator = torch.Generator(device)
        self.loss_sum = torch.zeros((), device=device)
        self.loss_curve: list[float] = []
        self._first_epoch = job.batches.epoch
        self._batches = self._all_batches()
        self._n_targets = 0
        # Of epochs that are done, on the device.
        self._losses: list[torch.Tensor] = []

    def _all_batches(self) -> Iterator[_Batch]:
        batches = self.job.batches
        for _ in range(self.job.epochs):
            self.generator.manual_seed(seed_of(batches.seed, batches.epoch))
            for inputs, y in batches:
                yield inputs, *y

    def next_batch(self) -> _Batch:
        """Return inputs, targets, weights and probabilities of the next step."""
        self.n_steps -= 1
        batch = next(self._batches)
        self._n_targets += int(np.count_nonzero(batch[1] != IGNORE))
        return batch

    @property
    def is_at_end_of_epoch(self) -> bool:
        """Whether the last batch was the last of an epoch."""
        return self.n_steps % len(self.job.batches) == 0

    def end_epoch(self, loss: torch.Tensor) -> None:
        """Keep the loss of an epoch; it is not needed before others are done."""
        self._losses.append(loss / self._n_targets)
        self._n_targets = 0

    @property
    def has_losses(self) -> bool:
        """Whether there are losses to report."""
        return bool(self._losses)

    def report_epoch(self) -> None:
        """Read the loss of the next epoch, for which the host waits."""
        loss = float(self._losses.pop(0))
        self.loss_curve.append(loss)
        epoch = self._first_epoch + len(self.loss_curve)
        check_finite(loss, self.job.name, epoch)
        if self.job.report is not None:
            self.job.report(epoch, loss)


def _train_together(
    ways: Sequence[_Way],
    n_steps: int,
    lr: float,
    weight_decay: float,
    compute: Compute,
) -> None:
    """Train models for so many steps."""
    device = compute.device
    states = [way.state for way in ways]
    stack = Stack(
        [way.job.module_params for way in ways],
        [state.weights for state in states],
        device,
    )
    average = RunningAverage(
        stack.weights,
        stack.stacked([state.average for state in states]),
        states[0].n_updates,
    )
    optimizer = torch.optim.AdamW(
        stack.weights.values(), lr=lr, weight_decay=weight_decay, fused=True
    )
    stack.load_moments(optimizer, states)
    sums = torch.stack([way.loss_sum for way in ways])
    for _ in range(n_steps):
        batches = [way.next_batch() for way in ways]
        n_windows = [len(inputs) for inputs, *_ in batches]
        masks = stack.dropout_masks(n_windows, [way.generator for way in ways])
        batch = on_device(_padded(batches, stack.n_outputs), device)
        loss, of_models = _losses(stack, batch, masks, compute)
        optimizer.zero_grad()
        loss.backward()
        stack.clip_gradients()
        optimizer.step()
        average.update()
        sums += of_models
        for k, way in enumerate(ways):
            if way.is_at_end_of_epoch:
                way.end_epoch(sums[k].clone())
                sums[k] = 0
        while all(way.has_losses for way in ways):
            for way in ways:
                way.report_epoch()
    results = zip(
        ways,
        sums,
        stack.unstacked(stack.weights),
        stack.unstacked(average.averages),
        stack.moments(optimizer),
        strict=True,
    )
    for way, loss_sum, of_way, average_of_way, moments in results:
        way.loss_sum = loss_sum
        way.state = TrainingState(
            of_way, average_of_way, average.n_updates, ("AdamW", moments)
        )
        while not way.n_steps and way.has_losses:
            way.report_epoch()


def _losses(
    stack: Stack,
    batch: tuple[torch.Tensor, ...],
    masks: torch.Tensor | None,
    compute: Compute,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what is to be minimised, and for each model the loss to report.

    Returns
    -------
    loss : tensor of shape ()
        The sum over the models of what `train` minimises for each.
    of_models : tensor of shape (n_models,)
        Negative log-likelihood in nats, summed over the targets.
    """
    inputs, targets, weights, scale, probabilities = batch
    with compute.autocast():
        logits = stack.logits(inputs, masks)
    criterion, settings = CRITERIA[stack.output]
    wanted = probabilities.expand(logits.shape)
    losses = criterion(**settings)(logits.flatten(0, 3), wanted.flatten(0, 3))
    # Each network by itself, as in `train`.
    losses = losses.view(logits.shape[:-1]).mean(dim=0)
    is_target = targets != IGNORE
    loss = (losses * is_target * scale[:, :, None]).sum()
    with torch.no_grad():
        log_p = mean_log_probabilities(logits, stack.output)
        log_p = log_p.gather(3, targets.clamp(min=0)[..., None]).squeeze(3)
        of_models = -(log_p * is_target * weights[:, :, None]).sum(dim=(1, 2))
    return loss, of_models


def _padded(batches: Sequence[_Batch], n_outputs: int) -> _Batch:
    """Put batches side by side, of the size of the largest.

    Returns
    -------
    inputs, targets : ndarrays of shape (n_models, n_windows, n_steps), int64
    weights, scale : ndarrays of shape (n_models, n_windows), float32
        Of a window, and what its targets count in the mean over its batch.
    probabilities : ndarray of shape (n_models, n_windows, n_steps, n_outputs), float32
    """
    shape = (len(batches), *np.max([inputs.shape for inputs, *_ in batches], axis=0))
    inputs = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORE)
    weights = np.zeros(shape[:2], dtype=np.float32)
    scale = np.zeros(shape[:2], dtype=np.float32)
    probabilities = np.zeros((*shape, n_outputs), dtype=np.float32)
    for k, (inputs_k, targets_k, weights_k, probabilities_k) in enumerate(batches):
        n_windows, n_steps, n_outputs_k = probabilities_k.shape
        inputs[k, :n_windows, :n_steps] = inputs_k
        targets[k, :n_windows, :n_steps] = targets_k
        weights[k, :n_windows] = weights_k
        scale[k, :n_windows] = weights_k / max(1, np.count_nonzero(targets_k != IGNORE))
        probabilities[k, :n_windows, :n_steps, :n_outputs_k] = probabilities_k
    return inputs, targets, weights, scale, probabilities

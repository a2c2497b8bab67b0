"""Joint training of all groups of classes in one step."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, for_training
from sklearn_charlstm._discriminative import (
    LEARNING_RATE_SHARE,
    JointJob,
    joint_losses,
)
from sklearn_charlstm._joint_batches import MAX_GROUP, GroupBatches
from sklearn_charlstm._loop import check_weights, report_losses
from sklearn_charlstm._module import (
    Weights,
    network_log_probabilities,
)
from sklearn_charlstm._padded_batches import dropout_masks, most_batches_first, steps_of
from sklearn_charlstm._replay import Replayed
from sklearn_charlstm._stack import (
    NEVER,
    Stack,
    StackState,
    n_at_once,
    stacked,
    unstacked,
)
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import IGNORE

__all__ = ["train_jointly_stacked"]


def train_jointly_stacked(
    jobs: Sequence[JointJob], *, lr: float, weight_decay: float, compute: Compute
) -> list[tuple[list[Weights], list[float]]]:
    """Fit the networks of several jobs, each as `train_jointly` does, up to roundings.

    In an epoch each network is in one group, so that the groups of all jobs can be
    trained side by side.

    Parameters
    ----------
    jobs : sequence of JointJob
        Of networks of one layer.
    lr, weight_decay : float
    compute : Compute

    Returns
    -------
    results : list of tuples
        Weights and loss curve of each job, as of `train_jointly`.
    """
    loss_curves: list[list[float]] = [[] for _ in jobs]
    with for_training():
        training = _Training(jobs, LEARNING_RATE_SHARE * lr, weight_decay, compute)
        # Not a part of the training: in a circle its memory would not be given back.
        step = Replayed(training.step_of_all)
        for _ in range(jobs[0].epochs):
            report_losses(jobs, loss_curves, training.epoch(step))
    weights_of_jobs = training.weights()
    for weights, job in zip(weights_of_jobs, jobs, strict=True):
        for weights_of_model in weights:
            check_weights(weights_of_model, job.name)
    return list(zip(weights_of_jobs, loss_curves, strict=True))


class _Training:
    """The networks of all jobs, job after job, and those that are trained now.

    The latter are sets of as many as the largest group has: the smaller ones are
    filled up with a network of nobody.
    """

    def __init__(
        self, jobs: Sequence[JointJob], lr: float, weight_decay: float, compute: Compute
    ) -> None:
        self._jobs = jobs
        self._compute = compute
        self._params = params = jobs[0].models[0].module_params
        self._networks = [model.weights for job in jobs for model in job.models]
        n_classes = len(jobs[0].models)
        n_groups = math.ceil(n_classes / MAX_GROUP)
        self._size = math.ceil(n_classes / n_groups)
        n_outputs = [
            model.module_params["n_outputs"] for job in jobs for model in job.models
        ]
        device = compute.device
        self._all = Stack(
            _first_state(self._networks),
            np.array([*n_outputs, 0]),
            lr=lr,
            weight_decay=weight_decay,
            device=device,
        )
        batches = jobs[0].batches
        n_targets = self._size * batches.batch_size * batches.maxlen
        at_once = n_at_once(n_targets, self._size, params, max(n_outputs))
        self._at_once = min(at_once, len(jobs) * n_groups)
        self._now = self._all.like(self._at_once * self._size)
        self._sums = torch.zeros(self._at_once, dtype=torch.float32, device=device)
        alphabets, self._rows_of_jobs = _alphabets(jobs)
        self._alphabets = [torch.from_numpy(table).to(device) for table in alphabets]

    def epoch(self, step: Replayed) -> list[float]:
        """Train all for an epoch, and return the mean loss of each job."""
        device = self._compute.device
        sums = self._sums.new_zeros(len(self._jobs))
        n_targets = np.zeros(len(self._jobs), dtype=np.int64)
        groups = [
            (number, group)
            for number, job in enumerate(self._jobs)
            for group in job.batches.of_groups()
        ]
        groups = [
            groups[k] for k in most_batches_first([len(group) for _, group in groups])
        ]
        for begin in range(0, len(groups), self._at_once):
            part = groups[begin : begin + self._at_once]
            numbers = np.array([number for number, _ in part])
            n_of_groups = self._train(step, numbers, [group for _, group in part])
            np.add.at(n_targets, numbers, n_of_groups)
            sums.index_add_(
                0, torch.from_numpy(numbers).to(device), self._sums[: len(part)]
            )
        # Here, once in an epoch, the device is waited for.
        return (sums.cpu().numpy() / n_targets).tolist()

    def _train(
        self,
        step: Replayed,
        numbers: NDArray[np.int64],
        groups: Sequence[GroupBatches],
    ) -> NDArray[np.int64]:
        """Train some groups for an epoch, and return how many targets each had."""
        device, params = self._compute.device, self._params
        n_classes = len(self._jobs[0].models)
        # The classes of every group, and nobody.
        classes = np.full((len(groups), self._size), n_classes)
        for row, group in zip(classes, groups, strict=True):
            row[: len(group.group)] = group.group
        is_member = classes < n_classes
        rows = np.where(
            is_member, numbers[:, None] * n_classes + classes, len(self._networks)
        )
        rows_of_alphabets = self._rows_of_jobs[numbers[:, None], classes]
        of_rows, of_alphabets, member = (
            torch.from_numpy(array).to(device)
            for array in (rows.ravel(), rows_of_alphabets.ravel(), is_member)
        )
        alphabets = [table.index_select(0, of_alphabets) for table in self._alphabets]
        self._now.load(self._all, of_rows)
        self._sums.zero_()
        generators = [torch.Generator(device) for _ in groups]
        for group, generator in zip(groups, generators, strict=True):
            generator.manual_seed(group.seed)
        n_targets = np.zeros(len(groups), dtype=np.int64)
        for batches, tensors in steps_of(
            [_with_counts(group) for group in groups],
            [len(group) for group in groups],
            sum(group.n_tokens for group in groups),
            (0, IGNORE, 0, 0),
            device,
        ):
            n_there, (n_read, n_windows, _) = len(batches), tensors[0].shape
            sizes = zip(
                (len(group.group) for group in groups[:n_there]),
                (len(arrays[0]) for arrays, _ in batches),
                strict=True,
            )
            masks = dropout_masks(
                params["dropout"],
                (n_read, self._size, n_windows, params["hidden_size"]),
                list(sizes),
                generators,
                device,
            )
            tables = [table[: n_read * self._size] for table in alphabets]
            step(*tensors, member[:n_read], *tables, *masks)
            n_targets[:n_there] += [n for _, n in batches]
        self._now.store(self._all, of_rows)
        return n_targets

    def step_of_all(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
        is_there: torch.Tensor,
        is_member: torch.Tensor,
        input_of: torch.Tensor,
        target_of: torch.Tensor,
        log_size_of: torch.Tensor,
        *masks: torch.Tensor,
    ) -> None:
        """Make a step with a batch of each of the first groups."""
        parameters = self._now.parameters(len(input_of))
        is_target = targets != IGNORE

        def of_networks(ids: torch.Tensor) -> torch.Tensor:
            return ids.flatten(1).repeat_interleave(self._size, dim=0)

        own_inputs = input_of.gather(1, of_networks(inputs))
        ids = of_networks(targets.clamp(min=0))
        with self._compute.autocast():
            logits = self._now.logits(
                parameters, own_inputs.view(-1, *inputs.shape[1:]), *masks
            )
        log_p = network_log_probabilities(logits.flatten(1, 2), self._params["output"])
        scores = log_p.gather(2, target_of.gather(1, ids)[..., None]).squeeze(2)
        scores = (scores - log_size_of.gather(1, ids)).view(
            len(inputs), self._size, *inputs.shape[1:]
        )
        scores = torch.where(is_target[:, None], scores, 0)
        scores = torch.where(is_member[:, :, None, None], scores, NEVER)
        losses, cross_entropy = joint_losses(scores.movedim(1, 3), labels, is_target)
        losses, cross_entropy = (
            (of_targets * weights[:, :, None]).sum(dim=(1, 2))
            for of_targets in (losses, cross_entropy)
        )
        n_targets = is_target.sum(dim=(1, 2)).clamp(min=1)
        self._now.update((losses / n_targets).sum(), parameters, is_there)
        self._sums[: len(inputs)] += cross_entropy.detach()

    def weights(self) -> list[list[Weights]]:
        """Return the averaged weights of the networks of each job."""
        weights = iter(unstacked(self._all.state().average, self._networks))
        return [[next(weights) for _ in job.models] for job in self._jobs]


def _first_state(networks: Sequence[Weights]) -> StackState:
    """Return where the training of these, and of nobody, begins."""
    weights = {
        name: np.append(values, np.zeros_like(values[:1]), axis=0)
        for name, values in stacked(networks).items()
    }
    nothing = {name: np.zeros_like(values) for name, values in weights.items()}
    none = np.zeros(len(networks) + 1)
    return StackState(weights, weights, nothing, nothing, none, none)


def _alphabets(
    jobs: Sequence[JointJob],
) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """Return what the ids that the classes of a job have in common are to each class.

    Returns
    -------
    tables : list of three ndarrays of shape (n_alphabets, n_ids)
        Inputs, targets and logarithms of the sizes of the targets. The last row is of
        nobody, and where there are fewer ids the rest is of no account.
    rows : ndarray of shape (n_jobs, n_classes + 1)
        Which alphabet each class has, and nobody.
    """
    n_classes = len(jobs[0].models)
    # The networks of one classifier have the same.
    first_row: dict[int, int] = {}
    alphabets: list[tuple[Vocabulary, Vocabulary]] = []
    for job in jobs:
        common = job.batches.vocabulary
        if id(common) not in first_row:
            first_row[id(common)] = len(alphabets)
            alphabets += [(model.vocabulary, common) for model in job.models]
    n_ids = max(common.n_inputs for _, common in alphabets)
    shape = len(alphabets) + 1, n_ids
    inputs, targets = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    log_sizes = np.zeros(shape, np.float32)
    for row, (vocabulary, common) in enumerate(alphabets):
        ids = vocabulary.ids_from(common)
        inputs[row, : len(ids)] = vocabulary.as_inputs(ids)
        # The others are no targets.
        of_outputs = np.minimum(ids, vocabulary.n_outputs - 1)
        targets[row, : len(ids)] = of_outputs
        log_sizes[row, : len(ids)] = np.log(vocabulary.output_sizes[of_outputs])
    first_rows = np.array([first_row[id(job.batches.vocabulary)] for job in jobs])
    rows = first_rows[:, None] + np.arange(n_classes + 1)
    rows[:, -1] = len(alphabets)
    return [inputs, targets, log_sizes], rows


def _with_counts(batches: GroupBatches) -> Iterator[Any]:
    """Yield the arrays of each batch and the number of its targets."""
    for arrays in batches:
        yield arrays, np.count_nonzero(arrays[1] != IGNORE)

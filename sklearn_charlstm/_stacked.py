"""Training of many language models in one step, where one leaves the device idle."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, reproducibly, seed_of
from sklearn_charlstm._estimates import Estimates
from sklearn_charlstm._loop import check_finite, on_device
from sklearn_charlstm._module import Weights, mean_log_probabilities
from sklearn_charlstm._replay import Replayed
from sklearn_charlstm._stack import (
    Stack,
    StackState,
    dropout_masks,
    rounded,
    stacked,
    unstacked,
)
from sklearn_charlstm._training import CRITERIA, TrainingJob, TrainingState
from sklearn_charlstm._windows import IGNORE

__all__ = ["can_stack", "train_stacked"]

# Numbers that a step has in memory, two gigabytes: several processes may share a GPU.
# Padding comes on top, where some classes have long texts and others short ones, and
# the tables of the estimates, up to four megabytes a class.
MAX_VALUES = 2**29

# Targets that are made, and put on the device, together.
MAX_TARGETS = 2**22

# Fewer models are not worth it to leave out those that have no batches left.
MIN_MODELS = 16

# What AdamW keeps of each weight.
MOMENTS = ("exp_avg", "exp_avg_sq")

_Result = tuple[TrainingState, list[float]]


def can_stack(jobs: Sequence[TrainingJob]) -> bool:
    """Tell whether models can be trained in one step.

    Their networks are the same but for their alphabets, of one layer, and there is as
    much to do; what they are trained to are smoothed estimates, and how, with AdamW.
    """

    def kind(job: TrainingJob) -> tuple[Any, ...]:
        alphabet = {"n_inputs", "n_outputs"}
        params = [item for item in job.module_params.items() if item[0] not in alphabet]
        return job.epochs, job.batches.epoch, *sorted(params)

    return (
        len({kind(job) for job in jobs}) == 1
        and jobs[0].module_params["num_layers"] == 1
        and all(job.batches.estimates is not None for job in jobs)
        and all(_is_of_plain_adamw(job) for job in jobs)
    )


def _is_of_plain_adamw(job: TrainingJob) -> bool:
    """Tell whether AdamW, of these settings, can go on from a state.

    With callbacks that freeze weights for a while, or other settings, there may be no
    state of some weights, or more of it.
    """
    if job.state.optimizer is None:
        return True
    name, by_number = job.state.optimizer
    return (
        name == "AdamW"
        and len(by_number) == len(job.state.weights)
        and all(state.keys() == {"step", *MOMENTS} for state in by_number.values())
        and len({float(state["step"]) for state in by_number.values()}) == 1
    )


def train_stacked(
    jobs: Sequence[TrainingJob],
    *,
    lr: float,
    weight_decay: float,
    compute: Compute,
) -> list[_Result]:
    """Fit several language models, each as `train` does, up to roundings.

    The weights of all networks lie in one tensor, so that the operations of a step are
    as many as those of one network: on a GPU it is launching them that takes time. A
    core of a CPU is as fast with one model after the other, and faster where they are
    large.

    All begin an epoch together, with windows of the same length; those that have fewer
    batches wait for the others at its end.

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
    # Those that still have batches are always the first ones.
    order = sorted(range(len(jobs)), key=lambda k: -len(jobs[k].batches))
    n_targets = max(math.ceil(len(job.batches.ids) / len(job.batches)) for job in jobs)
    at_once = max(1, MAX_VALUES // (n_targets * _values_per_target(jobs)))
    results: dict[int, _Result] = {}
    with reproducibly():
        for begin in range(0, len(jobs), at_once):
            part = order[begin : begin + at_once]
            of_part = _train([jobs[k] for k in part], lr, weight_decay, compute)
            results |= zip(part, of_part, strict=True)
    return [results[k] for k in range(len(jobs))]


def _values_per_target(jobs: Sequence[TrainingJob]) -> int:
    """Return how many numbers a step has in memory for each target, by its peak."""
    params = jobs[0].module_params
    n_outputs = max(job.module_params["n_outputs"] for job in jobs)
    # Gates, states and logits, what comes between them, and the gradients of all that
    # are there together: a fifth more than was found with 96 and 256 units.
    of_network = params["embedding_dim"] + 15 * params["hidden_size"] + 8 * n_outputs
    return params["n_networks"] * of_network


def _train(
    jobs: Sequence[TrainingJob], lr: float, weight_decay: float, compute: Compute
) -> list[_Result]:
    """Train models, those with most batches first."""
    device = compute.device
    params = jobs[0].module_params
    n_networks = params["n_networks"]
    n_outputs = np.array([job.module_params["n_outputs"] for job in jobs])
    stack = Stack(
        _stack_state(jobs),
        np.repeat(n_outputs, n_networks),
        lr=lr,
        weight_decay=weight_decay,
        device=device,
    )
    estimates = Estimates(
        [job.batches.estimates for job in jobs if job.batches.estimates], device
    )
    generators = [torch.Generator(device) for _ in jobs]
    sums = torch.zeros(len(jobs), device=device)

    def step(
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        scale: torch.Tensor,
        is_there: torch.Tensor,
        wanted: torch.Tensor,
        *masks: torch.Tensor,
    ) -> None:
        n_models = len(inputs)
        parameters = stack.parameters(n_models * n_networks)
        with compute.autocast():
            logits = stack.logits(
                parameters, inputs.repeat_interleave(n_networks, dim=0), *masks
            )
        loss, of_models = _losses(
            logits.unflatten(0, (n_models, n_networks)),
            wanted,
            targets,
            weights,
            scale,
            output=params["output"],
        )
        stack.update(loss, parameters, is_there)
        sums[:n_models] += of_models

    replayed = Replayed(step)
    loss_curves: list[list[float]] = [[] for _ in jobs]
    for _ in range(jobs[0].epochs):
        for job, generator in zip(jobs, generators, strict=True):
            generator.manual_seed(seed_of(job.batches.seed, job.batches.epoch))
        sums.zero_()
        n_targets = np.zeros(len(jobs), dtype=np.int64)
        for batches in _chunks(jobs):
            arrays = _padded(batches)
            n_targets[: arrays[1].shape[1]] += np.count_nonzero(
                arrays[1] != IGNORE, axis=(0, 2, 3)
            )
            of_steps = zip(*on_device(arrays, device), strict=True)
            for batches_of_step, of_step in zip(batches, of_steps, strict=True):
                n_read = _n_read(arrays[0].shape[1], len(batches_of_step))
                *batch, nodes, beyond = (part[:n_read] for part in of_step)
                inputs, targets, *_ = batch
                masks = dropout_masks(
                    params["dropout"],
                    (n_read, n_networks, inputs.shape[1], params["hidden_size"]),
                    [len(inputs_of_job) for inputs_of_job, _ in batches_of_step],
                    generators,
                    device,
                )
                wanted = estimates(targets, nodes, beyond, _n_kept(batches_of_step))
                replayed(*batch, wanted, *masks)
        # Here, once in an epoch, the device is waited for.
        losses = (sums.cpu().numpy() / n_targets).tolist()
        for job, loss_curve, loss_of_job in zip(jobs, loss_curves, losses, strict=True):
            check_finite(loss_of_job, job.name, job.batches.epoch)
            loss_curve.append(loss_of_job)
            if job.report is not None:
                job.report(job.batches.epoch, loss_of_job)
    return list(zip(_training_states(stack.state(), jobs), loss_curves, strict=True))


def _chunks(jobs: Sequence[TrainingJob]) -> Iterator[list[list[Any]]]:
    """Yield the batches of an epoch, of some steps together, of every step a list."""
    ways = [iter(job.batches) for job in jobs]
    n_batches = np.array([len(job.batches) for job in jobs])
    n_targets = sum(len(job.batches.ids) for job in jobs)
    n_steps = max(1, n_batches[0] * MAX_TARGETS // n_targets)
    for begin in range(0, n_batches[0], n_steps):
        yield [
            [next(way) for way in ways[: np.count_nonzero(n_batches > number)]]
            for number in range(begin, min(begin + n_steps, n_batches[0]))
        ]


def _n_read(n_models: int, n_there: int) -> int:
    """Return how many of the models take part in a step: few different numbers."""
    while n_models > MIN_MODELS and n_models // 2 >= n_there:
        n_models //= 2
    return n_models


def _losses(
    logits: torch.Tensor,
    wanted: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    scale: torch.Tensor,
    *,
    output: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what is to be minimised, and for each model the loss to report.

    Returns
    -------
    loss : tensor of shape ()
        The sum over the models of what `train` minimises for each.
    of_models : tensor of shape (n_models,)
        Negative log-likelihood in nats, summed over the targets.
    """
    criterion, settings = CRITERIA[output]
    wanted = wanted[:, None].expand(logits.shape)
    losses = criterion(**settings)(logits.flatten(0, 3), wanted.flatten(0, 3))
    # Each network by itself, as in `train`.
    losses = losses.view(logits.shape[:-1]).mean(dim=1)
    is_target = targets != IGNORE
    loss = (losses * is_target * scale[:, :, None]).sum()
    with torch.no_grad():
        log_p = mean_log_probabilities(logits.transpose(0, 1), output)
        log_p = log_p.gather(3, targets.clamp(min=0)[..., None]).squeeze(3)
        of_models = -(log_p * is_target * weights[:, :, None]).sum(dim=(1, 2))
    return loss, of_models


def _padded(steps: Sequence[Sequence[Any]]) -> tuple[NDArray[Any], ...]:
    """Put the batches of some steps side by side, of the size of the largest.

    Returns
    -------
    inputs, targets : ndarrays of shape (n_batches, n_models, n_windows, n_steps), int64
    weights, scale : ndarrays of shape (n_batches, n_models, n_windows), float32
        Of a window, and what its targets count in the mean over its batch.
    is_there : ndarray of shape (n_batches, n_models), float32
        1 where a model has a batch, else 0.
    nodes, beyond : ndarrays of the shape of `inputs`, int64 and bool
    """
    sizes = [inputs.shape for batches in steps for inputs, _ in batches]
    shape = (len(steps), len(steps[0]), *rounded(*np.max(sizes, axis=0)))
    inputs = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORE)
    weights = np.zeros(shape[:3], dtype=np.float32)
    scale = np.zeros(shape[:3], dtype=np.float32)
    is_there = np.zeros(shape[:2], dtype=np.float32)
    nodes = np.zeros(shape, dtype=np.int64)
    beyond = np.zeros(shape, dtype=bool)
    for step, batches in enumerate(steps):
        for k, (inputs_k, (targets_k, weights_k, nodes_k, beyond_k, _)) in enumerate(
            batches
        ):
            n_windows, n_steps = inputs_k.shape
            place = step, k, slice(n_windows), slice(n_steps)
            inputs[place] = inputs_k
            targets[place] = targets_k
            weights[place[:3]] = weights_k
            n_targets = np.count_nonzero(targets_k != IGNORE)
            scale[place[:3]] = weights_k / max(1, n_targets)
            is_there[step, k] = 1
            nodes[place] = nodes_k
            beyond[place] = beyond_k
    return inputs, targets, weights, scale, is_there, nodes, beyond


def _n_kept(batches: Sequence[Any]) -> list[int]:
    """Add up how many probabilities of the histories are kept, step by step back."""
    numbers = [y[-1] for _, y in batches]
    return [sum(step) for step in zip_longest(*numbers, fillvalue=0)]


def _moments(job: TrainingJob, moment: str) -> Weights:
    """Return what the optimizer knows of the gradients of a model, by weight."""
    if job.state.optimizer is None:
        return {name: np.zeros_like(w) for name, w in job.state.weights.items()}
    _, by_number = job.state.optimizer
    return {
        name: by_number[number][moment].numpy()
        for number, name in enumerate(job.state.weights)
    }


def _n_steps(job: TrainingJob) -> float:
    """Return the steps of the optimizer, which may have begun anew after updates."""
    if job.state.optimizer is None:
        return 0.0
    _, by_number = job.state.optimizer
    return float(by_number[0]["step"])


def _stack_state(jobs: Sequence[TrainingJob]) -> StackState:
    """Put the states of all models into one."""
    n_networks = jobs[0].module_params["n_networks"]
    return StackState(
        stacked([job.state.weights for job in jobs]),
        stacked([job.state.average for job in jobs]),
        *(stacked([_moments(job, moment) for job in jobs]) for moment in MOMENTS),
        np.repeat([float(job.state.n_updates) for job in jobs], n_networks),
        np.repeat([_n_steps(job) for job in jobs], n_networks),
    )


def _training_states(
    state: StackState, jobs: Sequence[TrainingJob]
) -> list[TrainingState]:
    """Take the states of all models apart."""
    like = [job.state.weights for job in jobs]
    weights, average, *moments = (unstacked(part, like) for part in state[:4])
    n_networks = len(state.n_steps) // len(jobs)
    states = []
    for k in range(len(jobs)):
        step = torch.tensor(state.n_steps[k * n_networks], dtype=torch.float32)
        by_number = {
            number: {
                "step": step.clone(),
                **{
                    moment: torch.from_numpy(of_models[k][name])
                    for moment, of_models in zip(MOMENTS, moments, strict=True)
                },
            }
            for number, name in enumerate(weights[k])
        }
        n_updates = int(state.n_updates[k * n_networks])
        states.append(
            TrainingState(weights[k], average[k], n_updates, ("AdamW", by_number))
        )
    return states

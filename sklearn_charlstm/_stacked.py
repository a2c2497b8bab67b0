"""Training of many language models in one step, where one leaves the device idle."""

# SPDX-License-Identifier: BSD-3-Clause

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, reproducibly, seed_of
from sklearn_charlstm._loop import RunningAverage, check_finite, on_device
from sklearn_charlstm._module import mean_log_probabilities
from sklearn_charlstm._stack import Stack
from sklearn_charlstm._training import (
    CRITERIA,
    TrainingJob,
    TrainingState,
    on_cpu,
)
from sklearn_charlstm._windows import IGNORE

__all__ = ["can_stack", "train_stacked"]

# Numbers that a step has in memory, two gigabytes: several processes may share a GPU.
# Padding comes on top, where some classes have long texts and others short ones.
MAX_VALUES = 2**29

_Batch = tuple[NDArray[Any], ...]
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
        and all((job.state.optimizer or ("AdamW",))[0] == "AdamW" for job in jobs)
    )


def train_stacked(
    jobs: Sequence[TrainingJob],
    *,
    lr: float,
    weight_decay: float,
    compute: Compute,
) -> list[_Result]:
    """Fit several language models, each as `train` does, up to roundings.

    The weights of all networks lie in one tensor, so that the products of a step are
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
    # are there together: as many as were found with 96 and 256 units.
    of_network = params["embedding_dim"] + 25 * params["hidden_size"] + 8 * n_outputs
    return params["n_networks"] * of_network


def _train(
    jobs: Sequence[TrainingJob], lr: float, weight_decay: float, compute: Compute
) -> list[_Result]:
    """Train models that come by the number of their batches, the most first."""
    device = compute.device
    stack = Stack(
        [job.module_params for job in jobs],
        [job.state.weights for job in jobs],
        device,
    )
    averages = [
        RunningAverage(model, job.state.average, job.state.n_updates)
        for model, job in zip(stack.models, jobs, strict=True)
    ]
    optimizer = torch.optim.AdamW(
        [weight for model in stack.models for weight in model.values()],
        lr=lr,
        weight_decay=weight_decay,
        fused=True,
    )
    _load_states(optimizer, jobs)
    generators = [torch.Generator(device) for _ in jobs]
    n_batches = np.array([len(job.batches) for job in jobs])
    loss_curves: list[list[float]] = [[] for _ in jobs]
    for _ in range(jobs[0].epochs):
        for job, generator in zip(jobs, generators, strict=True):
            generator.manual_seed(seed_of(job.batches.seed, job.batches.epoch))
        ways = [iter(job.batches) for job in jobs]
        sums = torch.zeros(len(jobs), device=device)
        n_targets = np.zeros(len(jobs), dtype=np.int64)
        for step in range(n_batches[0]):
            batches = [next(way) for way in ways[: np.count_nonzero(n_batches > step)]]
            n_models = len(batches)
            masks = stack.dropout_masks(
                [len(inputs) for inputs, _ in batches], generators[:n_models]
            )
            inputs, *y = _padded(batches, stack.n_outputs)
            n_targets[:n_models] += np.count_nonzero(y[0] != IGNORE, axis=(1, 2))
            with compute.autocast():
                logits = stack.logits(on_device(inputs, device), masks)
            loss, of_models = _losses(logits, on_device(tuple(y), device), stack.output)
            stack.backward(loss, n_models)
            optimizer.step()
            for average in averages[:n_models]:
                average.update()
            sums[:n_models] += of_models
        # Here, once in an epoch, the device is waited for.
        losses = (sums.cpu().numpy() / n_targets).tolist()
        for job, loss_curve, loss_of_job in zip(jobs, loss_curves, losses, strict=True):
            check_finite(loss_of_job, job.name, job.batches.epoch)
            loss_curve.append(loss_of_job)
            if job.report is not None:
                job.report(job.batches.epoch, loss_of_job)
    return [
        (
            TrainingState(
                {name: w.detach().cpu().numpy().copy() for name, w in model.items()},
                average.weights(),
                average.n_updates,
                ("AdamW", state),
            ),
            loss_curve,
        )
        for model, average, state, loss_curve in zip(
            stack.models, averages, _states(optimizer, jobs), loss_curves, strict=True
        )
    ]


def _losses(
    logits: torch.Tensor, y: tuple[torch.Tensor, ...], output: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what is to be minimised, and for each model the loss to report.

    Returns
    -------
    loss : tensor of shape ()
        The sum over the models of what `train` minimises for each.
    of_models : tensor of shape (n_models,)
        Negative log-likelihood in nats, summed over the targets.
    """
    targets, weights, scale, probabilities = y
    criterion, settings = CRITERIA[output]
    wanted = probabilities[:, None].expand(logits.shape)
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


def _padded(batches: Sequence[Any], n_outputs: int) -> _Batch:
    """Put batches side by side, of the size of the largest.

    Returns
    -------
    inputs, targets : ndarrays of shape (n_models, n_windows, n_steps), int64
    weights, scale : ndarrays of shape (n_models, n_windows), float32
        Of a window, and what its targets count in the mean over its batch.
    probabilities : ndarray of shape (n_models, n_windows, n_steps, n_outputs), float32
    """
    shape = (len(batches), *np.max([inputs.shape for inputs, _ in batches], axis=0))
    inputs = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORE)
    weights = np.zeros(shape[:2], dtype=np.float32)
    scale = np.zeros(shape[:2], dtype=np.float32)
    probabilities = np.zeros((*shape, n_outputs), dtype=np.float32)
    for k, (inputs_k, (targets_k, weights_k, probabilities_k)) in enumerate(batches):
        n_windows, n_steps, n_outputs_k = probabilities_k.shape
        inputs[k, :n_windows, :n_steps] = inputs_k
        targets[k, :n_windows, :n_steps] = targets_k
        weights[k, :n_windows] = weights_k
        scale[k, :n_windows] = weights_k / max(1, np.count_nonzero(targets_k != IGNORE))
        probabilities[k, :n_windows, :n_steps, :n_outputs_k] = probabilities_k
    return inputs, targets, weights, scale, probabilities


def _load_states(optimizer: torch.optim.AdamW, jobs: Sequence[TrainingJob]) -> None:
    """Let the optimizer go on with each model from where it was, if it was."""
    states: dict[int, Any] = {}
    number = 0
    for job in jobs:
        of_job = {} if job.state.optimizer is None else job.state.optimizer[1]
        states |= {number + i: copy.deepcopy(state) for i, state in of_job.items()}
        number += len(job.state.weights)
    settings = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": settings})


def _states(
    optimizer: torch.optim.AdamW, jobs: Sequence[TrainingJob]
) -> list[dict[Any, Any]]:
    """Return the state of the optimizer for each model, by number of the weight."""
    states = on_cpu(optimizer.state_dict())
    n_weights = len(jobs[0].state.weights)
    return [
        {i: states[k * n_weights + i] for i in range(n_weights)}
        for k in range(len(jobs))
    ]

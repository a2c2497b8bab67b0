"""Training of many language models in one step, where one leaves the device idle."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from collections.abc import Sequence
from itertools import groupby, zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, reproducibly, seed_of
from sklearn_charlstm._estimates import Estimates
from sklearn_charlstm._loop import RunningAverage, check_finite, on_device
from sklearn_charlstm._module import (
    Weights,
    mean_log_probabilities,
    split_networks,
)
from sklearn_charlstm._optimizer import AdamW
from sklearn_charlstm._stack import Stack, stacked, unstacked
from sklearn_charlstm._training import (
    CRITERIA,
    TrainingJob,
    TrainingState,
    on_cpu,
)
from sklearn_charlstm._windows import IGNORE

__all__ = ["can_stack", "train_stacked"]

# Numbers that a step has in memory, two gigabytes: several processes may share a GPU.
# Padding comes on top, where some classes have long texts and others short ones, and
# the tables of the estimates, up to four megabytes a class.
MAX_VALUES = 2**29

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
    order = sorted(range(len(jobs)), key=lambda k: _pace(jobs[k]))
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


def _pace(job: TrainingJob) -> tuple[int, int, float]:
    """Return what models have in common that are always updated together.

    Those that still have batches are always the first ones.
    """
    return -len(job.batches), job.state.n_updates, _n_steps(job)


def _n_steps(job: TrainingJob) -> float:
    """Return the steps of the optimizer, which may have begun anew after updates."""
    if job.state.optimizer is None:
        return 0.0
    _, by_number = job.state.optimizer
    return float(by_number[0]["step"])


def _train(
    jobs: Sequence[TrainingJob], lr: float, weight_decay: float, compute: Compute
) -> list[_Result]:
    """Train models that come in the order of `_pace`."""
    device = compute.device
    groups = [list(group) for _, group in groupby(jobs, _pace)]
    stack = Stack(
        [job.module_params for job in jobs],
        [job.state.weights for job in jobs],
        [len(group) for group in groups],
        device,
    )
    average = stacked([job.state.average for job in jobs])
    averages = [
        RunningAverage(
            weights,
            {name: values[rows] for name, values in average.items()},
            group[0].state.n_updates,
        )
        for group, rows, weights in zip(groups, stack.rows, stack.groups, strict=True)
    ]
    estimates = Estimates(
        [job.batches.estimates for job in jobs if job.batches.estimates], device
    )
    optimizer = AdamW(
        [weight for group in stack.groups for weight in group.values()],
        lr=lr,
        weight_decay=weight_decay,
        fused=True,
    )
    _load_states(optimizer, groups, stack.rows)
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
            batch = _padded(batches)
            n_targets[:n_models] += np.count_nonzero(batch[1] != IGNORE, axis=(1, 2))
            inputs, targets, weights, scale, nodes, beyond = on_device(batch, device)
            with compute.autocast():
                logits = stack.logits(inputs, masks)
            wanted = estimates(targets, nodes, beyond, _n_kept(batches))
            loss, of_models = _losses(
                logits, wanted, targets, weights, scale, output=stack.output
            )
            stack.backward(loss, n_models)
            optimizer.step()
            for group, running in zip(groups, averages, strict=True):
                if step < len(group[0].batches):
                    running.update()
            sums[:n_models] += of_models
        # Here, once in an epoch, the device is waited for.
        losses = (sums.cpu().numpy() / n_targets).tolist()
        for job, loss_curve, loss_of_job in zip(jobs, loss_curves, losses, strict=True):
            check_finite(loss_of_job, job.name, job.batches.epoch)
            loss_curve.append(loss_of_job)
            if job.report is not None:
                job.report(job.batches.epoch, loss_of_job)
    like = [job.state.weights for job in jobs]
    states = map(
        TrainingState,
        unstacked(stack.weights(), like),
        unstacked(_joined([running.weights() for running in averages]), like),
        [
            running.n_updates
            for group, running in zip(groups, averages, strict=True)
            for _ in group
        ],
        [("AdamW", state) for state in _states(optimizer, groups)],
    )
    return list(zip(states, loss_curves, strict=True))


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


def _padded(batches: Sequence[Any]) -> tuple[NDArray[Any], ...]:
    """Put batches side by side, of the size of the largest.

    Returns
    -------
    inputs, targets : ndarrays of shape (n_models, n_windows, n_steps), int64
    weights, scale : ndarrays of shape (n_models, n_windows), float32
        Of a window, and what its targets count in the mean over its batch.
    nodes, beyond : ndarrays of the shape of `inputs`, int64 and bool
    """
    shape = (len(batches), *np.max([inputs.shape for inputs, _ in batches], axis=0))
    inputs = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORE)
    weights = np.zeros(shape[:2], dtype=np.float32)
    scale = np.zeros(shape[:2], dtype=np.float32)
    nodes = np.zeros(shape, dtype=np.int64)
    beyond = np.zeros(shape, dtype=bool)
    for k, (inputs_k, (targets_k, weights_k, nodes_k, beyond_k, _)) in enumerate(
        batches
    ):
        n_windows, n_steps = inputs_k.shape
        inputs[k, :n_windows, :n_steps] = inputs_k
        targets[k, :n_windows, :n_steps] = targets_k
        weights[k, :n_windows] = weights_k
        scale[k, :n_windows] = weights_k / max(1, np.count_nonzero(targets_k != IGNORE))
        nodes[k, :n_windows, :n_steps] = nodes_k
        beyond[k, :n_windows, :n_steps] = beyond_k
    return inputs, targets, weights, scale, nodes, beyond


def _n_kept(batches: Sequence[Any]) -> list[int]:
    """Add up how many probabilities of the histories are kept, step by step back."""
    numbers = [y[-1] for _, y in batches]
    return [sum(step) for step in zip_longest(*numbers, fillvalue=0)]


def _joined(arrays: Sequence[Weights]) -> Weights:
    """Put the arrays of all groups one after the other."""
    return {
        name: np.concatenate([of_group[name] for of_group in arrays])
        for name in arrays[0]
    }


def _moments(job: TrainingJob, moment: str) -> Weights:
    """Return what the optimizer knows of the gradients of a model, by weight."""
    if job.state.optimizer is None:
        return {name: np.zeros_like(w) for name, w in job.state.weights.items()}
    _, by_number = job.state.optimizer
    return {
        name: by_number[number][moment].numpy()
        for number, name in enumerate(job.state.weights)
    }


def _load_states(
    optimizer: AdamW,
    groups: Sequence[Sequence[TrainingJob]],
    rows: Sequence[slice],
) -> None:
    """Let the optimizer go on with each group from where it was, if it was."""
    moments = {
        moment: stacked([_moments(job, moment) for group in groups for job in group])
        for moment in MOMENTS
    }
    names = list(moments[MOMENTS[0]])
    states: dict[int, Any] = {}
    for k, (group, rows_of_group) in enumerate(zip(groups, rows, strict=True)):
        n_steps = _n_steps(group[0])
        for number, name in enumerate(names if n_steps else []):
            states[k * len(names) + number] = {
                "step": torch.tensor(n_steps),
                **{
                    moment: torch.from_numpy(moments[moment][name][rows_of_group])
                    for moment in MOMENTS
                },
            }
    settings = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": settings})


def _states(
    optimizer: AdamW, groups: Sequence[Sequence[TrainingJob]]
) -> list[dict[Any, Any]]:
    """Return the state of the optimizer for each model, by number of the weight."""
    by_number = on_cpu(optimizer.state_dict())
    like = [job.state.weights for group in groups for job in group]
    names = list(split_networks(like[0])[0])
    starts = range(0, len(by_number), len(names))
    moments = {}
    for moment in MOMENTS:
        arrays = [
            {name: by_number[start + i][moment].numpy() for i, name in enumerate(names)}
            for start in starts
        ]
        moments[moment] = unstacked(_joined(arrays), like)
    n_steps = [
        by_number[start]["step"]
        for start, group in zip(starts, groups, strict=True)
        for _ in group
    ]
    return [
        {
            number: {
                "step": n_steps[k].clone(),
                **{
                    moment: torch.from_numpy(moments[moment][k][name])
                    for moment in MOMENTS
                },
            }
            for number, name in enumerate(weights)
        }
        for k, weights in enumerate(like)
    ]

"""Training of many language models in one step, where one leaves the device idle."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import torch

from sklearn_charlstm._device import Compute, for_training, seed_of
from sklearn_charlstm._loop import check_weights, report_losses
from sklearn_charlstm._module import Weights, ensemble_log_likelihoods
from sklearn_charlstm._padded_batches import dropout_masks, most_batches_first, steps_of
from sklearn_charlstm._replay import Replayed
from sklearn_charlstm._smoothing import KneserNey
from sklearn_charlstm._soft_targets import SoftTargets
from sklearn_charlstm._stack import (
    Stack,
    StackState,
    n_at_once,
    stacked,
    unstacked,
)
from sklearn_charlstm._training import CRITERIA, TrainingJob, TrainingState
from sklearn_charlstm._windows import IGNORE, WindowBatches

__all__ = ["can_stack", "pays_on", "train_stacked"]

# Where a step of many small models takes no longer than that of one, and the steps of
# one are faster as well.
_DEVICES = ("cuda",)

# What AdamW keeps of each weight.
MOMENTS = ("exp_avg", "exp_avg_sq")

_Result = tuple[TrainingState, list[float]]


def pays_on(device: torch.device) -> bool:
    """Tell whether models should be trained in one step."""
    return device.type in _DEVICES


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
    order = most_batches_first([len(job.batches) for job in jobs])
    at_once = n_at_once(
        max(math.ceil(len(job.batches.ids) / len(job.batches)) for job in jobs),
        jobs[0].module_params["n_networks"],
        jobs[0].module_params,
        max(job.module_params["n_outputs"] for job in jobs),
    )
    results: dict[int, _Result] = {}
    with for_training():
        for begin in range(0, len(jobs), at_once):
            part = order[begin : begin + at_once]
            of_part = _train([jobs[k] for k in part], lr, weight_decay, compute)
            results |= zip(part, of_part, strict=True)
    return [results[k] for k in range(len(jobs))]


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
    # `can_stack` has seen that there are some of each.
    estimates = [cast(KneserNey, job.batches.estimates) for job in jobs]
    soft_targets_of = SoftTargets(estimates, device)
    generators = [torch.Generator(device) for _ in jobs]
    sums = torch.zeros(len(jobs), dtype=torch.float32, device=device)

    def step(
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        scale: torch.Tensor,
        is_there: torch.Tensor,
        soft_targets: torch.Tensor,
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
            soft_targets,
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
        for batches, tensors in steps_of(
            [_with_counts(job.batches) for job in jobs],
            [len(job.batches) for job in jobs],
            sum(len(job.batches.ids) for job in jobs),
            (0, IGNORE, 0, 0, 0, False),
            device,
        ):
            inputs, targets, weights, scale, nodes, beyond, is_there = tensors
            sizes = [(n_networks, len(arrays[0])) for arrays, _ in batches]
            masks = dropout_masks(
                params["dropout"],
                (len(inputs), n_networks, inputs.shape[1], params["hidden_size"]),
                sizes,
                generators,
                device,
            )
            n_discounted = [
                n_discounted_of_job for _, (_, n_discounted_of_job) in batches
            ]
            soft_targets = soft_targets_of(
                targets,
                nodes,
                beyond,
                [sum(level) for level in zip_longest(*n_discounted, fillvalue=0)],
            )
            replayed(inputs, targets, weights, scale, is_there, soft_targets, *masks)
            n_targets[: len(batches)] += [n for _, (n, _) in batches]
        # Here, once in an epoch, the device is waited for.
        losses = (sums.cpu().numpy() / n_targets).tolist()
        report_losses(jobs, loss_curves, losses)
    states = _training_states(stack.state(), jobs)
    for state, job in zip(states, jobs, strict=True):
        check_weights(state.weights, job.name)
    return list(zip(states, loss_curves, strict=True))


def _with_counts(batches: WindowBatches) -> Iterator[Any]:
    """Yield the arrays of each batch, its targets and the numbers of what is kept."""
    for inputs, (targets, weights, nodes, beyond, n_discounted) in batches:
        n_targets = np.count_nonzero(targets != IGNORE)
        scale = weights / max(1, n_targets)
        arrays = inputs, targets, weights, scale, nodes, beyond
        yield arrays, (n_targets, n_discounted)


def _losses(
    logits: torch.Tensor,
    soft_targets: torch.Tensor,
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
    soft_targets = soft_targets[:, None].expand(logits.shape)
    losses, log_p = CRITERIA[output]()(logits.flatten(0, 3), soft_targets.flatten(0, 3))
    # Each network by itself, as in `train`.
    losses = losses.view(logits.shape[:-1]).mean(dim=1)
    is_target = targets != IGNORE
    loss = (losses * is_target * scale[:, :, None]).sum()
    with torch.no_grad():
        of_networks = log_p.view(logits.shape).transpose(0, 1)
        log_likelihood = ensemble_log_likelihoods(of_networks, targets.clamp(min=0))
        of_models = -(log_likelihood * is_target * weights[:, :, None]).sum(dim=(1, 2))
    return loss, of_models


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
    first, second = (
        stacked([_moments(job, moment) for job in jobs]) for moment in MOMENTS
    )
    return StackState(
        stacked([job.state.weights for job in jobs]),
        stacked([job.state.average for job in jobs]),
        first,
        second,
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

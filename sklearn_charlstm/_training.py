"""Maximum-likelihood training of one language model with skorch."""

# SPDX-License-Identifier: BSD-3-Clause

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn
from torch.nn import functional as F

from sklearn_charlstm._device import Compute, for_training, reproducibly, seeded
from sklearn_charlstm._loop import (
    MAX_GRADIENT_NORM,
    BatchesNet,
    EpochReport,
    RunningAverage,
    check_weights,
)
from sklearn_charlstm._module import (
    CharLSTM,
    Weights,
    ensemble_log_likelihoods,
    network_log_probabilities,
)
from sklearn_charlstm._optimizer import AdamW
from sklearn_charlstm._soft_targets import SoftTargets
from sklearn_charlstm._windows import IGNORE, WindowBatches

__all__ = [
    "CRITERIA",
    "EarlyStopping",
    "TrainingJob",
    "TrainingState",
    "initial_state",
    "train",
]


# What `net_params` may not set, also not in part (`module__dropout`), with the
# parameter that does.
_OWN_SETTINGS = {
    "module": "`n_networks`, `hidden_size`, `embedding_dim`, `num_layers` and "
    "`dropout`",
    "criterion": "`output`",
    "max_epochs": "`epochs`",
    "batch_size": "`batch_size`",
    "lr": "`lr`",
    "optimizer__lr": "`lr`",
    "optimizer__weight_decay": "`weight_decay`",
    "device": "`device`",
    "compute": "`device` and `precision`",
    "soft_targets": None,
    "verbose": "`verbose`",
    "train_split": "`early_stopping`",
    "iterator_train": None,
    "iterator_valid": None,
    "dataset": None,
    "warm_start": "`warm_start`",
    "predict_nonlinearity": None,
}


@dataclass(frozen=True)
class TrainingState:
    """All that training needs to go on as if it had not stopped.

    Attributes
    ----------
    weights : dict of str to ndarray
        The weights of the network as the optimizer left them.
    average : dict of str to ndarray
        Their running average, which the language model predicts with.
    n_updates : int
        Updates of the weights so far.
    optimizer : tuple of str and dict, or None
        Class of the optimizer, and for each parameter its state, on the CPU; None
        before the first update.
    """

    weights: Weights
    average: Weights
    n_updates: int = 0
    optimizer: tuple[str, dict[Any, Any]] | None = None


class TrainingJob(NamedTuple):
    """What is to be done for one language model.

    Attributes
    ----------
    state : TrainingState
        Where to start from.
    batches : WindowBatches
    module_params : dict
        Arguments of `CharLSTM`.
    epochs : int
        How many more.
    name : str
        What is trained, for messages.
    report : callable or None
        Called after each epoch with the negative log-likelihood per target in nats.
    """

    state: TrainingState
    batches: WindowBatches
    module_params: dict[str, Any]
    epochs: int
    name: str
    report: Callable[[float], None] | None = None


@dataclass
class EarlyStopping:
    """Stop when the loss of the validation texts no longer falls.

    Attributes
    ----------
    validation_loss : callable
        From weights to the negative log-likelihood per target in nats.
    n_iter_no_change : int
        Epochs in a row that may pass without a lower loss.
    curve : list of float
        The loss after each epoch so far.
    best : dict of str to ndarray, or None
        The averaged weights of the epoch with the lowest loss.
    """

    validation_loss: Callable[[Weights], float]
    n_iter_no_change: int
    curve: list[float] = field(default_factory=list)
    best: Weights | None = None

    def update(self, weights: Weights) -> None:
        """Take the weights after an epoch into account."""
        loss = self.validation_loss(weights)
        if self.best is None or loss < min(self.curve):
            self.best = weights
        self.curve.append(loss)

    @property
    def stops(self) -> bool:
        """Whether it is time to stop: decided by the whole curve and nothing else."""
        if not self.curve:
            return False
        best_epoch = int(np.argmin(self.curve))
        return len(self.curve) - 1 - best_epoch >= self.n_iter_no_change


class _CrossEntropy(nn.Module):
    """torch's, but with the log-probabilities that it is computed from."""

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        log_p = network_log_probabilities(logits, "softmax")
        if targets.is_floating_point():
            losses = -(log_p * targets).sum(dim=-1)
        else:
            losses = F.nll_loss(log_p, targets, reduction="none")
        return losses, log_p.detach()


class _BinaryCrossEntropy(nn.Module):
    """One yes-or-no question per token, summed over the tokens."""

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not targets.is_floating_point():
            targets = F.one_hot(targets.clamp(min=0), logits.shape[-1])
        losses = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), reduction="none"
        )
        return losses.sum(dim=-1), network_log_probabilities(logits.detach(), "sigmoid")


# For each kind of output: from logits and targets, ids or probabilities, to losses and
# log-probabilities.
CRITERIA: dict[str, type[nn.Module]] = {
    "softmax": _CrossEntropy,
    "sigmoid": _BinaryCrossEntropy,
}


class _Averaging(Callback):
    """Average the weights, from what they were in the state at the start."""

    def __init__(self, state: TrainingState) -> None:
        self.state = state

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.running_ = RunningAverage(
            dict(net.module_.named_parameters()),
            self.state.average,
            self.state.n_updates,
        )

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.running_.update()


class _Validation(Callback):
    """Validate the averaged weights after each epoch."""

    def __init__(self, early_stopping: EarlyStopping, averaging: _Averaging) -> None:
        self.early_stopping = early_stopping
        self.averaging = averaging

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.early_stopping.update(self.averaging.running_.weights())
        net.history.record("valid_loss", self.early_stopping.curve[-1])


class _StopEarly(Callback):
    """End the training in time. The last callback: others see the last epoch too."""

    def __init__(self, early_stopping: EarlyStopping) -> None:
        self.early_stopping = early_stopping

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if self.early_stopping.stops:
            # skorch's way to say so.
            raise KeyboardInterrupt


def _weighted_sum(losses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum the losses of all targets, window after window, times the window's weight."""
    return (losses.view(len(weights), -1) * weights[:, None]).sum()


class _LanguageModelNet(BatchesNet):
    """Maximum likelihood of the targets, or of what is expected in their places.

    What is reported is the negative log-likelihood of the targets.

    Parameters
    ----------
    *args, **kwargs
        As of the net of skorch.
    soft_targets : SoftTargets or None
    """

    def __init__(
        self, *args: Any, soft_targets: SoftTargets | None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.soft_targets = soft_targets

    def get_loss(
        self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        logits, _ = y_pred
        targets, weights, *histories = y_true
        goals = targets
        if self.soft_targets is not None:
            nodes, beyond, n_discounted = histories
            [goals] = self.soft_targets(
                targets[None], nodes[None], beyond[None], n_discounted
            )
        # Each network by itself: they differ in their initial weights and in dropout.
        goals = goals.expand(len(logits), *goals.shape)
        losses, log_p = self.criterion_(logits.flatten(0, 2), goals.flatten(0, 2))
        is_target = targets != IGNORE
        log_likelihood = ensemble_log_likelihoods(
            log_p.view(logits.shape), targets.clamp(min=0)
        )
        self.reported_loss_ = -_weighted_sum(log_likelihood * is_target, weights)
        self.n_targets_ = is_target.sum()
        mean_losses = losses.view(logits.shape[:3]).mean(dim=0) * is_target
        return _weighted_sum(mean_losses, weights) / self.n_targets_.clamp(min=1)


def _check_net_params(net_params: dict[str, Any]) -> None:
    for name in net_params:
        for setting in {name, name.partition("__")[0]} & _OWN_SETTINGS.keys():
            owner = _OWN_SETTINGS[setting]
            advice = f"set {owner} instead" if owner else "it cannot be changed"
            raise ValueError(f"`net_params` must not hold {name!r}; {advice}.")
    if not isinstance(net_params.get("callbacks", []), list):
        raise ValueError(
            "`net_params['callbacks']` must be a list, got "
            f"{net_params['callbacks']!r}."
        )


def _name(optimizer: torch.optim.Optimizer) -> str:
    return type(optimizer).__qualname__


def _on_cpu(optimizer_state: dict[str, Any]) -> dict[Any, Any]:
    """Return the state of an optimizer by parameter where it loads on any machine."""
    return {
        index: {
            name: value.cpu() if torch.is_tensor(value) else value
            for name, value in values.items()
        }
        for index, values in optimizer_state["state"].items()
    }


def initial_state(module_params: dict[str, Any], seed: int) -> TrainingState:
    """Draw the weights that training starts from.

    Parameters
    ----------
    module_params : dict
        Arguments of `CharLSTM`.
    seed : int

    Returns
    -------
    state : TrainingState
    """
    cpu = torch.device("cpu")
    with reproducibly(), seeded(cpu, seed):
        weights = CharLSTM(**module_params).numpy_weights()
    return TrainingState(weights, weights)


def train(
    job: TrainingJob,
    *,
    lr: float,
    weight_decay: float,
    net_params: dict[str, Any] | None,
    compute: Compute,
    early_stopping: EarlyStopping | None = None,
) -> tuple[TrainingState, list[float]]:
    """Fit one language model by maximum likelihood.

    AdamW [1]_ with a constant learning rate and gradients cut to norm 1 [2]_. The
    noise that a constant rate leaves in the weights is averaged out of them: the
    model is their running average with polynomial decay [3]_. Nothing depends on
    the number of epochs to come, so few epochs are the beginning of many.

    Parameters
    ----------
    job : TrainingJob
    lr, weight_decay : float
    net_params : dict or None
        More settings of the skorch net.
    compute : Compute
    early_stopping : EarlyStopping or None
        Told of the averaged weights after each epoch; ends the training.

    Returns
    -------
    state : TrainingState
        Where training can go on from.
    loss_curve : list of float
        Negative log-likelihood per target of the training text in nats, with
        dropout, as it was during each epoch.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization",
       ICLR 2019.
    .. [2] R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training
       recurrent neural networks", ICML 2013.
    .. [3] O. Shamir and T. Zhang, "Stochastic gradient descent for non-smooth
       optimization: convergence results and optimal averaging schemes", ICML 2013.
    """
    state, batches, module_params, epochs, name, report = job
    try:
        # skorch empties lists of callbacks in place.
        net_params = copy.deepcopy(net_params or {})
    except TypeError as error:
        raise ValueError(
            f"`net_params` cannot be used: a copy of it is needed, and {error}."
        ) from error
    _check_net_params(net_params)
    averaging = _Averaging(state)
    callbacks = [
        ("epoch_report", EpochReport(name, report, batches)),
        ("gradient_norm_clipping", GradientNormClipping(MAX_GRADIENT_NORM)),
        ("averaging", averaging),
    ]
    if early_stopping is not None:
        callbacks.append(("validation", _Validation(early_stopping, averaging)))
    callbacks += net_params.pop("callbacks", [])
    if early_stopping is not None:
        callbacks.append(("stop_early", _StopEarly(early_stopping)))
    settings = {
        "criterion": CRITERIA[module_params["output"]],
        "optimizer": AdamW,
        "optimizer__weight_decay": weight_decay,
        # Not every optimizer that may be asked for has one kernel for all weights.
        **({} if "optimizer" in net_params else {"optimizer__fused": True}),
        "lr": lr,
        "compute": compute,
        "callbacks": callbacks,
    }
    module_settings = {f"module__{key}": value for key, value in module_params.items()}
    with for_training(), seeded(compute.device, batches.seed):
        soft_targets = None
        if batches.estimates is not None:
            soft_targets = SoftTargets([batches.estimates], compute.device)
        try:
            net = _LanguageModelNet(
                CharLSTM,
                soft_targets=soft_targets,
                **(settings | module_settings | net_params),
            )
            net.initialize()
        except (TypeError, ValueError) as error:
            raise ValueError(f"`net_params` cannot be used: {error}") from error
        net.module_.load_numpy_weights(state.weights)
        optimizer = net.optimizer_
        if state.optimizer is not None and state.optimizer[0] == _name(optimizer):
            # What it was doing, with the settings of now. A copy: the optimizer works
            # in place on what it is given.
            param_groups = optimizer.state_dict()["param_groups"]
            by_parameter = copy.deepcopy(state.optimizer[1])
            optimizer.load_state_dict(
                {"state": by_parameter, "param_groups": param_groups}
            )
        net.train_epochs(batches, epochs)
    state = TrainingState(
        weights=net.module_.numpy_weights(),
        average=averaging.running_.weights(),
        n_updates=averaging.running_.n_updates,
        optimizer=(_name(optimizer), _on_cpu(optimizer.state_dict())),
    )
    check_weights(state.weights, name)
    return state, net.history[:, "train_loss"]

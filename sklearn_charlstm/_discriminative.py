"""Joint training of the language models of all classes to tell the classes apart."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn
from torch.nn import functional as F

from sklearn_charlstm._device import Compute, for_training, reseed, seeded
from sklearn_charlstm._joint_batches import (
    MAX_GROUP,
    JointBatches,
    LabelledTexts,
    class_similarity,
)
from sklearn_charlstm._loop import (
    MAX_GRADIENT_NORM,
    BatchesNet,
    EpochReport,
    RunningAverage,
    check_weights,
)
from sklearn_charlstm._model import Model
from sklearn_charlstm._module import CharLSTM, Weights, join_networks
from sklearn_charlstm._optimizer import AdamW
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import IGNORE

__all__ = [
    "LEARNING_RATE_SHARE",
    "JointJob",
    "auto_epochs",
    "join_models",
    "joint_jobs",
    "joint_losses",
    "train_jointly",
]

# What the negative log-likelihood counts beside the cross-entropy of the classes. It
# keeps the models models of their language.
LIKELIHOOD_SHARE = 0.2

# Tokens times the models that score them, where the number of epochs is left to us.
AUTO_SCORED_TOKENS = 700_000
MAX_AUTO_EPOCHS = 30

# The models are good already, and the optimizer starts anew.
LEARNING_RATE_SHARE = 0.1


def auto_epochs(n_tokens: int, n_classes: int) -> int:
    """Return how many epochs of joint training are worth their time."""
    scored_in_epoch = n_tokens * min(n_classes, MAX_GROUP)
    return min(max(AUTO_SCORED_TOKENS // scored_in_epoch, 1), MAX_AUTO_EPOCHS)


class _LogLikelihoods(nn.Module):
    """The language models of all classes.

    Parameters
    ----------
    models : list of CharLSTM
    vocabularies : list of Vocabulary
        Of each model.
    common : Vocabulary
        What the windows are encoded with.
    """

    def __init__(
        self,
        models: list[CharLSTM],
        vocabularies: Sequence[Vocabulary],
        common: Vocabulary,
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        # From the ids in common to those of each model.
        for k, vocabulary in enumerate(vocabularies):
            ids = vocabulary.ids_from(common)
            inputs = vocabulary.as_inputs(ids)
            log_sizes = np.log(vocabulary.output_sizes).astype(np.float32)
            for name, values in (
                ("inputs", inputs),
                ("targets", ids),
                ("log_sizes", log_sizes),
            ):
                self.register_buffer(f"{name}_{k}", torch.from_numpy(values))

    def forward(
        self, inputs: torch.Tensor, targets: torch.Tensor, group: tuple[int, ...]
    ) -> torch.Tensor:
        """Compute log p(target | what is before) under the models of a group.

        Returns
        -------
        log_likelihood : tensor of shape (n_windows, n_steps, group)
            In nats; 0 where the target is `IGNORE`.
        """
        known = targets != IGNORE
        targets = targets.clamp(min=0)
        scores = []
        for k in group:
            model: Any = self.models[k]
            logits, _ = model(getattr(self, f"inputs_{k}")[inputs])
            outputs = getattr(self, f"targets_{k}")[targets]
            log_size = getattr(self, f"log_sizes_{k}")[outputs]
            scores.append((model.log_likelihoods(logits, outputs) - log_size) * known)
        return torch.stack(scores, dim=2)


def joint_losses(
    log_likelihood: torch.Tensor, labels: torch.Tensor, is_target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what is to be minimised, and the cross-entropy of the class.

    Parameters
    ----------
    log_likelihood : tensor of shape (..., n_windows, n_steps, n_classes)
        In nats; 0 where there is no target.
    labels : tensor of shape (..., n_windows), int64
    is_target : tensor of shape (..., n_windows, n_steps), bool

    Returns
    -------
    losses, cross_entropy : tensors of the shape of `is_target`
        The second is -log p(class | the tokens so far).
    """
    # Sums up to every token: fragments of all lengths in one pass.
    log_proba = F.log_softmax(log_likelihood.cumsum(dim=-2), dim=-1)
    index = labels[..., None, None].expand(*is_target.shape, 1)
    of_class, log_proba_of_class = (
        scores.gather(-1, index).squeeze(-1) for scores in (log_likelihood, log_proba)
    )
    cross_entropy = -log_proba_of_class * is_target
    return cross_entropy - LIKELIHOOD_SHARE * of_class, cross_entropy


class _DiscriminativeNet(BatchesNet):
    """Maximum mutual information, and still likelihood.

    What is reported is the cross-entropy of the classes, each of the same weight.
    """

    def infer(self, x: Any, **fit_params: Any) -> Any:
        # Not among what skorch makes tensors of: those are on the device.
        windows = dict(x)
        return super().infer(windows, group=windows.pop("group"), **fit_params)

    def get_loss(
        self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        labels, weights = y_true
        is_target = X["targets"] != IGNORE
        losses, cross_entropy = joint_losses(y_pred, labels, is_target)
        self.reported_loss_ = (cross_entropy.detach() * weights[:, None]).sum()
        self.n_targets_ = is_target.sum()
        return (losses * weights[:, None]).sum() / self.n_targets_.clamp(min=1)


class _Averaging(Callback):
    """Average the weights of every model over the batches that it scored."""

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.running_ = [
            RunningAverage(dict(model.named_parameters()), model.numpy_weights(), 0)
            for model in net.module_.models
        ]

    def on_batch_end(self, net: NeuralNet, batch: Any, **kwargs: Any) -> None:
        windows, _ = batch
        for k in windows["group"]:
            self.running_[k].update()


class _GroupReport(EpochReport):
    """Each group is seeded by itself: groups need not come one after the other."""

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        super().on_epoch_begin(net, **kwargs)
        self.group_: tuple[int, ...] = ()

    def on_batch_begin(self, net: NeuralNet, batch: Any, **kwargs: Any) -> None:
        windows, _ = batch
        if self.group_ != windows["group"]:
            self.group_ = windows["group"]
            reseed(net.device, self.batches.seed, self.batches.epoch, self.group_[0])


class JointJob(NamedTuple):
    """What is to be done for one network of each language model.

    Attributes
    ----------
    models : sequence of n_classes Model
        Of one network, where to start from.
    batches : JointBatches
    epochs : int
    report : callable or None
        Called after each epoch with the cross-entropy.
    """

    models: Sequence[Model]
    batches: JointBatches
    epochs: int
    report: Callable[[float], None] | None

    @property
    def name(self) -> str:
        """What is trained, for messages."""
        return "all language models together"


def joint_jobs(
    models: Sequence[Model],
    texts: LabelledTexts,
    vocabulary: Vocabulary,
    *,
    epochs: int,
    maxlen: int,
    batch_size: int,
    seed: int,
    reports: Sequence[Callable[[float], None] | None],
) -> list[JointJob]:
    """Return what there is to train: networks of the same number.

    The first networks of all models are trained by themselves, then the second ones
    and so on: it was as good as to train their means, and they need not wait for each
    other.

    Parameters
    ----------
    models : list of n_classes Model
        Where to start from: the language models as they were fitted apart.
    texts : LabelledTexts
    vocabulary : Vocabulary
        The one in common, that the texts are encoded with.
    epochs, maxlen, batch_size : int
        Windows of a batch are counted for each class.
    seed : int
    reports : list of n_networks callables or None
        One for the networks of each number.

    Returns
    -------
    jobs : list of n_networks JointJob
    """
    networks = list(zip(*(model.networks() for model in models), strict=True))
    seeds = np.random.SeedSequence(seed).generate_state(len(networks)).tolist()
    similarity = class_similarity(texts)
    return [
        JointJob(
            of_classes,
            JointBatches(
                texts,
                similarity,
                vocabulary,
                maxlen=maxlen,
                batch_size=batch_size,
                seed=seed_of_network,
            ),
            epochs,
            report,
        )
        for of_classes, seed_of_network, report in zip(
            networks, seeds, reports, strict=True
        )
    ]


def join_models(
    trained: Sequence[tuple[list[Weights], list[float]]],
) -> tuple[list[Weights], NDArray[np.float64]]:
    """Put the networks of each model together.

    Parameters
    ----------
    trained : list
        What `train_jointly` returned for each network.

    Returns
    -------
    weights : list of n_classes dicts of str to ndarray
    loss_curve : ndarray of shape (epochs,)
        As of `train_jointly`, the mean of the networks.
    """
    by_network, loss_curves = zip(*trained, strict=True)
    by_model = zip(*by_network, strict=True)
    return [join_networks(model) for model in by_model], np.mean(loss_curves, axis=0)


def train_jointly(
    job: JointJob, *, lr: float, weight_decay: float, compute: Compute
) -> tuple[list[Weights], list[float]]:
    """Fit the networks of all classes to tell the classes apart.

    Maximum mutual information [1]_: the loss is the cross-entropy of the class by
    Bayes' rule with equal priors, after every character of a window, and a share of
    the negative log-likelihood under the model of the right class. Of many classes
    those that are like each other are trained together, in other groups in every
    epoch.

    Parameters
    ----------
    job : JointJob
    lr : float
        Learning rate of the training before.
    weight_decay : float
    compute : Compute

    Returns
    -------
    weights : list of n_classes dicts of str to ndarray
    loss_curve : list of float
        Cross-entropy of the class in nats, over all lengths from one to `maxlen`
        characters, as it was during each epoch.

    References
    ----------
    .. [1] L. Bahl, P. Brown, P. de Souza and R. Mercer, "Maximum mutual information
       estimation of hidden Markov model parameters for speech recognition",
       ICASSP 1986.
    """
    models, batches, epochs, report = job
    averaging = _Averaging()
    with for_training(), seeded(compute.device, batches.seed):
        modules = []
        for weights, params, _ in models:
            module = CharLSTM(**params)
            module.load_numpy_weights(weights)
            modules.append(module)
        net = _DiscriminativeNet(
            _LogLikelihoods,
            module__models=modules,
            module__vocabularies=[model.vocabulary for model in models],
            module__common=batches.vocabulary,
            criterion=nn.NLLLoss,
            optimizer=AdamW,
            optimizer__weight_decay=weight_decay,
            optimizer__fused=True,
            lr=LEARNING_RATE_SHARE * lr,
            compute=compute,
            callbacks=[
                ("epoch_report", _GroupReport(job.name, report, batches)),
                ("gradient_norm_clipping", GradientNormClipping(MAX_GRADIENT_NORM)),
                ("averaging", averaging),
            ],
        )
        net.initialize()
        net.train_epochs(batches, epochs)
    trained = [running.weights() for running in averaging.running_]
    for weights in trained:
        check_weights(weights, job.name)
    return trained, net.history[:, "train_loss"]

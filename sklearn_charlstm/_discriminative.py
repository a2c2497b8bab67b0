"""Joint training of the language models of all classes to tell the classes apart."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn
from torch.nn import functional as F

from sklearn_charlstm._device import Compute, reproducibly, reseed, seed_of, seeded
from sklearn_charlstm._loop import (
    MAX_GRADIENT_NORM,
    BatchesNet,
    EpochReport,
    RunningAverage,
)
from sklearn_charlstm._module import (
    CharLSTM,
    Weights,
    join_networks,
    split_networks,
)
from sklearn_charlstm._optimizer import AdamW
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary
from sklearn_charlstm._windows import IGNORE, WindowBatches

__all__ = [
    "JointBatches",
    "JointJob",
    "LabelledTexts",
    "auto_epochs",
    "join_models",
    "joint_jobs",
    "joint_losses",
    "train_jointly",
]

# Models that a text is scored with at most: its own and those of similar classes. So
# neither the memory nor the time of a step grows with the number of classes.
MAX_GROUP = 4

# Pairs of tokens counted at a time, which bounds the memory that it takes.
MAX_PAIRS = 2**20

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


@dataclass(frozen=True)
class LabelledTexts:
    """The training texts of all classes.

    Attributes
    ----------
    encoded : EncodedTexts
    class_index : ndarray of shape (n_texts,), integer
    weights : ndarray of shape (n_texts,)
        Of the same sum over the characters of every class.
    """

    encoded: EncodedTexts
    class_index: NDArray[np.intp]
    weights: NDArray[np.float64]

    @classmethod
    def balanced(
        cls,
        encoded: EncodedTexts,
        class_index: NDArray[np.intp],
        sample_weight: NDArray[Any],
    ) -> "LabelledTexts":
        """Give every class the same weight: priors are not learned from the texts."""
        weights = sample_weight / sample_weight.max()
        totals = np.bincount(class_index, weights=weights * encoded.lengths)
        return cls(encoded, class_index, weights / totals[class_index])

    def of_classes(self, classes: NDArray[np.intp]) -> "LabelledTexts":
        """Select the texts of some classes."""
        rows = np.flatnonzero(np.isin(self.class_index, classes))
        return LabelledTexts(
            self.encoded.take(rows), self.class_index[rows], self.weights[rows]
        )


def class_similarity(texts: LabelledTexts) -> NDArray[np.float64]:
    """Compare the pairs of adjacent tokens in the texts of the classes.

    Returns
    -------
    similarity : ndarray of shape (n_classes, n_classes), float64
        The Bhattacharyya coefficients of their distributions, from 0 to 1.
    """
    n_classes = texts.class_index.max() + 1
    ids, lengths = texts.encoded
    n_ids = int(ids.max()) + 1
    ends = np.cumsum(lengths)
    counts = csr_array((n_classes, n_ids**2))
    for begin in range(0, len(ids) - 1, MAX_PAIRS):
        block = ids[begin : begin + MAX_PAIRS + 1].astype(np.int64)
        pairs = block[:-1] * n_ids + block[1:]
        # At the seams of two texts by the class of the second.
        second = begin + 1 + np.arange(len(pairs))
        classes = texts.class_index[np.searchsorted(ends, second, side="right")]
        counts += csr_array((np.ones(len(pairs)), (classes, pairs)), counts.shape)
    distinct, columns = np.unique(counts.indices, return_inverse=True)
    counts = csr_array(
        (counts.data, columns, counts.indptr), (n_classes, len(distinct))
    )
    roots = np.sqrt(counts / counts.sum(axis=1)[:, None].clip(1))
    return (roots @ roots.T).toarray()


def draw_groups(
    similarity: NDArray[np.float64], rng: np.random.Generator
) -> list[NDArray[np.intp]]:
    """Part the classes into groups of at most `MAX_GROUP` that are like each other.

    Every group gathers around a class drawn at random.

    Parameters
    ----------
    similarity : ndarray of shape (n_classes, n_classes)
    rng : Generator

    Returns
    -------
    groups : list of ndarrays of integer
        Each class once; in a group they ascend.
    """
    left = rng.permutation(len(similarity))
    n_groups = -(-len(left) // MAX_GROUP)
    groups = []
    for size in map(len, np.array_split(left, n_groups)):
        nearest = np.argsort(-similarity[left[0], left[1:]], kind="stable") + 1
        members = np.append(0, nearest[: size - 1])
        groups.append(np.sort(left[members]))
        left = np.delete(left, members)
    return groups


class JointBatches:
    """Windows of the texts of all classes, group of classes after group.

    Yields
    ------
    windows : dict of 'inputs', 'targets' and 'group'
        As from `WindowBatches`, and the classes whose models score the windows, a
        tuple of int.
    labels, weights : tuple of ndarrays of shape (n_windows,)
        The class of a window as a position in its group, and its weight, of mean one.
    """

    def __init__(
        self,
        texts: LabelledTexts,
        vocabulary: Vocabulary,
        *,
        maxlen: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.texts = texts
        self.vocabulary = vocabulary
        self.maxlen = maxlen
        self.batch_size = batch_size
        self.seed = seed
        self.similarity = class_similarity(texts)
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[dict[str, Any], tuple[Any, ...]]]:
        for of_group in self.of_groups():
            for inputs, targets, *y in of_group:
                windows = {
                    "inputs": inputs,
                    "targets": targets,
                    "group": of_group.group,
                }
                yield windows, tuple(y)

    def of_groups(self) -> Iterator["GroupBatches"]:
        """Yield the batches of each group in the next epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        for group in draw_groups(self.similarity, rng):
            yield GroupBatches(self, group)
        self.epoch += 1


class GroupBatches:
    """Windows of the texts of a group of classes, in one epoch.

    Attributes
    ----------
    group : tuple of int
        The classes.
    n_targets : int
    seed : int
        Of what is drawn beside the windows.

    Yields
    ------
    inputs, targets, labels, weights : ndarrays
        As from `JointBatches`.
    """

    def __init__(self, joint: JointBatches, group: NDArray[np.intp]) -> None:
        texts = joint.texts.of_classes(group)
        self.group = tuple(group.tolist())
        # Texts without a token are not counted by the batches.
        self._class_index = texts.class_index[texts.encoded.lengths > 0]
        self._batches = WindowBatches(
            texts.encoded,
            texts.weights,
            joint.vocabulary,
            maxlen=joint.maxlen,
            batch_size=joint.batch_size * len(group),
            seed=joint.seed,
            epoch=joint.epoch,
        )
        self.n_targets = len(texts.encoded.ids)
        self.seed = seed_of(joint.seed, joint.epoch, self.group[0])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        for inputs, targets, text in self._batches.with_texts():
            labels = np.searchsorted(self.group, self._class_index[text])
            yield inputs, targets, labels, self._batches.weights[text]


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
            wanted = getattr(self, f"targets_{k}")[targets][:, :, None]
            log_probabilities = model.log_probabilities(logits) - getattr(
                self, f"log_sizes_{k}"
            )
            scores.append(log_probabilities.gather(2, wanted).squeeze(2) * known)
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
    """Maximum mutual information, and still likelihood."""

    def infer(self, x: Any, **fit_params: Any) -> Any:
        # Not among what skorch makes tensors of: those are on the device.
        windows = dict(x)
        return super().infer(windows, group=windows.pop("group"), **fit_params)

    def get_loss(
        self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        labels, weights = y_true
        is_target = X["targets"] != IGNORE
        losses, _ = joint_losses(y_pred, labels, is_target)
        return (losses * weights[:, None]).sum() / is_target.sum().clamp(min=1)


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


class _CrossEntropyReport(EpochReport):
    """The loss is the cross-entropy of the classes, each of the same weight.

    Each group is seeded by itself: groups need not come one after the other.
    """

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        super().on_epoch_begin(net, **kwargs)
        self.group_: tuple[int, ...] = ()

    def on_batch_begin(self, net: NeuralNet, batch: Any, **kwargs: Any) -> None:
        windows, _ = batch
        if self.group_ != windows["group"]:
            self.group_ = windows["group"]
            reseed(net.device, self.batches.seed, self.batches.epoch, self.group_[0])

    def weighted_loss(
        self, net: NeuralNet, batch: Any, y_pred: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        windows, (labels, weights) = batch
        is_target = windows["targets"] != IGNORE
        _, losses = joint_losses(y_pred, labels, is_target)
        return (losses * weights[:, None]).sum(), is_target.sum()


class JointJob(NamedTuple):
    """What is to be done for one network of each language model.

    Attributes
    ----------
    weights : sequence of n_classes dicts of str to ndarray
        Where to start from.
    module_params : sequence of n_classes dicts
        Arguments of `CharLSTM`, of one network.
    vocabularies : sequence of n_classes Vocabulary
    batches : JointBatches
    epochs : int
    report : callable or None
        Called after each epoch with its number, from 1, and the cross-entropy.
    """

    weights: Sequence[Weights]
    module_params: Sequence[dict[str, Any]]
    vocabularies: Sequence[Vocabulary]
    batches: JointBatches
    epochs: int
    report: Callable[[int, float], None] | None

    @property
    def name(self) -> str:
        """What is trained, for messages."""
        return "all language models together"


def joint_jobs(
    weights: list[Weights],
    module_params: Sequence[dict[str, Any]],
    vocabularies: Sequence[Vocabulary],
    texts: LabelledTexts,
    vocabulary: Vocabulary,
    *,
    epochs: int,
    maxlen: int,
    batch_size: int,
    seed: int,
    reports: Sequence[Callable[[int, float], None] | None],
) -> list[JointJob]:
    """Return what there is to train: networks of the same number.

    The first networks of all models are trained by themselves, then the second ones
    and so on: it was as good as to train their means, and they need not wait for each
    other.

    Parameters
    ----------
    weights : list of n_classes dicts of str to ndarray
        Where to start from: the language models as they were fitted apart.
    module_params : list of n_classes dicts
        Arguments of `CharLSTM`.
    vocabularies : list of n_classes Vocabulary
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
    networks = list(zip(*map(split_networks, weights), strict=True))
    seeds = np.random.SeedSequence(seed).generate_state(len(networks)).tolist()
    return [
        JointJob(
            network,
            [params | {"n_networks": 1} for params in module_params],
            vocabularies,
            JointBatches(
                texts,
                vocabulary,
                maxlen=maxlen,
                batch_size=batch_size,
                seed=seed_of_network,
            ),
            epochs,
            report,
        )
        for network, seed_of_network, report in zip(
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
    weights, module_params, vocabularies, batches, epochs, report = job
    averaging = _Averaging()
    with reproducibly(), seeded(compute.device, batches.seed):
        models = []
        for model_weights, params in zip(weights, module_params, strict=True):
            model = CharLSTM(**params)
            model.load_numpy_weights(model_weights)
            models.append(model)
        net = _DiscriminativeNet(
            _LogLikelihoods,
            module__models=models,
            module__vocabularies=vocabularies,
            module__common=batches.vocabulary,
            criterion=nn.NLLLoss,
            optimizer=AdamW,
            optimizer__weight_decay=weight_decay,
            optimizer__fused=True,
            lr=LEARNING_RATE_SHARE * lr,
            compute=compute,
            callbacks=[
                (
                    "epoch_report",
                    _CrossEntropyReport(job.name, report, batches),
                ),
                ("gradient_norm_clipping", GradientNormClipping(MAX_GRADIENT_NORM)),
                ("averaging", averaging),
            ],
            train_split=None,
            predict_nonlinearity=None,
            verbose=0,
        )
        net.initialize()
        net.train_epochs(batches, epochs)
    return (
        [running.weights() for running in averaging.running_],
        net.history[:, "train_loss"],
    )

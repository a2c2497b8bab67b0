"""The language models of all classes: training, joint training, calibration."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.parallel import delayed

from sklearn_charlstm._analysis import Analyzer
from sklearn_charlstm._calibration import (
    Evidence,
    EvidenceWeight,
    Fold,
    LabelledSequences,
    folds,
    held_out_evidence,
)
from sklearn_charlstm._device import n_devices, resolve_compute
from sklearn_charlstm._discriminative import (
    JointJob,
    auto_epochs,
    join_models,
    joint_jobs,
    train_jointly,
)
from sklearn_charlstm._joint_batches import LabelledTexts
from sklearn_charlstm._language_model import CharLSTMLanguageModel
from sklearn_charlstm._model_training import MAX_SMOOTHED, resolve_hidden_size
from sklearn_charlstm._module import Weights
from sklearn_charlstm._parallel import dealt, gathered, n_processes, run
from sklearn_charlstm._progress import progress_line
from sklearn_charlstm._stacked import can_stack, pays_on, train_stacked
from sklearn_charlstm._stacked_joint import train_jointly_stacked
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["ClassModelsMixin"]

# Models of classifiers that are trained side by side to calibrate: a GPU is not idle
# with so many, and each takes memory.
MAX_SIDE_BY_SIDE = 64


def _train_language_model(
    model: CharLSTMLanguageModel,
    encoded: EncodedTexts,
    sample_weight: NDArray[Any],
    **how: Any,
) -> CharLSTMLanguageModel:
    return model._train(encoded, sample_weight, **how)


def _train_jointly(
    jobs: Sequence[JointJob], *, in_one_step: bool, **how: Any
) -> list[tuple[list[Weights], list[float]]]:
    if in_one_step:
        return train_jointly_stacked(jobs, **how)
    return [train_jointly(job, **how) for job in jobs]


def _by_class(
    sequences: list[Sequence[Hashable]],
    class_index: NDArray[np.intp],
    sample_weight: NDArray[Any],
    n_classes: int,
) -> Iterator[tuple[list[Sequence[Hashable]], NDArray[Any]]]:
    """Yield the texts of each class, and their weights."""
    for k in range(n_classes):
        rows = np.flatnonzero(class_index == k)
        yield [sequences[row] for row in rows], sample_weight[rows]


def _evidence_of_folds(
    classifiers: Sequence[ClassModelsMixin],
    classes: NDArray[Any],
    parts: Sequence[Fold],
    epochs: int,
    report: Callable[[int, float], None] | None,
) -> list[Evidence]:
    """Train classifiers side by side, each without a part of the text, and score it."""
    first = classifiers[0]
    # Cut here: of all parts at once it would take much memory.
    pairs = [part.split() for part in parts]
    texts: list[tuple[list[Sequence[Hashable]], NDArray[Any]]] = []
    for clf, (training, _) in zip(classifiers, pairs, strict=True):
        clf._start(classes, training.sequences, training.class_index)
        texts += _by_class(*training, len(classes))
    models = iter(
        first._train_models(
            [model for clf in classifiers for model in clf.language_models_],
            texts,
            [*classes] * len(parts),
            one_pass=False,
        )
    )
    jobs: list[JointJob] = []
    for clf, (training, _) in zip(classifiers, pairs, strict=True):
        clf.language_models_ = [*islice(models, len(classes))]
        if epochs:
            jobs += clf._joint_jobs(*training, epochs, [None])
    if jobs:
        trained = _train_jointly(jobs, **first._how_jointly())
        for clf, of_clf in zip(classifiers, trained, strict=True):
            clf._take_joint_training([of_clf])
    evidence = []
    for clf, (_, held_out) in zip(classifiers, pairs, strict=True):
        of_part = held_out_evidence(
            clf.language_models_,
            clf.vocabulary_,
            held_out,
            np.random.default_rng(clf.random_state),
            whole=clf.boundaries,
        )
        if report is not None:
            report(1, EvidenceWeight().cross_entropy(of_part))
        evidence.append(of_part)
    return evidence


class ClassModelsMixin(BaseEstimator):
    """An estimator that trains one language model per class.

    It has all parameters of the language model.
    """

    maxlen: int
    hidden_size: int | Literal["auto"]
    batch_size: int
    lr: float
    weight_decay: float
    num_layers: int
    early_stopping: bool
    net_params: dict[str, Any] | None
    boundaries: bool
    analyzer: Analyzer
    discriminative_epochs: int | Literal["auto"]
    warm_start: bool
    device: str
    precision: str
    n_jobs: int | None
    random_state: int | np.random.RandomState | None
    verbose: int

    classes_: NDArray[Any]
    vocabulary_: Vocabulary
    language_models_: list[CharLSTMLanguageModel]
    # Those that training goes on from: before joint training, with warm_start.
    _generative_models: list[CharLSTMLanguageModel]
    evidence_weight_: EvidenceWeight
    discriminative_loss_curve_: NDArray[np.float64]

    def _start(
        self,
        classes: NDArray[Any],
        sequences: list[Sequence[Hashable]],
        class_index: NDArray[np.intp] | None = None,
    ) -> None:
        """Draw the weights that the training of all models starts from.

        Without `class_index` there are more texts to come, of any tokens.
        """
        if len(classes) < 2:
            raise ValueError(
                f"`classes={classes}` is one class only; the classifier needs two."
            )
        self.classes_ = classes
        self.class_count_ = np.zeros(len(classes))
        self.evidence_weight_ = EvidenceWeight()
        self.vocabulary_ = Vocabulary(sequences, self.analyzer, self.boundaries)
        vocabularies = [self.vocabulary_] * len(classes)
        if class_index is not None:
            vocabularies = [
                self._vocabulary_of_class(
                    [sequences[row] for row in np.flatnonzero(class_index == k)]
                )
                for k in range(len(classes))
            ]
        hidden_size = resolve_hidden_size(
            self.hidden_size, sum(map(len, sequences)) / len(classes)
        )
        self.language_models_ = self._generative_models = [
            self._new_language_model(seed, vocabulary, hidden_size)
            for seed, vocabulary in zip(
                self._seeds(len(classes)), vocabularies, strict=True
            )
        ]

    def _vocabulary_of_class(self, sequences: Iterable[Iterable[Any]]) -> Vocabulary:
        return Vocabulary(
            sequences, self.analyzer, self.boundaries, common=self.vocabulary_
        )

    def _seeds(self, n_models: int) -> list[int]:
        # Drawn up front, so that nothing depends on the order of the training.
        random_state = check_random_state(self.random_state)
        return random_state.randint(np.iinfo(np.int32).max, size=n_models).tolist()

    def _language_model_params(self) -> dict[str, Any]:
        # Of a subclass, whose own `__init__` may take others, too.
        names = CharLSTMLanguageModel().get_params(deep=False)
        params = {name: getattr(self, name) for name in names}
        # The progress line is drawn once, for all models together.
        return params | {"verbose": 0}

    def _new_language_model(
        self, seed: int, vocabulary: Vocabulary, hidden_size: int
    ) -> CharLSTMLanguageModel:
        params = self._language_model_params()
        params |= {"random_state": seed, "hidden_size": hidden_size}
        model = CharLSTMLanguageModel(**params)
        model._start(vocabulary, hidden_size)
        return model

    def _train(
        self,
        sequences: list[Sequence[Hashable]],
        class_index: NDArray[np.intp],
        sample_weight: NDArray[Any],
        *,
        one_pass: bool,
    ) -> None:
        data = (sequences, class_index, sample_weight)
        models = self._train_models(
            self.language_models_ if one_pass else self._generative_models,
            list(_by_class(*data, len(self.classes_))),
            self.classes_,
            one_pass=one_pass,
        )
        self.language_models_ = self._generative_models = models

    def _refine(
        self,
        sequences: list[Sequence[Hashable]],
        class_index: NDArray[np.intp],
        sample_weight: NDArray[Any],
        *,
        n_folds: int,
    ) -> None:
        """Let the models tell the classes apart better, and learn what they are worth.

        Side by side: the calibration trains models of its own.
        """
        models = self.language_models_
        data = (sequences, class_index, sample_weight)
        how = self._how_jointly()
        device = how["compute"].device
        epochs = self.discriminative_epochs
        if epochs == "auto":
            n_tokens = sum(len(sequence) + self.boundaries for sequence in sequences)
            epochs = auto_epochs(n_tokens, len(self.classes_))
        parts = self._set_aside(LabelledSequences(*data), n_folds) if n_folds else []
        networks = [f"network {n}" for n in range(1, models[0].n_networks + 1)]
        with progress_line(
            [*networks, "held-out text"],
            len(networks) * epochs + len(parts),
            self.verbose,
            desc="Joint training" if epochs else "Calibration",
            unit="bits/class",
            step="step",
        ) as [*of_networks, of_fold]:
            joint = self._joint_jobs(*data, epochs, of_networks) if epochs else []
            n_joint, n_calibrated = len(joint), len(parts)
            if how["in_one_step"]:
                n_at_once = min(n_devices(device), n_processes(self.n_jobs))
                n_joint = min(n_joint, n_at_once)
                n_needed = math.ceil(n_calibrated / self._n_side_by_side(*data[:2]))
                n_calibrated = min(n_calibrated, max(n_needed, n_at_once))
            jobs = [
                delayed(_train_jointly)(group, **how) for group in dealt(joint, n_joint)
            ]
            what = [
                f"the joint training of {', '.join(group)}"
                for group in dealt(networks, n_joint)
            ]
            for group in dealt(parts, n_calibrated):
                classifiers = [self._to_calibrate(epochs) for _ in group]
                jobs.append(
                    delayed(_evidence_of_folds)(
                        classifiers, self.classes_, group, epochs, of_fold
                    )
                )
                what.append("the calibration")
            results = run(what, jobs, self.n_jobs, device)
        self.discriminative_loss_curve_ = np.empty(0)
        self.evidence_weight_ = EvidenceWeight()
        if joint:
            self._take_joint_training(gathered(results[:n_joint]))
        if parts:
            self.evidence_weight_ = EvidenceWeight.fitted(
                Evidence.joined(gathered(results[n_joint:]))
            )
        # With warm_start the training of each model goes on from where it stopped, as
        # if there had been no joint training.
        self._generative_models = models if self.warm_start else self.language_models_

    def _set_aside(self, texts: LabelledSequences, n_folds: int) -> list[Fold]:
        """Return the parts of the texts to calibrate with; warn if there are none."""
        rng = np.random.default_rng(self.language_models_[0]._seed)
        parts = list(folds(texts, n_folds, rng, whole=self.boundaries))
        if not parts:
            warnings.warn(
                "The probabilities are not calibrated: a class has too little text to "
                f"set one of {n_folds} parts of it aside. Pass more texts, or set "
                "calibration_folds=0.",
                stacklevel=5,
            )
        return parts

    def _n_side_by_side(
        self, sequences: list[Sequence[Hashable]], class_index: NDArray[np.intp]
    ) -> int:
        """Return how many classifiers are trained at a time to keep a GPU busy."""
        n_tokens = np.bincount(class_index, weights=[*map(len, sequences)])
        if self.net_params is not None or n_tokens.max() > MAX_SMOOTHED:
            # Their models are not trained in one step.
            return 1
        return max(1, MAX_SIDE_BY_SIDE // len(self.classes_))

    def _how_jointly(self) -> dict[str, Any]:
        """Return what the joint training of all networks has in common."""
        compute = resolve_compute(self.device, self.precision)
        return {
            "in_one_step": pays_on(compute.device) and self.num_layers == 1,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "compute": compute,
        }

    def _take_joint_training(
        self, trained: Sequence[tuple[list[Weights], list[float]]]
    ) -> None:
        weights, self.discriminative_loss_curve_ = join_models(trained)
        self.language_models_ = [
            model._with_weights(weights_of_model)
            for model, weights_of_model in zip(
                self.language_models_, weights, strict=True
            )
        ]

    def _check_one_alphabet(self) -> None:
        """Refuse to train models jointly that were not begun together."""
        vocabularies = [model.vocabulary_ for model in self.language_models_]
        if any((v.common or v) != self.vocabulary_ for v in vocabularies):
            raise ValueError(
                "Joint training needs one alphabet, and add_class has given the "
                "models different ones; set discriminative_epochs=0, or fit anew with "
                "warm_start=False."
            )

    def _joint_jobs(
        self,
        sequences: list[Sequence[Hashable]],
        class_index: NDArray[np.intp],
        sample_weight: NDArray[Any],
        epochs: int,
        reports: Sequence[Callable[[int, float], None] | None],
    ) -> list[JointJob]:
        """Return what the joint training of the networks has to do."""
        models = self.language_models_
        vocabularies = [model.vocabulary_ for model in models]
        return joint_jobs(
            [model.weights_ for model in models],
            [model._module_params for model in models],
            vocabularies,
            LabelledTexts.balanced(
                self.vocabulary_.encode(sequences), class_index, sample_weight
            ),
            self.vocabulary_,
            epochs=epochs,
            maxlen=self.maxlen,
            batch_size=self.batch_size,
            seed=models[0]._seed,
            reports=reports,
        )

    def _to_calibrate(self, discriminative_epochs: int) -> Self:
        """Return the classifier that is trained without a part of the texts."""
        models = self.language_models_
        classifier = clone(self)
        vars(classifier).update(
            # One network is trusted less than their mean: the error is on the safe
            # side, and it takes a fraction of the time.
            n_networks=1,
            hidden_size=models[0].hidden_size_,
            # As long as these were trained, whatever ended it.
            early_stopping=False,
            epochs=max(1, round(np.mean([model.n_iter_ for model in models]))),
            discriminative_epochs=discriminative_epochs,
            random_state=models[0]._seed,
            n_jobs=None,
            verbose=0,
            warm_start=False,
        )
        return classifier

    def _with_current_params(
        self, models: list[CharLSTMLanguageModel]
    ) -> list[CharLSTMLanguageModel]:
        """Return copies of models with the parameters of now, but their own seed."""
        params = self._language_model_params()
        del params["random_state"]
        if params["hidden_size"] == "auto":
            # They have the number that it stood for.
            del params["hidden_size"]
        return [copy.copy(model).set_params(**params) for model in models]

    def _train_models(
        self,
        models: list[CharLSTMLanguageModel],
        texts: Sequence[tuple[list[Sequence[Hashable]], NDArray[Any]]],
        labels: Iterable[Any],
        *,
        one_pass: bool,
    ) -> list[CharLSTMLanguageModel]:
        """Train copies of the models side by side, each on texts and weights."""
        models = self._with_current_params(models)
        for model in models:
            model._check_same_networks()
        epochs = [1 if one_pass else model._epochs_to_go() for model in models]
        names = [str(label) for label in labels]
        what = [f"the language model of class {name!r}" for name in names]
        with progress_line(names, len(names) * max(epochs), self.verbose) as reports:
            how = [
                {"epochs": epochs[k], "name": what[k], "report": reports[k]}
                for k in range(len(models))
            ]

            def encoded() -> Iterator[tuple[EncodedTexts, NDArray[Any]]]:
                for model, (sequences, weights) in zip(models, texts, strict=True):
                    yield model.vocabulary_.encode(sequences), weights

            trained = None
            if not one_pass:
                trained = self._train_in_one_step(models, encoded, how)
            if trained is None:
                jobs = (
                    delayed(_train_language_model)(
                        model, *texts, **how_of_model, one_pass=one_pass
                    )
                    for model, texts, how_of_model in zip(
                        models, encoded(), how, strict=True
                    )
                )
                device = resolve_compute(self.device, self.precision).device
                trained = run(what, jobs, self.n_jobs, device)
        for model, given in zip(trained, models, strict=True):
            # Another process returns copies of what all models share.
            model.set_params(**given.get_params(deep=False))
            model.vocabulary_ = given.vocabulary_
            model._started_with = given._started_with
        self.device_, self.precision_ = trained[-1].device_, trained[-1].precision_
        return trained

    def _train_in_one_step(
        self,
        models: list[CharLSTMLanguageModel],
        encoded: Callable[[], Iterable[tuple[EncodedTexts, NDArray[Any]]]],
        how: list[dict[str, Any]],
    ) -> list[CharLSTMLanguageModel] | None:
        """Train models on a device that one leaves idle; None where it is not so."""
        compute = resolve_compute(self.device, self.precision)
        if (
            not pays_on(compute.device)
            or self.early_stopping
            or self.net_params is not None
            or self.num_layers > 1
        ):
            return None
        jobs = []
        for model, texts, how_of_model in zip(models, encoded(), how, strict=True):
            if not (how_of_model["epochs"] and model._knows_any(texts[0])):
                return None
            jobs.append(model._training_job(*texts, **how_of_model))
        if not can_stack(jobs):
            return None
        n_groups = min(len(jobs), n_devices(compute.device), n_processes(self.n_jobs))
        groups = dealt(jobs, n_groups)
        of_groups = run(
            [f"{group[0].name} and {len(group) - 1} more" for group in groups],
            [
                delayed(train_stacked)(
                    group, lr=self.lr, weight_decay=self.weight_decay, compute=compute
                )
                for group in groups
            ],
            n_groups,
            compute.device,
        )
        return [
            model._trained(of_model, compute)
            for model, of_model in zip(models, gathered(of_groups), strict=True)
        ]

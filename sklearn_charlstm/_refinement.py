"""What makes classifiers of language models: joint training, and calibration."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sklearn_charlstm._analysis import LabelledSequences
from sklearn_charlstm._calibration import (
    Evidence,
    EvidenceWeight,
    Fold,
    folds,
    held_out_evidence,
)
from sklearn_charlstm._class_models import ClassModelsMixin
from sklearn_charlstm._device import n_devices, resolve_compute
from sklearn_charlstm._discriminative import (
    JointJob,
    auto_epochs,
    join_models,
    joint_jobs,
    train_jointly,
)
from sklearn_charlstm._joint_batches import LabelledTexts
from sklearn_charlstm._model_training import MAX_SMOOTHED
from sklearn_charlstm._module import Weights
from sklearn_charlstm._parallel import dealt, gathered, n_processes, run
from sklearn_charlstm._progress import progress_line
from sklearn_charlstm._stacked import pays_on
from sklearn_charlstm._stacked_joint import train_jointly_stacked

__all__ = ["RefinementMixin"]

# Models of classifiers that are trained side by side to calibrate: a GPU is not idle
# with so many, and each takes memory.
MAX_SIDE_BY_SIDE = 64


def _train_jointly(
    jobs: Sequence[JointJob], *, in_one_step: bool, **how: Any
) -> list[tuple[list[Weights], list[float]]]:
    if in_one_step:
        return train_jointly_stacked(jobs, **how)
    return [train_jointly(job, **how) for job in jobs]


def _evidence_of_folds(
    classifiers: Sequence[RefinementMixin],
    classes: NDArray[Any],
    parts: Sequence[Fold],
    epochs: int,
    report: Callable[[float], None] | None,
) -> list[Evidence]:
    """Train classifiers side by side, each without a part of the text, and score it."""
    first = classifiers[0]
    # Cut here: of all parts at once it would take much memory.
    pairs = [part.split() for part in parts]
    texts: list[tuple[list[Sequence[Hashable]], NDArray[Any]]] = []
    for clf, (training, _) in zip(classifiers, pairs, strict=True):
        clf._start(classes, training, one_pass=False)
        texts += [training.of_class(k) for k in range(len(classes))]
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
            jobs += clf._joint_jobs(training, epochs, [None])
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
        )
        if report is not None:
            report(EvidenceWeight().cross_entropy(of_part))
        evidence.append(of_part)
    return evidence


class RefinementMixin(ClassModelsMixin):
    """An estimator that refines its language models, one per class.

    It learns to tell the classes apart better, and what the models are worth on texts
    that they have not seen.
    """

    maxlen: int
    batch_size: int
    discriminative_epochs: int | Literal["auto"]
    calibration_folds: int
    warm_start: bool

    evidence_weight_: EvidenceWeight
    discriminative_loss_curve_: NDArray[np.float64]

    def _refine(self, texts: LabelledSequences) -> None:
        """Let the models tell the classes apart better, and learn what they are worth.

        Side by side: the calibration trains models of its own.
        """
        models = self.language_models_
        how = self._how_jointly()
        device = how["compute"].device
        epochs = self.discriminative_epochs
        if epochs == "auto":
            n_tokens = sum(len(s) + self.boundaries for s in texts.sequences)
            epochs = auto_epochs(n_tokens, len(self.classes_))
        parts = self._calibration_parts(texts)
        networks = [f"network {n}" for n in range(1, models[0].n_networks + 1)]
        with progress_line(
            [*networks, "held-out text"],
            len(networks) * epochs + len(parts),
            self.verbose,
            desc="Joint training" if epochs else "Calibration",
            unit="bits/class",
            step="step",
        ) as [*of_networks, of_fold]:
            joint = self._joint_jobs(texts, epochs, of_networks) if epochs else []
            n_joint, n_calibrated = len(joint), len(parts)
            if how["in_one_step"]:
                n_at_once = min(n_devices(device), n_processes(self.n_jobs))
                n_joint = min(n_joint, n_at_once)
                n_needed = math.ceil(n_calibrated / self._n_side_by_side(texts))
                n_calibrated = min(n_calibrated, max(n_needed, n_at_once))
            jobs: list[Callable[[], Any]] = [
                partial(_train_jointly, group, **how) for group in dealt(joint, n_joint)
            ]
            what = [
                f"the joint training of {', '.join(group)}"
                for group in dealt(networks, n_joint)
            ]
            for group in dealt(parts, n_calibrated):
                classifiers = [self._to_calibrate(epochs) for _ in group]
                jobs.append(
                    partial(
                        _evidence_of_folds,
                        classifiers,
                        self.classes_,
                        group,
                        epochs,
                        of_fold,
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

    def _calibration_parts(self, texts: LabelledSequences) -> list[Fold]:
        """Return the parts of the texts to calibrate with; warn if there are none."""
        n_folds = self.calibration_folds
        if not n_folds:
            return []
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

    def _n_side_by_side(self, texts: LabelledSequences) -> int:
        """Return how many classifiers are trained at a time to keep a GPU busy."""
        n_tokens = texts.n_tokens_of_classes().max()
        if self.net_params is not None or n_tokens > MAX_SMOOTHED:
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
        texts: LabelledSequences,
        epochs: int,
        reports: Sequence[Callable[[float], None] | None],
    ) -> list[JointJob]:
        """Return what the joint training of the networks has to do."""
        models = self.language_models_
        return joint_jobs(
            [model._as_model() for model in models],
            LabelledTexts.balanced(
                self.vocabulary_.encode(texts.sequences),
                texts.class_index,
                texts.weights,
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
        # `clone` would copy the parameters: an `analyzer` may be an object that cannot
        # be copied, and it has to be the same one in all models.
        classifier = copy.copy(self)
        # It will have models of its own, and these need not go to another process.
        del classifier.language_models_, classifier._generative_models
        params = {
            # One network is trusted less than their mean: the error is on the safe
            # side, and it takes a fraction of the time.
            "n_networks": 1,
            "hidden_size": models[0].hidden_size_,
            # As long as these were trained, whatever ended it.
            "early_stopping": False,
            "epochs": max(1, round(np.mean([model.n_iter_ for model in models]))),
            "discriminative_epochs": discriminative_epochs,
            "random_state": models[0]._seed,
            "n_jobs": None,
            "verbose": 0,
            "warm_start": False,
        }
        for name, value in params.items():
            setattr(classifier, name, value)
        return classifier

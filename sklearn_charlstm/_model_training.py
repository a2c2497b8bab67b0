"""Training of one language model, in one call or in several."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, Self

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from sklearn_charlstm._analysis import Analyzer
from sklearn_charlstm._device import Compute, resolve_compute
from sklearn_charlstm._model import Model
from sklearn_charlstm._module import Weights
from sklearn_charlstm._scoring import token_log_likelihood
from sklearn_charlstm._stacked import can_stack, pays_on, train_stacked
from sklearn_charlstm._training import (
    EarlyStopping,
    TrainingJob,
    TrainingState,
    initial_state,
    train,
)
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary
from sklearn_charlstm._windows import WindowBatches

__all__ = [
    "MAX_SEED",
    "MAX_SMOOTHED",
    "MAX_UPDATES",
    "ModelTrainingMixin",
    "resolve_hidden_size",
]

# What a model cannot change between two calls if training is to go on.
_FIXED_AT_START = (
    "analyzer",
    "boundaries",
    "n_networks",
    "embedding_dim",
    "hidden_size",
    "num_layers",
    "output",
)


# More tokens than that speak for themselves; to count their n-grams takes memory.
MAX_SMOOTHED = 500_000

MAX_SEED = np.iinfo(np.int32).max

# Updates that a float64 can count.
MAX_UPDATES = 2**53

# From so many characters wider networks learn more, from fewer hardly any more.
WIDE_FROM = 50_000
NARROW, WIDE = 96, 192


def resolve_hidden_size(hidden_size: int | Literal["auto"], n_characters: float) -> int:
    """Return the width of networks for texts of so many characters."""
    if hidden_size == "auto":
        return WIDE if n_characters >= WIDE_FROM else NARROW
    # True is an integer too, but no size to torch.
    return int(hidden_size)


class ModelTrainingMixin:
    """An estimator that is a language model, as far as its training goes."""

    maxlen: int
    epochs: int
    n_networks: int
    hidden_size: int | Literal["auto"]
    embedding_dim: int
    num_layers: int
    dropout: float
    batch_size: int
    lr: float
    weight_decay: float
    boundaries: bool
    analyzer: Analyzer
    output: str
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    warm_start: bool
    device: str
    precision: str
    random_state: int | np.random.RandomState | None
    net_params: dict[str, Any] | None

    vocabulary_: Vocabulary
    hidden_size_: int
    weights_: Weights
    loss_curve_: NDArray[np.float64]
    n_iter_: int
    device_: str
    precision_: str
    _training_state: TrainingState | None
    # That of pickles which have none.
    _n_updates: int = 0
    _validation_fingerprint: str | None
    validation_loss_curve_: NDArray[np.float64] | None

    def _start(self, vocabulary: Vocabulary, hidden_size: int) -> None:
        """Draw the weights that training starts from."""
        self._lay_out(vocabulary, hidden_size)
        # One seed for all that is drawn: initial weights, windows, dropout, validation
        # texts, and what a classifier draws after them.
        self._seed = int(check_random_state(self.random_state).randint(MAX_SEED))
        self._training_state = initial_state(self._module_params, self._seed)
        self.weights_ = self._training_state.average
        self.loss_curve_ = np.empty(0)
        self.validation_loss_curve_ = None
        self.n_iter_ = 0

    def _lay_out(self, vocabulary: Vocabulary, hidden_size: int) -> None:
        """Set what the networks are made of; they have no weights so far."""
        self.vocabulary_ = vocabulary
        self.hidden_size_ = hidden_size
        self._started_with = {name: getattr(self, name) for name in _FIXED_AT_START}
        self._started_with["hidden_size"] = hidden_size
        self._module_params = {
            "n_inputs": vocabulary.n_inputs,
            "n_outputs": vocabulary.n_outputs,
            "n_networks": int(self.n_networks),
            "embedding_dim": int(self.embedding_dim),
            "hidden_size": hidden_size,
            "num_layers": int(self.num_layers),
            "dropout": self.dropout,
            "output": self.output,
        }
        self._training_state = None
        self._n_updates = 0
        self._validation_fingerprint = None

    def _with_weights(self, weights: Weights) -> Self:
        """Return a copy with other weights, which training goes on from."""
        model = copy.copy(self)
        model.weights_ = weights
        model._training_state = None
        return model

    def _check_same_networks(self) -> None:
        """Refuse what was changed and cannot be changed without other networks."""
        for param, value in self._started_with.items():
            now = getattr(self, param)
            if param == "hidden_size" and now == "auto":
                continue
            if now != value:
                raise ValueError(
                    f"`{param}` was {value!r} at the start of training and is now "
                    f"{now!r}; the networks are as they were made. Set it back, or fit "
                    "anew with warm_start=False."
                )

    def _epochs_to_go(self) -> int:
        epochs = int(self.epochs) - self.n_iter_
        if epochs < 0:
            raise ValueError(
                f"epochs={self.epochs} is less than the {self.n_iter_} epochs done; "
                "with warm_start=True it is their total."
            )
        return epochs

    def _train(
        self,
        encoded: EncodedTexts,
        sample_weight: NDArray[Any],
        *,
        epochs: int,
        one_pass: bool,
        name: str = "the language model",
        report: Callable[[float], None] | None,
    ) -> Self:
        """Train for some more epochs, or once over what may be the first of many."""
        compute = resolve_compute(self.device, self.precision)
        early_stopping = None
        if self.early_stopping:
            encoded, sample_weight, early_stopping = self._set_aside(
                encoded, sample_weight, compute, name
            )
            if early_stopping.stops:
                epochs = 0
        known = self._knows_any(encoded)
        if not (known or one_pass):
            raise ValueError(
                f"No character in the texts for {name} is in its alphabet."
            )
        result = None
        if epochs and known:
            job = self._training_job(
                encoded, sample_weight, epochs, name, report, one_pass=one_pass
            )
            how: dict[str, Any] = {
                "lr": self.lr,
                "weight_decay": self.weight_decay,
                "compute": compute,
            }
            is_plain = early_stopping is None and self.net_params is None
            if is_plain and pays_on(compute.device) and can_stack([job]):
                [result] = train_stacked([job], **how)
            else:
                result = train(
                    job,
                    **how,
                    net_params=self.net_params,
                    early_stopping=early_stopping,
                )
        return self._trained(result, compute, early_stopping, one_pass=one_pass)

    def _knows_any(self, encoded: EncodedTexts) -> bool:
        """Tell whether any token of some texts is in the alphabet."""
        return bool((encoded.ids != self.vocabulary_.unknown).any())

    def _training_job(
        self,
        encoded: EncodedTexts,
        sample_weight: NDArray[Any],
        epochs: int,
        name: str,
        report: Callable[[float], None] | None,
        *,
        one_pass: bool = False,
    ) -> TrainingJob:
        self._module_params = self._module_params | {"dropout": self.dropout}
        batches = WindowBatches(
            encoded,
            sample_weight,
            self.vocabulary_,
            maxlen=self.maxlen,
            batch_size=self.batch_size,
            seed=self._seed,
            epoch=self.n_iter_,
            # The texts of one call may be too few to count anything.
            smoothing=not one_pass and len(encoded.ids) <= MAX_SMOOTHED,
        )
        # Without the state of the optimizer, go on from the averaged weights: they stay
        # the average of many updates.
        state = self._training_state or TrainingState(
            self.weights_, self.weights_, self._n_updates
        )
        return TrainingJob(state, batches, self._module_params, epochs, name, report)

    def _trained(
        self,
        result: tuple[TrainingState, list[float]] | None,
        compute: Compute,
        early_stopping: EarlyStopping | None = None,
        *,
        one_pass: bool = False,
    ) -> Self:
        """Take over what training led to, if there was any."""
        self.device_, self.precision_ = str(compute.device), compute.precision
        if early_stopping is None:
            self.validation_loss_curve_ = None
        if result is not None:
            self._training_state, loss_curve = result
            self._n_updates = self._training_state.n_updates
            self.loss_curve_ = np.append(self.loss_curve_, loss_curve)
            self.n_iter_ = len(self.loss_curve_)
            self.weights_ = self._training_state.average
            if early_stopping and early_stopping.best is not None:
                self.weights_ = early_stopping.best
                self.validation_loss_curve_ = np.array(early_stopping.curve)
        if not (one_pass or self.warm_start):
            self._training_state = None
        return self

    def _set_aside(
        self,
        encoded: EncodedTexts,
        sample_weight: NDArray[Any],
        compute: Compute,
        name: str,
    ) -> tuple[EncodedTexts, NDArray[Any], EarlyStopping]:
        """Split off the texts that tell when to stop."""
        rows = np.flatnonzero(encoded.lengths)
        if len(rows) < 2:
            raise ValueError(
                f"early_stopping=True needs at least two texts that are not empty to "
                f"train {name}, got {len(rows)}; cut long texts into pieces."
            )
        n_validation = round(self.validation_fraction * len(rows))
        train_rows, validation_rows = train_test_split(
            rows,
            test_size=min(max(n_validation, 1), len(rows) - 1),
            random_state=self._seed,
        )
        validation = encoded.take(validation_rows)
        weights = sample_weight[validation_rows]
        weights = np.repeat(weights / weights.max(), validation.lengths)
        # Losses on other texts cannot be compared.
        fingerprint = joblib.hash([validation, weights])
        if fingerprint != self._validation_fingerprint:
            self.validation_loss_curve_ = None
            self._validation_fingerprint = fingerprint

        def validation_loss(candidate: Weights) -> float:
            model = self._as_model()._replace(weights=candidate)
            log_likelihood = token_log_likelihood(model, validation, compute)
            return -float(np.average(log_likelihood, weights=weights))

        early_stopping = EarlyStopping(validation_loss, self.n_iter_no_change)
        if self.validation_loss_curve_ is not None:
            early_stopping.curve = self.validation_loss_curve_.tolist()
            early_stopping.best = self.weights_
        return encoded.take(train_rows), sample_weight[train_rows], early_stopping

    def _as_model(self) -> Model:
        return Model(self.weights_, self._module_params, self.vocabulary_)

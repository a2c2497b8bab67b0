"""The language models of all classes, each trained on the texts of its own."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sklearn_charlstm._analysis import Analyzer, LabelledSequences
from sklearn_charlstm._device import n_devices, resolve_compute
from sklearn_charlstm._language_model import CharLSTMLanguageModel
from sklearn_charlstm._model_training import MAX_SEED, resolve_hidden_size
from sklearn_charlstm._parallel import dealt, gathered, n_processes, run
from sklearn_charlstm._progress import progress_line
from sklearn_charlstm._stacked import can_stack, pays_on, train_stacked
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["ClassModelsMixin"]


class ClassModelsMixin:
    """An estimator that trains one language model per class.

    It has all parameters of the language model.
    """

    hidden_size: int | Literal["auto"]
    lr: float
    weight_decay: float
    num_layers: int
    early_stopping: bool
    net_params: dict[str, Any] | None
    boundaries: bool
    analyzer: Analyzer
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

    def _start(
        self, classes: NDArray[Any], texts: LabelledSequences, *, one_pass: bool
    ) -> None:
        """Draw the weights that the training of all models starts from.

        With ``one_pass`` there are more texts to come, and each model tells all tokens
        apart.
        """
        self.classes_ = classes
        self.class_count_ = np.zeros(len(classes))
        self.vocabulary_ = Vocabulary(texts.sequences, self.analyzer, self.boundaries)
        vocabularies = [self.vocabulary_] * len(classes)
        if not one_pass:
            vocabularies = [
                self._vocabulary_of_class(texts.of_class(k)[0])
                for k in range(len(classes))
            ]
        hidden_size = resolve_hidden_size(
            self.hidden_size, sum(map(len, texts.sequences)) / len(classes)
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
        return random_state.randint(MAX_SEED, size=n_models).tolist()

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

    def _train(self, texts: LabelledSequences, *, one_pass: bool) -> None:
        models = self._train_models(
            self.language_models_ if one_pass else self._generative_models,
            [texts.of_class(k) for k in range(len(self.classes_))],
            self.classes_,
            one_pass=one_pass,
        )
        self.language_models_ = self._generative_models = models

    def _with_current_params(
        self, models: list[CharLSTMLanguageModel]
    ) -> list[CharLSTMLanguageModel]:
        """Return copies of models with the parameters of now, but their own seed.

        Parameters that their networks cannot have are an error.
        """
        params = self._language_model_params()
        del params["random_state"]
        if params["hidden_size"] == "auto":
            # They have the number that it stood for.
            del params["hidden_size"]
        models = [copy.copy(model).set_params(**params) for model in models]
        for model in models:
            model._check_same_networks()
        return models

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
        epochs = [1 if one_pass else model._epochs_to_go() for model in models]
        names = [str(label) for label in labels]
        what = [f"the language model of class {name!r}" for name in names]
        with progress_line(names, len(names) * max(epochs), self.verbose) as reports:
            how: list[dict[str, Any]] = [
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
                    partial(
                        model._train, *encoded_texts, **how_of_model, one_pass=one_pass
                    )
                    for model, encoded_texts, how_of_model in zip(
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
        for model, (of_class, weights), how_of_model in zip(
            models, encoded(), how, strict=True
        ):
            if not (how_of_model["epochs"] and model._knows_any(of_class)):
                return None
            jobs.append(model._training_job(of_class, weights, **how_of_model))
        if not can_stack(jobs):
            return None
        n_groups = min(len(jobs), n_devices(compute.device), n_processes(self.n_jobs))
        groups = dealt(jobs, n_groups)
        of_groups = run(
            [f"{group[0].name} and {len(group) - 1} more" for group in groups],
            [
                partial(
                    train_stacked,
                    group,
                    lr=self.lr,
                    weight_decay=self.weight_decay,
                    compute=compute,
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

"""A language model over characters as a density estimator."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Hashable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_charlstm._analysis import Analyzer, analyze, analyze_weighted
from sklearn_charlstm._archive import Node, damaged
from sklearn_charlstm._base import TextInputMixin
from sklearn_charlstm._device import Compute, resolve_compute
from sklearn_charlstm._module import Weights, weight_shapes
from sklearn_charlstm._persistence import Alphabets, PersistenceMixin
from sklearn_charlstm._progress import progress_line
from sklearn_charlstm._scoring import (
    Model,
    text_log_likelihood,
    token_log_likelihood,
)
from sklearn_charlstm._training import (
    EarlyStopping,
    TrainingJob,
    TrainingState,
    initial_state,
    train,
)
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary
from sklearn_charlstm._windows import WindowBatches
from sklearn_charlstm._writing import WriterMixin

__all__ = ["CharLSTMLanguageModel", "check_no_early_stopping"]


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

# Of those in a file. No training comes near; sums of products of larger ones could be
# infinite.
MAX_WEIGHT = 1e12


def check_no_early_stopping(early_stopping: bool) -> None:
    """Refuse early stopping in `partial_fit`, which has one pass to make."""
    if early_stopping:
        raise ValueError(
            "partial_fit does not support early_stopping=True; set it to False, or "
            "use fit."
        )


class CharLSTMLanguageModel(
    TextInputMixin, PersistenceMixin, WriterMixin, DensityMixin, BaseEstimator
):
    """Character language model with an LSTM.

    It gives every text a probability: the product of the probabilities of its
    characters, each given all characters before it.

    Parameters
    ----------
    maxlen : int, default=16
        Longest history in training, in characters: texts are cut into windows of
        at most this many. Scoring uses the whole history.
    epochs : int, default=20
        Passes over the training texts.
    n_networks : int, default=3
        LSTM networks in each language model, trained from other initial weights. The
        probability of a character is the mean of theirs.
    hidden_size : int, default=96
        Units in each LSTM layer.
    embedding_dim : int, default=64
        Length of the vector that stands for a character.
    num_layers : int, default=1
        LSTM layers.
    dropout : float, default=0.3
        Share of units dropped at random in training, in [0, 1): others in every
        window, the same at all its characters.
    batch_size : int, default=32
        Windows used for one update of the weights.
    lr : float, default=0.01
        Learning rate of AdamW. It is constant; the weights are averaged over the
        last part of training.
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    boundaries : bool, default=False
        Whether the beginning and the end of a text are evidence. False: a sample
        is a fragment of running text, cut anywhere. True: a sample is a whole
        text, such as a name, a word or a message; the end of text is predicted
        like a character, and the probabilities of all texts sum to one.
    analyzer : {'char', 'byte', 'word'} or callable, default='char'
        What a "character" is: a code point; a byte of UTF-8; a word or punctuation
        mark (white space is dropped); or what the callable makes of a sample, any
        sequence of hashable tokens. The sample may then be of any type.
    output : {'softmax', 'sigmoid'}, default='softmax'
        'sigmoid' trains one yes-or-no output per character with binary
        cross-entropy; they are divided by their sum when scoring.
    early_stopping : bool, default=False
        Whether to set aside part of the training texts, to stop when their loss no
        longer falls, and to keep the weights of the best epoch.
    validation_fraction : float, default=0.1
        Share of the texts to set aside for early stopping, in (0, 1).
    n_iter_no_change : int, default=5
        Epochs in a row without a lower validation loss that end the training.
    warm_start : bool, default=False
        Whether `fit` goes on from where the last call stopped, up to `epochs`
        epochs in total. If it was True in the last call too, and with the same texts
        and parameters, the result is that of one call with as many epochs.
    device : str, default='auto'
        'auto' (CUDA, else MPS, else CPU), 'cpu', 'cuda', 'cuda:1' or 'mps'.
    precision : {'float32', 'bfloat16', 'auto'}, default='float32'
        'bfloat16' multiplies matrices with 8 significant bits, in training and in
        scoring; weights and sums stay float32. 'auto' does so where the device has
        units for it: processors with AVX-512 BF16 or AMX, GPUs since Ampere.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, windows, dropout and validation texts. An int gives the same
        model in every `fit` on the same machine.
    verbose : int, default=0
        1 shows a progress line with the current bits per character.
    net_params : dict, default=None
        More settings of the :class:`skorch.NeuralNet`, such as ``optimizer`` or
        ``callbacks``. Each call of `fit` starts the callbacks anew, also where
        training goes on.

    Attributes
    ----------
    vocabulary_ : Vocabulary
        The alphabet, a dict from character to id.
    weights_ : dict of str to ndarray
        The weights of the network: averaged, and with early stopping those after the
        best epoch.
    loss_curve_ : ndarray of shape (`n_iter_`,)
        Negative log-likelihood per character of the training texts in each epoch,
        in nats, with dropout.
    validation_loss_curve_ : ndarray of shape (n_epochs,), or None
        Negative log-likelihood per character of the texts set aside, in nats, after
        each epoch since they were. None without early stopping.
    n_iter_ : int
        Epochs done.
    device_ : str
        The device `fit` ran on.
    precision_ : {'float32', 'bfloat16'}
        The precision of its matrix products.

    See Also
    --------
    CharLMLanguageClassifier : One language model per class.
    sklearn.neighbors.KernelDensity : Density of points, not of texts.

    Notes
    -----
    A character that was not in the training texts has a fixed small probability
    (see `Vocabulary`): every text has a finite log-likelihood.

    On a GPU, cuDNN does not promise the same roundings in every run.

    References
    ----------
    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation
    9(8), 1997. M. Sundermeyer, R. Schlüter and H. Ney, "LSTM neural networks for
    language modeling", Interspeech 2012.

    Examples
    --------
    >>> from sklearn_charlstm import CharLSTMLanguageModel
    >>> model = CharLSTMLanguageModel(random_state=0)
    >>> model.fit(["she sells sea shells on the sea shore. " * 10])
    CharLSTMLanguageModel(random_state=0)
    >>> likely, unlikely = model.score_samples(["sea shells", "xqzj vwkpy"])
    >>> bool(likely > unlikely)
    True
    """

    _parameter_constraints: dict = {
        "maxlen": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "hidden_size": [Interval(Integral, 1, None, closed="left")],
        "n_networks": [Interval(Integral, 1, None, closed="left")],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "num_layers": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "boundaries": ["boolean"],
        "analyzer": [StrOptions({"char", "byte", "word"}), callable],
        "output": [StrOptions({"softmax", "sigmoid"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str],
        "precision": [StrOptions({"float32", "bfloat16", "auto"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "net_params": [dict, None],
    }

    def __init__(
        self,
        *,
        maxlen: int = 16,
        epochs: int = 20,
        n_networks: int = 3,
        hidden_size: int = 96,
        embedding_dim: int = 64,
        num_layers: int = 1,
        dropout: float = 0.3,
        batch_size: int = 32,
        lr: float = 0.01,
        weight_decay: float = 0.01,
        boundaries: bool = False,
        analyzer: Analyzer = "char",
        output: Literal["softmax", "sigmoid"] = "softmax",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        device: str = "auto",
        precision: Literal["float32", "bfloat16", "auto"] = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        net_params: dict[str, Any] | None = None,
    ) -> None:
        self.maxlen = maxlen
        self.epochs = epochs
        self.n_networks = n_networks
        self.hidden_size = hidden_size
        self.embedding_dim = embedding_dim
        self.num_layers = num_layers
        self.dropout = dropout
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.boundaries = boundaries
        self.analyzer = analyzer
        self.output = output
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose
        self.net_params = net_params

    _training_state: TrainingState | None
    _validation_fingerprint: str | None
    validation_loss_curve_: NDArray[np.float64] | None

    def _start(self, vocabulary: Vocabulary) -> None:
        """Draw the weights that training starts from."""
        self._lay_out(vocabulary)
        # One seed for three streams: initial weights, windows, and dropout.
        self._seed = int(check_random_state(self.random_state).randint(MAX_SEED))
        self._training_state = initial_state(self._module_params, self._seed)
        self.weights_ = self._training_state.average
        self.loss_curve_ = np.empty(0)
        self.validation_loss_curve_ = None
        self.n_iter_ = 0

    def _lay_out(self, vocabulary: Vocabulary) -> None:
        """Set what the networks are made of; they have no weights so far."""
        self.vocabulary_ = vocabulary
        self._started_with = {name: getattr(self, name) for name in _FIXED_AT_START}
        # True is an integer too, but no size to torch.
        self._module_params = {
            "n_inputs": vocabulary.n_inputs,
            "n_outputs": vocabulary.n_outputs,
            "n_networks": int(self.n_networks),
            "embedding_dim": int(self.embedding_dim),
            "hidden_size": int(self.hidden_size),
            "num_layers": int(self.num_layers),
            "dropout": self.dropout,
            "output": self.output,
        }
        self._training_state = None
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
            if getattr(self, param) != value:
                raise ValueError(
                    f"`{param}` was {value!r} at the start of training and is now "
                    f"{getattr(self, param)!r}; the networks are as they were made. "
                    "Set it back, or fit anew with warm_start=False."
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
        report: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Train for some more epochs, or once over what may be the first of many."""
        compute = resolve_compute(self.device, self.precision)
        early_stopping = None
        if not self.early_stopping:
            self.validation_loss_curve_ = None
        else:
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
            result = train(
                self._training_job(
                    encoded, sample_weight, epochs, name, report, one_pass=one_pass
                ),
                lr=self.lr,
                weight_decay=self.weight_decay,
                net_params=self.net_params,
                compute=compute,
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
        report: Callable[[int, float], None] | None,
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
        # Without the state of the optimizer, go on from the weights alone.
        state = self._training_state or TrainingState(self.weights_, self.weights_)
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
        if result is not None:
            self._training_state, loss_curve = result
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
            log_likelihood = token_log_likelihood(
                self._as_scored(candidate), validation, compute
            )
            return -float(np.average(log_likelihood, weights=weights))

        early_stopping = EarlyStopping(validation_loss, self.n_iter_no_change)
        if self.validation_loss_curve_ is not None:
            early_stopping.curve = self.validation_loss_curve_.tolist()
            early_stopping.best = self.weights_
        return encoded.take(train_rows), sample_weight[train_rows], early_stopping

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Collection[Any],
        y: object = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the model to texts by maximum likelihood.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Training texts.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the texts in the loss; only their ratios count.
            A text of weight 0 is as if not given.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            If `X` is not a sequence of texts, if there is no character in any of
            them, if `device` is not there, if training diverges, or if it cannot
            go on (``warm_start=True``) with the parameters as they are.
        """
        go_on = self.warm_start and hasattr(self, "weights_")
        return self._fit(X, sample_weight, go_on=go_on, one_pass=False)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Collection[Any],
        y: object = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Go once over more texts.

        The alphabet is that of the first call: characters that only later texts
        have are unknown. The state of the optimizer is kept from call to call.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Training texts.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the texts in the loss; only their ratios within
            the call count.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            As `fit`; and if ``early_stopping=True``.
        """
        check_no_early_stopping(self.early_stopping)
        go_on = hasattr(self, "weights_")
        return self._fit(X, sample_weight, go_on=go_on, one_pass=True)

    def _fit(
        self,
        X: Collection[Any],
        sample_weight: ArrayLike | None,
        *,
        go_on: bool,
        one_pass: bool,
    ) -> Self:
        sequences, weights, _ = analyze_weighted(X, self.analyzer, sample_weight)
        # A copy is trained: an error or an interrupt leaves this one as it was.
        model = copy.copy(self)
        if not go_on:
            model._start(Vocabulary(sequences, self.analyzer, self.boundaries))
        else:
            model._check_same_networks()
        epochs = 1 if one_pass else model._epochs_to_go()
        with progress_line(["model"], epochs, self.verbose) as [report]:
            model._train(
                model.vocabulary_.encode(sequences),
                weights,
                epochs=epochs,
                one_pass=one_pass,
                report=report,
            )
        self.__dict__.update(model.__dict__)
        return self

    _saved_as = "CharLSTMLanguageModel"

    def _content(self, alphabets: Alphabets) -> dict[str, Any]:
        content = {
            "alphabet": alphabets.number_of(self.vocabulary_),
            "seed": self._seed,
            "device": self.device_,
            "precision": self.precision_,
            "weights": self.weights_,
            "loss_curve": self.loss_curve_,
        }
        if self.validation_loss_curve_ is not None:
            content["validation_loss_curve"] = self.validation_loss_curve_
        return content

    def _restore(self, node: Node, alphabets: Alphabets) -> None:
        self._lay_out(alphabets[node.value("alphabet", int)])
        self._seed = node.value("seed", int)
        if not 0 <= self._seed < MAX_SEED:
            raise damaged(f"the seed is {self._seed}")
        self.device_ = node.value("device", str)
        self.precision_ = node.value("precision", str)
        weights = node.child("weights")
        self.weights_ = {
            name: weights.array(name, shape, "F32")
            for name, shape in weight_shapes(self._module_params)
        }
        for name, values in self.weights_.items():
            if not (np.abs(values) <= MAX_WEIGHT).all():
                raise damaged(f"the weight {name} holds {np.abs(values).max()}")
        self.loss_curve_ = node.array("loss_curve", (None,), "F64")
        self.n_iter_ = len(self.loss_curve_)
        self.validation_loss_curve_ = None
        if "validation_loss_curve" in node:
            self.validation_loss_curve_ = node.array(
                "validation_loss_curve", (None,), "F64"
            )

    def _analyze(self, X: Collection[Any]) -> list[Sequence[Hashable]]:
        check_is_fitted(self)
        return analyze(X, self.vocabulary_.analyzer)

    def _token_log_likelihood(
        self, sequences: list[Sequence[Hashable]]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return log-likelihoods of all tokens and the number of tokens per text."""
        encoded = self.vocabulary_.encode(sequences)
        log_likelihood = token_log_likelihood(
            self._as_scored(self.weights_),
            encoded,
            resolve_compute(self.device, self.precision),
        )
        return log_likelihood, encoded.lengths

    def _as_scored(self, weights: Weights) -> Model:
        return Model(weights, self._module_params, self.vocabulary_)

    def char_log_likelihood(self, X: Collection[Any]) -> list[NDArray[np.float64]]:
        """Compute the log-likelihood of every character given those before it.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        log_likelihood : list of n_samples ndarrays of shape (n_characters,), float64
            In nats. With ``boundaries=True`` one more value, for the end of text.
        """
        sequences = self._analyze(X)
        log_likelihood, lengths = self._token_log_likelihood(sequences)
        return np.split(log_likelihood, np.cumsum(lengths)[:-1])

    def score_samples(self, X: Collection[Any]) -> NDArray[np.float64]:
        """Compute the log-likelihood of every text.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            In nats.
        """
        sequences = self._analyze(X)
        log_likelihood = text_log_likelihood(
            [self._as_scored(self.weights_)],
            self.vocabulary_.encode(sequences),
            self.vocabulary_,
            resolve_compute(self.device, self.precision),
        )
        return log_likelihood[:, 0]

    def score(self, X: Collection[Any], y: object = None) -> float:
        """Compute the mean log-likelihood of the texts.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.
        y : None
            Ignored.

        Returns
        -------
        score : float
            In nats per text.
        """
        return float(np.mean(self.score_samples(X)))

    def bits_per_character(self, X: Collection[Any]) -> float:
        """Compute the cross-entropy of the texts in bits.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        bits : float
            Bits per predicted character, over all texts together. With
            ``boundaries=True`` the end of a text counts as one.

        Raises
        ------
        ValueError
            If there is no character in any text.
        """
        sequences = self._analyze(X)
        log_likelihood, _ = self._token_log_likelihood(sequences)
        if not len(log_likelihood):
            raise ValueError(
                "All texts are empty; there is no character to average over."
            )
        return float(-np.mean(log_likelihood) / np.log(2))

    def perplexity(self, X: Collection[Any]) -> float:
        """Compute the perplexity of the texts: two to the bits per character.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Texts, or what `analyzer` reads.

        Returns
        -------
        perplexity : float
            1 where every character was certain; the size of the alphabet where all
            were equally likely.

        Raises
        ------
        ValueError
            If there is no character in any text.
        """
        return float(np.exp2(self.bits_per_character(X)))

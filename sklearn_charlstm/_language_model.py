"""A language model over characters as a density estimator."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable, Sequence
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_charlstm._analysis import Analyzer, analyze, analyze_weighted
from sklearn_charlstm._archive import Node, damaged
from sklearn_charlstm._base import TextInputMixin, fit_context
from sklearn_charlstm._model_training import (
    MAX_SEED,
    MAX_UPDATES,
    ModelTrainingMixin,
    resolve_hidden_size,
)
from sklearn_charlstm._module import MAX_WEIGHT, weight_shapes
from sklearn_charlstm._persistence import Alphabets, PersistenceMixin
from sklearn_charlstm._progress import progress_line
from sklearn_charlstm._scoring import text_log_likelihood, token_log_likelihood
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary
from sklearn_charlstm._writing import WriterMixin

__all__ = ["CharLSTMLanguageModel", "check_no_early_stopping"]


def check_no_early_stopping(early_stopping: bool) -> None:
    """Refuse early stopping in `partial_fit`, which has one pass to make."""
    if early_stopping:
        raise ValueError(
            "partial_fit does not support early_stopping=True; set it to False, or "
            "use fit."
        )


class CharLSTMLanguageModel(
    ModelTrainingMixin,
    TextInputMixin,
    PersistenceMixin,
    WriterMixin,
    DensityMixin,
    BaseEstimator,
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
    hidden_size : int or 'auto', default='auto'
        Units in each LSTM layer. 'auto': 96, and 192 where a language model has 50,000
        characters and more to learn from, on average. Where training goes on
        (`warm_start`, `partial_fit`) the networks keep the size of the first call,
        `hidden_size_` of a language model.
    embedding_dim : int, default=64
        Length of the vector that stands for a character.
    num_layers : int, default=1
        LSTM layers.
    dropout : float, default=0.3
        Share of units dropped at random in training, in [0, 1). Before the output they
        are drawn anew for every window and are the same at all its characters; between
        layers they are drawn anew at every character.
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
        'auto' (CUDA, else CPU), 'cpu', 'cuda', 'cuda:1' or 'mps'.
    precision : {'float32', 'bfloat16', 'auto'}, default='float32'
        'bfloat16' multiplies matrices with 8 significant bits, in training and in
        scoring; weights and sums stay float32. 'auto' does so on processors with AMX;
        on a GPU it pays with wide networks only, of some 512 units. An x86 processor
        without AVX-512 cannot train so.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, windows, dropout and validation texts. An int gives the same
        model in every `fit` on the same machine.
    verbose : int, default=0
        1 shows a progress line with the current bits per character.
    net_params : dict, default=None
        More settings of the :class:`skorch.NeuralNet` that trains a model, such as
        ``optimizer`` or ``callbacks``; joint training does not use them. Copies of them
        are used: each call of `fit` starts the callbacks anew, also where training goes
        on, and what they record is not in those that were passed. The history has the
        loss of every epoch, not of every batch.

    Attributes
    ----------
    vocabulary_ : Vocabulary
        The alphabet, a dict from character to id.
    weights_ : dict of str to ndarray
        The weights of the networks: averaged, and with early stopping those after the
        best epoch. Arrays that something was scored with are read-only; others may be
        put in their place.
    loss_curve_ : ndarray of shape (`n_iter_`,)
        Negative log-likelihood per character of the training texts in each epoch,
        in nats, with dropout, and without the thousandth that is kept for unknown
        characters.
    validation_loss_curve_ : ndarray of shape (n_epochs,), or None
        Negative log-likelihood per character of the texts set aside, in nats, after
        each epoch since they were set aside. None without early stopping.
    n_iter_ : int
        Epochs done.
    hidden_size_ : int
        Units in each LSTM layer.
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
    A character that was not in the training texts has a fixed small probability:
    every text has a finite log-likelihood.

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

    # What may change between two calls of `fit` with `warm_start` for the second to
    # give what one of its own would have given.
    _goes_on_with = ("epochs",)

    _parameter_constraints: dict = {
        "maxlen": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "hidden_size": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
        ],
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
        hidden_size: int | Literal["auto"] = "auto",
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

    @fit_context(prefer_skip_nested_validation=True)
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

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Collection[Any],
        y: object = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Go once over more texts.

        The alphabet is that of the first call: characters that only later texts
        have are unknown. The state of the optimizer is kept from call to call. The
        weights are averaged over all updates, those of a `fit` before too: where new
        texts are a small share of all, they count by about four times that share.

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
            model._start(
                Vocabulary(sequences, self.analyzer, self.boundaries),
                resolve_hidden_size(self.hidden_size, sum(map(len, sequences))),
            )
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
            "hidden_size": self.hidden_size_,
            "seed": self._seed,
            "n_updates": self._n_updates,
            "device": self.device_,
            "precision": self.precision_,
            "weights": self.weights_,
            "loss_curve": self.loss_curve_,
        }
        if self.validation_loss_curve_ is not None:
            content["validation_loss_curve"] = self.validation_loss_curve_
        return content

    def _restore(self, node: Node, alphabets: Alphabets) -> None:
        hidden_size = self.hidden_size
        if hidden_size == "auto":
            hidden_size = node.value("hidden_size", int)
            if hidden_size < 1:
                raise damaged(f"the size of a layer is {hidden_size}")
        self._lay_out(alphabets[node.value("alphabet", int)], int(hidden_size))
        self._seed = node.value("seed", int)
        if not 0 <= self._seed < MAX_SEED:
            raise damaged(f"the seed is {self._seed}")
        # The first files did not have it.
        self._n_updates = node.value("n_updates", int, NoneType) or 0
        if not 0 <= self._n_updates < MAX_UPDATES:
            raise damaged(f"there were {self._n_updates} updates")
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
        if node.has_array("validation_loss_curve"):
            self.validation_loss_curve_ = node.array(
                "validation_loss_curve", (None,), "F64"
            )

    def _analyze(self, X: Collection[Any]) -> list[Sequence[Hashable]]:
        check_is_fitted(self)
        return analyze(X, self.vocabulary_.analyzer)

    def _encoded(self, X: Collection[Any]) -> EncodedTexts:
        sequences = self._analyze(X)
        return self.vocabulary_.encode(sequences)

    def _token_log_likelihood(self, encoded: EncodedTexts) -> NDArray[np.float64]:
        """Return the log-likelihoods of all tokens."""
        return token_log_likelihood(self._as_model(), encoded, self._compute())

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

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the model is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        encoded = self._encoded(X)
        log_likelihood = self._token_log_likelihood(encoded)
        return np.split(log_likelihood, encoded.ends[:-1])

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

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the model is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
        """
        encoded = self._encoded(X)
        log_likelihood = text_log_likelihood(
            [self._as_model()], encoded, self.vocabulary_, self._compute()
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

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the model is not fitted, `X` is not a sequence of texts, or `device`
            is not there.
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
        NotFittedError, TypeError, ValueError
            If the model is not fitted, `X` is not a sequence of texts or has no
            character in any, or `device` is not there.
        """
        encoded = self._encoded(X)
        log_likelihood = self._token_log_likelihood(encoded)
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
            About 1 where every character was certain; about the size of the alphabet
            where all were equally likely.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the model is not fitted, `X` is not a sequence of texts or has no
            character in any, or `device` is not there.
        """
        return float(np.exp2(self.bits_per_character(X)))

"""A language model over characters as a density estimator."""

# SPDX-License-Identifier: BSD-3-Clause

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_charlstm._analysis import analyze
from sklearn_charlstm._device import resolve_device
from sklearn_charlstm._progress import progress_line
from sklearn_charlstm._scoring import token_log_likelihood
from sklearn_charlstm._training import train
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import WindowBatches, targets_of

__all__ = ["CharLSTMLanguageModel"]


class CharLSTMLanguageModel(DensityMixin, BaseEstimator):
    """Character language model with an LSTM.

    It gives every text a probability: the product of the probabilities of its
    characters, each given all characters before it.

    Parameters
    ----------
    maxlen : int, default=16
        Longest history in training, in characters: texts are cut into windows of
        at most this many. Scoring uses the whole history.
    epochs : int, default=40
        Passes over the training texts.
    hidden_size : int, default=128
        Units in each LSTM layer.
    embedding_dim : int, default=32
        Length of the vector that stands for a character.
    num_layers : int, default=1
        LSTM layers.
    dropout : float, default=0.3
        Share of units dropped at random in training, in [0, 1).
    batch_size : int, default=16
        Windows used for one update of the weights.
    lr : float, default=0.005
        Highest learning rate of AdamW. It rises linearly over the first tenth of
        the updates and falls along a cosine after.
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
    device : str, default='auto'
        'auto' (CUDA, else MPS, else CPU), 'cpu', 'cuda', 'cuda:1' or 'mps'.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, windows and dropout. An int gives the same model in every
        `fit` on the same machine.
    verbose : int, default=0
        1 shows a progress line with the current bits per character.
    net_params : dict, default=None
        More settings of the :class:`skorch.NeuralNet`, such as ``optimizer`` or
        ``callbacks``.

    Attributes
    ----------
    vocabulary_ : Vocabulary
        The alphabet, a dict from character to id.
    weights_ : dict of str to ndarray
        The weights of the network.
    loss_curve_ : ndarray of shape (n_iter_,)
        Negative log-likelihood per character of the training texts in each epoch,
        in nats, with dropout.
    n_iter_ : int
        Epochs done.
    device_ : str
        The device `fit` ran on.

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
    >>> model = CharLSTMLanguageModel(epochs=20, random_state=0)
    >>> model.fit(["she sells sea shells on the sea shore. " * 10])
    CharLSTMLanguageModel(epochs=20, random_state=0)
    >>> likely, unlikely = model.score_samples(["sea shells", "xqzj vwkpy"])
    >>> bool(likely > unlikely)
    True
    """

    _parameter_constraints: dict = {
        "maxlen": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "hidden_size": [Interval(Integral, 1, None, closed="left")],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "num_layers": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "boundaries": ["boolean"],
        "analyzer": [StrOptions({"char", "byte", "word"}), callable],
        "output": [StrOptions({"softmax", "sigmoid"})],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "net_params": [dict, None],
    }

    def __init__(
        self,
        *,
        maxlen=16,
        epochs=40,
        hidden_size=128,
        embedding_dim=32,
        num_layers=1,
        dropout=0.3,
        batch_size=16,
        lr=5e-3,
        weight_decay=0.01,
        boundaries=False,
        analyzer="char",
        output="softmax",
        device="auto",
        random_state=None,
        verbose=0,
        net_params=None,
    ):
        self.maxlen = maxlen
        self.epochs = epochs
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
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.net_params = net_params

    def _fit_encoded(self, encoded, vocabulary, name="the language model", report=None):
        """Fit to texts encoded with an alphabet that other models may share."""
        device = resolve_device(self.device)
        # Two streams from one seed: numpy's for the windows, torch's for the rest.
        seed = int(
            check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        )
        self.vocabulary_ = vocabulary
        # Kept apart from the parameters, which the user may set anew after `fit`.
        self._module_params = {
            "n_inputs": vocabulary.n_inputs,
            "n_outputs": len(vocabulary) + bool(self.boundaries),
            "embedding_dim": self.embedding_dim,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "output": self.output,
        }
        batches = WindowBatches(
            targets_of(encoded, vocabulary, self.boundaries),
            vocabulary,
            boundaries=self.boundaries,
            maxlen=self.maxlen,
            batch_size=self.batch_size,
            seed=seed,
        )
        self.weights_, self.loss_curve_ = train(
            batches,
            self._module_params,
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            net_params=self.net_params,
            device=device,
            seed=seed,
            name=name,
            report=report,
        )
        self.n_iter_ = len(self.loss_curve_)
        self.device_ = str(device)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit the model to texts by maximum likelihood.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Training texts.
        y : None
            Ignored.

        Returns
        -------
        self : object

        Raises
        ------
        TypeError, ValueError
            If `X` is not a sequence of texts, if there is no character in any of
            them, if `device` is not there, or if training diverges.
        """
        sequences = analyze(X, self.analyzer)
        vocabulary = Vocabulary(sequences, self.analyzer)
        if not vocabulary:
            raise ValueError("All texts are empty; pass at least one character.")
        with progress_line(["model"], self.epochs, self.verbose) as [report]:
            self._fit_encoded(vocabulary.encode(sequences), vocabulary, report=report)
        return self

    def _token_log_likelihood(self, X):
        """Return log-likelihoods of all targets and the number of targets per text."""
        check_is_fitted(self)
        encoded = self.vocabulary_.encode(analyze(X, self.analyzer))
        targets = targets_of(encoded, self.vocabulary_, self.boundaries)
        log_likelihood = token_log_likelihood(
            self.weights_,
            self._module_params,
            targets,
            self.vocabulary_,
            boundaries=self.boundaries,
            device=resolve_device(self.device),
        )
        return log_likelihood, targets.lengths

    def char_log_likelihood(self, X):
        """Compute the log-likelihood of every character given those before it.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        log_likelihood : list of n_samples ndarrays of shape (n_characters,), float64
            In nats. With ``boundaries=True`` one more value, for the end of text.
        """
        log_likelihood, lengths = self._token_log_likelihood(X)
        return np.split(log_likelihood, np.cumsum(lengths)[:-1])

    def score_samples(self, X):
        """Compute the log-likelihood of every text.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            In nats.
        """
        log_likelihood, lengths = self._token_log_likelihood(X)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        return np.bincount(rows, weights=log_likelihood, minlength=len(lengths))

    def score(self, X, y=None):
        """Compute the mean log-likelihood of the texts.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
        y : None
            Ignored.

        Returns
        -------
        score : float
            In nats per text.
        """
        return float(np.mean(self.score_samples(X)))

    def bits_per_character(self, X):
        """Compute the cross-entropy of the texts in bits.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

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
        log_likelihood, _ = self._token_log_likelihood(X)
        if not len(log_likelihood):
            raise ValueError(
                "All texts are empty; there is no character to average over."
            )
        return float(-np.mean(log_likelihood) / np.log(2))

    def perplexity(self, X):
        """Compute the perplexity of the texts: two to the bits per character.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

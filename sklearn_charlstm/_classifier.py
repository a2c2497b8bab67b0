"""Bayes' rule over one language model per class."""

# SPDX-License-Identifier: BSD-3-Clause

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from sklearn_charlstm._analysis import analyze, is_missing
from sklearn_charlstm._language_model import CharLSTMLanguageModel
from sklearn_charlstm._progress import progress_line
from sklearn_charlstm._vocabulary import Vocabulary

__all__ = ["CharLMLanguageClassifier"]


def _fit_language_model(model, encoded, vocabulary, name, report):
    return model._fit_encoded(encoded, vocabulary, name=name, report=report)


class CharLMLanguageClassifier(ClassifierMixin, BaseEstimator):
    """Classify texts by the likelihood ratio of character language models.

    `fit` trains one LSTM language model on the texts of each class. A new text goes
    to the class whose model gives it the highest probability: Bayes' rule with equal
    priors. For two classes `decision_function` is the log-likelihood ratio.

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
    n_jobs : int, default=None
        Models trained at the same time, each on one core. None means 1 unless in a
        :obj:`joblib.parallel_config` context, -1 all cores. The result does not
        depend on it.
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
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    class_count_ : ndarray of shape (n_classes,), int64
        Training texts of each class.
    class_log_prior_ : ndarray of shape (n_classes,)
        Log-probability of each class before the text is seen: the same for all.
    language_models_ : list of n_classes CharLSTMLanguageModel
        The models, in the order of `classes_`.
    vocabulary_ : Vocabulary
        The alphabet that all models share, a dict from character to id.
    loss_curve_ : list of n_classes ndarrays of shape (n_iter_[k],)
        Negative log-likelihood per character of the training texts in each epoch,
        in nats, with dropout.
    n_iter_ : ndarray of shape (n_classes,), int64
        Epochs done for each class.
    device_ : str
        The device `fit` ran on.

    See Also
    --------
    CharLSTMLanguageModel : The language model of one class.
    sklearn.naive_bayes.MultinomialNB : The same rule over counts of n-grams.

    Notes
    -----
    All models share one alphabet, the characters of all training texts. A character
    outside it has the same small probability in each: it is no evidence for any
    class.

    References
    ----------
    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation
    9(8), 1997. T. Dunning, "Statistical identification of language", 1994.

    Examples
    --------
    >>> from sklearn_charlstm import CharLMLanguageClassifier
    >>> texts = ["the cat and the dog ", "le chat et le chien "] * 10
    >>> labels = ["eng", "fra"] * 10
    >>> clf = CharLMLanguageClassifier(epochs=20, random_state=0).fit(texts, labels)
    >>> clf.predict(["the dog", "le chien"])
    array(['eng', 'fra'], dtype='<U3')
    >>> clf.decision_function(["the dog", "le chien"]) > 0
    array([False,  True])
    """

    _parameter_constraints: dict = {
        **CharLSTMLanguageModel._parameter_constraints,
        "n_jobs": [Integral, None],
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
        n_jobs=None,
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
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.net_params = net_params

    def _new_language_model(self, random_state):
        params = self.get_params(deep=False)
        del params["n_jobs"]
        # The progress line is drawn once, for all models together.
        params.update(random_state=random_state, verbose=0)
        return CharLSTMLanguageModel(**params)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Train one language model per class.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Training texts.
        y : array-like of shape (n_samples,)
            Their labels, of at least two classes.

        Returns
        -------
        self : object

        Raises
        ------
        TypeError, ValueError
            If `X` is not a sequence of texts or `y` not one label for each, if a
            class has no character in any of its texts, if `device` is not there, or
            if training diverges.
        """
        sequences = analyze(X, self.analyzer)
        validate_data(self, X, y, skip_check_array=True)
        check_consistent_length(X, y)
        y = column_or_1d(y, warn=True)
        for row, label in enumerate(y):
            if is_missing(label):
                raise ValueError(
                    f"y[{row}] is a missing value ({label!r}); drop the sample."
                )
        check_classification_targets(y)
        self.classes_, class_index, self.class_count_ = np.unique(
            y, return_inverse=True, return_counts=True
        )
        n_classes = len(self.classes_)
        if n_classes < 2:
            raise ValueError(
                f"y holds one class only ({self.classes_[0]!r}); the classifier needs "
                "texts of at least two. For one kind of text use CharLSTMLanguageModel."
            )
        names = [str(label) for label in self.classes_]
        by_class = [
            [sequences[row] for row in np.flatnonzero(class_index == k)]
            for k in range(n_classes)
        ]
        for name, class_sequences in zip(names, by_class, strict=True):
            if not any(map(len, class_sequences)):
                raise ValueError(
                    f"All texts of class {name!r} are empty; pass at least one "
                    "character for each class."
                )
        self.class_log_prior_ = np.full(n_classes, -np.log(n_classes))
        self.vocabulary_ = Vocabulary(sequences, self.analyzer)
        seeds = check_random_state(self.random_state).randint(
            np.iinfo(np.int32).max, size=n_classes
        )
        with progress_line(names, self.epochs, self.verbose) as reports:
            self.language_models_ = Parallel(n_jobs=self.n_jobs)(
                delayed(_fit_language_model)(
                    self._new_language_model(int(seed)),
                    self.vocabulary_.encode(class_sequences),
                    self.vocabulary_,
                    f"the language model of class {name!r}",
                    report,
                )
                for seed, class_sequences, name, report in zip(
                    seeds, by_class, names, reports, strict=True
                )
            )
        self.loss_curve_ = [model.loss_curve_ for model in self.language_models_]
        self.n_iter_ = np.array([model.n_iter_ for model in self.language_models_])
        self.device_ = self.language_models_[0].device_
        return self

    def log_likelihood(self, X):
        """Compute the log-likelihood of every text under the model of each class.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples, n_classes), float64
            log p(text | class) in nats.
        """
        check_is_fitted(self)
        return np.column_stack(
            [model.score_samples(X) for model in self.language_models_]
        )

    def predict_joint_log_proba(self, X):
        """Compute the joint log-probability of every text and each class.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        joint : ndarray of shape (n_samples, n_classes), float64
            log p(text, class) = log p(text | class) + log p(class) in nats.
        """
        return self.log_likelihood(X) + self.class_log_prior_

    def score_samples(self, X):
        """Compute the log-likelihood of every text under all classes together.

        It is low for a text that is like no class.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            log p(text) in nats.
        """
        return np.logaddexp.reduce(self.predict_joint_log_proba(X), axis=1)

    def predict_log_proba(self, X):
        """Compute the log-probability of each class given the text.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes), float64
            log p(class | text) in nats, in the order of `classes_`.
        """
        joint = self.predict_joint_log_proba(X)
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)

    def predict_proba(self, X):
        """Compute the probability of each class given the text.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), float64
            p(class | text), in the order of `classes_`; each row sums to one.
        """
        return np.exp(self.predict_log_proba(X))

    def decision_function(self, X):
        """Compute the log-likelihood ratio, or log-odds, of the classes.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        decision : ndarray, float64
            In nats. Two classes: shape (n_samples,), the log-likelihood ratio
            log p(text | classes_[1]) - log p(text | classes_[0]), positive where
            `predict` gives ``classes_[1]``. More: shape (n_samples, n_classes), the
            log-odds log p(class | text) - log p(any other class | text).
        """
        joint = self.predict_joint_log_proba(X)
        if len(self.classes_) == 2:
            return joint[:, 1] - joint[:, 0]
        # The log-sum over the other classes is that over all less one term, which
        # cancels badly where the term is most of the sum: there sum the others.
        log_total = np.logaddexp.reduce(joint, axis=1, keepdims=True)
        best = np.argmax(joint, axis=1, keepdims=True)
        others = joint.copy()
        np.put_along_axis(others, best, -np.inf, axis=1)
        log_rest_of_best = np.logaddexp.reduce(others, axis=1, keepdims=True)
        log_rest = log_total + np.log1p(-np.exp(others - log_total))
        np.put_along_axis(log_rest, best, log_rest_of_best, axis=1)
        return joint - log_rest

    def predict(self, X):
        """Predict the class of every text.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            The most probable class of each text, one of `classes_`.
        """
        joint = self.predict_joint_log_proba(X)
        return self.classes_[np.argmax(joint, axis=1)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

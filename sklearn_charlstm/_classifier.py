"""Bayes' rule over one language model per class."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
)

from sklearn_charlstm._analysis import (
    Analyzer,
    LabelledSequences,
    analyze,
    analyze_weighted,
    check_labels,
    is_missing,
)
from sklearn_charlstm._archive import Node, damaged
from sklearn_charlstm._base import TextInputMixin, fit_context
from sklearn_charlstm._bayes import BayesRuleMixin
from sklearn_charlstm._beam import beam_log_likelihood
from sklearn_charlstm._calibration import SLOPES, EvidenceWeight
from sklearn_charlstm._device import resolve_compute
from sklearn_charlstm._generation import Choice
from sklearn_charlstm._language_model import (
    CharLSTMLanguageModel,
    check_no_early_stopping,
)
from sklearn_charlstm._persistence import (
    Alphabets,
    PersistenceMixin,
    labels_content,
    labels_of,
)
from sklearn_charlstm._refinement import RefinementMixin
from sklearn_charlstm._scoring import text_log_likelihood

__all__ = ["CharLMLanguageClassifier"]


class CharLMLanguageClassifier(
    TextInputMixin, PersistenceMixin, BayesRuleMixin, RefinementMixin, BaseEstimator
):
    """Classify texts by the likelihood ratio of character language models.

    `fit` trains one LSTM language model on the texts of each class. A new text goes
    to the class whose model gives it the highest probability: Bayes' rule with equal
    priors. For two classes `decision_function` is then the log-likelihood ratio.

    Parameters
    ----------
    maxlen : int, default=16
        Longest history in training, in characters: texts are cut into windows of
        at most this many. Scoring uses the whole history.
    epochs : int, default=20
        Passes over the training texts.
    discriminative_epochs : int or 'auto', default='auto'
        Passes after that in which the models are trained together to tell the classes
        apart, and to stay models of their texts. 0 leaves them as they were fitted,
        each to the texts of its class. 'auto': 30, and fewer where there is more text:
        as many as score 700,000 characters, where a character counts once for each
        model that scores it, of which there are at most four; and at least one.
    calibration_folds : int, default=3
        How many parts the training text is divided into to learn what its characters
        count as evidence: models are trained without a part, once for every part, or
        fewer times where fewer parts have 20,000 characters of the smallest class. Each
        has one network. At least 2. 0: no calibration, and probabilities that are too
        sure, most of all for close classes. The order of the classes does not depend on
        it, where all have the same prior.
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
    class_prior : array-like of shape (n_classes,), 'empirical' or None, default=None
        Probability of each class before the text is seen, in the order of `classes_`;
        'empirical': its share of the training texts, or of their weights; None: the
        same for all.
    beam : float, default=None
        Where there are many classes, or texts are long, 8 makes `predict` several
        times as fast: a model reads a text only if it is within this many nats of the
        best when its first network sees one character of the history, and within three
        quarters of that when it sees two; in texts of less than fifteen characters
        within less. None: all models read all texts, as in all other methods.
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
    n_jobs : int, default=None
        Models trained at the same time, and in prediction scoring at the same time,
        each on one core. None means 1 unless in a :obj:`joblib.parallel_config`
        context, -1 all cores. The result does not depend on it. On a CUDA device `fit`
        trains all models in one step, without early stopping, `net_params` and a second
        layer, and where no class has more than 500,000 characters; there `n_jobs`
        counts in joint training, calibration and prediction only. With
        ``device='auto'`` or 'cuda' and several GPUs as many of them as there are jobs
        share the models to train and, without a beam, the texts to score, and roundings
        depend on it; 'cuda:0' stays on one.
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
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    class_count_ : ndarray of shape (n_classes,), float64
        Training texts of each class, or the sum of their weights: those of the last
        `fit`, and all that `partial_fit` was given after it.
    class_log_prior_ : ndarray of shape (n_classes,), float64
        Log-probability of each class before the text is seen.
    language_models_ : list of n_classes CharLSTMLanguageModel
        The models, in the order of `classes_`.
    vocabulary_ : Vocabulary
        The common alphabet, a dict from character to id, which `add_class` extends.
        After `fit` that of a model in `language_models_` is the alphabet of its class.
    loss_curve_ : list of n_classes ndarrays of shape (n_iter_[k],)
        Negative log-likelihood per character of the training texts in each epoch,
        in nats, with dropout, and without the thousandth that is kept for unknown
        characters.
    n_iter_ : ndarray of shape (n_classes,), int64
        Epochs done for each class.
    evidence_weight_ : EvidenceWeight
        The correction of the probabilities: what a nat of log-likelihood counts, a
        function of the number of known characters in a text, with the attributes
        `slope` and `half_length`.
    discriminative_loss_curve_ : ndarray of shape (n_discriminative_epochs,)
        Cross-entropy of the class in each epoch of the joint training, in nats, with
        dropout: over windows of the training texts, of one to `maxlen` characters, and
        among the classes trained together, four at most.
    device_ : str
        The device `fit` ran on.
    precision_ : {'float32', 'bfloat16'}
        The precision of its matrix products.

    See Also
    --------
    CharLSTMLanguageModel : The language model of one class.
    sklearn.naive_bayes.MultinomialNB : The same rule over counts of n-grams.

    Notes
    -----
    All models share one alphabet, the characters of all training texts. Each tells
    apart those in the texts of its class; the others together are as likely as it is
    that something new comes, and each as likely as any other. A character outside the
    alphabet has the same small probability in every model: it is no evidence for any
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

    # What may change between two calls of `fit` with `warm_start` for the second to
    # give what one of its own would have given.
    _goes_on_with = ("epochs", "discriminative_epochs", "calibration_folds")

    _parameter_constraints: dict = {
        **CharLSTMLanguageModel._parameter_constraints,
        "beam": [Interval(Real, 0, None, closed="neither"), None],
        "calibration_folds": [
            Options(Integral, {0}),
            Interval(Integral, 2, None, closed="left"),
        ],
        "class_prior": [StrOptions({"empirical"}), "array-like", None],
        "discriminative_epochs": [
            StrOptions({"auto"}),
            Interval(Integral, 0, None, closed="left"),
        ],
        "n_jobs": [
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
            None,
        ],
    }

    def __init__(
        self,
        *,
        maxlen: int = 16,
        epochs: int = 20,
        discriminative_epochs: int | Literal["auto"] = "auto",
        calibration_folds: int = 3,
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
        class_prior: ArrayLike | Literal["empirical"] | None = None,
        beam: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        device: str = "auto",
        precision: Literal["float32", "bfloat16", "auto"] = "float32",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        net_params: dict[str, Any] | None = None,
    ) -> None:
        self.maxlen = maxlen
        self.epochs = epochs
        self.discriminative_epochs = discriminative_epochs
        self.calibration_folds = calibration_folds
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
        self.class_prior = class_prior
        self.beam = beam
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.net_params = net_params

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Collection[Any],
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train one language model per class.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Training texts.
        y : array-like of shape (n_samples,)
            Their labels, of at least two classes.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the texts in the loss of their class's model,
            where only their ratios count, and in `class_count_`. A text of weight 0
            is as if not given.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            If `X` is not a sequence of texts or `y` not one label for each, if a
            class has no character in any of its texts, if `class_prior` is not one
            probability for each class, if `device` is not there, if training
            diverges, or if it cannot go on (``warm_start=True``) with the classes
            and parameters as they are.

        Warns
        -----
        UserWarning
            If a class has too little text to set a part of it aside: the
            probabilities are not calibrated then.
        """
        sequences, labels, weights = self._check_texts(X, y, sample_weight)
        classes, class_index = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            left_out = ", texts of weight 0 left out" * (len(labels) < len(X))
            raise ValueError(
                f"y holds one class only ({classes.tolist()[0]!r}){left_out}; the "
                "classifier needs texts of at least two. For one kind of text use "
                "CharLSTMLanguageModel."
            )
        texts = LabelledSequences(sequences, class_index, weights)
        for label, n_tokens in zip(classes, texts.n_tokens_of_classes(), strict=True):
            if not n_tokens:
                raise ValueError(
                    f"All texts of class {str(label)!r} are empty to "
                    f"analyzer={self.analyzer!r}; each class needs at least one token."
                )
        # A copy is trained: an error or an interrupt leaves this one as it was.
        clf = copy.copy(self)
        if not (self.warm_start and hasattr(self, "language_models_")):
            clf._start(classes, texts, one_pass=False)
        elif not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"y holds the classes {classes}, and {self.classes_} at the start of "
                "training; with warm_start=True they must be the same."
            )
        elif self.discriminative_epochs:
            self._check_one_alphabet()
        clf.class_count_ = np.bincount(class_index, weights=weights).astype(float)
        clf.class_log_prior_ = clf._log_prior()
        clf._train(texts, one_pass=False)
        clf._refine(texts)
        return self._take_over(clf)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Collection[Any],
        y: ArrayLike,
        classes: Iterable[Any] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Go once over more texts.

        The alphabet is that of the first call: characters that only later texts have
        are unknown. Each model tells all of it apart, but after a `fit` only the
        characters of its class. The state of the optimizers is kept from call to call.
        The weights are averaged over all updates, those of a `fit` before too: where
        new texts are a small share of all, they count by about four times that share.
        A class that no text has been seen
        of has an untrained model.

        Parameters
        ----------
        X : sequence of str, shape (n_samples,)
            Training texts.
        y : array-like of shape (n_samples,)
            Their labels.
        classes : array-like of shape (n_classes,), default=None
            All labels; required in the first call. `add_class` adds one later.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the texts; in the loss only their ratios within
            a call and a class count.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            As `fit`; if ``early_stopping=True``, if `classes` is missing or not as in
            the first call, or if a label is none of them.
        """
        check_no_early_stopping(self.early_stopping)
        sequences, labels, weights = self._check_texts(X, y, sample_weight)
        first_call = not hasattr(self, "language_models_")
        if classes is None:
            if first_call:
                raise ValueError("classes must be passed on the first call.")
            classes = self.classes_
        else:
            if isinstance(classes, str) or not isinstance(classes, Iterable):
                raise TypeError(
                    f"`classes` must be the labels of all classes, got {classes!r}."
                )
            classes = np.unique(check_labels(list(classes), "classes"))
            if len(classes) < 2:
                raise ValueError(
                    f"`classes={classes}` is one class only; the classifier needs two."
                )
            if not (first_call or np.array_equal(classes, self.classes_)):
                raise ValueError(
                    f"`classes={classes}` is not the same as on the first call: "
                    f"{self.classes_}."
                )
        strange = np.setdiff1d(labels, classes)
        if len(strange):
            advice = "" if first_call else "; add_class adds a class"
            raise ValueError(
                f"y holds labels that are not in `classes`: {strange}{advice}."
            )
        class_index = np.searchsorted(classes, labels)
        texts = LabelledSequences(sequences, class_index, weights)
        clf = copy.copy(self)
        if first_call:
            clf._start(classes, texts, one_pass=True)
            clf.evidence_weight_ = EvidenceWeight()
            clf.discriminative_loss_curve_ = np.empty(0)
        clf.class_count_ = clf.class_count_ + np.bincount(
            class_index, weights=weights, minlength=len(clf.classes_)
        )
        clf.class_log_prior_ = clf._log_prior()
        clf._train(texts, one_pass=True)
        return self._take_over(clf)

    def add_class(
        self,
        label: Any,
        X: Collection[Any],
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train the language model of one more class; leave the others as they are.

        The alphabet of the new model is the common one and the characters of its own
        texts. The log-likelihoods under the other models stay the same. Only new words,
        or new tokens of a callable `analyzer`, share there what an unknown one has.

        Parameters
        ----------
        label : object
            The new label, of the type of `classes_`.
        X : sequence of str, shape (n_samples,)
            Texts of the new class.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the texts, as in `fit`.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted, if `X` is not a sequence of texts with at
            least one character, if the label is there already or of another type, if
            `class_prior` is not one probability for each class, the new one among
            them, if a parameter was changed that networks cannot change, or if
            training diverges.
        """
        check_is_fitted(self)
        self._validate_params()
        self._check_same_networks()
        classes = self._with_label(label)
        sequences, weights, _ = analyze_weighted(X, self.analyzer, sample_weight)
        if not any(map(len, sequences)):
            raise ValueError("All texts are empty; pass at least one character.")
        place = int(np.searchsorted(self.classes_, classes[-1]))
        clf = copy.copy(self)
        clf.classes_ = np.sort(classes)
        clf.class_count_ = np.insert(self.class_count_, place, weights.sum())
        clf.class_log_prior_ = clf._log_prior()
        clf.vocabulary_ = self.vocabulary_.extended(sequences)
        [*_, seed] = self._seeds(len(classes))
        [model] = clf._train_models(
            [
                clf._new_language_model(
                    seed,
                    clf._vocabulary_of_class(sequences),
                    self.language_models_[0].hidden_size_,
                )
            ],
            [(sequences, weights)],
            [label],
            one_pass=False,
        )
        for name in ("language_models_", "_generative_models"):
            models = getattr(self, name)
            setattr(clf, name, [*models[:place], model, *models[place:]])
        return self._take_over(clf)

    def sample(
        self,
        label: Any,
        n_samples: int = 1,
        *,
        guidance: float = 0.0,
        max_length: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prompt: Any = "",
        random_state: int | np.random.RandomState | None = None,
    ) -> list[Any]:
        """Draw texts of a class from its language model.

        Parameters
        ----------
        label : object
            One of `classes_`.
        n_samples : int, default=1
            Texts to draw.
        guidance : float, default=0.0
            How much more typical of the class than its model says: this many times
            the log-likelihood ratio of a character, of the class to all others, is
            added to its log-probability.
        max_length : int, default=100
            Characters to draw for each, at most: with ``boundaries=True`` a text may
            end before, else all have this many.
        temperature : float, default=1.0
            1 draws from the model; below 1 what is likely becomes likelier.
        top_k : int, default=None
            Draw among so many of the likeliest characters only.
        top_p : float, default=None
            Draw among the likeliest characters only that have this probability
            together, in (0, 1].
        prompt : str, default=''
            Beginning of every text, or what `analyzer` reads; '' is no beginning, even
            if a callable `analyzer` makes tokens of it.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        texts : list of n_samples str
            With the prompt; with ``analyzer='word'`` there is a space between any two
            tokens. With a callable `analyzer`: lists of tokens.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the classifier is not fitted or has no such class, the prompt is no
            text, or an argument is out of range.
        """
        check_is_fitted(self)
        # Of several labels each would be compared with a class.
        is_class = self.classes_ == label if not np.ndim(label) else np.False_
        if not np.any(is_class):
            raise ValueError(f"There is no class {label!r} in {self.classes_}.")
        models = list(self.language_models_)
        return models.pop(int(np.argmax(is_class)))._sample(
            n_samples,
            max_length=max_length,
            choice=Choice(temperature, top_k, top_p),
            prompt=prompt,
            random_state=random_state,
            rivals=[model._as_model() for model in models],
            guidance=guidance,
            compute=resolve_compute(self.device, self.precision),
            verbose=self.verbose,
        )

    def _with_label(self, label: Any) -> NDArray[Any]:
        """Return the classes and, as the last one, another label of their type."""
        dtype = self.classes_.dtype
        scalar = np.asarray(label)
        kinds = {"O": "U", "i": "iu", "u": "iu", "f": "fiu"}.get(dtype.kind, dtype.kind)
        if scalar.ndim or scalar.dtype.kind not in kinds or is_missing(label):
            raise ValueError(
                f"The label {label!r} is not of the type of classes_: {self.classes_}."
            )
        if scalar.item() in self.classes_.tolist():
            raise ValueError(f"There is a class {label!r} already.")
        new_dtype = np.result_type(dtype, scalar.dtype) if dtype.kind == "U" else dtype
        classes = np.append(self.classes_.astype(new_dtype), scalar.astype(new_dtype))
        if classes[-1] != scalar.item():
            raise ValueError(f"The label {label!r} does not fit into {dtype}.")
        return check_labels(classes, "classes_")

    def _take_over(self, clf: Self) -> Self:
        """Become the trained copy."""
        clf._set_curves()
        self.__dict__.update(clf.__dict__)
        return self

    def _set_curves(self) -> None:
        models = self.language_models_
        self.loss_curve_ = [model.loss_curve_ for model in models]
        self.n_iter_ = np.array([model.n_iter_ for model in models])

    def _check_texts(
        self, X: Collection[Any], y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[list[Sequence[Hashable]], NDArray[Any], NDArray[Any]]:
        """Return texts, labels and weights of all texts whose weight is not 0."""
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but "
                "the target y is None."
            )
        sequences, weights, kept = analyze_weighted(X, self.analyzer, sample_weight)
        check_consistent_length(kept, y)
        return sequences, check_labels(y, "y")[kept], weights

    def _evidence(
        self, X: Collection[Any], beam: float | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        check_is_fitted(self)
        encoded = self.vocabulary_.encode(analyze(X, self.vocabulary_.analyzer))
        n_known = encoded.lengths - encoded.count_of(self.vocabulary_.unknown)
        weight = self.evidence_weight_(n_known)
        models = [model._as_model() for model in self.language_models_]
        compute = resolve_compute(self.device, self.precision)
        what = models, encoded, self.vocabulary_, compute
        if beam is None:
            return text_log_likelihood(*what, self.n_jobs), weight
        # It may have been set since `fit`.
        self._validate_params()
        offsets = self.class_log_prior_ / weight[:, None]
        log_likelihood = beam_log_likelihood(
            *what, beam=beam, offsets=offsets, n_jobs=self.n_jobs
        )
        return log_likelihood, weight

    _saved_as = "CharLMLanguageClassifier"

    def _check_same_networks(self) -> None:
        self._with_current_params(self.language_models_)

    def _content(self, alphabets: Alphabets) -> dict[str, Any]:
        weight = self.evidence_weight_
        return {
            "alphabet": alphabets.number_of(self.vocabulary_),
            "classes": labels_content(self.classes_),
            "class_count": self.class_count_,
            "class_log_prior": self.class_log_prior_,
            "evidence_weight": np.array([weight.slope, weight.half_length]),
            "device": self.device_,
            "precision": self.precision_,
            "language_models": [
                {"random_state": model.random_state, **model._content(alphabets)}
                for model in self.language_models_
            ],
            "discriminative_loss_curve": self.discriminative_loss_curve_,
        }

    def _restore(self, node: Node, alphabets: Alphabets) -> None:
        self.vocabulary_ = alphabets[node.value("alphabet", int)]
        if self.vocabulary_.common is not None:
            raise damaged("the common alphabet is that of one class")
        self.classes_ = labels_of(node, "classes")
        models = []
        for of_model in node.children("language_models"):
            params = self._language_model_params()
            params["random_state"] = of_model.value("random_state", int)
            model = CharLSTMLanguageModel(**params)
            model._validate_params()
            model._restore(of_model, alphabets)
            models.append(model.set_params(hidden_size=model.hidden_size_))
        if not 2 <= len(models) == len(self.classes_):
            raise damaged(f"{len(models)} models are of {len(self.classes_)} classes")
        if len({model.hidden_size_ for model in models}) > 1:
            raise damaged("the networks of the classes differ in size")
        self.language_models_ = self._generative_models = models
        shape = (len(models),)
        self.class_count_ = node.array("class_count", shape, "F64")
        if not (np.isfinite(self.class_count_) & (self.class_count_ >= 0)).all():
            raise damaged("the class counts are no sums of weights")
        self.class_log_prior_ = node.array("class_log_prior", shape, "F64")
        if not np.isclose(np.logaddexp.reduce(self.class_log_prior_), 0):
            raise damaged("the priors do not sum to one")
        slope, half_length = node.array("evidence_weight", (2,), "F64").tolist()
        # The bounds are kept but for roundings.
        low, high = SLOPES
        if not (low / 2 < slope < 2 * high and half_length > 0.5):
            raise damaged(f"the evidence weight is {slope}, {half_length}")
        self.evidence_weight_ = EvidenceWeight(slope, half_length)
        self.discriminative_loss_curve_ = np.empty(0)
        # The first files did not have it after `partial_fit` alone.
        if node.has_array("discriminative_loss_curve"):
            self.discriminative_loss_curve_ = node.array(
                "discriminative_loss_curve", (None,), "F64"
            )
        self.device_ = node.value("device", str)
        self.precision_ = node.value("precision", str)
        self._set_curves()

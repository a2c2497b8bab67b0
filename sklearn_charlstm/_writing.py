"""The language model as a writer: samples, suggestions, gaps."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Collection, Hashable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted

from sklearn_charlstm._analysis import analyze_sample, continues_word, joined
from sklearn_charlstm._device import Compute, resolve_compute
from sklearn_charlstm._generation import (
    Choice,
    likeliest_gap,
    likeliest_runs,
    next_log_proba,
    sample_tokens,
)
from sklearn_charlstm._model import Model
from sklearn_charlstm._vocabulary import Vocabulary

__all__ = ["WriterMixin"]

_POSITIVE = [Interval(Integral, 1, None, closed="left")]
_SAMPLING: dict[str, list[Any]] = {
    "n_samples": _POSITIVE,
    "max_length": _POSITIVE,
    "temperature": [Interval(Real, 0, None, closed="neither")],
    "top_k": [*_POSITIVE, None],
    "top_p": [Interval(Real, 0, 1, closed="right"), None],
    "guidance": [Interval(Real, 0, None, closed="left")],
    "random_state": ["random_state"],
}


class WriterMixin:
    """A language model that writes.

    A subclass has `vocabulary_`, the parameters `device`, `precision` and
    `verbose`, and the two methods below.
    """

    vocabulary_: Vocabulary
    device: str
    precision: str
    verbose: int

    def _analyze(self, X: Collection[Any]) -> list[Sequence[Hashable]]:
        raise NotImplementedError

    def _as_model(self) -> Model:
        raise NotImplementedError

    def _compute(self) -> Compute:
        return resolve_compute(self.device, self.precision)

    def _tokens(self, part: Any, name: str) -> list[Hashable]:
        """Return the tokens of a part of a text, the argument of this name."""
        # A callable analyzer may not read a str.
        if isinstance(part, str) and not part:
            return []
        return [*analyze_sample(part, self.vocabulary_.analyzer, f"`{name}`")]

    def _joined(self, tokens: Sequence[Hashable]) -> Any:
        return joined(tokens, self.vocabulary_.analyzer)

    def sample(
        self,
        n_samples: int = 1,
        *,
        max_length: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prompt: Any = "",
        random_state: int | np.random.RandomState | None = None,
    ) -> list[Any]:
        """Draw texts from the model, character by character.

        Parameters
        ----------
        n_samples : int, default=1
            Texts to draw.
        max_length : int, default=100
            Characters to draw for each, at most: with ``boundaries=True`` a text may
            end before, else all have this many.
        temperature : float, default=1.0
            1 draws from the model. Below 1 what is likely becomes likelier, above 1
            less so: log-probabilities are divided by it.
        top_k : int, default=None
            Draw among so many of the likeliest characters only.
        top_p : float, default=None
            Draw among the likeliest characters only that have this probability
            together, in (0, 1]: nucleus sampling [1]_.
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
            If the model is not fitted, the prompt is no text, or an argument is out of
            range.

        References
        ----------
        .. [1] A. Holtzman et al., "The curious case of neural text degeneration",
           ICLR 2020.
        """
        check_is_fitted(self)
        return self._sample(
            n_samples,
            max_length=max_length,
            choice=Choice(temperature, top_k, top_p),
            prompt=prompt,
            random_state=random_state,
            compute=self._compute(),
            verbose=self.verbose,
        )

    def _sample(
        self,
        n_samples: int,
        *,
        max_length: int,
        choice: Choice,
        prompt: Any,
        random_state: int | np.random.RandomState | None,
        compute: Compute,
        verbose: int,
        rivals: Sequence[Model] = (),
        guidance: float = 0.0,
    ) -> list[Any]:
        given = {
            "n_samples": n_samples,
            "max_length": max_length,
            "guidance": guidance,
            "random_state": random_state,
            **choice._asdict(),
        }
        validate_parameter_constraints(_SAMPLING, given, caller_name="sample")
        beginning = self._tokens(prompt, "prompt")
        samples = sample_tokens(
            self._as_model(),
            beginning,
            n_samples,
            max_length,
            choice,
            check_random_state(random_state),
            compute,
            rivals=rivals,
            guidance=guidance,
            verbose=verbose,
        )
        return [self._joined([*beginning, *tokens]) for tokens in samples]

    def next_char_proba(self, prefixes: Collection[Any]) -> NDArray[np.float64]:
        """Compute the probability of every character after each prefix.

        Parameters
        ----------
        prefixes : sequence of str, shape (n_samples,)
            Beginnings of texts, or what `analyzer` reads.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_characters), float64
            In the order of `vocabulary_`; with ``boundaries=True`` one more column,
            for the end of text. What a row lacks to one is the probability of
            characters that are not in `vocabulary_`.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the model is not fitted, `prefixes` is not a sequence of texts, or
            `device` is not there.
        """
        beginnings = self._analyze(prefixes)
        return np.exp(next_log_proba(self._as_model(), beginnings, self._compute()))

    def suggest(
        self, prefix: Any, n: int = 5, *, max_length: int = 30
    ) -> list[tuple[Any, float]]:
        """Find the most probable completions to the end of the word.

        Where the prefix ends within a word, of the rest of that word (it may be
        empty, if the word is complete); where it does not, of the next word. The
        result is exact: no other completion is more probable.

        Parameters
        ----------
        prefix : str
            Beginning of a text, or what `analyzer` reads.
        n : int, default=5
            Number of completions.
        max_length : int, default=30
            Longer completions are left out.

        Returns
        -------
        suggestions : list of at most n tuples (str, float)
            Completions, the most probable first, and their probabilities: of these
            characters and then one that is no letter, digit, underscore or mark of
            one, or the end of text; of the characters that the model was trained to,
            the others are left out. With another `analyzer` than 'char', of one token.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the model is not fitted, the prefix is no text, if ``analyzer='byte'``,
            which has no words, if nothing in the alphabet ends a word, or hardly ever,
            so that there are too many runs of characters to search, or if a number is
            not positive.
        """
        check_is_fitted(self)
        validate_parameter_constraints(
            {"n": _POSITIVE, "max_length": _POSITIVE},
            {"n": n, "max_length": max_length},
            caller_name="suggest",
        )
        beginning = self._tokens(prefix, "prefix")
        vocabulary, model = self.vocabulary_, self._as_model()
        if vocabulary.analyzer == "byte":
            raise ValueError("suggest needs characters or words; a byte is neither.")
        if vocabulary.analyzer != "char":
            [log_proba] = next_log_proba(model, [beginning], self._compute())
            proba = np.exp(log_proba[: len(vocabulary)])
            tokens = [*vocabulary]
            best = np.argsort(-proba, kind="stable")[:n]
            return [(tokens[column], float(proba[column])) for column in best]
        in_word = [continues_word(str(token)) for token in vocabulary]
        if all(in_word) and not vocabulary.boundaries:
            raise ValueError(
                "suggest needs something that ends a word, and no character of "
                "vocabulary_ does: train with texts of several words, or with whole "
                "words and boundaries=True."
            )
        within = bool(beginning) and continues_word(str(beginning[-1]))
        runs = likeliest_runs(
            model,
            beginning,
            n,
            np.array([*in_word, *[False] * vocabulary.boundaries]),
            0 if within else 1,
            max_length,
            self._compute(),
        )
        return [(self._joined(run), float(np.exp(log_p))) for run, log_p in runs]

    def infill(
        self, before: Any, after: Any, length: int, *, beam_width: int = 256
    ) -> Any:
        """Find the most probable characters between two parts of a text.

        Beam search from the left; then the texts that are left are read on, and what
        comes after decides.

        Parameters
        ----------
        before, after : str
            The text on both sides of the gap, or what `analyzer` reads. Of what comes
            after, the first 64 characters count.
        length : int
            Characters missing.
        beam_width : int, default=256
            Texts kept in the search. With more it takes longer and misses less.

        Returns
        -------
        gap : str
            What is missing. With a callable `analyzer`: a list of tokens.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            If the model is not fitted, a part is no text, or a number is not positive.
        """
        check_is_fitted(self)
        validate_parameter_constraints(
            {"length": _POSITIVE, "beam_width": _POSITIVE},
            {"length": length, "beam_width": beam_width},
            caller_name="infill",
        )
        return self._joined(
            likeliest_gap(
                self._as_model(),
                self._tokens(before, "before"),
                length,
                self._tokens(after, "after"),
                beam_width,
                self._compute(),
            )
        )

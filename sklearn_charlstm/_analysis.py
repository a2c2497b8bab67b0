"""From samples to sequences of tokens: the input checks and the analyzers."""

# SPDX-License-Identifier: BSD-3-Clause

import operator
import re
import unicodedata
import warnings
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from functools import partial
from itertools import compress
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d

__all__ = [
    "Analyzer",
    "LabelledSequences",
    "analyze",
    "analyze_sample",
    "analyze_weighted",
    "check_labels",
    "continues_word",
    "is_missing",
    "joined",
    "refuse_masked",
]

Analyzer = Literal["char", "byte", "word"] | Callable[[Any], Iterable[Hashable]]

# Weights that differ by more have no ratio in float64.
MAX_WEIGHT_RATIO = 1e290


class LabelledSequences(NamedTuple):
    """Texts of all classes: all there are, those to train with, or those set aside.

    Attributes
    ----------
    sequences : list of sequences of hashable tokens
    class_index : ndarray of shape (n_texts,), integer
    weights : ndarray of shape (n_texts,)
    """

    sequences: list[Sequence[Hashable]]
    class_index: NDArray[np.intp]
    weights: NDArray[Any]

    def of_class(self, k: int) -> tuple[list[Sequence[Hashable]], NDArray[Any]]:
        """Return the texts of a class and their weights."""
        rows = np.flatnonzero(self.class_index == k)
        return [self.sequences[row] for row in rows], self.weights[rows]

    def n_tokens_of_classes(self) -> NDArray[np.int64]:
        """Return how many tokens there are of each class."""
        n_tokens = np.bincount(self.class_index, weights=[*map(len, self.sequences)])
        return n_tokens.astype(np.int64)


def continues_word(character: str) -> bool:
    """Tell whether a character is a letter, digit or underscore, or part of one.

    Combining marks are: vowel signs of Devanagari, an accent that follows its letter;
    and the two joiners, which stand between letters.
    """
    return bool(re.match(r"\w", character)) or _is_mark(character)


def _is_mark(character: str) -> bool:
    joiners = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
    return unicodedata.category(character)[0] == "M" or character in joiners


def _utf8_bytes(text: str) -> bytes:
    # A lone surrogate is no valid UTF-8, but it is a Python str: let it pass.
    return text.encode("utf-8", "surrogatepass")


def _words(texts: list[str]) -> Iterable[Sequence[str]]:
    # For re a mark is no part of a word.
    marks = "".join(filter(_is_mark, set().union(*texts)))
    return map(re.compile(rf"\w[\w{marks}]*|[^\w\s]").findall, texts)


_ANALYZERS: dict[str, Callable[[list[str]], Iterable[Sequence[Hashable]]]] = {
    "char": iter,
    "byte": partial(map, _utf8_bytes),
    "word": _words,
}


def analyze(X: Collection[Any], analyzer: Analyzer) -> list[Sequence[Hashable]]:
    """Check the samples and turn each into its sequence of tokens.

    Parameters
    ----------
    X : sequence of str, shape (n_samples,)
        List, tuple, 1-D array or Series. With a callable `analyzer` the samples
        may be of any type the callable accepts; of a table or an array of more
        dimensions they are the rows.
    analyzer : {'char', 'byte', 'word'} or callable
        How a sample becomes tokens.

    Returns
    -------
    sequences : list of sequences of hashable tokens, length n_samples

    Raises
    ------
    TypeError, ValueError
        If `X` is not a one-dimensional, non-empty sequence of samples, or if a
        sample cannot be used. The message names the row.
    """
    is_table = hasattr(X, "to_numpy") and len(getattr(X, "shape", ())) > 1
    if is_table and callable(analyzer):
        # A DataFrame gives its columns, by their names.
        X = X.to_numpy()  # type: ignore[attr-defined]
    _check_container(X, rows_are_samples=callable(analyzer))
    if not callable(analyzer):
        texts = list(X)
        if set(map(type, texts)) != {str}:
            texts = [_check_text(text, f"X[{row}]") for row, text in enumerate(texts)]
        return [*_ANALYZERS[analyzer](texts)]
    return [_tokens(analyzer, sample, f"X[{row}]") for row, sample in enumerate(X)]


def analyze_sample(sample: Any, analyzer: Analyzer, name: str) -> Sequence[Hashable]:
    """Check one sample and turn it into its sequence of tokens.

    Parameters
    ----------
    sample : str, or what a callable `analyzer` reads
    analyzer : {'char', 'byte', 'word'} or callable
    name : str
        What the sample is called in messages.
    """
    if callable(analyzer):
        return _tokens(analyzer, sample, name)
    [tokens] = _ANALYZERS[analyzer]([_check_text(sample, name)])
    return tokens


def joined(tokens: Iterable[Any], analyzer: Analyzer) -> Any:
    """Return the sample that has these tokens.

    Parameters
    ----------
    tokens : iterable of tokens
    analyzer : {'char', 'byte', 'word'} or callable

    Returns
    -------
    sample : str or list
        With a callable `analyzer` the tokens themselves. Bytes that are no UTF-8
        become the replacement character; words have a space between them.
    """
    if analyzer == "char":
        return "".join(tokens)
    if analyzer == "byte":
        return bytes(tokens).decode("utf-8", "replace")
    if analyzer == "word":
        return " ".join(tokens)
    return list(tokens)


def _check_container(X: object, rows_are_samples: bool) -> None:
    if isinstance(X, (str, bytes, bytearray)):
        raise ValueError(
            f"X must be a sequence of texts, got one {type(X).__name__}; "
            "put a single text in a list: [text]."
        )
    if isinstance(X, Mapping) or not (hasattr(X, "__len__") and hasattr(X, "__iter__")):
        raise TypeError(
            "X must be a sequence of texts (list, tuple, 1-D array or Series), "
            f"got {type(X).__name__}."
        )
    if isinstance(X, (set, frozenset)):
        raise TypeError(
            f"X must be a sequence of texts, got {type(X).__name__}, which has no "
            "order that labels or predictions could have; pass a list."
        )
    shape = getattr(X, "shape", (1,))
    # Of a table the columns would be read, by their names.
    is_array_of_rows = rows_are_samples and isinstance(X, np.ndarray) and X.ndim
    if len(shape) != 1 and not is_array_of_rows:
        if rows_are_samples and shape:
            raise ValueError(
                f"X is {type(X).__name__} of shape {tuple(shape)}; row by row only a "
                "NumPy array or a table is read, pass it as one."
            )
        raise ValueError(
            "X must be one-dimensional, one text per sample, got "
            f"{type(X).__name__} of shape {tuple(shape)}; pass one column of a table "
            "as a Series, X['name'], or the texts of an array as X.ravel()."
        )
    if len(X) == 0:
        raise ValueError(
            "X holds 0 sample(s) while a minimum of 1 is required; pass at least "
            "one text."
        )


def _check_text(text: object, name: str) -> str:
    if isinstance(text, str):
        # What it is, whatever a subclass says of it.
        return str.__str__(text)
    if isinstance(text, (bytes, bytearray)):
        raise TypeError(
            f"{name} is {type(text).__name__}, not str; decode it first, for "
            "instance with .decode('utf-8')."
        )
    if is_missing(text):
        raise ValueError(
            f"{name} is a missing value ({text!r}); drop the sample or replace it "
            "by an empty text ''."
        )
    if isinstance(text, (list, tuple)) or getattr(text, "ndim", None):
        raise ValueError(
            f"{name} is {type(text).__name__}, not one text; join its parts to one "
            "str, or set `analyzer` to a callable that reads such samples."
        )
    raise TypeError(
        f"{name} is {type(text).__name__}, not str; convert it with str(), or set "
        "`analyzer` to a callable that reads such samples."
    )


def is_missing(value: Any) -> bool:
    """Tell whether a value is None, NaN, or a missing value of numpy or pandas."""
    # The missing values of pandas: their truth value is an error, or they are no
    # number, so that comparing one with itself does not serve.
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    if value is None or value is np.ma.masked:
        return True
    return isinstance(value, (Real, np.datetime64)) and bool(value != value)


def _tokens(
    analyzer: Callable[[Any], Iterable[Hashable]], sample: Any, name: str
) -> Sequence[Hashable]:
    try:
        returned = analyzer(sample)
        tokens = tuple(returned)
        hash(tokens)
    except TypeError as error:
        raise TypeError(
            f"{name} is {type(sample).__name__}; `analyzer` must take it and return "
            f"a sequence of hashable tokens: {error}. If X is a single sample, put it "
            "in a list: [X]."
        ) from error
    except Exception as error:
        error.add_note(f"`analyzer` was given {name}.")
        raise
    if isinstance(returned, (set, frozenset)):
        raise TypeError(
            f"{name}: `analyzer` returned a {type(returned).__name__}, which has no "
            "order; let it return a list or a tuple."
        )
    if not _are_equal_to_themselves(tokens):
        raise ValueError(
            f"{name}: `analyzer` returned a missing value (NaN or its like), which "
            "is not equal to itself; let it return another token in its place."
        )
    return tokens


def _are_equal_to_themselves(tokens: Sequence[Hashable]) -> bool:
    try:
        return not any(map(operator.ne, tokens, tokens))
    except TypeError:
        # That of pandas is not even true or false.
        return False


def analyze_weighted(
    X: Collection[Any], analyzer: Analyzer, sample_weight: ArrayLike | None
) -> tuple[list[Sequence[Hashable]], NDArray[np.float64], NDArray[np.bool_]]:
    """Analyze the samples that have a weight.

    Parameters
    ----------
    X : sequence of str, shape (n_samples,)
    analyzer : {'char', 'byte', 'word'} or callable
    sample_weight : array-like of shape (n_samples,) or None
        None is a weight of one for each.

    Returns
    -------
    sequences : list of sequences of hashable tokens, length n_kept
    weights : ndarray of shape (n_kept,), float64
        All positive.
    kept : ndarray of shape (n_samples,), bool
        False for the samples of weight 0, which are left out.

    Raises
    ------
    TypeError, ValueError
        As `analyze`; and if there is not one finite, non-negative weight for each
        sample, if all are zero, or if they are too far apart for their ratios.
    """
    sequences = analyze(X, analyzer)
    refuse_masked(sample_weight, "sample_weight")
    weights = _check_sample_weight(
        sample_weight, sequences, dtype=np.float64, ensure_non_negative=True
    )
    # scikit-learn does not look at a single number for all samples, and for zeros only
    # from 1.9 on.
    if not np.isfinite(weights).all():
        raise ValueError("Sample weights must be finite.")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    kept = weights > 0
    largest = weights.max()
    if weights[kept].min() < largest / MAX_WEIGHT_RATIO or largest > 1e300:
        raise ValueError(
            "Sample weights other than 0 must not differ by more than a factor of "
            f"{MAX_WEIGHT_RATIO:.0e}, nor be above 1e300; got {weights[kept].min()} "
            f"to {largest}. Only their ratios count."
        )
    return list(compress(sequences, kept)), weights[kept], kept


def refuse_masked(values: ArrayLike | None, name: str) -> None:
    """Raise an error where scikit-learn would take what a mask hides."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        row = int(np.argmax(np.ma.getmaskarray(values)))
        raise ValueError(f"{name}[{row}] is masked; give it a value or leave it out.")


def check_labels(labels: ArrayLike, name: str) -> NDArray[Any]:
    """Return labels as an array; refuse missing ones and numbers with a fraction.

    Parameters
    ----------
    labels : array-like of shape (n_labels,)
    name : str
        What they are called in messages.

    Returns
    -------
    labels : ndarray of shape (n_labels,)
    """
    refuse_masked(labels, name)
    array: NDArray[Any] = column_or_1d(labels, warn=True)
    # A list of str becomes an array in which NaN is the str 'nan'.
    is_array = hasattr(labels, "dtype")
    as_they_are = array if is_array else np.asarray(labels, dtype=object).ravel()
    for row, label in enumerate(as_they_are):
        if is_missing(label):
            raise ValueError(
                f"{name}[{row}] is a missing value ({label!r}); drop the sample."
            )
    with warnings.catch_warnings():
        # A class may well have one text only, as long as a book.
        warnings.filterwarnings("ignore", "The number of unique classes")
        check_classification_targets(array)
    return array

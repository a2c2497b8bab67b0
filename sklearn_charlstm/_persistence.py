"""`save` and `load` of the estimators, and what a pickle says of its version."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import inspect
import json
import math
import warnings
from collections.abc import Hashable, Sequence
from functools import partial
from types import NoneType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from sklearn_charlstm._analysis import Analyzer
from sklearn_charlstm._archive import (
    NUMBERS,
    FilePath,
    Node,
    damaged,
    opened_archive,
    write_archive,
)
from sklearn_charlstm._version import __version__
from sklearn_charlstm._vocabulary import Vocabulary

__all__ = ["Alphabets", "PersistenceMixin", "labels_content", "labels_of"]

FORMAT_VERSION = 1

# numpy pads the labels of an array to the length of the longest.
MAX_LABEL_CHARACTERS = 2**24


class PersistenceMixin:
    """An estimator that is kept in a file of data, or in a pickle.

    A subclass has the constructor argument `device`, and the three methods below.
    """

    _saved_as: ClassVar[str]

    def _check_same_networks(self) -> None:
        """Refuse parameters that are not those of the networks."""
        raise NotImplementedError

    def _content(self, alphabets: Alphabets) -> dict[str, Any]:
        """Return what `_restore` needs, as a tree for `write_archive`."""
        raise NotImplementedError

    def _restore(self, node: Node, alphabets: Alphabets) -> None:
        """Take what was learned from a file."""
        raise NotImplementedError

    def save(self, path: FilePath) -> None:
        """Write the fitted estimator to one file.

        The file is safetensors: arrays, and a JSON text in the header. It holds no
        code, so `load` is safe on files of others, and it can be loaded by all later
        versions. It is put in the place of an older one when all of it is written:
        whatever happens, one of them is there and whole.

        The state of the optimizers is not kept (a pickle has it, see `warm_start`);
        training can go on from the weights.

        Parameters
        ----------
        path : str or path-like
            Of the file, by custom ending in ``.safetensors``.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If a parameter, a label or a token of a callable `analyzer` is an object
            that is not data, such as a RandomState or `net_params`, if a parameter is
            out of range, if one of the networks has been changed since they were made,
            or if the estimator is of a subclass that lacks a parameter.
        OSError
            If the file cannot be written. On Windows also while another process reads
            the older one, which stays.
        """
        check_is_fitted(self)
        self._validate_params()  # type: ignore[attr-defined]
        self._check_same_networks()
        params = _plain_params(self)
        alphabets = Alphabets()
        fitted = self._content(alphabets)
        write_archive(
            path,
            {
                "format": FORMAT_VERSION,
                "estimator": self._saved_as,
                "versions": {
                    "sklearn_charlstm": __version__,
                    "numpy": np.__version__,
                    "torch": torch.__version__,
                },
                "params": params,
                "alphabets": alphabets.content,
                "fitted": fitted,
            },
        )

    @classmethod
    def load(
        cls,
        path: FilePath,
        *,
        device: str = "auto",
        analyzer: Analyzer | None = None,
    ) -> Self:
        """Read a fitted estimator from a file that `save` wrote.

        Nothing in the file is run, and everything is checked before it is used.

        Parameters
        ----------
        path : str or path-like
            Of the file.
        device : str, default='auto'
            Where the loaded estimator computes: its parameter `device`.
        analyzer : callable, default=None
            The function that was the `analyzer`; a file cannot hold it. Only where
            it was one.

        Returns
        -------
        estimator : object
            The fitted estimator. It predicts what the saved one did.

        Raises
        ------
        ValueError
            If the file is damaged, of another kind or of a later version, or if
            `analyzer` is missing.
        OSError
            If the file cannot be read.

        Warns
        -----
        UserWarning
            If the `analyzer` has another name than the one that was saved.
        """
        with opened_archive(path) as root:
            format_version = root.value("format", int)
            if format_version > FORMAT_VERSION:
                raise ValueError(
                    f"it is of format {format_version}, and this version of "
                    f"sklearn_charlstm reads formats up to {FORMAT_VERSION}; install "
                    "a later one"
                )
            saved_as = root.value("estimator", str)
            if saved_as != cls._saved_as:
                raise ValueError(f"it holds a {saved_as}, not a {cls._saved_as}")
            params = _params(root.child("params"), cls, analyzer)
            estimator = cls(**params, device=device)  # type: ignore[call-arg]
            estimator._validate_params()  # type: ignore[attr-defined]
            alphabets = Alphabets.of(root, params["analyzer"], params["boundaries"])
            estimator._restore(root.child("fitted"), alphabets)
        return estimator

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_pickled_by": __version__}  # type: ignore[dict-item]

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        pickled_by = state.pop("_pickled_by", None)
        if pickled_by != __version__:
            warnings.warn(
                f"This {type(self).__name__} was pickled by version {pickled_by} of "
                f"sklearn_charlstm and is loaded by {__version__}, which may fail or "
                "give wrong results. Files written by `save` load in later versions.",
                stacklevel=2,
            )
        super().__setstate__(state)  # type: ignore[misc]


def _plain_params(estimator: Any) -> dict[str, Any]:
    """Return the parameters as JSON can hold them; refuse what it cannot."""
    params: dict[str, Any] = estimator.get_params(deep=False)
    ours = next(cls for cls in type(estimator).__mro__ if "_saved_as" in vars(cls))
    if missing := inspect.signature(ours).parameters.keys() - params:
        raise ValueError(
            f"{type(estimator).__name__} has no parameter {min(missing)!r}, and only "
            f"what has all those of {ours.__name__} can be saved; pickle it."
        )
    # Chosen when the file is loaded.
    del params["device"]
    if callable(analyzer := params["analyzer"]):
        params["analyzer"] = {"callable": _name(analyzer)}
    if params["net_params"] is not None:
        raise ValueError(
            "`net_params` may hold functions, and a file of data cannot; it counts in "
            "training only: set it to None and save again."
        )
    if isinstance(params["random_state"], np.random.RandomState):
        raise ValueError(
            "`random_state` is a RandomState object, and a file cannot hold it; it "
            "counts in training only: set it to None or an int and save again."
        )
    prior = params.get("class_prior")
    if prior is not None and not isinstance(prior, str):
        params["class_prior"] = np.asarray(prior, dtype=float).tolist()
    return params


def _params(node: Node, cls: type, analyzer: Analyzer | None) -> dict[str, Any]:
    """Return the parameters of an estimator, but for the device."""
    names = [*inspect.signature(cls).parameters]
    names.remove("device")
    params = {
        name: node.value(name, str, int, float, bool, list, NoneType)
        for name in names
        if name != "analyzer"
    }
    of_file = node.value("analyzer", str, dict)
    if isinstance(of_file, str):
        if analyzer is not None:
            raise ValueError(
                f"it has analyzer={of_file!r}; do not pass another `analyzer`"
            )
        return params | {"analyzer": of_file}
    name = node.child("analyzer").value("callable", str)
    if not callable(analyzer):
        raise ValueError(
            f"its `analyzer` was the function {name!r}, which a file cannot hold; "
            "pass it to `load` as `analyzer`"
        )
    if _name(analyzer) != name:
        warnings.warn(
            f"The `analyzer` was the function {name!r} when this was saved, and is "
            f"{_name(analyzer)!r} now; if it does not return the same tokens, nothing "
            "that is predicted is right.",
            stacklevel=3,
        )
    return params | {"analyzer": analyzer}


def _name(analyzer: Any) -> str:
    if isinstance(analyzer, partial):
        # What its arguments are no name can tell: a set has another order each time.
        return _name(analyzer.func)
    # An object that can be called has the name of its class.
    name: str = getattr(analyzer, "__qualname__", type(analyzer).__qualname__)
    return name


def _from_json(value: Any) -> Hashable:
    """Return a label or a token; JSON has lists for tuples."""
    if isinstance(value, dict):
        raise damaged("an object stands for a label or a token")
    return tuple(map(_from_json, value)) if isinstance(value, list) else value


def _number(value: Any) -> bool | int | float:
    """Return a number of numpy as one of Python."""
    # A time span is an integer to numpy, and equal to one, but another key of a dict;
    # a longdouble may equal no number of Python.
    is_number = isinstance(value, np.generic) and value.dtype.kind in "biuf"
    if not is_number or isinstance(value, np.longdouble):
        raise TypeError
    number: bool | int | float = value.item()
    return number


def _check_is_data(values: Sequence[Any], name: str) -> None:
    """Refuse labels and tokens that JSON does not give back as they are."""
    for value in values:
        try:
            plain = json.dumps(value, allow_nan=False, default=_number)
            same = _from_json(json.loads(plain)) == value
        except (TypeError, ValueError):
            same = False
        if not same:
            raise ValueError(
                f"The {name} {value!r} cannot be written to a file; str, finite "
                "numbers, None and tuples of them can. Use pickle or joblib."
            )


def labels_content(classes: NDArray[Any]) -> Any:
    """Return the labels as a tree for `write_archive`."""
    if classes.dtype.kind in "biuf":
        if classes.dtype.type is np.longdouble:
            raise ValueError(
                f"Labels of type {classes.dtype} cannot be written to a file; those of "
                "float64 can."
            )
        return classes
    if classes.dtype.kind not in "UO":
        raise ValueError(
            f"Labels of type {classes.dtype} cannot be written to a file; str and "
            "numbers can."
        )
    labels = classes.tolist()
    _check_is_data(labels, "label")
    return {"labels": labels, "dtype": classes.dtype.kind}


def labels_of(node: Node, name: str) -> NDArray[Any]:
    """Return labels from a file: sorted, and each once."""
    if node.has_array(name):
        labels = node.array(name, (None,), *NUMBERS)
    else:
        record = node.child(name)
        values = record.value("labels", list)
        kind = record.value("dtype", str)
        if kind == "O":
            labels = np.fromiter(map(_from_json, values), dtype=object)
        elif kind == "U" and all(isinstance(value, str) for value in values):
            if len(values) * max(map(len, values), default=0) > MAX_LABEL_CHARACTERS:
                raise damaged("the labels are too long")
            labels = np.array(values, dtype=str)
        else:
            raise damaged(f"the labels are not of type {kind!r}")
    try:
        in_order = bool((labels[:-1] < labels[1:]).all())
    except TypeError:
        in_order = False
    if not in_order:
        raise damaged("the labels are not sorted, or one is there twice")
    return labels


class Alphabets:
    """The alphabets of the models, each once.

    Attributes
    ----------
    content : list of dict
        A tree for `write_archive`.
    """

    def __init__(self) -> None:
        self.content: list[dict[str, Any]] = []
        self._vocabularies: list[Vocabulary] = []

    def number_of(self, vocabulary: Vocabulary) -> int:
        """Return the place of an alphabet in the file, and add it if it has none."""
        for number, other in enumerate(self._vocabularies):
            if other is vocabulary:
                return number
        if vocabulary.common is not None:
            common = self.number_of(vocabulary.common)
            ids = [*map(vocabulary.common.__getitem__, vocabulary)]
            content = {"common": common, "ids": np.array(ids, dtype=np.uint32)}
        else:
            tokens = [*vocabulary]
            _check_is_data(tokens, "token")
            content = {"common": None, "tokens": tokens}
            log_unknown = float(vocabulary.log_unknown)
            # JSON has no infinity.
            content["log_unknown"] = log_unknown if math.isfinite(log_unknown) else None
        self._vocabularies.append(vocabulary)
        self.content.append(content)
        return len(self.content) - 1

    @classmethod
    def of(cls, root: Node, analyzer: Analyzer, boundaries: bool) -> Self:
        """Read the alphabets of a file."""
        alphabets = cls()
        for node in root.children("alphabets"):
            number = node.value("common", int, NoneType)
            if number is None:
                tokens = [_from_json(token) for token in node.value("tokens", list)]
                _check_tokens(tokens, analyzer)
                vocabulary = Vocabulary([tokens], analyzer, boundaries)
                log_unknown = node.value("log_unknown", float, NoneType)
                if log_unknown is None:
                    log_unknown = -np.inf
                if not vocabulary.can_share(log_unknown):
                    raise damaged(f"log_unknown is {log_unknown}")
                vocabulary.set_log_unknown(log_unknown)
            else:
                common = alphabets[number]
                if common.common is not None:
                    raise damaged("an alphabet is part of one that is a part itself")
                ids = node.array("ids", (None,), "U32")
                if not 0 < len(ids) == len(np.unique(ids)) or max(ids) >= len(common):
                    raise damaged("an alphabet is not part of the common one")
                all_tokens = [*common]
                tokens = [all_tokens[id_] for id_ in ids]
                vocabulary = Vocabulary([tokens], analyzer, boundaries, common)
            alphabets._vocabularies.append(vocabulary)
        return alphabets

    def __getitem__(self, number: int) -> Vocabulary:
        if not 0 <= number < len(self._vocabularies):
            raise damaged(f"there is no alphabet {number}")
        return self._vocabularies[number]


def _check_tokens(tokens: list[Hashable], analyzer: Analyzer) -> None:
    if not tokens:
        raise damaged("an alphabet is empty")
    for token in tokens:
        if analyzer == "char":
            possible = isinstance(token, str) and len(token) == 1
        elif analyzer == "byte":
            possible = type(token) is int and 0 <= token < 256
        elif analyzer == "word":
            possible = isinstance(token, str)
        else:
            possible = True
        if not possible:
            raise damaged(f"{token!r} is no token of analyzer={analyzer!r}")
    if len(set(tokens)) < len(tokens):
        raise damaged("a token is twice in the alphabet")

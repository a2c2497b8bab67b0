"""The bundled corpus."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterable
from importlib import resources
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sklearn_charlstm.datasets._texts import as_codes, as_dataset, check_available

__all__ = ["load_languages"]

_DESCRIPTION = """\
Running prose in ten languages
------------------------------
About a hundred sentences, or 8,900 to 10,500 characters, in each of Danish
(dan), Dutch (nld), English (eng), French (fra), German (deu), Italian (ita),
Norwegian Bokmål (nob), Portuguese (por), Spanish (spa) and Swedish (swe). The
sentences of a language follow each other and tell of many things: markets, weather,
recipes, repairs, journeys, birds, tools, health, letters, councils, games, tides,
memories, money, quarrels. No text is a translation of another. Written for
sklearn_charlstm and released into the public domain (CC0 1.0).
"""


@overload
def load_languages(
    languages: Iterable[str] | None = None, *, return_X_y: Literal[False] = False
) -> Bunch: ...


@overload
def load_languages(
    languages: Iterable[str] | None = None, *, return_X_y: Literal[True]
) -> tuple[list[str], NDArray[np.str_]]: ...


@overload
def load_languages(
    languages: Iterable[str] | None = None, *, return_X_y: bool
) -> Bunch | tuple[list[str], NDArray[np.str_]]: ...


def load_languages(
    languages: Iterable[str] | None = None, *, return_X_y: bool = False
) -> Bunch | tuple[list[str], NDArray[np.str_]]:
    """Load the bundled corpus: sentences of running prose in ten languages.

    Parameters
    ----------
    languages : list of str, default=None
        ISO 639-3 codes: 'dan', 'deu', 'eng', 'fra', 'ita', 'nld', 'nob', 'por',
        'spa', 'swe'. None loads all.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With the attributes

        - data : list of str, the sentences, language by language, in reading order
        - target : ndarray of shape (n_sentences,) of str, their language codes
        - languages : list of str, the codes in the order of the data
        - DESCR : str
    (data, target) : tuple, if ``return_X_y=True``
        The texts and their language codes.

    Raises
    ------
    ValueError
        If there is no such language.

    Examples
    --------
    >>> from sklearn_charlstm.datasets import load_languages
    >>> X, y = load_languages(["eng", "fra"], return_X_y=True)
    >>> X[1], str(y[1])
    ('Nobody spoke very much.', 'eng')
    """
    folder = resources.files("sklearn_charlstm.datasets") / "data"
    files = {
        file.name.removesuffix(".txt"): file
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".txt")
    }
    codes = list(files) if languages is None else as_codes(languages)
    check_available(codes, files)
    texts = {
        code: files[code].read_text(encoding="utf-8").splitlines() for code in codes
    }
    return as_dataset(texts, _DESCRIPTION, return_X_y)

"""What the loaders return."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

__all__ = ["as_codes", "as_dataset", "check_available"]


def as_dataset(
    texts_by_language: dict[str, list[str]], description: str, return_X_y: bool
) -> Bunch | tuple[list[str], NDArray[np.str_]]:
    """Put the texts of several languages together.

    Parameters
    ----------
    texts_by_language : dict of str to list of str
    description : str
    return_X_y : bool

    Returns
    -------
    dataset : Bunch or tuple of (list of str, ndarray of str)
    """
    data = [text for texts in texts_by_language.values() for text in texts]
    languages = list(texts_by_language)
    counts = [len(texts) for texts in texts_by_language.values()]
    target = np.repeat(np.array(languages, dtype=str), counts)
    if return_X_y:
        return data, target
    return Bunch(data=data, target=target, languages=languages, DESCR=description)


def as_codes(languages: Iterable[str]) -> list[str]:
    """Return the languages as a list of different codes; refuse a bare str."""
    if isinstance(languages, str):
        raise ValueError(
            f"`languages` must be a list of codes, got one str; use [{languages!r}]."
        )
    return list(dict.fromkeys(languages))


def check_available(codes: Iterable[str], available: Collection[str]) -> None:
    """Refuse a language that there is no text in."""
    unknown = [code for code in codes if code not in available]
    if unknown:
        raise ValueError(
            f"There is no text for {', '.join(map(repr, unknown))}; available are "
            f"{', '.join(sorted(available))}."
        )

"""The Universal Declaration of Human Rights."""

# SPDX-License-Identifier: BSD-3-Clause

import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Literal, overload

import numpy as np
import pooch
from numpy.typing import NDArray
from sklearn.datasets import get_data_home
from sklearn.utils import Bunch

from sklearn_charlstm.datasets._texts import as_codes, as_dataset, check_available

__all__ = ["fetch_udhr"]

# The corpus `udhr2` of the Natural Language Toolkit, at a commit that will not change.
_URL = (
    "https://raw.githubusercontent.com/nltk/nltk_data/"
    "550b6625bcef1f2abff2ff770a5a0d272c9c6b2a/packages/corpora/udhr2.zip"
)
_ARCHIVE = "udhr2.zip"
_SHA256 = "0796c314b09a930c989c6f9d93d226af9af13feccd88496e196c743dd266c7f3"
_N_RETRIES = 2

_DESCRIPTION = """\
Universal Declaration of Human Rights
-------------------------------------
The Declaration of 1948 in 388 texts, about ten thousand characters each, paragraph by
paragraph: the corpus `udhr2` of the Natural Language Toolkit, made from the files of
the project "UDHR in Unicode". Public domain.
"""


@overload
def fetch_udhr(
    languages: Iterable[str],
    *,
    data_home: str | PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: Literal[False] = False,
) -> Bunch: ...


@overload
def fetch_udhr(
    languages: Iterable[str],
    *,
    data_home: str | PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: Literal[True],
) -> tuple[list[str], NDArray[np.str_]]: ...


@overload
def fetch_udhr(
    languages: Iterable[str],
    *,
    data_home: str | PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool,
) -> Bunch | tuple[list[str], NDArray[np.str_]]: ...


def fetch_udhr(
    languages: Iterable[str],
    *,
    data_home: str | PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
) -> Bunch | tuple[list[str], NDArray[np.str_]]:
    """Load the Universal Declaration of Human Rights, downloading it once if needed.

    Parameters
    ----------
    languages : list of str
        Codes as the files are named: 'eng', 'fra', 'spa', 'por_PT', 'deu_1901', ...
        The error for one that is not among them lists all.
    data_home : str or path-like, default=None
        Folder that holds one file ``<code>.txt`` per language, or to which the archive
        of all texts is downloaded. By default `udhr` in scikit-learn's data
        folder, see :func:`sklearn.datasets.get_data_home`.
    download_if_missing : bool, default=True
        Whether to download the archive if a text asked for is not in the folder.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With the attributes

        - data : list of str, the paragraphs, language by language
        - target : ndarray of shape (n_paragraphs,) of str, their language codes
        - languages : list of str, the codes in the order of the data
        - DESCR : str
    (data, target) : tuple, if ``return_X_y=True``
        The texts and their language codes.

    Raises
    ------
    OSError
        If a text is not in the folder and cannot, or must not, be downloaded.
    ValueError
        If there is no text in such a language.
    """
    if data_home is None:
        folder = Path(get_data_home()) / "udhr"
    else:
        folder = Path(data_home).expanduser()
    codes = as_codes(languages)
    files: dict[str, Path | zipfile.Path] = {
        file.stem: file for file in folder.glob("*.txt")
    }
    with ExitStack() as stack:
        if not files.keys() >= set(codes):
            path = _archive(folder, download_if_missing)
            archive = stack.enter_context(zipfile.ZipFile(path))
            files = _archived_files(archive) | files
        check_available(codes, files)
        texts = {code: _paragraphs(files[code]) for code in codes}
    return as_dataset(texts, _DESCRIPTION, return_X_y)


def _archive(folder: Path, download_if_missing: bool) -> Path:
    """Return where the archive is; download it if needed."""
    path = folder / _ARCHIVE
    by_hand = (
        f"By hand: get {_URL} and put it, or the .txt files in it, into the folder "
        f"{folder}."
    )
    is_there = path.is_file() and pooch.file_hash(str(path)) == _SHA256
    if not (is_there or download_if_missing):
        what = "is damaged" if path.is_file() else "does not hold all texts asked for"
        raise OSError(
            f"{path if path.is_file() else folder} {what}, and "
            f"download_if_missing=False. {by_hand}"
        )
    downloader = pooch.create(
        path=folder,
        base_url="",
        registry={_ARCHIVE: f"sha256:{_SHA256}"},
        urls={_ARCHIVE: _URL},
        retry_if_failed=_N_RETRIES,
    )
    try:
        downloader.fetch(_ARCHIVE)
    # requests' errors are OSError; pooch raises ValueError for a wrong hash.
    except (OSError, ValueError) as error:
        raise OSError(
            f"The Universal Declaration could not be downloaded: {error}. {by_hand}"
        ) from error
    return path


def _archived_files(archive: zipfile.ZipFile) -> dict[str, Path | zipfile.Path]:
    """Return the files in the archive by language."""
    names = [name for name in archive.namelist() if name.endswith(".txt")]
    return {PurePosixPath(name).stem: zipfile.Path(archive, name) for name in names}


def _paragraphs(file: Path | zipfile.Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]

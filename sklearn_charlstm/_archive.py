"""A file of arrays and a record: safetensors, written whole and checked when read.

It is data only [1]_: the arrays, and a JSON text with everything else. Reading runs
nothing that is in the file.

.. [1] https://github.com/huggingface/safetensors
"""

# SPDX-License-Identifier: BSD-3-Clause

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

__all__ = [
    "NUMBERS",
    "FilePath",
    "Node",
    "damaged",
    "opened_archive",
    "write_archive",
]

# The key of the record in the header, and the name of the array with its checksum.
_RECORD = "sklearn_charlstm"
_CHECKSUM = "sha256"

# Read into objects, a text of brackets takes twenty times its size.
MAX_RECORD = 2**24

# What arrays may be of, in the words of the format.
NUMBERS = (
    "BOOL",
    *(f"{kind}{n_bits}" for kind in "IU" for n_bits in (8, 16, 32, 64)),
    *(f"F{n_bits}" for n_bits in (16, 32, 64)),
)

FilePath = str | os.PathLike[str]


def write_archive(path: FilePath, tree: dict[str, Any]) -> None:
    """Write a file, or leave what was there as it was.

    Parameters
    ----------
    path : str or path-like
    tree : dict
        Of str, numbers, None, lists and further dicts, and of arrays of numbers.

    Raises
    ------
    ValueError
        If the record is too long.
    TypeError
        If there is something else in the tree.
    OSError
        If the file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    record = json.dumps(
        _without_arrays(tree, "", arrays),
        allow_nan=False,
        separators=(",", ":"),
        default=np.generic.item,
    )
    if len(record) > MAX_RECORD:
        raise ValueError(
            f"The alphabet and the labels take {len(record)} bytes; a file holds "
            f"{MAX_RECORD} at most. Use pickle or joblib."
        )
    arrays[_CHECKSUM] = _checksum(record, arrays)
    _replace(Path(path), save(arrays, metadata={_RECORD: record}))


def _without_arrays(tree: Any, path: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """Return the tree without its arrays, and collect them by their paths in it."""
    if isinstance(tree, dict):
        rest = {}
        for name, value in tree.items():
            if isinstance(value, np.ndarray):
                # The order of bytes that the format has.
                arrays[path + name] = np.ascontiguousarray(
                    value, dtype=value.dtype.newbyteorder("<")
                )
            else:
                rest[name] = _without_arrays(value, f"{path}{name}.", arrays)
        return rest
    if isinstance(tree, list):
        return [
            _without_arrays(value, f"{path}{number}.", arrays)
            for number, value in enumerate(tree)
        ]
    return tree


def _checksum(record: str, arrays: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(record.encode())
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.name, array.shape)).encode())
        # As the format has them, whatever the machine.
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside the old one and put it in its place when all is there."""
    path = path.resolve()
    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def damaged(what: str) -> ValueError:
    """Return the error for a file that is not as `write_archive` leaves it."""
    return ValueError(f"it is damaged, or was not written by `save`: {what}")


class Node:
    """A part of the tree in a file, which gives only what is as it should be.

    Parameters
    ----------
    file : _File
    record : dict
        The part without its arrays.
    path : str
        Where it is in the tree.
    """

    def __init__(self, file: "_File", record: object, path: str) -> None:
        if not isinstance(record, dict):
            raise damaged(f"{path or 'the record'} is no JSON object")
        self._file = file
        self._record = record
        self._path = path

    def value(self, name: str, *types: type) -> Any:
        """Return a value of the record that is of one of the types."""
        value = self._record.get(name)
        if type(value) not in types:
            raise damaged(f"{self._path}{name} is {type(value).__name__}")
        return value

    def child(self, name: str) -> "Node":
        """Return a part of this part."""
        return Node(self._file, self._record.get(name), f"{self._path}{name}.")

    def children(self, name: str) -> list["Node"]:
        """Return the parts in a list."""
        return [
            Node(self._file, record, f"{self._path}{name}.{number}.")
            for number, record in enumerate(self.value(name, list))
        ]

    def has_array(self, name: str) -> bool:
        """Tell whether there is an array of that name."""
        return self._path + name in self._file.names

    def array(
        self, name: str, shape: tuple[int | None, ...], *dtypes: str
    ) -> NDArray[Any]:
        """Return an array that is of one of the types, without NaN.

        Parameters
        ----------
        name : str
        shape : tuple of int or None
            None: any length.
        *dtypes : str
            As in `NUMBERS`.
        """
        return self._file.array(self._path + name, shape, *dtypes)


class _File:
    """The arrays of an open file; each is read once."""

    def __init__(self, tensors: Any) -> None:
        self._tensors = tensors
        self.names = set(tensors.keys())
        self.arrays: dict[str, NDArray[Any]] = {}

    def array(
        self, name: str, shape: tuple[int | None, ...], *dtypes: str
    ) -> NDArray[Any]:
        if name not in self.names:
            raise damaged(f"there is no array {name}")
        view = self._tensors.get_slice(name)
        found = tuple(view.get_shape())
        if len(found) != len(shape) or any(
            expected not in (None, n) for expected, n in zip(shape, found, strict=True)
        ):
            raise damaged(f"{name} is of shape {found}, not {shape}")
        if view.get_dtype() not in dtypes:
            raise damaged(f"{name} is of type {view.get_dtype()}")
        array = self._tensors.get_tensor(name)
        if np.isnan(array).any():
            raise damaged(f"{name} holds NaN")
        self.arrays[name] = array
        return array


@contextmanager
def opened_archive(path: FilePath) -> Iterator[Node]:
    """Open a file to read the whole of it.

    Parameters
    ----------
    path : str or path-like

    Yields
    ------
    root : Node
        Every array of it must be asked for.

    Raises
    ------
    ValueError
        If the file is not whole, not one of ours, or holds what it should not. Errors
        in the block that come of what is in the file are raised as such.
    OSError
        If the file cannot be opened.
    """
    try:
        # For the errors of the system as Python words them.
        with open(path, "rb"), safe_open(path, framework="numpy") as tensors:
            text = (tensors.metadata() or {}).get(_RECORD)
            if text is None:
                raise damaged("it has no record")
            if len(text) > MAX_RECORD:
                raise damaged(f"its record is of {len(text)} bytes")
            file = _File(tensors)
            yield Node(file, json.loads(text), "")
            checksum = file.array(_CHECKSUM, (32,), "U8")
            del file.arrays[_CHECKSUM]
            if unread := file.names - file.arrays.keys() - {_CHECKSUM}:
                raise damaged(f"there is an array {min(unread)}")
            if not np.array_equal(checksum, _checksum(text, file.arrays)):
                raise damaged("its checksum is not that of its content")
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be loaded: {damaged(str(error))}.") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded: {error}.") from error

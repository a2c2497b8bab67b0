"""Let a fuzzer look for what `load` and the input checks do not expect.

``python tests/fuzz.py load -max_total_time=60``, or ``input`` for ``load``; the options
are those of libFuzzer. Only a ValueError or a TypeError is an answer to bad input.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sklearn_charlstm", "safetensors"]):
    from sklearn_charlstm import (
        CharLMLanguageClassifier,
        _archive,
    )

import numpy as np
from safetensors.numpy import load_file, save

SEED = Path(__file__).parent / "saved" / "format_1.safetensors"
TINY = {
    "maxlen": 4,
    "epochs": 1,
    "n_networks": 1,
    "hidden_size": 2,
    "embedding_dim": 2,
    "discriminative_epochs": 1,
    "calibration_folds": 0,
    "device": "cpu",
    "random_state": 0,
}


def any_value(data: atheris.FuzzedDataProvider, depth: int = 0) -> object:
    """Return what may stand in a JSON text or in a list of samples."""
    kind = data.ConsumeIntInRange(0, 9 if depth < 3 else 7)
    if kind == 0:
        return None
    if kind == 1:
        return data.ConsumeBool()
    if kind == 2:
        return data.ConsumeInt(8)
    if kind == 3:
        return data.ConsumeIntInRange(-2, 20)
    if kind == 4:
        return data.ConsumeFloat()
    if kind == 5:
        return data.PickValueInList(["char", "byte", "word", "a", "U", "O", "", "eng"])
    if kind in (6, 7):
        return data.ConsumeUnicode(data.ConsumeIntInRange(0, 20))
    values = [any_value(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 4))]
    return values if kind == 8 else {str(value): value for value in values}


# A file of `save`, taken apart.

with tempfile.TemporaryDirectory() as _folder:
    _path = Path(_folder) / "clf"
    CharLMLanguageClassifier(**TINY).fit(["ab", "bc"], ["a", "b"]).save(_path)
    ARRAYS = load_file(_path)
    with _archive.safe_open(_path, framework="numpy") as _file:
        RECORD = json.loads(_file.metadata()[_archive._RECORD])
    WHOLE = _path.read_bytes()
del ARRAYS[_archive._CHECKSUM]


def change_somewhere(data: atheris.FuzzedDataProvider, tree: object) -> None:
    """Put another value in the place of one of the tree."""
    while isinstance(tree, (dict, list)) and len(tree):
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = data.PickValueInList(list(keys))
        if not isinstance(tree[key], (dict, list)) or data.ConsumeIntInRange(0, 5) == 0:
            if data.ConsumeIntInRange(0, 5) == 0:
                del tree[key]
            else:
                tree[key] = any_value(data)
            return
        tree = tree[key]


def change_array(data: atheris.FuzzedDataProvider, arrays: dict) -> None:
    """Put another array in the place of one."""
    name = data.PickValueInList(sorted(arrays))
    kind = data.ConsumeIntInRange(0, 4)
    if kind == 4:
        with np.errstate(over="ignore"):
            arrays[name] = np.full_like(arrays[name], data.ConsumeFloat())
    elif kind == 0:
        del arrays[name]
    elif kind == 1:
        dtype = data.PickValueInList(["f4", "f8", "f2", "u4", "i8", "?"])
        arrays[name] = arrays[name].astype(dtype)
    elif kind == 2:
        shape = [
            data.ConsumeIntInRange(0, 5) for _ in range(data.ConsumeIntInRange(0, 3))
        ]
        arrays[name] = np.zeros(shape, arrays[name].dtype)
    else:
        array = arrays[name].copy().ravel()
        if len(array):
            place = data.ConsumeIntInRange(0, len(array) - 1)
            with np.errstate(over="ignore"):
                array[place] = np.array(data.ConsumeFloat()).astype(array.dtype)
        arrays[name] = array.reshape(arrays[name].shape)


def content(data: atheris.FuzzedDataProvider) -> bytes:
    """Return a file that is wrong in some way or other."""
    if data.ConsumeBool():
        broken = bytearray(WHOLE)
        start = data.ConsumeIntInRange(0, len(broken))
        inserted = data.ConsumeBytes(50)
        broken[start : start + data.ConsumeIntInRange(0, 50)] = inserted
        return bytes(broken)
    record, arrays = json.loads(json.dumps(RECORD)), dict(ARRAYS)
    for _ in range(data.ConsumeIntInRange(0, 3)):
        change_somewhere(data, record)
    for _ in range(data.ConsumeIntInRange(0, 2)):
        change_array(data, arrays)
    text = json.dumps(record)
    arrays[_archive._CHECKSUM] = _archive._checksum(text, arrays)
    return save(arrays, metadata={_archive._RECORD: text})


def load(data: bytes) -> None:
    """Load a file; if it loads, it is a classifier."""
    # In memory: no disk is waited for.
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, content(atheris.FuzzedDataProvider(data)))
        try:
            clf = CharLMLanguageClassifier.load(f"/proc/self/fd/{descriptor}")
        except ValueError:
            return
        if not callable(clf.analyzer):
            proba = clf.predict_proba(["ab", "", "xyz\ud800"])
            assert np.isfinite(proba).all(), proba
            np.testing.assert_allclose(proba.sum(axis=1), 1)
    finally:
        os.close(descriptor)


def input(data: bytes) -> None:
    """Fit to anything and predict anything."""
    provider = atheris.FuzzedDataProvider(data)
    X, y, Z = any_value(provider), any_value(provider), any_value(provider)
    weights = any_value(provider) if provider.ConsumeBool() else None
    if provider.ConsumeBool():
        X, y = ["ab", "bc", any_value(provider)], ["a", "b", any_value(provider)]
    if provider.ConsumeBool():
        X = np.array(X, dtype=object)
    params = {"analyzer": provider.PickValueInList(["char", "byte", "word"])}
    params["boundaries"] = provider.ConsumeBool()
    clf = CharLMLanguageClassifier(**TINY, **params)
    try:
        clf.fit(X, y, sample_weight=weights)
    except (TypeError, ValueError):
        assert not [name for name in vars(clf) if name.endswith("_")]
        return
    try:
        log_likelihood = clf.log_likelihood(Z)
    except (TypeError, ValueError):
        return
    assert log_likelihood.shape == (len(Z), len(clf.classes_))
    assert np.isfinite(log_likelihood).all()


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    target = {"load": load, "input": input}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()

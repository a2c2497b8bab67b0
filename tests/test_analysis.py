import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklearn_charlstm._analysis import analyze, check_labels


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        np.array,
        lambda x: np.array(x, dtype=object),
        pd.Series,
        lambda x: pd.Series(x, index=[7, 3, 5]),
        lambda x: pd.Series(x, dtype="string"),
        pl.Series,
    ],
)
def test_any_sequence_of_str(container):
    assert [*map("".join, analyze(container(["ab", "", "é😀"]), "char"))] == [
        "ab",
        "",
        "é😀",
    ]


def test_analyzers():
    text = "L'été, 2 fois."
    assert list(analyze([text], "char")[0]) == list(text)
    assert bytes(analyze([text], "byte")[0]) == text.encode()
    assert analyze([text], "word") == [["L", "'", "été", ",", "2", "fois", "."]]
    assert analyze([[1, (2, 3)]], tuple) == [(1, (2, 3))]
    assert analyze([range(3)], lambda r: (i * i for i in r)) == [(0, 1, 4)]


def test_lone_surrogate_is_a_character_and_three_bytes():
    assert list(analyze(["\ud800"], "char")[0]) == ["\ud800"]
    assert len(analyze(["\ud800"], "byte")[0]) == 3


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("one text", ValueError, r"got one str; put a single text in a list"),
        (b"bytes", ValueError, r"got one bytes"),
        (None, TypeError, r"sequence of texts .* got NoneType"),
        (3, TypeError, r"got int"),
        ({"a": 1}, TypeError, r"got dict"),
        ((text for text in "ab"), TypeError, r"got generator"),
        ([], ValueError, r"0 sample\(s\).*at least one text"),
        (["a", b"b"], TypeError, r"X\[1\] is bytes, not str; decode it"),
        (["a", "b", None], ValueError, r"X\[2\] is a missing value \(None\)"),
        (["a", float("nan")], ValueError, r"X\[1\] is a missing value \(nan\)"),
        (["a", np.float64("nan")], ValueError, r"X\[1\] is a missing value"),
        (pd.Series(["a", pd.NA], dtype="string"), ValueError, r"X\[1\] is a missing"),
        ([pd.NaT], ValueError, r"X\[0\] is a missing value \(NaT\)"),
        (pl.Series(["a", None]), ValueError, r"X\[1\] is a missing value"),
        ([1, 2], TypeError, r"X\[0\] is int, not str; convert it with str"),
        (np.arange(3), TypeError, r"X\[0\] is int64, not str"),
        ([["a"], ["b"]], ValueError, r"one-dimensional.*X\[0\] is list"),
        (np.array([["a"], ["b"]]), ValueError, r"one-dimensional.*shape \(2, 1\)"),
        (pd.DataFrame({"a": ["b"]}), ValueError, r"DataFrame of shape \(1, 1\)"),
        (pl.DataFrame({"a": ["b"]}), ValueError, r"DataFrame of shape \(1, 1\)"),
        (np.array("a"), ValueError, r"one-dimensional"),
    ],
)
def test_bad_samples_are_named(X, error, message):
    with pytest.raises(error, match=message):
        analyze(X, "char")


def test_bad_tokens_are_named():
    with pytest.raises(TypeError, match=r"X\[1\]: `analyzer` must return .* hashable"):
        analyze([(1, 2), (1, [2])], tuple)
    with pytest.raises(TypeError, match=r"X\[0\]: `analyzer` must return a sequence"):
        analyze(["a"], len)


def test_one_text_a_class_is_nothing_to_warn_of():
    labels = [f"class {k}" for k in range(30)]
    assert check_labels(labels, "y").tolist() == labels

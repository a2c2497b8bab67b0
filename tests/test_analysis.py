from collections import deque
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from sklearn_charlstm._analysis import analyze, analyze_weighted, check_labels


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
        ({"a", "b"}, TypeError, r"got set, which has no order"),
        (frozenset("ab"), TypeError, r"got frozenset"),
        ((text for text in "ab"), TypeError, r"got generator"),
        ([], ValueError, r"0 sample\(s\).*at least one text"),
        (["a", b"b"], TypeError, r"X\[1\] is bytes, not str; decode it"),
        (["a", "b", None], ValueError, r"X\[2\] is a missing value \(None\)"),
        (["a", float("nan")], ValueError, r"X\[1\] is a missing value \(nan\)"),
        (["a", np.float64("nan")], ValueError, r"X\[1\] is a missing value"),
        (pd.Series(["a", pd.NA], dtype="string"), ValueError, r"X\[1\] is a missing"),
        ([pd.NaT], ValueError, r"X\[0\] is a missing value \(NaT\)"),
        (np.ma.array(["a", "b"], mask=[0, 1]), ValueError, r"X\[1\] is a missing"),
        (pl.Series(["a", None]), ValueError, r"X\[1\] is a missing value"),
        ([1, 2], TypeError, r"X\[0\] is int, not str; convert it with str"),
        (np.arange(3), TypeError, r"X\[0\] is int64, not str"),
        ([["a"], ["b"]], ValueError, r"X\[0\] is list, not one text"),
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
    with pytest.raises(
        TypeError, match=r"X\[1\] is tuple; `analyzer` must .* hashable"
    ):
        analyze([(1, 2), (1, [2])], tuple)
    with pytest.raises(TypeError, match=r"X\[0\] is str; .* not iterable"):
        analyze(["a"], len)
    with pytest.raises(TypeError, match=r"X\[1\] is NoneType; `analyzer` must take it"):
        analyze([(1, 2), None], tuple)
    with pytest.raises(TypeError, match=r"X\[0\] is int; .* in a list: \[X\]"):
        analyze([60, 62], tuple)


def test_rows_are_samples_of_a_callable():
    rows = np.array([[1, 2], [3, 4]])
    # As a step of a pipeline hands them on, whatever its `set_output`.
    for X in (rows, pd.DataFrame(rows)):
        assert analyze(X, tuple) == [(1, 2), (3, 4)]
    assert len(analyze(np.zeros((2, 3, 4)), np.ravel)) == 2
    with pytest.raises(ValueError, match="one-dimensional"):
        analyze(np.array(1), tuple)
    with pytest.raises(ValueError, match="one-dimensional"):
        analyze(pd.DataFrame(rows), "char")


def test_an_error_of_a_callable_says_where():
    def second_field(sample):
        return sample.split(";")[1]

    with pytest.raises(IndexError) as error:
        analyze(["a;b", "a"], second_field)
    assert error.value.__notes__ == ["`analyzer` was given X[1]."]


def test_tokens_without_an_order():
    for unordered in (set, frozenset):
        with pytest.raises(TypeError, match=r"X\[0\]: .* a (frozen)?set, .* no order"):
            analyze(["ab"], unordered)


def test_one_text_a_class_is_nothing_to_warn_of():
    labels = [f"class {k}" for k in range(30)]
    assert check_labels(labels, "y").tolist() == labels


def test_marks_are_part_of_their_letters():
    text = "हिन्दी भाषा, cafe\u0301 می\u200cخواهم"
    words = ["हिन्दी", "भाषा", ",", "cafe\u0301", "می\u200cخواهم"]
    assert analyze([text], "word") == [words]
    assert list(analyze({"a b": 1}.keys(), "word")) == [["a", "b"]]
    # Where there is no letter before it a mark is by itself.
    assert analyze(["\u0301 a"], "word") == [["\u0301", "a"]]


def test_tokens_that_are_not_equal_to_themselves():
    assert analyze([[1.5, None]], tuple) == [(1.5, None)]
    for missing in (float("nan"), np.float32("nan"), pd.NA, Decimal("nan"), pd.NaT):
        with pytest.raises(ValueError, match=r"X\[1\]: .* returned a missing value"):
            analyze([[1.5], [2.5, missing]], tuple)


def test_a_missing_label_among_str():
    for labels in (
        ["a", np.nan],
        ("a", np.nan),
        deque(["a", None]),
        np.array(["a", None], dtype=object),
        pd.Series(["a", np.nan]),
        np.array(["2026-11-27", "NaT"], dtype="datetime64[D]"),
    ):
        with pytest.raises(ValueError, match=r"y\[1\] is a missing value"):
            check_labels(labels, "y")


def test_what_a_mask_hides_is_not_used():
    hidden = np.ma.array([1, 2, 3], mask=[0, 0, 1])
    with pytest.raises(ValueError, match=r"y\[2\] is masked; give it a value"):
        check_labels(hidden, "y")
    with pytest.raises(ValueError, match=r"sample_weight\[2\] is masked"):
        analyze_weighted(["a", "b", "c"], "char", hidden)
    seen = np.ma.array([1, 2, 3], mask=False)
    assert check_labels(seen, "y").tolist() == [1, 2, 3]
    assert analyze_weighted(["a", "b", "c"], "char", seen)[1].tolist() == [1, 2, 3]


def test_rows_that_cannot_be_read():
    with pytest.raises(ValueError, match=r"shape \(2, 2\).*only a NumPy array"):
        analyze(sparse.csr_array(np.eye(2)), tuple)

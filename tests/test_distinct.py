import numpy as np
import pytest

from sklearn_charlstm import _distinct
from sklearn_charlstm._distinct import distinct_numbers, distinct_texts
from sklearn_charlstm._vocabulary import EncodedTexts


@pytest.fixture(params=[0, 16, 10**9])
def many_texts(request, monkeypatch):
    """So many texts of one length are compared token by token."""
    monkeypatch.setattr(_distinct, "MANY_TEXTS", request.param)


def encoded(texts, dtype=np.uint8):
    ids = np.concatenate([[], *texts]).astype(dtype)
    return EncodedTexts(ids, np.array([*map(len, texts)]))


def assert_distinct(texts, dtype=np.uint8):
    rows, number = distinct_texts(encoded(texts, dtype))
    found = [tuple(texts[row]) for row in rows]
    assert len({*found}) == len(found)
    assert [found[k] for k in number] == [*map(tuple, texts)]
    assert found == sorted(found, key=lambda text: (-len(text), text))


def test_distinct_texts(many_texts):
    rng = np.random.default_rng(0)
    lengths = [0, 0, 1, 300, *rng.integers(4, size=200), *rng.integers(40, size=20)]
    for n_ids in (1, 3, 256):
        texts = [rng.integers(n_ids, size=length).tolist() for length in lengths]
        assert_distinct(texts)
        assert_distinct([*texts, *reversed(texts)])
    assert_distinct([[]])
    assert_distinct([[3, 1]])


def test_more_beginnings_than_integers(many_texts):
    # Of 40 tokens of 256 kinds six or seven are counted at a time.
    rng = np.random.default_rng(0)
    beginning = rng.integers(256, size=30).tolist()
    texts = [
        [*beginning[:at], *rng.integers(2, size=40 - at)]
        for at in (0, 10, 25, 30)
        for _ in range(200)
    ]
    assert_distinct(texts + [[255] * 40] * 3)
    # One of so many words is known from its end.
    rare = 2**32 - 1
    distinct = encoded([[rare, rare, word] for word in (5, 7, rare, 5)], np.uint32)
    rows, number = distinct_texts(distinct)
    assert distinct.take(rows).ids.reshape(-1, 3)[:, 2].tolist() == [5, 7, rare]
    assert number.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("n_possible", [5, 10**6])
@pytest.mark.parametrize("in_order", [False, True])
def test_distinct_numbers(n_possible, in_order):
    numbers = np.random.default_rng(0).integers(n_possible, size=40).repeat(2)
    numbers = np.sort(numbers) if in_order else np.append(numbers, numbers[::-1])
    expected, expected_which = np.unique(numbers, return_inverse=True)
    place, which = distinct_numbers(numbers, n_possible)
    np.testing.assert_array_equal(numbers[place], expected)
    np.testing.assert_array_equal(which, expected_which)

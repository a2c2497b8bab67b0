import numpy as np
import pytest

from sklearn_charlstm._prefixes import (
    FEW_ALIKE,
    MANY_STEPS,
    PrefixTree,
    TextsInOrder,
)

FIRST_INPUT = 9


def read(texts):
    """Return the prefixes that the levels stand for, and those of every text."""
    texts = sorted(map(tuple, texts), key=lambda text: (-len(text), text))
    lengths = np.array([len(text) for text in texts])
    starts = np.cumsum(lengths) - lengths
    ids = np.concatenate(texts).astype(np.uint8)
    in_order = TextsInOrder(ids.__getitem__, starts, lengths, FIRST_INPUT)
    tree = PrefixTree(in_order, are_compared=True)
    histories = [()]
    levels = []
    for step in range(max(lengths)):
        level = tree.next_level()
        if step:
            # What was predicted is read: the state of a history and one token more.
            histories = [
                (*histories[source], token)
                for source, token in zip(level.source, level.inputs, strict=True)
            ]
        else:
            assert set(level.inputs.tolist()) == {FIRST_INPUT}
            histories *= len(level.inputs)
        prefixes = [
            (*histories[history], token)
            for history, token in zip(level.history, level.targets, strict=True)
        ]
        of_texts = [prefixes[number] for number in level.prefix]
        assert of_texts == [text[: step + 1] for text in texts if len(text) > step]
        levels.append((histories, prefixes, tree.are_apart))
    return texts, levels


@pytest.mark.parametrize("seed", range(20))
def test_every_prefix_is_there_once(seed):
    rng = np.random.default_rng(seed)
    n_tokens = rng.integers(1, 5)
    texts = [rng.integers(n_tokens, size=n) for n in rng.integers(1, 9, size=30)]
    texts, levels = read(texts)
    for step, (histories, prefixes, _) in enumerate(levels):
        long_enough = [text for text in texts if len(text) > step]
        assert len(histories) == len({text[:step] for text in long_enough})
        assert sorted(prefixes) == sorted({text[: step + 1] for text in long_enough})


def test_texts_that_part_stay_apart():
    _, levels = read([(1, 2, 3, 4, 5), (1, 2, 4, 4, 5), (1, 2, 4)])
    assert [len(histories) for histories, *_ in levels] == [1, 1, 1, 2, 2]
    assert [are_apart for *_, are_apart in levels] == [False, False, False, True, True]


def test_one_text_is_apart_at_once():
    _, [(_, _, are_apart), _] = read([(0, 0)])
    assert are_apart


@pytest.mark.parametrize(("n_alone", "is_apart"), [(61, False), (62, True)])
def test_few_that_share_are_apart(n_alone, is_apart):
    alone = [(0, number // 8, number % 8, 0) for number in range(n_alone)]
    _, levels = read([*alone, (1, 1, 1, 1), (1, 1, 1, 2)])
    assert [are_apart for *_, are_apart in levels] == [False, False, False, is_apart]
    assert len(levels[-1][0]) == n_alone + 1 + is_apart


def test_few_long_texts_are_apart():
    longer, shorter = (0,) * (MANY_STEPS + 2), (0,) * (MANY_STEPS + 1) + (1,)
    short = [(1, k % 8, k // 8) for k in range(FEW_ALIKE)]
    _, levels = read([longer, shorter])
    assert levels[0][2]
    # As soon as there are few.
    _, levels = read([(*longer, 0, 0), (*shorter, 0, 0), *short])
    assert [are_apart for *_, are_apart in levels[:4]] == [False, False, False, True]
    # They have not much more in common.
    _, levels = read([longer[:-3], shorter[3:]])
    assert not levels[0][2]

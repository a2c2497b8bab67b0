import tracemalloc

import numpy as np
import pytest

from sklearn_charlstm import _windows
from sklearn_charlstm._smoothing import ORDER, KneserNey
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import IGNORE, WindowBatches


def make(
    texts,
    *,
    boundaries,
    maxlen=4,
    batch_size=2,
    seed=0,
    sample_weight=None,
    alphabet=(),
):
    vocabulary = Vocabulary(alphabet or texts, "char", boundaries)
    encoded = vocabulary.encode(texts)
    batches = WindowBatches(
        encoded,
        np.ones(len(texts)) if sample_weight is None else np.array(sample_weight),
        vocabulary,
        maxlen=maxlen,
        batch_size=batch_size,
        seed=seed,
    )
    return vocabulary, encoded, batches


def windows_of(batches):
    """Return (inputs, targets) of all windows of one epoch, without the padding."""
    return [
        (row_in[row_out != IGNORE].tolist(), row_out[row_out != IGNORE].tolist())
        for inputs, (targets, _) in batches
        for row_in, row_out in zip(inputs, targets, strict=True)
    ]


def test_any_weight_of_a_text_without_a_target():
    texts, weights = ["zz", "abc", "ab"], [1e200, 1, 2]
    _, _, batches = make(
        texts, boundaries=False, sample_weight=weights, alphabet=["abc"]
    )
    # The mean of a target is one.
    np.testing.assert_allclose(batches.weights, np.array([0, 1, 2]) * 5 / 7, rtol=1e-6)


@pytest.fixture
def no_unknown(monkeypatch):
    monkeypatch.setattr(_windows, "UNKNOWN_SHARE", 0.0)


@pytest.mark.parametrize("boundaries", [True, False])
@pytest.mark.parametrize("maxlen", [1, 3, 100])
def test_every_epoch_has_each_token_once_as_a_target(boundaries, maxlen):
    texts = ["abcdefghij", "k", "", "lmnop"]
    _, targets, batches = make(texts, boundaries=boundaries, maxlen=maxlen)
    for _ in range(5):
        windows = windows_of(batches)
        seen = sorted(id_ for _, window in windows for id_ in window)
        assert seen == sorted(targets.ids.tolist())
        assert max(len(window) for _, window in windows) <= maxlen


@pytest.mark.usefixtures("no_unknown")
def test_inputs_are_the_targets_one_step_later():
    text = "abcdefghijklmnopq"
    vocabulary, _, batches = make([text], boundaries=True)
    for inputs, targets in windows_of(batches):
        assert inputs[1:] == targets[:-1]
        starts_text = targets[0] == vocabulary["a"]
        assert inputs[0] == (vocabulary.bos if starts_text else vocabulary.cut)


def test_fragments_never_start_with_bos():
    vocabulary, _, batches = make(["abc", "defghijk"], boundaries=False)
    assert {inputs[0] for inputs, _ in windows_of(batches)} == {vocabulary.cut}


def test_short_texts_stay_whole():
    _, _, batches = make(["abcd", "efg"], boundaries=False, maxlen=4)
    assert sorted(window for _, window in windows_of(batches)) == [
        [0, 1, 2, 3],
        [4, 5, 6],
    ]


def test_texts_of_exactly_maxlen_stay_whole():
    _, _, batches = make(["abcd"] * 20, boundaries=False, maxlen=4)
    for _ in range(3):
        assert [window for _, window in windows_of(batches)] == [[0, 1, 2, 3]] * 20


def test_every_text_has_an_offset_of_its_own():
    _, _, batches = make(["abcdefghijklmnopqrst"] * 20, boundaries=False, maxlen=16)
    first = [len(window) for _, window in windows_of(batches) if window[0] == 0]
    assert len(first) == 20
    assert len(set(first)) > 4


def test_cuts_move_from_epoch_to_epoch():
    vocabulary, _, batches = make(["abcdefghijklmnopqrst"], boundaries=False)
    first = {window[0] for _ in range(20) for _, window in windows_of(batches)}
    assert len(first) == len(vocabulary)


def test_windows_are_of_another_length_in_every_epoch():
    _, _, batches = make(["abcdefghij" * 100], boundaries=False, maxlen=16)
    lengths_of_epochs = []
    for _ in range(30):
        lengths = [len(window) for _, window in windows_of(batches)]
        # All alike but the first and the last one of the text.
        usual = max(lengths)
        assert np.count_nonzero(np.array(lengths) < usual) <= 2
        lengths_of_epochs.append(usual)
    assert min(lengths_of_epochs) == 3
    assert 15 <= max(lengths_of_epochs) <= 16
    # As often up to the middle on the logarithmic scale, 7, as beyond.
    assert np.median(lengths_of_epochs) == pytest.approx(7, abs=1)
    # A single epoch is not one of the shortest.
    assert lengths_of_epochs[0] > 6


def test_any_number_of_epochs_has_windows_of_all_lengths():
    _, _, batches = make(["ab"], boundaries=False)
    # So long that rounding is of no account.
    batches.maxlen = 3 * 10**200
    shares = [0.0, 1.0]
    for n in range(1, 200):
        batches.epoch = n - 1
        shares.append(np.log10(batches._window_length() / 3) / 200)
        assert np.diff(sorted(shares)).max() < 1.9 / n


def test_number_of_batches_is_constant_and_sizes_are_even():
    _, _, batches = make(["abcdefghij" * 9, "klm"], boundaries=False, batch_size=5)
    for _ in range(10):
        sizes = [len(inputs) for inputs, _ in batches]
        assert len(sizes) == len(batches) == 5
        assert max(sizes) - min(sizes) <= 1


def test_a_share_of_the_history_is_unknown():
    vocabulary, _, batches = make(["abcdefghij" * 1000], boundaries=False, maxlen=10)
    inputs = np.concatenate([np.ravel(inputs[:, 1:]) for inputs, _ in batches])
    share = np.mean(inputs == vocabulary.unknown)
    assert 0.5 * _windows.UNKNOWN_SHARE < share < 2 * _windows.UNKNOWN_SHARE


def test_same_seed_same_batches():
    runs = [windows_of(make(["abcdefghij"] * 5, boundaries=True)[2]) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0] != windows_of(make(["abcdefghij"] * 5, boundaries=True, seed=1)[2])


def test_an_epoch_depends_on_its_number_and_not_on_those_before():
    _, _, batches = make(["abcdefghij"] * 5, boundaries=True)
    epochs = [windows_of(batches) for _ in range(3)]
    assert epochs[0] != epochs[1]
    _, _, batches = make(["abcdefghij"] * 5, boundaries=True)
    batches.epoch = 2
    assert windows_of(batches) == epochs[2]
    assert batches.epoch == 3


def test_an_unknown_token_is_history_and_no_target():
    vocabulary, _, batches = make(["axb"], boundaries=False, alphabet=["ab"])
    [(inputs, (targets, _))] = batches
    assert targets.tolist() == [[0, IGNORE, 1]]
    assert inputs[0, 0] == vocabulary.cut
    assert inputs[0, 2] == vocabulary.unknown


def test_unknown_targets_have_no_weight():
    weights = [1.0, 3.0]
    _, _, batches = make(
        ["aaxx", "bb"], boundaries=False, sample_weight=weights, alphabet=["ab"]
    )
    total = sum(
        np.dot((targets != IGNORE).sum(axis=1), weight)
        for _, (targets, weight) in batches
    )
    assert total == pytest.approx(4)


def test_every_window_has_the_weight_of_its_text():
    texts, weights = ["aaaaaaaaaa", "", "bbb", "c"], [1.0, 7.0, 4.0, 3.0]
    _, _, batches = make(texts, boundaries=False, sample_weight=weights)
    total = n_targets = 0
    by_token = dict(zip(range(3), np.array([1, 4, 3]) * 14 / 25, strict=True))
    for _, (targets, weight_of_window) in batches:
        assert weight_of_window.dtype == np.float32
        expected = [by_token[token] for token in targets[:, 0].tolist()]
        np.testing.assert_allclose(weight_of_window, expected, rtol=1e-6)
        n = (targets != IGNORE).sum(axis=1)
        total += np.dot(n, weight_of_window)
        n_targets += n.sum()
    assert n_targets == 14
    assert total == pytest.approx(n_targets)


def test_histories_of_targets():
    # Every token is there once: an id tells the place.
    texts = ["abcdefghijklmnopq"]
    vocabulary = Vocabulary(texts, "char", True)
    encoded = vocabulary.encode(texts)
    places, weights = np.arange(18), np.ones(1)
    assert encoded.ids.tolist() == places.tolist()
    estimates = KneserNey(encoded, weights, vocabulary)
    batches = WindowBatches(
        encoded,
        weights,
        vocabulary,
        maxlen=12,
        batch_size=2,
        seed=0,
        smoothing=True,
    )
    for inputs, (targets, _, nodes, beyond, n_discounted) in batches:
        assert n_discounted == estimates.n_discounted(nodes)
        for row, first in enumerate(inputs[:, 0]):
            tokens = targets[row][targets[row] != IGNORE]
            n_before = np.arange(len(tokens)) + (first == vocabulary.bos)
            expected = estimates.nodes(tokens, n_before)
            np.testing.assert_array_equal(nodes[row][: len(tokens)], expected)
            np.testing.assert_array_equal(beyond[row][: len(tokens)], n_before >= ORDER)


def test_blocks_change_nothing(monkeypatch):
    texts = ["abc", "", "ab" * 40, "c", "bca" * 5]
    blocks = []
    for max_targets in (1, 20, 2**14):
        monkeypatch.setattr(_windows, "MAX_TARGETS", max_targets)
        _, _, batches = make(texts, boundaries=True)
        blocks.append([[inputs, *y] for inputs, y in batches])
    for batches in blocks[:2]:
        for one, other in zip(batches, blocks[2], strict=True):
            for array, expected in zip(one, other, strict=True):
                np.testing.assert_array_equal(array, expected)


def test_short_texts_beside_a_long_one_take_little_memory():
    texts = ["abc"] * 5000 + ["abcd" * 250]
    _, _, batches = make(texts, boundaries=False, maxlen=1000, batch_size=32)
    tracemalloc.start()
    for _ in batches:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20

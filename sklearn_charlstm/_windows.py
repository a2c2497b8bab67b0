"""Encoded texts to training batches for truncated backpropagation."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_charlstm._smoothing import ORDER, KneserNey
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["IGNORE", "WindowBatches"]

# The target at positions that the loss leaves out.
IGNORE = -100

# The share of input tokens replaced by <unk>: its embedding is trained although every
# token of the training texts is in the alphabet.
UNKNOWN_SHARE = 0.02

# Windows of this length, if `maxlen` is no less, are the shortest. What follows one
# or two tokens decides short texts, and is rarely seen in longer windows.
SHORTEST_WINDOW = 3
GOLDEN_RATIO = (5**0.5 - 1) / 2

_Batch = tuple[NDArray[np.int64], tuple[Any, ...]]


class WindowBatches:
    """The training texts as shuffled batches of windows, anew in each epoch.

    A text of at most `maxlen` targets stays whole. A longer one is cut into consecutive
    windows from a random offset, of a length that is another in every epoch, up to
    `maxlen`. So each token is a target once in every pass, each time with another
    length of history. One pass is one epoch. The number of batches is the same in
    each, and their sizes differ by at most one window.

    Parameters
    ----------
    encoded : EncodedTexts
        With at least one token of the alphabet.
    sample_weight : ndarray of shape (n_texts,)
        Weights of the texts; only their ratios count.
    vocabulary : Vocabulary
    maxlen : int
        Longest window, in targets.
    batch_size : int
        Windows in a batch where they are of `maxlen` targets. Of shorter ones there
        are as many more.
    seed : int
        An epoch is drawn from the seed and its number, whatever came before.
    epoch : int
        Number of the first epoch.
    smoothing : bool
        Whether to say by which histories a target is smoothed.

    Yields
    ------
    inputs : ndarray of shape (n_windows, longest window), int64
    targets, weights : tuple of ndarrays
        Of the shape of `inputs`, int64, and of shape (n_windows,), float32. The target
        at position t follows the inputs up to and including t. Padded targets, and
        unknown ones, whose probability is fixed, are `IGNORE`. The mean weight of a
        target is one in each epoch. With `smoothing` there are three more parts, of
        which `Estimates` computes how likely each token is there: the histories that
        the window shows of the targets, int64, where it shows more than the estimates
        use, bool, both of the shape of `inputs`, and the list of `KneserNey.n_kept`.
    """

    def __init__(
        self,
        encoded: EncodedTexts,
        sample_weight: NDArray[Any],
        vocabulary: Vocabulary,
        *,
        maxlen: int,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        smoothing: bool = False,
    ) -> None:
        ids, lengths = encoded
        self.ids = ids
        self.lengths = lengths[lengths > 0]
        self.starts = np.cumsum(self.lengths) - self.lengths
        n_targets = lengths - encoded.count_of(vocabulary.unknown)
        # By the largest first: the sum of weights may be beyond all numbers.
        weights = sample_weight / sample_weight.max()
        weights *= n_targets.sum() / np.dot(weights, n_targets)
        self.weights = weights[lengths > 0].astype(np.float32)
        self.vocabulary = vocabulary
        self.maxlen = maxlen
        self.seed = seed
        self.epoch = epoch
        expected_windows = np.ceil(self.lengths / maxlen).sum()
        self.n_batches = max(1, round(expected_windows / batch_size))
        self.estimates = KneserNey(encoded, weights, vocabulary) if smoothing else None

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[_Batch]:
        for inputs, targets, text, places in self._windows():
            y: tuple[Any, ...] = (targets, self.weights[text])
            if self.estimates is not None:
                # A window that begins in the middle of a text does not know <bos>.
                knows_bos = inputs[:, :1] == self.vocabulary.bos
                n_before = np.arange(inputs.shape[1]) + knows_bos
                nodes = self.estimates.nodes(places, n_before)
                y += (nodes, n_before >= ORDER, self.estimates.n_kept(nodes))
            yield inputs, y

    def with_texts(self) -> Iterator[tuple[NDArray[np.int64], ...]]:
        """Yield the inputs, the targets and the number of the text of every window.

        Texts without a token are not counted.
        """
        for inputs, targets, text, _ in self._windows():
            yield inputs, targets, text

    def _windows(self) -> Iterator[tuple[NDArray[np.int64], ...]]:
        """Yield that and the places of the targets in the ids of all texts."""
        rng = np.random.default_rng([self.seed, self.epoch])
        length = self._window_length()
        first = np.where(
            self.lengths <= self.maxlen,
            self.lengths,
            rng.integers(1, length, size=len(self.lengths), endpoint=True),
        )
        # Window 0 of a text is [0, first), window 1 begins at first. Where they are is
        # computed batch by batch: for much text it takes more memory than the text.
        n_windows = 1 + -(-(self.lengths - first) // length)
        ends = np.cumsum(n_windows)
        self.epoch += 1
        for windows in np.array_split(rng.permutation(ends[-1]), self.n_batches):
            text = np.searchsorted(ends, windows, side="right")
            number = windows - (ends - n_windows)[text]
            begin = np.where(number == 0, 0, first[text] + (number - 1) * length)
            end = np.minimum(first[text] + number * length, self.lengths[text])
            inputs, targets, places = self._batch(
                self.starts[text] + begin, end - begin, begin == 0, rng
            )
            yield inputs, targets, text, places

    def _window_length(self) -> int:
        # Multiples of the golden ratio, less their integers, are spread evenly over
        # [0, 1) however many they are; so are here the logarithms of the lengths.
        shortest = min(SHORTEST_WINDOW, self.maxlen)
        share = (self.epoch + 1) * GOLDEN_RATIO % 1
        return round(shortest * (self.maxlen / shortest) ** share)

    def _batch(
        self,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        begins_text: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.int64], ...]:
        steps = np.arange(lengths.max())
        inside = steps < lengths[:, None]
        # The padding repeats the last target: any place that there is.
        places = starts[:, None] + np.minimum(steps, lengths[:, None] - 1)
        ids = self.ids[places].astype(np.int64)
        is_target = inside & (ids != self.vocabulary.unknown)
        targets = np.where(is_target, ids, IGNORE)
        inputs = np.empty_like(targets)
        inputs[:, 0] = np.where(
            begins_text, self.vocabulary.first_input, self.vocabulary.cut
        )
        history = self.vocabulary.as_inputs(ids[:, :-1])
        blanked = rng.random(history.shape, dtype=np.float32) < UNKNOWN_SHARE
        inputs[:, 1:] = np.where(blanked, self.vocabulary.unknown, history)
        return inputs, targets, places

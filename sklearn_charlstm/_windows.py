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

# Targets, with padding, whose windows are made together.
MAX_TARGETS = 2**14

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

    Attributes
    ----------
    ids : ndarray of shape (n_tokens,), unsigned integer
        Of all texts.
    lengths, starts, weights : ndarrays
        Of the texts that have a token: how many, where they start, and the weight of
        each of its targets, float32.
    seed : int
    epoch : int
        Number of the next epoch.
    estimates : KneserNey or None
        What was counted, with `smoothing`.

    Yields
    ------
    inputs : ndarray of shape (n_windows, longest window), int64
    targets, weights : tuple of ndarrays
        Of the shape of `inputs`, int64, and of shape (n_windows,), float32. The target
        at position t follows the inputs up to and including t. Padded targets, and
        unknown ones, whose probability is fixed, are `IGNORE`. The mean weight of a
        target is one in each epoch. With `smoothing` there are three more parts, of
        which `SoftTargets` computes how likely each token is there: the histories that
        the window shows of the targets, int64, where it shows more than the estimates
        use, bool, both of the shape of `inputs`, and the list of
        `KneserNey.n_discounted`.
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
        # Texts without a target may have any: scaled they could be infinite.
        weights[n_targets == 0] = 0
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
        for (inputs, targets, text), places, sizes in self._blocks():
            arrays = [inputs, targets, self.weights[text]]
            if self.estimates is None:
                for batch, *y in _cut(arrays, sizes):
                    yield batch, tuple(y)
                continue
            # A window that begins in the middle of a text does not know <bos>.
            knows_bos = inputs[:, :1] == self.vocabulary.bos
            n_before = np.arange(inputs.shape[1]) + knows_bos
            arrays += [self.estimates.nodes(places, n_before), n_before >= ORDER]
            for batch, *y, nodes, beyond in _cut(arrays, sizes):
                n_discounted = self.estimates.n_discounted(nodes)
                yield batch, (*y, nodes, beyond, n_discounted)

    def with_texts(self) -> Iterator[tuple[NDArray[np.int64], ...]]:
        """Yield the inputs, the targets and the number of the text of every window.

        Texts without a token are not counted.
        """
        for block, _, sizes in self._blocks():
            yield from _cut(block, sizes)

    def _blocks(self) -> Iterator[tuple[list[NDArray[np.int64]], Any, Any]]:
        """Yield the windows of some batches together.

        Yields
        ------
        block : list of ndarrays
            As of `with_texts`, padded to the longest window of all.
        places : ndarray of the shape of the inputs
            Of the targets in the ids of all texts.
        sizes : list of tuples of int
            Number of windows and longest window of each batch.
        """
        rng = np.random.default_rng([self.seed, self.epoch])
        length = self._window_length()
        first = np.where(
            self.lengths <= self.maxlen,
            self.lengths,
            rng.integers(1, length, size=len(self.lengths), endpoint=True),
        )
        # Window 0 of a text is [0, first), window 1 begins at first. Where they are is
        # computed block by block: for much text it takes more memory than the text.
        n_windows = 1 + -(-(self.lengths - first) // length)
        ends = np.cumsum(n_windows)
        self.epoch += 1
        order = rng.permutation(ends[-1])
        borders = _borders(len(order), self.n_batches)
        # Padded to the longest.
        n_padded = len(order) * min(self.maxlen, int(self.lengths.max()))
        of_block = max(1, MAX_TARGETS * self.n_batches // n_padded)
        for batch in range(0, self.n_batches, of_block):
            borders_of_block = borders[batch : batch + of_block + 1]
            windows = order[borders_of_block[0] : borders_of_block[-1]]
            text = np.searchsorted(ends, windows, side="right")
            number = windows - (ends - n_windows)[text]
            begin = np.where(number, first[text] + (number - 1) * length, 0)
            end = np.minimum(first[text] + number * length, self.lengths[text])
            n_targets = end - begin
            begins = borders_of_block[:-1] - borders_of_block[0]
            longest = np.maximum.reduceat(n_targets, begins)
            sizes = list(zip(np.diff(borders_of_block), longest, strict=True))
            inputs, targets, places = self._read(
                self.starts[text] + begin, n_targets, begin == 0, sizes, rng
            )
            yield [inputs, targets, text], places, sizes

    def _window_length(self) -> int:
        # Multiples of the golden ratio, less their integers, are spread evenly over
        # [0, 1) however many they are; so are here the logarithms of the lengths.
        shortest = min(SHORTEST_WINDOW, self.maxlen)
        share = (self.epoch + 1) * GOLDEN_RATIO % 1
        return round(shortest * (self.maxlen / shortest) ** share)

    def _read(
        self,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        begins_text: NDArray[np.bool_],
        sizes: list[tuple[int, int]],
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
        inputs[:, 1:] = self.vocabulary.as_inputs(ids[:, :-1])
        for (batch,), (n_windows, n_steps) in zip(
            _cut([inputs], sizes), sizes, strict=True
        ):
            drawn = rng.random((n_windows, n_steps - 1), dtype=np.float32)
            batch[:, 1:][drawn < UNKNOWN_SHARE] = self.vocabulary.unknown
        return inputs, targets, places


def _borders(n: int, n_parts: int) -> NDArray[np.int64]:
    """Return where parts of n things begin and end, the larger ones first."""
    size, n_larger = divmod(n, n_parts)
    return np.append(0, np.cumsum(size + (np.arange(n_parts) < n_larger)))


def _cut(
    block: list[NDArray[Any]], sizes: list[tuple[int, int]]
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Cut the batches out of arrays of the windows of several."""
    begin = 0
    for n_windows, n_steps in sizes:
        end = begin + n_windows
        yield tuple(
            part[begin:end, :n_steps] if part.ndim > 1 else part[begin:end]
            for part in block
        )
        begin = end

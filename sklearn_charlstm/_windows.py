"""Encoded texts to training batches for truncated backpropagation."""

# SPDX-License-Identifier: BSD-3-Clause

import numpy as np

__all__ = ["IGNORE", "WindowBatches", "targets_of"]

# The target at padded positions, which the loss leaves out.
IGNORE = -100

# The share of input tokens replaced by <unk>, so that its embedding is trained
# although every token of the training texts is in the alphabet.
UNKNOWN_SHARE = 0.01


def targets_of(encoded, vocabulary, boundaries):
    """Append the end of text to every text, where boundaries count.

    Parameters
    ----------
    encoded : EncodedTexts
    vocabulary : Vocabulary
    boundaries : bool

    Returns
    -------
    targets : EncodedTexts
        What the model has to predict, text after text.
    """
    if not boundaries:
        return encoded
    ends = np.cumsum(encoded.lengths)
    ids = np.insert(encoded.ids, ends, vocabulary.eos)
    return encoded._replace(ids=ids, lengths=encoded.lengths + 1)


class WindowBatches:
    """The training texts as shuffled batches of windows, anew in each epoch.

    Every text is cut into consecutive windows of `maxlen` targets from a random
    offset; a text of at most `maxlen` targets stays whole. So each token is a target
    once in every pass, each time with another length of history. One pass is one
    epoch. The number of batches is the same in each, and their sizes differ by at
    most one window.

    Parameters
    ----------
    targets : EncodedTexts
        As from `targets_of`, with at least one id.
    vocabulary : Vocabulary
    boundaries : bool
        Whether the beginning of a text is evidence: its first window then starts
        with <bos> and not with <cut>.
    maxlen : int
        Longest window, in targets.
    batch_size : int
        Windows in a batch, on average.
    seed : int

    Yields
    ------
    inputs, targets : ndarray of shape (n_windows, longest window), int64
        The target at position t follows the inputs up to and including t. Padded
        targets are `IGNORE`.
    """

    def __init__(self, targets, vocabulary, *, boundaries, maxlen, batch_size, seed):
        self.ids = targets.ids
        self.lengths = targets.lengths[targets.lengths > 0]
        self.vocabulary = vocabulary
        self.first_input = vocabulary.bos if boundaries else vocabulary.cut
        self.maxlen = maxlen
        self.rng = np.random.default_rng(seed)
        expected_windows = np.ceil(self.lengths / maxlen).sum()
        self.n_batches = max(1, round(expected_windows / batch_size))

    def __len__(self):
        return self.n_batches

    def __iter__(self):
        starts, lengths, begins_text = self._cut()
        order = self.rng.permutation(len(starts))
        for rows in np.array_split(order, self.n_batches):
            yield self._batch(starts[rows], lengths[rows], begins_text[rows])

    def _cut(self):
        first = np.where(
            self.lengths <= self.maxlen,
            self.lengths,
            self.rng.integers(1, self.maxlen, size=len(self.lengths), endpoint=True),
        )
        n_windows = 1 + -(-(self.lengths - first) // self.maxlen)
        text = np.repeat(np.arange(len(n_windows)), n_windows)
        index = np.arange(len(text)) - np.repeat(
            np.cumsum(n_windows) - n_windows, n_windows
        )
        # Positions within the text: window 0 is [0, first), window 1 begins at first.
        begin = np.maximum(first[text] + (index - 1) * self.maxlen, 0)
        begin[index == 0] = 0
        end = np.minimum(first[text] + index * self.maxlen, self.lengths[text])
        text_start = np.cumsum(self.lengths) - self.lengths
        return text_start[text] + begin, end - begin, index == 0

    def _batch(self, starts, lengths, begins_text):
        steps = np.arange(lengths.max())
        inside = steps < lengths[:, None]
        positions = np.where(inside, starts[:, None] + steps, 0)
        targets = np.where(inside, self.ids[positions].astype(np.int64), IGNORE)
        inputs = np.empty_like(targets)
        inputs[:, 0] = np.where(begins_text, self.first_input, self.vocabulary.cut)
        history = self.ids[positions[:, :-1]]
        unknown = self.rng.random(history.shape, dtype=np.float32) < UNKNOWN_SHARE
        inputs[:, 1:] = np.where(unknown, self.vocabulary.unknown, history)
        return inputs, targets

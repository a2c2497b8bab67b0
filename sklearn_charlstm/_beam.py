"""First looks at texts, which tell the classes that are worth reading them."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute
from sklearn_charlstm._networks import Model, Networks
from sklearn_charlstm._prefixes import distinct_numbers
from sklearn_charlstm._reading import in_threads
from sklearn_charlstm._scoring import (
    distinct_texts,
    followed_log_likelihood,
    groups_that_follow,
)
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["beam_log_likelihood", "look"]

# Tokens that are looked at together, which bounds the memory that it takes.
MAX_TOKENS = 2**18

# So many logits take about as long as a token that is read.
LOGITS_OF_TOKEN = 2**11


def beam_log_likelihood(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    *,
    beam: float,
    offsets: NDArray[np.float64],
    n_jobs: int | None = None,
) -> NDArray[np.float64]:
    """Compute log p(text) under the models that look likely at first.

    Beam pruning [1]_, with fast matches [2]_ before the search: passes of which each
    sees more [3]_. By a first look the first network of a model, which sees one token
    of the history, must find it within `beam` of the best; by a second, which sees two,
    within three quarters of `beam`; then all its networks read the text. A look costs
    as much as to read each different history once. Where no other model is within the
    beam, none reads on: it is decided.

    Parameters
    ----------
    models, encoded, vocabulary, compute, n_jobs
        As of `text_log_likelihood`.
    beam : float
        In nats.
    offsets : ndarray of shape (n_texts, n_models)
        What the models are ahead by before they read, in nats: the same for equal
        texts.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats; -inf under the models that fell out of the beam. Under one that was
        alone within it: that of the pass that left it alone.

    References
    ----------
    .. [1] B. Lowerre, "The Harpy speech recognition system", PhD thesis, Carnegie
       Mellon University, 1976.
    .. [2] L. Bahl, S. De Gennaro, P. Gopalakrishnan and R. Mercer, "A fast approximate
       acoustic match for large vocabulary speech recognition", IEEE Transactions on
       Speech and Audio Processing 1(1), 1993.
    .. [3] R. Schwartz, L. Nguyen and J. Makhoul, "Multiple-pass search strategies",
       in: Automatic Speech and Speaker Recognition, Kluwer, 1996.
    """
    rows, number = distinct_texts(encoded)
    distinct, offsets = encoded.take(rows), offsets[rows]
    first = [model.first_network() for model in models]
    everywhere = np.ones((len(rows), len(models)), dtype=bool)
    log_likelihood = look(
        first, distinct, vocabulary, compute, everywhere, n_jobs, n_history=1
    )
    for width, read in (
        (beam, partial(look, first, n_history=2)),
        (0.75 * beam, partial(followed_log_likelihood, models)),
    ):
        scores = log_likelihood + offsets
        within = scores >= scores.max(axis=1, keepdims=True) - width
        log_likelihood[~within] = -np.inf
        is_open = within.sum(axis=1) > 1
        log_likelihood[is_open] = read(
            distinct.where(is_open), vocabulary, compute, within[is_open], n_jobs
        )
    return log_likelihood[number]


def look(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    followed: NDArray[np.bool_],
    n_jobs: int | None,
    *,
    n_history: int,
) -> NDArray[np.float64]:
    """Compute log p(text) where the models see some tokens of the history only.

    What a model expects after them is computed once, however much text there is.

    Parameters
    ----------
    models, encoded, vocabulary, compute, n_jobs
        As of `text_log_likelihood`.
    followed : ndarray of shape (n_texts, n_models), bool
        Which models look at which texts.
    n_history : int
        Tokens that are seen.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats; -inf where a model does not look at a text.
    """
    ids, lengths = encoded
    ends = np.cumsum(lengths)
    starts = ends - lengths
    log_likelihood = np.where(followed.T, 0, -np.inf)
    for begin in range(0, len(ids), MAX_TOKENS):
        places = np.arange(begin, min(begin + MAX_TOKENS, len(ids)))
        text = np.searchsorted(ends, places, side="right")
        n_before = np.minimum(places - starts[text], n_history)
        windows = _Windows.at(ids, places, n_before)
        texts = slice(text[0], text[-1] + 1)
        # In a text without a token there is nothing to look at.
        looked_at = followed[texts] & (lengths[texts, None] > 0)
        sums = partial(
            _sums,
            models=models,
            windows=windows,
            text=text - text[0],
            followed=looked_at,
            common=vocabulary,
            compute=compute,
        )
        n_windows = windows.n_distinct
        groups = groups_that_follow(
            models, lengths[texts], looked_at, compute, n_windows
        )
        n_outputs = np.mean([model.vocabulary.n_outputs for model in models])
        n_tokens = int(n_windows * n_outputs) // LOGITS_OF_TOKEN
        with in_threads(n_jobs, max(1, len(groups)), n_tokens) as each:
            for group, of_group in zip(groups, each(sums, groups), strict=True):
                log_likelihood[group, texts] += of_group
    return log_likelihood.T


class _Windows(NamedTuple):
    """What is seen at places of texts: a token and some of those before it.

    Attributes
    ----------
    tokens : ndarray of shape (n_tokens,), integer
        The different ones.
    of_lengths : list of ndarrays of shape (n_windows, n_seen), integer
        For each number of tokens that are seen the different windows, of places in
        `tokens`.
    which : ndarray of shape (n_places,), integer
        Which window there is, of those of all lengths.
    """

    tokens: NDArray[Any]
    of_lengths: list[NDArray[np.int64]]
    which: NDArray[np.int64]

    @classmethod
    def at(
        cls, ids: NDArray[Any], places: NDArray[np.int64], n_before: NDArray[np.int64]
    ) -> Self:
        """Find them where so many tokens are seen before each place."""
        begin = max(0, places[0] - n_before.max())
        seen = ids[begin : places[-1] + 1].astype(np.int64)
        one, number = distinct_numbers(seen, int(seen.max()) + 1)
        tokens = seen[one]
        of_lengths, which = [], np.empty_like(places)
        n_windows = 0
        for length in range(n_before.max() + 1):
            [chosen] = np.nonzero(n_before == length)
            if not len(chosen):
                continue
            last = places[chosen] - begin
            columns = [number[last - back] for back in range(length, -1, -1)]
            codes = np.ravel_multi_index(columns, [len(tokens)] * len(columns))
            one, window = distinct_numbers(codes, len(tokens) ** len(columns))
            of_lengths.append(np.stack(columns, axis=1)[one])
            which[chosen] = n_windows + window
            n_windows += len(one)
        return cls(tokens, of_lengths, which)

    @property
    def n_distinct(self) -> int:
        """How many different ones there are."""
        return sum(map(len, self.of_lengths))

    def at_some(self, chosen: NDArray[np.int64]) -> Self:
        """Return what is seen at some of the places."""
        which = self.which[chosen]
        is_seen = np.zeros(self.n_distinct, dtype=bool)
        is_seen[which] = True
        ends = np.cumsum([*map(len, self.of_lengths)])
        of_lengths = [
            windows[seen]
            for windows, seen in zip(
                self.of_lengths, np.split(is_seen, ends[:-1]), strict=True
            )
            if seen.any()
        ]
        is_there = np.zeros(len(self.tokens), dtype=bool)
        for windows in of_lengths:
            is_there[windows] = True
        number = np.cumsum(is_there) - 1
        return type(self)(
            self.tokens[is_there],
            [number[windows] for windows in of_lengths],
            (np.cumsum(is_seen) - 1)[which],
        )


def _sums(
    group: list[int],
    models: Sequence[Model],
    windows: _Windows,
    text: NDArray[np.int64],
    followed: NDArray[np.bool_],
    common: Vocabulary,
    compute: Compute,
) -> NDArray[np.float64]:
    """Add up what models find at the places of the texts that they follow.

    Returns
    -------
    sums : ndarray of shape (n_models of the group, n_texts), float64
    """
    is_followed = followed[:, group[0]]
    if not is_followed.all():
        chosen = np.flatnonzero(is_followed[text])
        text, windows = text[chosen], windows.at_some(chosen)
    scores = _score_windows([models[k] for k in group], windows, common, compute)
    return np.stack(
        [
            np.bincount(text, of_model[windows.which], len(followed))
            for of_model in scores
        ]
    )


@torch.inference_mode()
def _score_windows(
    models: Sequence[Model], windows: _Windows, common: Vocabulary, compute: Compute
) -> NDArray[np.float64]:
    """Compute log p(last token | the others) of the different windows.

    Returns
    -------
    log_likelihood : ndarray of shape (n_models, n_windows), float64
    """
    networks = Networks(models, common, windows.tokens, compute)
    return np.hstack([networks.read_windows(part) for part in windows.of_lengths])

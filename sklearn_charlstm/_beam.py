"""First looks at texts, which tell the classes that are worth reading them."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, reproducibly
from sklearn_charlstm._networks import Model, Networks
from sklearn_charlstm._prefixes import distinct_numbers
from sklearn_charlstm._scoring import (
    distinct_texts,
    followed_log_likelihood,
    groups_that_follow,
)
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["beam_log_likelihood", "look"]

# Tokens that are looked at together, which bounds the memory that it takes.
MAX_TOKENS = 2**18


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
    log_likelihood = look(first, distinct, vocabulary, compute, everywhere, n_history=1)
    for width, read in (
        (beam, partial(look, first, n_history=2)),
        (0.75 * beam, partial(followed_log_likelihood, models, n_jobs=n_jobs)),
    ):
        scores = log_likelihood + offsets
        within = scores >= scores.max(axis=1, keepdims=True) - width
        log_likelihood[~within] = -np.inf
        is_open = within.sum(axis=1) > 1
        log_likelihood[is_open] = read(
            distinct.where(is_open), vocabulary, compute, within[is_open]
        )
    return log_likelihood[number]


@reproducibly()
def look(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    followed: NDArray[np.bool_],
    *,
    n_history: int,
) -> NDArray[np.float64]:
    """Compute log p(text) where the models see some tokens of the history only.

    What a model expects after them is computed once, however much text there is. There
    is so little to compute that threads would wait for each other.

    Parameters
    ----------
    models, encoded, vocabulary, compute
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
        text -= text[0]
        n_texts = text[-1] + 1
        for group in groups_that_follow(
            models, lengths[texts], followed[texts], compute, windows.n_distinct
        ):
            is_followed = followed[texts, group[0]]
            chosen: Any = slice(None)
            if not is_followed.all():
                chosen = np.flatnonzero(is_followed[text])
            of_group = [models[k] for k in group]
            which = windows.which[chosen]
            scores = _score_windows(of_group, windows, which, vocabulary, compute)
            for k, of_model in zip(group, scores, strict=True):
                log_likelihood[k, texts] += np.bincount(
                    text[chosen], of_model[which], n_texts
                )
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


@torch.inference_mode()
def _score_windows(
    models: Sequence[Model],
    windows: _Windows,
    which: NDArray[np.int64],
    common: Vocabulary,
    compute: Compute,
) -> NDArray[np.float64]:
    """Compute log p(last token | the others) of some windows.

    Returns
    -------
    log_likelihood : ndarray of shape (n_models, n_windows), float64
        0 for those that are not asked for.
    """
    is_asked = np.zeros(windows.n_distinct, dtype=bool)
    is_asked[which] = True
    networks = Networks(models, common, windows.tokens, compute)
    log_likelihood = np.zeros((len(models), len(is_asked)))
    n_before = 0
    for of_length in windows.of_lengths:
        asked = np.flatnonzero(is_asked[n_before : n_before + len(of_length)])
        if len(asked):
            scores = networks.read_windows(of_length[asked])
            log_likelihood[:, n_before + asked] = scores
        n_before += len(of_length)
    return log_likelihood

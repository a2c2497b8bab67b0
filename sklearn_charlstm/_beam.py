"""First looks at texts, which tell the classes that are worth reading them."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute
from sklearn_charlstm._networks import Model, Networks
from sklearn_charlstm._reading import Map, in_threads, side_by_side
from sklearn_charlstm._scoring import (
    distinct_log_likelihood,
    distinct_texts,
    followed_log_likelihood,
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
    with in_threads(n_jobs, len(models), len(distinct.ids)) as each:
        log_likelihood = look(first, distinct, vocabulary, compute, each, n_history=1)
    for readers, width, read in (
        (first, beam, partial(look, n_history=2)),
        (models, 0.75 * beam, distinct_log_likelihood),
    ):
        scores = log_likelihood + offsets
        within = scores >= scores.max(axis=1, keepdims=True) - width
        is_alone = within & (within.sum(axis=1, keepdims=True) == 1)
        followed = within & ~is_alone
        scores = followed_log_likelihood(
            readers, distinct, vocabulary, compute, n_jobs, followed, read
        )
        log_likelihood = np.where(is_alone, log_likelihood, scores)
    return log_likelihood[number]


def look(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    each: Map,
    *,
    n_history: int,
) -> NDArray[np.float64]:
    """Compute log p(text) where the models see some tokens of the history only.

    What a model expects after them is computed once, however much text there is.

    Parameters
    ----------
    models, encoded, vocabulary, compute
        As of `text_log_likelihood`.
    each : callable
        A `map`, as of `in_threads`.
    n_history : int
        Tokens that are seen.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats.
    """
    ids, lengths = encoded
    ends = np.cumsum(lengths)
    starts = ends - lengths
    log_likelihood = np.zeros((len(lengths), len(models)))
    for begin in range(0, len(ids), MAX_TOKENS):
        places = np.arange(begin, min(begin + MAX_TOKENS, len(ids)))
        text = np.searchsorted(ends, places, side="right")
        tokens = np.unique(ids[max(0, begin - n_history) : places[-1] + 1])
        n_before = np.minimum(places - starts[text], n_history)
        windows, window = [], np.empty_like(places)
        n_windows = 0
        for length in range(n_history + 1):
            [chosen] = np.nonzero(n_before == length)
            if not len(chosen):
                continue
            columns = [
                np.searchsorted(tokens, ids[places[chosen] - back])
                for back in range(length, -1, -1)
            ]
            codes = np.ravel_multi_index(columns, [len(tokens)] * len(columns))
            _, one, pair = np.unique(codes, return_index=True, return_inverse=True)
            windows.append(np.stack(columns, axis=1)[one])
            window[chosen] = n_windows + pair
            n_windows += len(one)
        score = partial(
            _score_windows,
            common=vocabulary,
            tokens=tokens,
            windows=windows,
            compute=compute,
        )
        parts = side_by_side(models, n_windows, compute)
        groups = [models[part] for part in parts]
        for k, scores in enumerate(chain.from_iterable(each(score, groups))):
            sums = np.bincount(text - text[0], weights=scores[window])
            log_likelihood[text[0] : text[0] + len(sums), k] += sums
    return log_likelihood


@torch.inference_mode()
def _score_windows(
    models: Sequence[Model],
    common: Vocabulary,
    tokens: NDArray[Any],
    windows: list[NDArray[np.int64]],
    compute: Compute,
) -> NDArray[np.float64]:
    networks = Networks(models, common, tokens, compute)
    return np.hstack([networks.read_windows(of_length) for of_length in windows])

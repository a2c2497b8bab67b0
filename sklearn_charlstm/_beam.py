"""A first look at texts, which tells the classes that are worth a second one."""

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
from sklearn_charlstm._scoring import (
    distinct_texts,
    followed_log_likelihood,
    in_threads,
    side_by_side,
)
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["beam_log_likelihood", "first_look"]

# Tokens that are looked at together, which bounds the memory that it takes.
MAX_TOKENS = 2**20


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

    Beam pruning [1]_, with a fast match [2]_ before the search, in passes of which each
    sees more [3]_: the first network of a model reads a text if by `first_look` the
    model is within `beam` of the best, and all its networks do if by that first one it
    is within half of `beam`. A look costs as much as to read each different token once.
    Where no other model is within the beam, none reads on: it is decided.

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
    alone = [model.first_network() for model in models]
    log_likelihood = first_look(alone, distinct, vocabulary, compute, n_jobs)
    passes = [(alone, beam), (models, beam / 2)]
    if models[0].module_params["n_networks"] == 1:
        passes.pop()
    for readers, width in passes:
        scores = log_likelihood + offsets
        within = scores >= scores.max(axis=1, keepdims=True) - width
        is_alone = within & (within.sum(axis=1, keepdims=True) == 1)
        read = followed_log_likelihood(
            readers, distinct, vocabulary, compute, n_jobs, within & ~is_alone
        )
        log_likelihood = np.where(is_alone, log_likelihood, read)
    return log_likelihood[number]


def first_look(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    n_jobs: int | None = None,
) -> NDArray[np.float64]:
    """Compute log p(text) where the models see one token of the history.

    What a model expects after a token is computed once, however much text there is.

    Parameters
    ----------
    models, encoded, vocabulary, compute, n_jobs
        As of `text_log_likelihood`.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats.
    """
    ids, lengths = encoded
    ends = np.cumsum(lengths)
    starts = ends - lengths
    log_likelihood = np.zeros((len(lengths), len(models)))
    with in_threads(n_jobs, len(models), len(ids)) as each:
        for begin in range(0, len(ids), MAX_TOKENS):
            places = np.arange(begin, min(begin + MAX_TOKENS, len(ids)))
            text = np.searchsorted(ends, places, side="right")
            before = ids[places - 1]
            tokens = np.union1d(before, ids[places])
            # The first token of a text comes after none.
            number = np.where(
                places == starts[text], len(tokens), np.searchsorted(tokens, before)
            )
            codes = number * len(tokens) + np.searchsorted(tokens, ids[places])
            distinct, pair = np.unique(codes, return_inverse=True)
            look = partial(
                _score_pairs,
                common=vocabulary,
                tokens=tokens,
                pairs=np.divmod(distinct, len(tokens)),
                compute=compute,
            )
            first = text[0]
            parts = side_by_side(models, len(distinct), compute)
            groups = [models[part] for part in parts]
            for k, scores in enumerate(chain.from_iterable(each(look, groups))):
                sums = np.bincount(text - first, weights=scores[pair])
                log_likelihood[first : first + len(sums), k] += sums
    return log_likelihood


@torch.inference_mode()
def _score_pairs(
    models: Sequence[Model],
    common: Vocabulary,
    tokens: NDArray[Any],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    compute: Compute,
) -> NDArray[np.float64]:
    return Networks(models, common, tokens, compute).read_pairs(*pairs)

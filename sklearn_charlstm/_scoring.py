"""Log-likelihoods of encoded texts, token by token."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, nth_gpu, on_device, reproducibly
from sklearn_charlstm._distinct import distinct_texts
from sklearn_charlstm._model import Model
from sklearn_charlstm._reading import (
    Map,
    in_threads,
    n_gpus_that_read,
    read_in_parts,
)
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = [
    "distinct_log_likelihood",
    "text_log_likelihood",
    "token_log_likelihood",
]

_Scores = NDArray[np.float64]


@torch.inference_mode()
def token_log_likelihood(
    model: Model, encoded: EncodedTexts, compute: Compute
) -> _Scores:
    """Compute log p(token | the tokens before it) for every token of every text.

    Parameters
    ----------
    model : Model
    encoded : EncodedTexts
        By its vocabulary.
    compute : Compute

    Returns
    -------
    log_likelihood : ndarray of shape (n_tokens,), float64
        In nats, in the order of `encoded.ids`.
    """
    rows, number = distinct_texts(encoded)
    distinct = encoded.take(rows)
    starts = distinct.starts
    log_likelihood = np.empty(len(distinct.ids))
    with reproducibly():
        parts = read_in_parts([model], distinct, model.vocabulary, compute, map)
        for texts, blocks in parts:
            for steps, inside, [scores] in blocks:
                places = starts[texts][: inside.shape[1]] + steps[:, None]
                log_likelihood[places[inside]] = scores[0].cpu().numpy()
    return distinct._replace(ids=log_likelihood).take(number).ids


def text_log_likelihood(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    n_jobs: int | None = None,
) -> _Scores:
    """Compute log p(text) under several models.

    Parameters
    ----------
    models : list of n_models Model
    encoded : EncodedTexts
    vocabulary : Vocabulary
        What the texts are encoded with: the common alphabet.
    compute : Compute
    n_jobs : int or None
        Threads, where there is more to read than little: models by turns, or, where
        there are several GPUs, texts.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats.
    """
    rows, number = distinct_texts(encoded)
    distinct = encoded.take(rows)
    n_gpus = n_gpus_that_read(compute, n_jobs, distinct)

    if n_gpus > 1:
        # Neighbours begin alike.
        n_before = np.linspace(0, len(distinct.ids), n_gpus + 1)[1:-1]
        ends = np.searchsorted(distinct.ends, n_before)
        parts = np.split(np.arange(len(rows)), ends)

        def read_on(gpu: int) -> _Scores:
            texts = distinct.take(parts[gpu])
            with nth_gpu(gpu):
                return distinct_log_likelihood(models, texts, vocabulary, compute, map)

        with in_threads(n_jobs, n_gpus, len(distinct.ids)) as each:
            scores = np.vstack([*each(read_on, range(n_gpus))])
    else:
        with in_threads(n_jobs, len(models), len(distinct.ids)) as each:
            scores = distinct_log_likelihood(
                models, distinct, vocabulary, compute, each
            )
    # Those of a class one after the other: it is faster to compute over the classes.
    return scores.T.take(number, axis=1).T


@torch.inference_mode()
def distinct_log_likelihood(
    models: Sequence[Model],
    distinct: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    each: Map,
) -> _Scores:
    """Compute log p(text) of what `distinct_texts` orders, under all models.

    Parameters
    ----------
    models, vocabulary, compute
        As of `text_log_likelihood`.
    distinct : EncodedTexts
    each : callable
        A `map`, as of `in_threads`.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats.
    """
    log_likelihood = np.zeros((len(models), len(distinct.lengths)))
    for texts, blocks in read_in_parts(models, distinct, vocabulary, compute, each):
        # Where they are computed: a GPU is waited for once in a part.
        totals: list[torch.Tensor] = []
        for _, inside, of_groups in blocks:
            sums = [_padded(scores, inside).sum(1) for scores in of_groups]
            for total, more in zip(totals, sums, strict=False):
                total[:, : more.shape[1]] += more
            totals = totals or sums
        log_likelihood[:, texts] = torch.cat(totals).cpu().numpy()
    return log_likelihood.T


def _padded(scores: torch.Tensor, inside: NDArray[np.bool_]) -> torch.Tensor:
    """Put scores, of shape (n_models, n_tokens), where the tokens are, among zeros."""
    if scores.shape[1] == inside.size:
        return scores.unflatten(1, inside.shape)
    padded = scores.new_zeros(len(scores), *inside.shape)
    return padded.masked_scatter_(on_device(inside, scores.device), scores)

"""Log-likelihoods of encoded texts, token by token."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import cpu_count, effective_n_jobs
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, reproducibly
from sklearn_charlstm._networks import MAX_LOGITS, Levels, Model, Networks
from sklearn_charlstm._prefixes import PrefixTree
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = [
    "Map",
    "distinct_log_likelihood",
    "distinct_texts",
    "followed_log_likelihood",
    "in_threads",
    "side_by_side",
    "text_log_likelihood",
    "token_log_likelihood",
]

# Bounds on memory: texts read side by side, and their tokens before the scores are
# handed on. On a CPU the states of more texts do not fit into its cache.
MAX_TEXTS = 2**10
MAX_TOKENS = 2**14
MAX_STEPS = 256
# Times as many texts, tokens and logits on a GPU, which is idle with less.
ON_GPU = 16

# So many steps, of few texts with nothing in common, are left to torch's LSTM: it has
# less to do between steps and more in each. On a GPU it is left any number of texts.
MIN_STEPS = 32
FEW_TEXTS = 16

# Fewer tokens are read before threads have started.
MIN_TOKENS = 2**11

# Where there is little to read, most of the time goes into starting operations, and one
# for many networks takes little more than one for few. Values of the hidden states that
# models side by side have, over all tokens that are read together.
MAX_STATES = 2**19
MAX_STATES_ON_GPU = 2**28

_Scores = NDArray[np.float64]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
_Read = Callable[[Sequence[Model], EncodedTexts, Vocabulary, Compute, Map], _Scores]


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
    log_likelihood = np.empty(len(distinct.ids))
    with in_threads(1, 1, len(encoded.ids)) as each:
        scored = _scored([model], distinct, model.vocabulary, compute, each)
        for _, places, scores in scored:
            log_likelihood[places] = scores
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
        Threads, where there is more to read than little.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats.
    """
    rows, number = distinct_texts(encoded)
    distinct = encoded.take(rows)
    with in_threads(n_jobs, len(models), len(distinct.ids)) as each:
        scores = distinct_log_likelihood(models, distinct, vocabulary, compute, each)
    return scores[number]


def followed_log_likelihood(
    models: Sequence[Model],
    distinct: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    n_jobs: int | None,
    followed: NDArray[np.bool_],
    read: _Read,
) -> _Scores:
    """Compute log p(text) where a model reads the text.

    Parameters
    ----------
    models, vocabulary, compute, n_jobs
        As of `text_log_likelihood`.
    distinct : EncodedTexts
        In the order of `distinct_texts`.
    followed : ndarray of shape (n_texts, n_models), bool
        Which models read which texts.
    read : callable
        How they do: like `distinct_log_likelihood`.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats; -inf where a model did not read a text.
    """
    # Models that read the same texts may read them side by side.
    readers: dict[bytes, list[int]] = {}
    for k, column in enumerate(followed.T):
        if column.any():
            readers.setdefault(column.tobytes(), []).append(k)
    groups = []
    for same in readers.values():
        n_tokens = int(distinct.lengths[followed[:, same[0]]].sum())
        of_same = [models[k] for k in same]
        groups += [same[part] for part in side_by_side(of_same, n_tokens, compute)]
    log_likelihood = np.full(followed.shape, -np.inf)

    def read_group(same: list[int]) -> None:
        is_read = followed[:, same[0]]
        of_same = [models[k] for k in same]
        scores = read(of_same, distinct.where(is_read), vocabulary, compute, map)
        [texts] = np.nonzero(is_read)
        log_likelihood[texts[:, None], same] = scores

    n_read = int(distinct.lengths[followed.any(axis=1)].sum())
    with in_threads(n_jobs, len(models), n_read) as each:
        for _ in each(read_group, groups):
            pass
    return log_likelihood


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
    ends = np.cumsum(distinct.lengths)
    log_likelihood = np.zeros((len(models), len(ends)))
    seen = None
    for k, places, scores in _scored(models, distinct, vocabulary, compute, each):
        if places is not seen:
            # The same for all models.
            seen, text = places, np.searchsorted(ends, places, side="right")
        np.add.at(log_likelihood[k], text, scores)
    return np.ascontiguousarray(log_likelihood.T)


@contextmanager
def in_threads(n_jobs: int | None, n_models: int, n_tokens: int) -> Iterator[Map]:
    """Yield a `map` in threads, with torch in one thread in each.

    Parameters
    ----------
    n_jobs : int or None
    n_models : int
        That read, by themselves or side by side.
    n_tokens : int
        Of the texts that they read.
    """
    n_threads = 1
    if n_tokens >= MIN_TOKENS:
        # joblib reads files to know the number of CPUs.
        n_threads = min(effective_n_jobs(n_jobs), cpu_count(), n_models)
    # A thread begins on the first GPU, wherever its caller is.
    on_gpu: dict[str, Any] = (
        {
            "initializer": torch.cuda.set_device,
            "initargs": [torch.cuda.current_device()],
        }
        if torch.cuda.is_initialized()
        else {}
    )
    with reproducibly(), ThreadPoolExecutor(n_threads, **on_gpu) as pool:
        yield map if n_threads == 1 else pool.map


def side_by_side(
    models: Sequence[Model], n_tokens: int, compute: Compute
) -> list[slice]:
    """Part models of the same arguments into groups that read side by side.

    Parameters
    ----------
    models : list of Model
    n_tokens : int
        That each reads.
    compute : Compute
    """
    params = models[0].module_params
    n_of_token = params["n_networks"] * params["hidden_size"]
    n_tokens = max(1, n_tokens)
    if compute.device.type != "cpu":
        # More are read one part after the other.
        n_at_once = min(n_tokens, ON_GPU * MAX_TOKENS)
        size = max(1, MAX_STATES_ON_GPU // (n_at_once * n_of_token))
    elif n_tokens < MIN_TOKENS:
        size = max(1, MAX_STATES // (n_tokens * n_of_token))
    else:
        # Each thread has its models.
        size = 1
    return [slice(begin, begin + size) for begin in range(0, len(models), size)]


def distinct_texts(
    encoded: EncodedTexts,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a row of every distinct text, and the number among them of each row.

    They are in an order of their own, the longest first and those with the same
    beginning together: batches, and with them roundings, are the same in every order
    of the rows.
    """
    keys = encoded.bytes_of(slice(None))
    row = {key: row for row, key in enumerate(keys)}
    number = {
        key: number
        for number, key in enumerate(sorted(row, key=lambda key: (-len(key), key)))
    }
    rows = np.array([row[key] for key in number], dtype=np.int64)
    return rows, np.array([number[key] for key in keys], dtype=np.int64)


def _scored(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    each: Map,
) -> Iterator[tuple[int, NDArray[np.int64], _Scores]]:
    """Yield the number of a model, the places of some tokens, and their scores.

    The longest texts are first. Memory does not grow with the number and the length of
    the texts.
    """
    # Tokens by their number among those of the texts, found as they are read: texts
    # are long, an id takes a byte or two. In blocks, because a copy is sorted.
    blocks = np.array_split(encoded.ids, len(encoded.ids) // MAX_TOKENS + 1)
    tokens = np.unique(np.concatenate([np.unique(block) for block in blocks]))
    number = np.zeros(tokens.max(initial=0) + 1, dtype=np.int64)
    number[tokens] = np.arange(len(tokens))

    def token_at(places: NDArray[np.int64]) -> NDArray[np.int64]:
        return number[encoded.ids[places]]

    lengths = encoded.lengths
    starts = np.cumsum(lengths) - lengths
    n_logits = max(
        model.module_params["n_networks"] * model.vocabulary.n_outputs
        for model in models
    )
    on_cpu = compute.device.type == "cpu"
    n_times = 1 if on_cpu else ON_GPU
    max_tokens = max(1, n_times * min(MAX_TOKENS, MAX_LOGITS // n_logits))
    max_texts = min(n_times * MAX_TEXTS, max_tokens)
    with torch.inference_mode():
        groups = [
            Networks(models[group], vocabulary, tokens, compute)
            for group in side_by_side(models, len(encoded.ids), compute)
        ]
    for rows in _read_together(lengths, max_texts, max_tokens):
        of_rows = starts[rows], lengths[rows]
        tree = PrefixTree(token_at, *of_rows, first_input=len(tokens))
        for networks in groups:
            networks.start()
        done, longest = 0, of_rows[1][0]
        apart = False
        while done < longest:
            n_steps = min(longest - done, MAX_STEPS, max_tokens)
            is_few = not on_cpu or np.count_nonzero(of_rows[1] > done) <= FEW_TEXTS
            leave_apart = bool(is_few and longest - done >= MIN_STEPS)
            apart |= leave_apart and tree.are_apart
            if apart:
                step = _next_texts(token_at, *of_rows, done, n_steps, compute.device)
            else:
                step = _next_levels(
                    tree, starts[rows], done, n_steps, compute.device, leave_apart
                )
            scores = chain.from_iterable(each(step.scores, groups))
            for k, scores_of_model in enumerate(scores):
                yield k, step.places, scores_of_model
            done += step.n_steps


def _read_together(
    lengths: NDArray[np.int64], max_texts: int, max_tokens: int
) -> Iterator[slice]:
    """Yield which texts are read side by side; of none without a token."""
    begin, n_texts = 0, np.count_nonzero(lengths)
    while begin < n_texts:
        n_steps = min(lengths[begin], MAX_STEPS)
        end = begin + min(max_texts, max(1, max_tokens // n_steps))
        yield slice(begin, min(end, n_texts))
        begin = end


class _Step(NamedTuple):
    """Some more tokens of all texts: where they are, and how they are read."""

    n_steps: int
    places: NDArray[np.int64]
    read: Callable[[Networks], torch.Tensor]

    def scores(self, networks: Networks) -> _Scores:
        """Let some models read them, in any thread: an array for each."""
        with torch.inference_mode():
            return self.read(networks).cpu().numpy()


def _next_levels(
    tree: PrefixTree,
    starts: NDArray[np.int64],
    done: int,
    n_steps: int,
    device: torch.device,
    leave_apart: bool,
) -> _Step:
    """Read prefixes of texts; `leave_apart`: until they have nothing in common."""
    levels = [tree.next_level()]
    while len(levels) < n_steps and not (leave_apart and tree.are_apart):
        levels.append(tree.next_level())
    places, prefix = [], []
    n_before = 0
    for step, level in enumerate(levels):
        places.append(starts[: len(level.prefix)] + done + step)
        prefix.append(level.prefix + n_before)
        n_before += len(level.targets)
    of_texts = torch.from_numpy(np.concatenate(prefix)).to(device)
    joined = Levels.joined(levels, device)
    return _Step(
        len(levels),
        np.concatenate(places),
        lambda networks: _select(networks.read_levels(joined), of_texts),
    )


def _next_texts(
    token_at: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    done: int,
    n_steps: int,
    device: torch.device,
) -> _Step:
    """Read texts that have nothing more in common."""
    n_texts = np.count_nonzero(lengths > done)
    steps = done + np.arange(n_steps)
    inside = steps < lengths[:n_texts, None]
    places = starts[:n_texts, None] + np.where(inside, steps, done)
    targets = token_at(places)
    inputs = token_at(places - 1)
    of_texts = torch.from_numpy(np.flatnonzero(inside)).to(device)
    return _Step(
        n_steps,
        places[inside],
        lambda networks: _select(
            networks.read_texts(inputs, targets).flatten(1), of_texts
        ),
    )


def _select(scores: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return scores.index_select(1, columns.to(scores.device))

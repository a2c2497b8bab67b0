"""Log-likelihoods of encoded texts, token by token."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from joblib import cpu_count, effective_n_jobs
from numpy.typing import NDArray

from sklearn_charlstm._device import (
    Compute,
    n_devices,
    nth_gpu,
    on_device,
    reproducibly,
)
from sklearn_charlstm._networks import MAX_LOGITS, Levels, Model, Networks
from sklearn_charlstm._prefixes import Level, PrefixTree
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
# Times as many texts, tokens and logits on a GPU, which is idle with less, and steps
# that so many texts are read for at least: few, as it waits for Python in each.
ON_GPU = 16
MIN_STEPS_ON_GPU = 16

# So many steps, of few texts with nothing in common, are left to torch's LSTM.
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
_Ints = NDArray[np.int64]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
_Read = Callable[[Sequence[Model], EncodedTexts, Vocabulary, Compute, Map], _Scores]
_ReadBlock = Callable[[Networks], torch.Tensor]
_Block = tuple[_Ints, NDArray[np.bool_], Iterable[torch.Tensor]]


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
    starts = np.cumsum(distinct.lengths) - distinct.lengths
    log_likelihood = np.empty(len(distinct.ids))
    with in_threads(1, 1, len(encoded.ids)) as each:
        parts = _parts([model], distinct, model.vocabulary, compute, each)
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
    n_gpus = n_devices(compute.device)
    if n_gpus > 1:
        n_gpus = min(n_gpus, effective_n_jobs(n_jobs), len(rows))

    def read_on(gpu: int) -> _Scores:
        # Texts of all lengths.
        texts = distinct.take(np.arange(gpu, len(rows), n_gpus))
        with nth_gpu(gpu):
            return distinct_log_likelihood(models, texts, vocabulary, compute, map)

    with in_threads(n_jobs, max(len(models), n_gpus), len(distinct.ids)) as each:
        if n_gpus > 1:
            scores = np.empty((len(rows), len(models)))
            for gpu, of_gpu in enumerate(each(read_on, range(n_gpus))):
                scores[gpu::n_gpus] = of_gpu
        else:
            scores = distinct_log_likelihood(
                models, distinct, vocabulary, compute, each
            )
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
    for texts, blocks in _parts(models, distinct, vocabulary, compute, each):
        # Where they are computed: a GPU is waited for once in a part.
        totals: list[torch.Tensor] = []
        for _, inside, of_groups in blocks:
            is_inside = on_device(inside, compute.device)
            sums = [_padded(scores, is_inside).sum(1) for scores in of_groups]
            for total, more in zip(totals, sums, strict=False):
                total[:, : more.shape[1]] += more
            totals = totals or sums
        log_likelihood[:, texts] = torch.cat(totals).cpu().numpy()
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
    row = dict(zip(keys, range(len(keys)), strict=True))
    # First by the bytes: pairs of length and bytes would be compared much more slowly.
    ordered = sorted(sorted(row), key=len, reverse=True)
    number = dict(zip(ordered, range(len(ordered)), strict=True))
    rows = np.fromiter(map(row.__getitem__, ordered), np.int64, len(ordered))
    return rows, np.fromiter(map(number.__getitem__, keys), np.int64, len(keys))


def _parts(
    models: Sequence[Model],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    each: Map,
) -> Iterator[tuple[slice, Iterator[_Block]]]:
    """Let models read texts, some at a time, the longest first.

    Memory does not grow with the number and the length of the texts.

    Yields
    ------
    texts : slice
        Which ones are read together.
    blocks : iterator
        Of some steps; of an array of shape (n_steps, n_texts): whether the texts that
        have not ended before have so many tokens; and of the log-likelihood of these
        tokens under the models that read side by side, tensors of shape (n_models,
        n_tokens).
    """
    # Tokens by their number among those of the texts, found as they are read: texts
    # are long, an id takes a byte or two. In blocks, because indices take eight.
    is_there = np.zeros(vocabulary.n_inputs, dtype=bool)
    for ids in np.array_split(encoded.ids, len(encoded.ids) // MAX_TOKENS + 1):
        is_there[ids] = True
    tokens = np.flatnonzero(is_there)
    number = np.cumsum(is_there) - 1

    def token_at(places: _Ints) -> _Ints:
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
    groups = [
        Networks(models[group], vocabulary, tokens, compute)
        for group in side_by_side(models, len(encoded.ids), compute)
    ]

    def blocks(texts: slice) -> Iterator[_Block]:
        part = _Part(token_at, starts[texts], lengths[texts], len(tokens), compute)
        for networks in groups:
            networks.start()
        for steps, inside, read in part.blocks(max_tokens):
            yield steps, inside, each(torch.inference_mode()(read), groups)

    begin, n_texts = 0, np.count_nonzero(lengths)
    while begin < n_texts:
        n_steps = min(lengths[begin], MAX_STEPS if on_cpu else MIN_STEPS_ON_GPU)
        end = begin + min(max_texts, max(1, max_tokens // n_steps))
        texts = slice(begin, min(end, n_texts))
        yield texts, blocks(texts)
        begin = end


def _padded(scores: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Put scores, of shape (n_models, n_tokens), where the tokens are, among zeros."""
    if scores.shape[1] == inside.numel():
        return scores.unflatten(1, inside.shape)
    padded = scores.new_zeros(len(scores), *inside.shape)
    return padded.masked_scatter_(inside.to(scores.device), scores)


class _Part:
    """Texts that are read side by side.

    Parameters
    ----------
    token_at : callable
        From places to the tokens that are there.
    starts, lengths : ndarrays of shape (n_texts,), integer
        Where each text begins and how many tokens it has, the longest text first.
    first_input : int
        What is read before the first token.
    compute : Compute
    """

    def __init__(
        self,
        token_at: Callable[[_Ints], _Ints],
        starts: _Ints,
        lengths: _Ints,
        first_input: int,
        compute: Compute,
    ) -> None:
        self._token_at, self._starts, self._lengths = token_at, starts, lengths
        self._first_input = first_input
        self._tree = PrefixTree(token_at, starts, lengths, first_input)
        self._device = compute.device

    def blocks(
        self, max_tokens: int
    ) -> Iterator[tuple[_Ints, NDArray[np.bool_], _ReadBlock]]:
        """Yield as `_parts` does, but how networks read the tokens."""
        done, longest = 0, self._lengths[0]
        while done < longest:
            lengths = self._lengths[self._lengths > done]
            n_steps = min(longest - done, MAX_STEPS, max_tokens // len(lengths))
            levels: list[Level] = []
            while len(levels) < n_steps and not self._tree.are_apart:
                levels.append(self._tree.next_level())
            steps = done + np.arange(len(levels) or n_steps)
            inside = steps[:, None] < lengths
            if levels:
                read = self._levels(levels)
            else:
                is_long = len(lengths) <= FEW_TEXTS and longest - done >= MIN_STEPS
                read = self._texts(steps, inside, bool(is_long))
            yield steps, inside, read
            done += len(steps)

    def _levels(self, levels: list[Level]) -> _ReadBlock:
        """Read the prefixes of texts."""
        joined = Levels.joined(levels, self._device)
        n_before = np.cumsum([0, *(len(level.targets) for level in levels)])
        prefixes = on_device(
            np.concatenate(
                [level.prefix + n for level, n in zip(levels, n_before, strict=False)]
            ),
            self._device,
        )

        def read(networks: Networks) -> torch.Tensor:
            scores = networks.read_levels(joined)
            return scores.index_select(1, prefixes.to(scores.device))

        return read

    def _texts(
        self, steps: _Ints, inside: NDArray[np.bool_], is_long: bool
    ) -> _ReadBlock:
        """Read texts that have nothing more in common."""
        # Where a text has ended its last token again.
        of_texts = np.minimum(steps[:, None], self._lengths[: inside.shape[1]] - 1)
        places = self._starts[: inside.shape[1]] + of_texts
        targets = self._token_at(places)
        before = np.full_like(targets[:1], self._first_input)
        if steps[0]:
            before = self._token_at(places[:1] - 1)
        inputs = np.concatenate([before, targets[:-1]])
        if is_long and self._device.type == "cpu":
            is_inside = torch.from_numpy(inside)
            return lambda networks: networks.read_with_torch(inputs, targets)[
                :, is_inside
            ]
        levels = Levels.apart(inputs, targets, inside, self._device)
        return lambda networks: networks.read_levels(levels)

"""Texts read by language models side by side, some tokens at a time."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from joblib import cpu_count, effective_n_jobs
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute, n_devices, on_device, reproducibly
from sklearn_charlstm._distinct import values_in
from sklearn_charlstm._levels import Levels
from sklearn_charlstm._model import Model
from sklearn_charlstm._networks import MAX_LOGITS, Networks
from sklearn_charlstm._prefixes import Level, PrefixTree, TextsInOrder
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = [
    "MAX_TOKENS",
    "Map",
    "groups_of_models",
    "in_threads",
    "n_gpus_that_read",
    "read_in_parts",
]

# Texts read side by side, of which a CPU's cache holds so many values of hidden states,
# but of wide networks as many as make the products worth it.
VALUES_IN_CACHE = 2**18
MIN_TEXTS = 2**9

# So many steps, of few texts with nothing in common, are left to torch's LSTM on a CPU;
# in bfloat16 of many too.
MIN_STEPS = 32
FEW_TEXTS = 16

# Bounds on memory: tokens before the scores are handed on.
MAX_TOKENS = 2**14
MAX_STEPS = 256
# Times as many tokens and logits on a GPU, which is idle with less. It waits for Python
# in each step, so the most texts are read there, fewer steps at a time, and few texts
# by the most models.
ON_GPU = 16
TEXTS_ON_GPU = 2**14
STEPS_ON_GPU = 16

# So few values of hidden states, of all models, a GPU has computed of a token before
# Python knows whether other texts begin alike.
FEW_STATES_ON_GPU = 2**10

# Fewer tokens are read before threads have started.
MIN_TOKENS = 2**11

# Where there is little to read, most of the time goes into starting operations, and one
# for many networks takes little more than one for few. Values of the hidden states that
# models side by side have, over all tokens that are read together. Few tokens count as
# more: the groups are the same for all of them, and stay laid out.
MAX_STATES = 2**21
FEW_TOKENS = 2**8
MAX_STATES_ON_GPU = 2**28

_Ints = NDArray[np.int64]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
_ReadBlock = Callable[[Networks], torch.Tensor]
_Block = tuple[_Ints, NDArray[np.bool_], Iterable[torch.Tensor]]


@contextmanager
def in_threads(n_jobs: int | None, n_models: int, n_tokens: int) -> Iterator[Map]:
    """Yield a `map` in threads, with torch in one thread in each.

    Parameters
    ----------
    n_jobs : int or None
    n_models : int
        That read, by themselves or side by side.
    n_tokens : int
        That each reads.
    """
    n_threads = 1
    if n_tokens >= MIN_TOKENS:
        # joblib reads files to know the number of CPUs.
        n_threads = min(effective_n_jobs(n_jobs), cpu_count(), n_models)
    if n_threads == 1:
        with reproducibly():
            yield map
        return
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
        yield pool.map


def n_gpus_that_read(
    compute: Compute, n_jobs: int | None, encoded: EncodedTexts
) -> int:
    """Return among how many GPUs texts are shared out: 1 if they are not, or none is.

    Parameters
    ----------
    compute : Compute
    n_jobs : int or None
    encoded : EncodedTexts
    """
    n_gpus = n_devices(compute.device)
    if n_gpus == 1 or len(encoded.ids) < MIN_TOKENS:
        return 1
    return min(n_gpus, effective_n_jobs(n_jobs), cpu_count(), len(encoded.lengths))


def groups_of_models(
    models: Sequence[Model], n_texts: int, n_tokens: int, compute: Compute
) -> list[slice]:
    """Part models of the same arguments into groups that read side by side.

    Parameters
    ----------
    models : list of Model
    n_texts, n_tokens : int
        That each reads.
    compute : Compute
    """
    n_states = _n_states(models[0])
    if compute.device.type != "cpu":
        # More are read one part after the other.
        n_at_once = min(max(1, n_tokens), _Bounds.of(models, n_texts, compute).n_tokens)
        size = max(1, MAX_STATES_ON_GPU // (n_at_once * n_states))
    elif n_tokens < MIN_TOKENS:
        size = max(1, MAX_STATES // (max(FEW_TOKENS, n_tokens) * n_states))
    else:
        # Each thread has its models.
        size = 1
    return [slice(begin, begin + size) for begin in range(0, len(models), size)]


def read_in_parts(
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
    blocks : iterator of tuples (steps, inside, log_likelihood)
        steps : ndarray of shape (n_steps,), the positions in their texts of the tokens
        that are read; inside : ndarray of shape (n_steps, n_texts), whether a text, of
        those that have not ended before, is so long; log_likelihood : iterable of
        tensors of shape (n_models, n_tokens), one for each group of models that read
        side by side, of these tokens.
    """
    # Tokens by their number among those of the texts, found as they are read: texts
    # are long, an id takes a byte or two.
    tokens, number = values_in(encoded.ids, vocabulary.n_inputs)

    def token_at(places: _Ints) -> _Ints:
        return number[encoded.ids[places]]

    lengths, starts = encoded.lengths, encoded.starts
    n_texts = int(np.count_nonzero(lengths))
    bounds = _Bounds.of(models, n_texts, compute)
    groups = [
        Networks(models[group], vocabulary, tokens, compute)
        for group in groups_of_models(models, n_texts, len(encoded.ids), compute)
    ]

    def blocks(texts: slice) -> Iterator[_Block]:
        in_order = TextsInOrder(token_at, starts[texts], lengths[texts], len(tokens))
        part = _Part(in_order, compute, are_compared=bounds.are_compared)
        for networks in groups:
            networks.start()
        for steps, inside, read in part.blocks(bounds.n_tokens):
            yield steps, inside, each(read, groups)

    begin = 0
    while begin < n_texts:
        n_steps = min(lengths[begin], bounds.n_steps)
        end = begin + min(bounds.n_texts, max(1, bounds.n_tokens // n_steps))
        texts = slice(begin, min(end, n_texts))
        yield texts, blocks(texts)
        begin = end


class _Bounds(NamedTuple):
    """What is read together at most.

    Attributes
    ----------
    n_texts : int
    n_steps : int
        With so many of each text, or all it has, they are within `n_tokens`.
    n_tokens : int
        Before the scores are handed on.
    are_compared : bool
        Whether to look for texts that begin alike.
    """

    n_texts: int
    n_steps: int
    n_tokens: int
    are_compared: bool

    @classmethod
    def of(cls, models: Sequence[Model], n_texts: int, compute: Compute) -> Self:
        """Return those of models that read so many texts."""
        n_outputs = max(model.vocabulary.n_outputs for model in models)
        n_logits = models[0].module_params["n_networks"] * n_outputs
        n_states = _n_states(models[0])
        n_tokens = max(1, min(MAX_TOKENS, MAX_LOGITS // n_logits))
        if compute.device.type == "cpu":
            at_once = max(MIN_TEXTS, VALUES_IN_CACHE // n_states)
            return cls(at_once, MAX_STEPS, n_tokens, are_compared=True)
        n_states *= len(models)
        n_needed = STEPS_ON_GPU * min(n_texts, TEXTS_ON_GPU)
        n_wanted = max(1, n_needed, MAX_STATES_ON_GPU // n_states)
        n_tokens = min(ON_GPU * n_tokens, n_wanted)
        are_compared = n_states > FEW_STATES_ON_GPU
        return cls(TEXTS_ON_GPU, STEPS_ON_GPU, n_tokens, are_compared)


def _n_states(model: Model) -> int:
    """Return how many values of hidden states a model has for a token."""
    params = model.module_params
    return params["n_networks"] * params["hidden_size"]


class _Part:
    """Texts that are read side by side.

    Parameters
    ----------
    texts : TextsInOrder
    compute : Compute
    are_compared : bool
        Whether to look for texts that begin alike.
    """

    def __init__(
        self, texts: TextsInOrder, compute: Compute, *, are_compared: bool
    ) -> None:
        self._texts = texts
        self._tree = PrefixTree(texts, are_compared=are_compared)
        self._device = compute.device
        self._precision = compute.precision

    def blocks(
        self, max_tokens: int
    ) -> Iterator[tuple[_Ints, NDArray[np.bool_], _ReadBlock]]:
        """Yield as `read_in_parts` does, but how networks read the tokens."""
        of_all = self._texts.lengths
        done, longest = 0, int(of_all[0])
        while done < longest:
            lengths = of_all[of_all > done]
            of_torch = self._n_steps_of_torch(lengths - done)
            is_long = self._tree.are_apart and of_torch >= MIN_STEPS
            n_steps = of_torch if is_long else MAX_STEPS
            n_steps = min(longest - done, n_steps, max_tokens // len(lengths))
            levels: list[Level] = []
            while len(levels) < n_steps and not self._tree.are_apart:
                levels.append(self._tree.next_level())
            steps = done + np.arange(len(levels) or n_steps)
            inside = steps[:, None] < lengths
            if levels:
                read = self._read_levels(levels)
            else:
                read = self._read_apart(steps, inside, is_long)
            yield steps, inside, read
            done += len(steps)

    def _n_steps_of_torch(self, n_left: _Ints) -> int:
        """Tell how many steps of texts with nothing in common torch's LSTM is for.

        Parameters
        ----------
        n_left : ndarray of shape (n_texts,)
            Tokens of each, in descending order.
        """
        n_texts = len(n_left)
        if self._device.type != "cpu":
            return 0
        if n_texts <= FEW_TEXTS:
            # It takes some time to begin: as long as all texts go on.
            return min(int(n_left[0]), max(MAX_STEPS, int(n_left[-1])))
        if self._precision == "float32":
            return 0
        # Its bfloat16 is faster, if most of the texts go on.
        return min(MAX_STEPS, int(n_left[n_texts * 3 // 4]))

    def _read_levels(self, levels: list[Level]) -> _ReadBlock:
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

    def _read_apart(
        self, steps: _Ints, inside: NDArray[np.bool_], is_long: bool
    ) -> _ReadBlock:
        """Read texts that have hardly anything more in common."""
        token_at, starts, lengths, first_input = self._texts
        # Where a text has ended its last token again.
        of_texts = np.minimum(steps[:, None], lengths[: inside.shape[1]] - 1)
        places = starts[: inside.shape[1]] + of_texts
        targets = token_at(places)
        before = np.full_like(targets[:1], first_input)
        if steps[0]:
            before = token_at(places[:1] - 1)
        inputs = np.concatenate([before, targets[:-1]])
        if is_long:
            is_inside = torch.from_numpy(inside)
            return lambda networks: networks.read_with_torch(inputs, targets)[
                :, is_inside
            ]
        levels = Levels.apart(inputs, targets, inside, self._device)
        return lambda networks: networks.read_levels(levels)

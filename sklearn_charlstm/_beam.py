"""First looks at texts, which tell the classes that are worth reading them."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import Compute
from sklearn_charlstm._distinct import distinct_numbers, distinct_texts, values_in
from sklearn_charlstm._model import Model
from sklearn_charlstm._networks import Networks
from sklearn_charlstm._reading import groups_of_models, in_threads
from sklearn_charlstm._scoring import distinct_log_likelihood
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["beam_log_likelihood", "look"]

# Tokens that are looked at together, which bounds the memory that it takes.
MAX_PLACES = 2**18

# So many logits take about as long as a token that is read.
LOGITS_OF_TOKEN = 2**11

# A look is wrong by what the first network is, and about each token of whose history it
# sees a part: steps of a random walk, which comes as far as the square root of their
# number. With so many the beam has its full width. Chosen, as the widths, on the last
# fifth of the training texts of 73 languages, where about one answer in a thousand
# changes at the worst length.
MANY_CUT = 12


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
    of the history, must find it within the beam of the best; by a second, which sees
    two, within three quarters of it; then all its networks read the text. A look costs
    as much as to read each different history once. Where no other model is within the
    beam, none reads on: it is decided.

    Parameters
    ----------
    models, encoded, vocabulary, compute, n_jobs
        As of `text_log_likelihood`.
    beam : float
        In nats. Narrower for texts of less than `MANY_CUT` tokens whose history is cut
        off by the look.
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
    first = [model.networks()[0] for model in models]
    everywhere = np.ones((len(rows), len(models)), dtype=bool)
    log_likelihood = look(
        first, distinct, vocabulary, compute, everywhere, n_jobs, n_history=1
    )
    for n_seen, width, read in (
        (1, beam, partial(look, first, n_history=2)),
        (2, 0.75 * beam, partial(_followed_log_likelihood, models)),
    ):
        scores = log_likelihood + offsets
        n_cut = np.maximum(0, distinct.lengths[:, None] - 1 - n_seen)
        share = np.minimum(1, (1 + np.sqrt(n_cut)) / (1 + np.sqrt(MANY_CUT)))
        within = scores >= scores.max(axis=1, keepdims=True) - share * width
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
        Which models look at which texts: at each text at least one.
    n_history : int
        Tokens that are seen.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats; -inf where a model does not look at a text.
    """
    ids, starts, ends = encoded.ids, encoded.starts, encoded.ends
    log_likelihood = np.where(followed.T, 0, -np.inf)
    for begin in range(0, len(ids), MAX_PLACES):
        places = np.arange(begin, min(begin + MAX_PLACES, len(ids)))
        text = np.searchsorted(ends, places, side="right")
        # Without boundaries the beginning of a text is read as a cut is.
        most = n_history + vocabulary.boundaries
        n_before = np.minimum(places - starts[text], most)
        windows = _Windows.at(ids, places, n_before, n_history)
        texts = slice(text[0], text[-1] + 1)
        looked_at = followed[texts]
        sums = partial(
            _sums,
            models=models,
            windows=windows,
            text=text - text[0],
            followed=looked_at,
            common=vocabulary,
            compute=compute,
        )
        n_windows = len(windows.seen)
        groups = _groups_that_follow(
            models, encoded.lengths[texts], looked_at, compute, n_windows
        )
        n_outputs = np.mean([model.vocabulary.n_outputs for model in models])
        n_tokens = int(n_windows * n_outputs) // LOGITS_OF_TOKEN
        with in_threads(n_jobs, len(groups), n_tokens) as each:
            for group, of_group in zip(groups, each(sums, groups), strict=True):
                log_likelihood[group, texts] += of_group
    return log_likelihood.T


def _groups_that_follow(
    models: Sequence[Model],
    lengths: NDArray[np.int64],
    followed: NDArray[np.bool_],
    compute: Compute,
    max_tokens: int | None = None,
) -> list[list[int]]:
    """Part the models that read any text into groups that read side by side.

    Parameters
    ----------
    models : list of n_models Model
    lengths : ndarray of shape (n_texts,), integer
    followed : ndarray of shape (n_texts, n_models), bool
        Which models read which texts: in a group all read the same.
    compute : Compute
    max_tokens : int or None
        What a model reads at most, if it is not all tokens of its texts.

    Returns
    -------
    groups : list of lists of int
        The numbers of the models.
    """
    readers: dict[bytes, list[int]] = {}
    for k, column in enumerate(followed.T):
        if column.any():
            readers.setdefault(column.tobytes(), []).append(k)
    groups = []
    for same in readers.values():
        of_texts = lengths[followed[:, same[0]]]
        n_texts, n_tokens = len(of_texts), int(of_texts.sum())
        if max_tokens is not None:
            # What is looked at is read side by side, as so many texts are.
            n_texts = n_tokens = min(n_tokens, max_tokens)
        of_same = [models[k] for k in same]
        parts = groups_of_models(of_same, n_texts, n_tokens, compute)
        groups += [same[part] for part in parts]
    return groups


def _followed_log_likelihood(
    models: Sequence[Model],
    distinct: EncodedTexts,
    vocabulary: Vocabulary,
    compute: Compute,
    followed: NDArray[np.bool_],
    n_jobs: int | None,
) -> NDArray[np.float64]:
    """Compute log p(text) where a model reads the text.

    Parameters
    ----------
    models, vocabulary, compute, n_jobs
        As of `text_log_likelihood`.
    distinct : EncodedTexts
        In the order of `distinct_texts`.
    followed : ndarray of shape (n_texts, n_models), bool
        Which models read which texts.

    Returns
    -------
    log_likelihood : ndarray of shape (n_texts, n_models), float64
        In nats; -inf where a model did not read a text.
    """
    log_likelihood = np.full(followed.shape, -np.inf)

    def read(group: list[int]) -> None:
        is_read = followed[:, group[0]]
        scores = distinct_log_likelihood(
            [models[k] for k in group],
            distinct.where(is_read),
            vocabulary,
            compute,
            map,
        )
        [texts] = np.nonzero(is_read)
        log_likelihood[texts[:, None], group] = scores

    groups = _groups_that_follow(models, distinct.lengths, followed, compute)
    # Threads pay where each model reads much.
    n_readers = max(1, sum(map(len, groups)))
    n_tokens = int(distinct.lengths @ followed.sum(axis=1)) // n_readers
    with in_threads(n_jobs, n_readers, n_tokens) as each:
        for _ in each(read, groups):
            pass
    return log_likelihood


class _Windows(NamedTuple):
    """What is seen at places of texts: a token and some of those before it.

    Attributes
    ----------
    tokens : ndarray of shape (n_tokens,), integer
        The different ones.
    seen : ndarray of shape (n_windows, n_history + 1), integer
        The different windows, of places in `tokens`: the tokens before the last, the
        earliest first, and in the last column, and all that are left, the last.
    n_before : ndarray of shape (n_windows,), integer
        How many tokens the texts have before the last, in ascending order; the
        greatest number stands for all greater ones.
    which : ndarray of shape (n_places,), integer
        Which window there is.
    """

    tokens: NDArray[Any]
    seen: NDArray[np.int64]
    n_before: NDArray[np.int64]
    which: NDArray[np.int64]

    @classmethod
    def at(
        cls,
        ids: NDArray[Any],
        places: NDArray[np.int64],
        n_before: NDArray[np.int64],
        n_history: int,
    ) -> Self:
        """Find them where texts have so many tokens, or more, before each place."""
        begin = max(0, places[0] - n_history)
        read = ids[begin : places[-1] + 1].astype(np.int64)
        one, number = distinct_numbers(read, int(read.max()) + 1)
        tokens = read[one]
        parts, which = [], np.empty_like(places)
        n_windows = 0
        for n_of_text in range(n_before.max() + 1):
            [chosen] = np.nonzero(n_before == n_of_text)
            if not len(chosen):
                continue
            n_seen = min(n_of_text, n_history)
            last = places[chosen] - begin
            columns = [number[last - back] for back in range(n_seen, -1, -1)]
            codes = np.ravel_multi_index(columns, [len(tokens)] * len(columns))
            one, window = distinct_numbers(codes, len(tokens) ** len(columns))
            columns += columns[-1:] * (n_history - n_seen)
            parts.append(np.stack(columns, axis=1)[one])
            which[chosen] = n_windows + window
            n_windows += len(one)
        of_windows = np.empty(n_windows, dtype=np.int64)
        of_windows[which] = n_before
        return cls(tokens, np.concatenate(parts), of_windows, which)

    def at_some(self, chosen: NDArray[np.int64]) -> Self:
        """Return what is seen at some of the places."""
        which = self.which[chosen]
        windows, place = values_in(which, len(self.seen))
        seen = self.seen[windows]
        tokens, number = values_in(seen, len(self.tokens))
        return type(self)(
            self.tokens[tokens], number[seen], self.n_before[windows], place[which]
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
    return networks.read_windows(windows.seen, windows.n_before)

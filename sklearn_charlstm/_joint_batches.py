"""The texts of all classes as batches of windows, for similar classes together."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sklearn_charlstm._device import seed_of
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary
from sklearn_charlstm._windows import WindowBatches

__all__ = [
    "MAX_GROUP",
    "GroupBatches",
    "JointBatches",
    "LabelledTexts",
    "class_similarity",
    "draw_groups",
]

# Models that a text is scored with at most: its own and those of similar classes. So
# neither the memory nor the time of a step grows with the number of classes.
MAX_GROUP = 4

# Pairs of tokens counted at a time, which bounds the memory that it takes.
MAX_PAIRS = 2**20


@dataclass(frozen=True)
class LabelledTexts:
    """The training texts of all classes.

    Attributes
    ----------
    encoded : EncodedTexts
    class_index : ndarray of shape (n_texts,), integer
    weights : ndarray of shape (n_texts,)
        Of the same sum over the characters of every class.
    """

    encoded: EncodedTexts
    class_index: NDArray[np.intp]
    weights: NDArray[np.float64]

    @classmethod
    def balanced(
        cls,
        encoded: EncodedTexts,
        class_index: NDArray[np.intp],
        sample_weight: NDArray[Any],
    ) -> "LabelledTexts":
        """Give every class the same weight: priors are not learned from the texts."""
        weights = sample_weight / sample_weight.max()
        totals = np.bincount(class_index, weights=weights * encoded.lengths)
        return cls(encoded, class_index, weights / totals[class_index])

    def of_classes(self, classes: NDArray[np.intp]) -> "LabelledTexts":
        """Select the texts of some classes."""
        rows = np.flatnonzero(np.isin(self.class_index, classes))
        return LabelledTexts(
            self.encoded.take(rows), self.class_index[rows], self.weights[rows]
        )


def class_similarity(texts: LabelledTexts) -> NDArray[np.float64]:
    """Compare the pairs of adjacent tokens in the texts of the classes.

    Returns
    -------
    similarity : ndarray of shape (n_classes, n_classes), float64
        The Bhattacharyya coefficients of their distributions, from 0 to 1.
    """
    n_classes = texts.class_index.max() + 1
    ids, ends = texts.encoded.ids, texts.encoded.ends
    n_ids = int(ids.max()) + 1
    counts = csr_array((n_classes, n_ids**2))
    for begin in range(0, len(ids) - 1, MAX_PAIRS):
        block = ids[begin : begin + MAX_PAIRS + 1].astype(np.int64)
        pairs = block[:-1] * n_ids + block[1:]
        # At the seams of two texts by the class of the second.
        second = begin + 1 + np.arange(len(pairs))
        classes = texts.class_index[np.searchsorted(ends, second, side="right")]
        counts += csr_array((np.ones(len(pairs)), (classes, pairs)), counts.shape)
    distinct, columns = np.unique(counts.indices, return_inverse=True)
    counts = csr_array(
        (counts.data, columns, counts.indptr), (n_classes, len(distinct))
    )
    roots = np.sqrt(counts / counts.sum(axis=1)[:, None].clip(1))
    return (roots @ roots.T).toarray()


def draw_groups(
    similarity: NDArray[np.float64], rng: np.random.Generator
) -> list[NDArray[np.intp]]:
    """Part the classes into groups of at most `MAX_GROUP` that are like each other.

    Every group gathers around a class drawn at random.

    Parameters
    ----------
    similarity : ndarray of shape (n_classes, n_classes)
    rng : Generator

    Returns
    -------
    groups : list of ndarrays of integer
        Each class once; in a group they ascend.
    """
    left = rng.permutation(len(similarity))
    n_groups = -(-len(left) // MAX_GROUP)
    groups = []
    for size in map(len, np.array_split(left, n_groups)):
        nearest = np.argsort(-similarity[left[0], left[1:]], kind="stable") + 1
        members = np.append(0, nearest[: size - 1])
        groups.append(np.sort(left[members]))
        left = np.delete(left, members)
    return groups


class JointBatches:
    """Windows of the texts of all classes, group of classes after group.

    Parameters
    ----------
    texts : LabelledTexts
    similarity : ndarray of shape (n_classes, n_classes)
        From `class_similarity`.
    vocabulary : Vocabulary
        What the texts are encoded with.
    maxlen, batch_size : int
        As of `WindowBatches`; a batch of a group has so many windows for each class.
    seed : int

    Attributes
    ----------
    epoch : int
        Number of the next epoch.

    Yields
    ------
    windows : dict of 'inputs', 'targets' and 'group'
        As from `WindowBatches`, and the classes whose models score the windows, a
        tuple of int.
    labels, weights : tuple of ndarrays of shape (n_windows,)
        The class of a window as a position in its group, and its weight, of mean one.
    """

    def __init__(
        self,
        texts: LabelledTexts,
        similarity: NDArray[np.float64],
        vocabulary: Vocabulary,
        *,
        maxlen: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.texts = texts
        self.similarity = similarity
        self.vocabulary = vocabulary
        self.maxlen = maxlen
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[dict[str, Any], tuple[Any, ...]]]:
        for of_group in self.of_groups():
            for inputs, targets, *y in of_group:
                windows = {
                    "inputs": inputs,
                    "targets": targets,
                    "group": of_group.group,
                }
                yield windows, tuple(y)

    def of_groups(self) -> Iterator["GroupBatches"]:
        """Yield the batches of each group in the next epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        for group in draw_groups(self.similarity, rng):
            yield GroupBatches(self, group)
        self.epoch += 1


class GroupBatches:
    """Windows of the texts of a group of classes, in one epoch.

    Attributes
    ----------
    group : tuple of int
        The classes.
    n_tokens : int
    seed : int
        Of what is drawn beside the windows.

    Yields
    ------
    inputs, targets, labels, weights : ndarrays
        As from `JointBatches`.
    """

    def __init__(self, joint: JointBatches, group: NDArray[np.intp]) -> None:
        texts = joint.texts.of_classes(group)
        self.group = tuple(group.tolist())
        # Texts without a token are not counted by the batches.
        self._class_index = texts.class_index[texts.encoded.lengths > 0]
        self._batches = WindowBatches(
            texts.encoded,
            texts.weights,
            joint.vocabulary,
            maxlen=joint.maxlen,
            batch_size=joint.batch_size * len(group),
            seed=joint.seed,
            epoch=joint.epoch,
        )
        self.n_tokens = len(texts.encoded.ids)
        self.seed = seed_of(joint.seed, joint.epoch, self.group[0])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        for inputs, targets, text in self._batches.with_texts():
            labels = np.searchsorted(self.group, self._class_index[text])
            yield inputs, targets, labels, self._batches.weights[text]

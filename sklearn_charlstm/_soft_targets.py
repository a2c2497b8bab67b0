"""Kneser-Ney estimates where the networks are trained, for several models at once."""

# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._smoothing import KneserNey

__all__ = ["SoftTargets"]


class SoftTargets:
    """What is expected in the places of the targets of several models.

    All that was counted is put on the device once, and a batch says only which
    histories it has: on a GPU to make the distributions elsewhere, and to send them,
    would take longer than to train.

    Parameters
    ----------
    models : sequence of n_models KneserNey
    device : torch.device
    """

    def __init__(self, models: Sequence[KneserNey], device: torch.device) -> None:
        def joined(arrays: list[NDArray]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(arrays)).to(device)

        discounted = [model.discounted for model in models]
        self._tokens = joined([rows.indices.astype(np.int64) for rows in discounted])
        self._discounted = joined([rows.data for rows in discounted])
        self._lengths = joined(
            [np.diff(rows.indptr).astype(np.int64) for rows in discounted]
        )
        self._begins = self._lengths.cumsum(0) - self._lengths
        self._backoff_weight = joined([model.backoff_weight for model in models])
        # The nodes of all models have numbers one after the other, and the rows of
        # their tables lie so, each as long as its alphabet is large.
        n_nodes = np.array([len(model.backoff_weight) for model in models])
        first_node = np.cumsum(n_nodes) - n_nodes
        sizes = np.array([model.table.size for model in models])
        first_value = np.cumsum(sizes) - sizes
        n_outputs = np.array([model.table.shape[1] for model in models])
        backoff = [model.backoff for model in models]
        self._backoff = joined([*map(np.add, first_node, backoff)])
        self._begins_in_table = joined(
            [
                begin + np.arange(n) * step
                for begin, n, step in zip(first_value, n_nodes, n_outputs, strict=True)
            ]
        )
        self._first_node = torch.from_numpy(first_node).to(device)
        outputs = np.arange(n_outputs.max())
        self._outputs = torch.from_numpy(outputs).to(device)
        self._is_output = torch.from_numpy(outputs < n_outputs[:, None]).to(device)
        # Every row is read to the length of the longest, also the last one.
        end = np.zeros(n_outputs.max(), dtype=np.float32)
        self._table = joined([*(model.table.ravel() for model in models), end])

    def __call__(
        self,
        targets: torch.Tensor,
        nodes: torch.Tensor,
        beyond: torch.Tensor,
        n_discounted: Sequence[int],
    ) -> torch.Tensor:
        """Return how likely every token is in the places of targets.

        Parameters
        ----------
        targets : tensor of shape (n_models, n_windows, n_steps), int64
            Of the first models. What is computed where there is none, below 0, means
            nothing.
        nodes : tensor of the same shape, int64
        beyond : tensor of the same shape, bool
            Where a longer history is known than that of the node. What it says only the
            target itself can tell, which counts half there.
        n_discounted : sequence of int

        Returns
        -------
        probabilities : tensor of the same shape and n_outputs, float32
        """
        of_target = beyond[..., None].float() / 2
        probabilities = self.distributions(nodes, n_discounted).mul_(1 - of_target)
        return probabilities.scatter_add_(3, targets.clamp(min=0)[..., None], of_target)

    def distributions(
        self, nodes: torch.Tensor, n_discounted: Sequence[int]
    ) -> torch.Tensor:
        """Return how likely every token is after histories.

        Parameters
        ----------
        nodes : tensor of shape (n_models, n_windows, n_steps), int64
            From `KneserNey.nodes`, of the first models.
        n_discounted : sequence of int
            From `KneserNey.n_discounted`, the sums over the models.

        Returns
        -------
        probabilities : tensor of the same shape and n_outputs, float32
            Zero from the end of the alphabet of a model to that of the largest.
        """
        node = (nodes.flatten(1) + self._first_node[: len(nodes), None]).flatten()
        row = torch.arange(len(node), device=node.device)
        share = torch.ones(len(node), device=node.device, dtype=torch.float32)
        n_outputs = len(self._outputs)
        probabilities = share.new_zeros(len(node) * n_outputs)
        # To say how many there are spares waiting for the device to count them.
        for n in n_discounted:
            lengths = self._lengths[node]
            rows = row.repeat_interleave(lengths, output_size=n)
            skipped = self._begins[node] - (lengths.cumsum(0) - lengths)
            places = torch.arange(n, device=node.device) + skipped[rows]
            # The tokens of a row are different ones: no sum depends on the order.
            probabilities.index_add_(
                0,
                rows * n_outputs + self._tokens[places],
                share[rows] * self._discounted[places],
            )
            share = share * self._backoff_weight[node]
            node = self._backoff[node]
        if len(self._first_node) == 1:
            rows = self._table[:-n_outputs].view(-1, n_outputs).index_select(0, node)
        else:
            rows = self._table[self._begins_in_table[node][:, None] + self._outputs]
        probabilities = probabilities.view(-1, n_outputs)
        probabilities = probabilities.addcmul_(share[:, None], rows)
        probabilities = probabilities.view(*nodes.shape, n_outputs)
        return probabilities.mul_(self._is_output[: len(nodes), None, None])

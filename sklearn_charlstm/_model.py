"""A language model as the computation needs it."""

# SPDX-License-Identifier: BSD-3-Clause

from typing import Any, NamedTuple

from sklearn_charlstm._module import Weights, split_networks
from sklearn_charlstm._vocabulary import Vocabulary

__all__ = ["Model"]


class Model(NamedTuple):
    """What is needed of a language model to score with it or to train it jointly.

    Attributes
    ----------
    weights : dict of str to ndarray
        Of a `CharLSTM`.
    module_params : dict
        Its arguments.
    vocabulary : Vocabulary
    """

    weights: Weights
    module_params: dict[str, Any]
    vocabulary: Vocabulary

    def networks(self) -> list["Model"]:
        """Return the models of each of its networks alone."""
        params = {**self.module_params, "n_networks": 1}
        return [
            self._replace(weights=weights, module_params=params)
            for weights in split_networks(self.weights)
        ]

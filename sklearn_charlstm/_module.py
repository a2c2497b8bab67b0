"""The network: embedding, LSTM, linear output."""

# SPDX-License-Identifier: BSD-3-Clause

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

__all__ = ["CharLSTM", "Weights"]

# What is kept of a network: parameter by name. Without torch in it, it loads on any
# machine.
Weights = dict[str, NDArray[np.float32]]

_State = tuple[torch.Tensor, torch.Tensor]


class CharLSTM(nn.Module):
    """Predict the next token from the tokens before it.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Sizes of the input and of the predicted alphabet.
    embedding_dim, hidden_size, num_layers : int
    dropout : float
        Share of units dropped between the layers and before the output. Not after
        the embedding: there whole tokens are left out, by the batches.
    output : {'softmax', 'sigmoid'}
        How the outputs become probabilities: a softmax, or a sigmoid for each token,
        divided by their sum.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        output: str,
    ) -> None:
        super().__init__()
        self.output = output
        self.embedding = nn.Embedding(n_inputs, embedding_dim)
        self.lstm = nn.LSTM(
            embedding_dim,
            hidden_size,
            num_layers,
            batch_first=True,
            # torch warns of dropout between the layers where there is only one.
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, n_outputs)

    def forward(
        self, inputs: torch.Tensor, state: _State | None = None
    ) -> tuple[torch.Tensor, _State]:
        """Compute the logits of the next token at every position.

        Parameters
        ----------
        inputs : tensor of shape (n_windows, n_steps), int64
        state : tuple of two tensors, default=None
            What `forward` returned for the steps before; None at the start.

        Returns
        -------
        logits : tensor of shape (n_windows, n_steps, n_outputs)
        state : tuple of two tensors (num_layers, n_windows, hidden_size)
        """
        embedded = self.embedding(inputs)  # (windows, steps, embedding)
        hidden, state = self.lstm(embedded, state)  # (windows, steps, hidden)
        return self.linear(self.dropout(hidden)), state

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits into log-probabilities in nats, normalised over the outputs."""
        if self.output == "sigmoid":
            logits = F.logsigmoid(logits)
        return torch.log_softmax(logits, dim=-1)

    def numpy_weights(self) -> Weights:
        """Return a copy of the weights."""
        return {
            name: parameter.detach().cpu().numpy().copy()
            for name, parameter in self.named_parameters()
        }

    def load_numpy_weights(self, weights: Weights) -> None:
        """Set the weights to copies of those that `numpy_weights` returned."""
        self.load_state_dict(
            {name: torch.tensor(values) for name, values in weights.items()}
        )

    @classmethod
    def from_weights(cls, weights: Weights, params: dict[str, Any]) -> Self:
        """Make a network to compute with, not to train.

        Parameters
        ----------
        weights : dict of str to ndarray
        params : dict
            Arguments of the class.

        Returns
        -------
        module : CharLSTM
            On the CPU, sharing memory with `weights` where it can.
        """
        # On the meta device nothing is drawn at random: torch's state is untouched.
        with torch.device("meta"):
            module = cls(**params)
        # torch warns of arrays that are not writeable, such as those of a mapped file.
        state = {
            name: torch.from_numpy(np.require(values, requirements="W"))
            for name, values in weights.items()
        }
        module.load_state_dict(state, assign=True)
        return module.eval()

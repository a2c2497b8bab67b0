"""The network: embedding, LSTM, linear output."""

# SPDX-License-Identifier: BSD-3-Clause

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["CharLSTM"]


class CharLSTM(nn.Module):
    """Predict the next token from the tokens before it.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Sizes of the input and of the predicted alphabet.
    embedding_dim, hidden_size, num_layers : int
    dropout : float
        Share of units dropped after the embedding, between the layers and before
        the output.
    output : {'softmax', 'sigmoid'}
        How the outputs become probabilities: a softmax, or a sigmoid for each token,
        divided by their sum.
    """

    def __init__(
        self,
        n_inputs,
        n_outputs,
        *,
        embedding_dim,
        hidden_size,
        num_layers,
        dropout,
        output,
    ):
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

    def forward(self, inputs, state=None):
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
        embedded = self.dropout(self.embedding(inputs))  # (windows, steps, embedding)
        hidden, state = self.lstm(embedded, state)  # (windows, steps, hidden)
        return self.linear(self.dropout(hidden)), state

    def log_probabilities(self, logits):
        """Turn logits into log-probabilities in nats, normalised over the outputs."""
        if self.output == "sigmoid":
            logits = F.logsigmoid(logits)
        return torch.log_softmax(logits, dim=-1)

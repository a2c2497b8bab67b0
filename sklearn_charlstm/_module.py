"""The networks: embedding, LSTM, linear output."""

# SPDX-License-Identifier: BSD-3-Clause

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from sklearn_charlstm._lstm import hidden_states

__all__ = [
    "MAX_WEIGHT",
    "CharLSTM",
    "Weights",
    "at_least_float32",
    "ensemble_log_likelihoods",
    "join_networks",
    "network_log_probabilities",
    "split_networks",
    "weight_shapes",
]

# On a CPU fewer windows, or wider networks, are left to torch's LSTM in training.
MIN_WINDOWS = 24
MAX_HIDDEN_SIZE = 256

# No training comes near that does not diverge; sums of products of larger weights could
# be infinite.
MAX_WEIGHT = 1e12

# What is kept of a network: parameter by name. Without torch in it, it loads on any
# machine.
Weights = dict[str, NDArray[np.float32]]

_State = tuple[torch.Tensor, torch.Tensor]


def split_networks(weights: Weights) -> list[Weights]:
    """Return the weights of a `CharLSTM` for each network of it alone."""
    networks: list[Weights] = []
    for name, values in weights.items():
        _, number, parameter = name.split(".", 2)
        if int(number) == len(networks):
            networks.append({})
        networks[int(number)][f"networks.0.{parameter}"] = values
    return networks


def join_networks(networks: Sequence[Weights]) -> Weights:
    """Return the weights of one `CharLSTM` from those of each network alone."""
    return {
        name.replace("0", str(number), 1): values
        for number, weights in enumerate(networks)
        for name, values in weights.items()
    }


def weight_shapes(params: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of the weights of a `CharLSTM`, without making one.

    Parameters
    ----------
    params : dict
        Arguments of `CharLSTM`, as large as they may be.
    """
    hidden = params["hidden_size"]
    for number in range(params["n_networks"]):
        prefix = f"networks.{number}"
        width = params["embedding_dim"]
        yield f"{prefix}.embedding.weight", (params["n_inputs"], width)
        for layer in range(params["num_layers"]):
            yield f"{prefix}.lstm.weight_ih_l{layer}", (4 * hidden, width)
            yield f"{prefix}.lstm.weight_hh_l{layer}", (4 * hidden, hidden)
            yield f"{prefix}.lstm.bias_ih_l{layer}", (4 * hidden,)
            yield f"{prefix}.lstm.bias_hh_l{layer}", (4 * hidden,)
            width = hidden
        yield f"{prefix}.linear.weight", (params["n_outputs"], hidden)
        yield f"{prefix}.linear.bias", (params["n_outputs"],)


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Prepare for sums of exponentials, which need more digits than bfloat16 has."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def ensemble_log_likelihoods(
    log_probabilities: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Compute the log-probabilities of targets in nats: of the mean of the networks.

    Parameters
    ----------
    log_probabilities : tensor of shape (n_networks, ..., n_outputs)
        In nats.
    targets : tensor of shape (...), int64
        Of the outputs.

    Returns
    -------
    log_likelihood : tensor of the shape of `targets`
    """
    index = targets.expand(log_probabilities.shape[:-1])[..., None]
    # Of the targets alone: the mean of all outputs would take longer.
    return _mean(log_probabilities.gather(-1, index).squeeze(-1))


def network_log_probabilities(logits: torch.Tensor, output: str) -> torch.Tensor:
    """Turn logits into log-probabilities in nats, of each network by itself.

    Parameters
    ----------
    logits : tensor of shape (..., n_outputs)
    output : {'softmax', 'sigmoid'}

    Returns
    -------
    log_probabilities : tensor of the shape of `logits`
    """
    if output == "sigmoid":
        logits = F.logsigmoid(logits)
    return torch.log_softmax(logits, dim=-1)


def _mean(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Compute the logarithm of the mean of the networks' probabilities."""
    return torch.logsumexp(log_probabilities, dim=0) - math.log(len(log_probabilities))


class _Network(nn.Module):
    """Embedding, LSTM, linear output; parameters as of `CharLSTM`.

    Before the output the same units are dropped at all steps of a window [1]_.

    .. [1] Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout
       in recurrent neural networks", NIPS 2016.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        weight = torch.empty(n_inputs, embedding_dim, dtype=torch.float32)
        if not weight.is_meta:
            # torch has no kernel for that on the meta device: it would load its
            # compiler, for a second or two.
            nn.init.normal_(weight)
        self.embedding = nn.Embedding.from_pretrained(weight, freeze=False)
        self.lstm = nn.LSTM(
            embedding_dim,
            hidden_size,
            num_layers,
            batch_first=True,
            # torch warns of dropout between the layers where there is only one.
            dropout=dropout if num_layers > 1 else 0.0,
            dtype=torch.float32,
        )
        self.dropout = nn.Dropout1d(dropout)
        self.linear = nn.Linear(hidden_size, n_outputs, dtype=torch.float32)

    def forward(
        self, inputs: torch.Tensor, state: _State | None
    ) -> tuple[torch.Tensor, _State]:
        embedded = self.embedding(inputs)  # (windows, steps, embedding)
        # On a GPU autocast would make float16 of an LSTM, whatever it is asked for, and
        # small gradients would be lost.
        on_gpu = embedded.device.type == "cuda"
        with torch.autocast("cuda", enabled=False) if on_gpu else nullcontext():
            hidden, state = self.lstm(embedded, state)  # (windows, steps, hidden)
        return self.predict(hidden), state

    def predict(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute the logits from the hidden states."""
        return self.linear(self.dropout(hidden.mT).mT)


class CharLSTM(nn.Module):
    """Predict the next token from the tokens before it, with one network or several.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Sizes of the input and of the predicted alphabet.
    n_networks : int
        Networks that read the same tokens. The probability is the mean of theirs.
    embedding_dim, hidden_size, num_layers : int
        Of each network.
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
        n_networks: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        output: str,
    ) -> None:
        super().__init__()
        self.output = output
        self.hidden_size, self.num_layers = hidden_size, num_layers
        sizes = (n_inputs, n_outputs, embedding_dim, hidden_size, num_layers)
        self.networks: Any = nn.ModuleList(
            _Network(*sizes, dropout) for _ in range(n_networks)
        )

    def forward(
        self, inputs: torch.Tensor, state: _State | None = None
    ) -> tuple[torch.Tensor, _State | None]:
        """Compute the logits of the next token at every position.

        Parameters
        ----------
        inputs : tensor of shape (n_windows, n_steps), int64
        state : tuple of two tensors, default=None
            What `forward` returned for the steps before; None at the start.

        Returns
        -------
        logits : tensor of shape (n_networks, n_windows, n_steps, n_outputs)
            Of float32 also where the products are of a lower precision.
        state : tuple of two tensors (n_networks * num_layers, n_windows, hidden_size)
            None in training where the networks are read side by side.
        """
        if self.training and state is None and self._pays_side_by_side(inputs):
            hidden = self._hidden_states(inputs)
            logits = [
                network.predict(of_network)
                for network, of_network in zip(self.networks, hidden, strict=True)
            ]
            return at_least_float32(torch.stack(logits)), None
        states: list[Any] = [None] * len(self.networks)
        if state is not None:
            states = list(zip(*(s.chunk(len(states)) for s in state), strict=True))
        logits = []
        for i, network in enumerate(self.networks):
            logits_of_network, states[i] = network(inputs, states[i])
            logits.append(logits_of_network)
        hidden, cell = (torch.cat(parts) for parts in zip(*states, strict=True))
        return at_least_float32(torch.stack(logits)), (hidden, cell)

    def _pays_side_by_side(self, inputs: torch.Tensor) -> bool:
        """Tell whether that takes less time than one network after the other.

        On a CPU, with the steps of many windows and not too wide, in float32: torch's
        LSTM has operations that are made for bfloat16. On a GPU each network is a
        single operation to launch.
        """
        return (
            inputs.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and len(inputs) >= MIN_WINDOWS
            and self.hidden_size <= MAX_HIDDEN_SIZE
            and self.num_layers == 1
        )

    def _hidden_states(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of all networks."""

        def stacked(name: str) -> torch.Tensor:
            return torch.stack([n.get_parameter(name) for n in self.networks])

        # The sums first: else the gradients of both would be parts of one tensor, and
        # what cuts them would do it twice.
        biases = [n.lstm.bias_ih_l0 + n.lstm.bias_hh_l0 for n in self.networks]
        return hidden_states(
            inputs.expand(len(self.networks), *inputs.shape),
            stacked("embedding.weight"),
            stacked("lstm.weight_ih_l0"),
            stacked("lstm.weight_hh_l0"),
            torch.stack(biases),
        )

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits into log-probabilities in nats, normalised over the outputs.

        Parameters
        ----------
        logits : tensor of shape (n_networks, ..., n_outputs)

        Returns
        -------
        log_probabilities : tensor of shape (..., n_outputs)
            Of the mean of the networks' probabilities.
        """
        return _mean(network_log_probabilities(logits, self.output))

    def log_likelihoods(
        self, logits: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Compute what `log_probabilities` has for targets, which is faster.

        Parameters
        ----------
        logits : tensor of shape (n_networks, ..., n_outputs)
        targets : tensor of shape (...), int64

        Returns
        -------
        log_likelihood : tensor of the shape of `targets`
        """
        return ensemble_log_likelihoods(
            network_log_probabilities(logits, self.output), targets
        )

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

"""Log-likelihoods of encoded texts, token by token."""

# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_charlstm._device import one_thread
from sklearn_charlstm._module import CharLSTM, Weights
from sklearn_charlstm._vocabulary import EncodedTexts, Vocabulary

__all__ = ["token_log_likelihood"]

# Bounds on memory: padded tokens computed at once, and steps of one chunk.
MAX_TOKENS = 2**14
MAX_STEPS = 256


def token_log_likelihood(
    weights: Weights,
    module_params: dict[str, Any],
    encoded: EncodedTexts,
    vocabulary: Vocabulary,
    device: torch.device,
) -> NDArray[np.float64]:
    """Compute log p(token | the tokens before it) for every token of every text.

    Texts run through the network side by side, sorted by length; long ones in
    chunks, the state of the LSTM carried along. So memory does not grow with the
    length of the texts.

    Parameters
    ----------
    weights : dict of str to ndarray
        As returned by `train`.
    module_params : dict
        Arguments of `CharLSTM`.
    encoded : EncodedTexts
    vocabulary : Vocabulary
    device : torch.device

    Returns
    -------
    log_likelihood : ndarray of shape (n_tokens,), float64
        In nats, in the order of `encoded.ids`.
    """
    module = CharLSTM.from_weights(weights, module_params).to(device)
    ids, lengths = encoded
    starts = np.cumsum(lengths) - lengths
    spans = zip(starts, starts + lengths, strict=True)
    keys = [ids[start:end].tobytes() for start, end in spans]
    # Equal texts are scored once, and the others in an order of their own: batches,
    # and with them roundings, are the same for every order of the rows.
    first_row: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        first_row.setdefault(key, row)
    distinct = sorted(first_row, key=lambda key: (-len(key), key))
    order = np.array([first_row[key] for key in distinct if key], dtype=np.int64)
    log_likelihood = np.empty(len(ids))
    done = 0
    with one_thread(), torch.inference_mode():
        while done < len(order):
            n_steps = min(lengths[order[done]], MAX_STEPS)
            rows = order[done : done + max(1, MAX_TOKENS // n_steps)]
            _score_batch(
                module,
                ids,
                starts[rows],
                lengths[rows],
                vocabulary,
                log_likelihood,
            )
            done += len(rows)
    source = starts[[first_row[key] for key in keys]]
    return log_likelihood[np.arange(len(ids)) + np.repeat(source - starts, lengths)]


def _score_batch(
    module: CharLSTM,
    ids: NDArray[Any],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    vocabulary: Vocabulary,
    out: NDArray[np.float64],
) -> None:
    """Fill `out` for texts given longest first."""
    device = next(module.parameters()).device
    state = None
    last = np.full((len(starts), 1), vocabulary.first_input)
    for begin in range(0, lengths[0], MAX_STEPS):
        n_rows = np.count_nonzero(lengths > begin)
        steps = np.arange(begin, min(begin + MAX_STEPS, lengths[0]))
        inside = steps < lengths[:n_rows, None]
        positions = np.where(inside, starts[:n_rows, None] + steps, 0)
        targets = ids[positions].astype(np.int64)
        history = vocabulary.as_inputs(targets)
        inputs = np.concatenate([last[:n_rows], history[:, :-1]], axis=1)
        last = history[:, -1:]
        if state is not None:
            state = tuple(part[:, :n_rows].contiguous() for part in state)
        logits, state = module(torch.as_tensor(inputs, device=device), state)
        known = targets != vocabulary.unknown
        outputs = np.where(known, targets, 0)
        wanted = torch.as_tensor(outputs, device=device)
        chosen = module.log_probabilities(logits).gather(2, wanted[:, :, None])
        scores = chosen.squeeze(2).cpu().numpy().astype(np.float64)
        scores -= np.log(vocabulary.output_sizes)[outputs]
        scores = np.where(known, vocabulary.log_known + scores, vocabulary.log_unknown)
        out[positions[inside]] = scores[inside]

import numpy as np
import pytest
import torch

from sklearn_charlstm import _scoring
from sklearn_charlstm._module import CharLSTM
from sklearn_charlstm._scoring import token_log_likelihood
from sklearn_charlstm._vocabulary import Vocabulary

TEXTS = ["abcab", "", "c", "bbbbbbbbbbbbbbbbb", "axb", "abc", "abcab"]
CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["boundaries", "fragments"])
def model(request):
    vocabulary = Vocabulary(["abc"], "char", request.param)
    params = {
        "n_inputs": vocabulary.n_inputs,
        "n_outputs": vocabulary.n_outputs,
        "n_networks": 2,
        "embedding_dim": 3,
        "hidden_size": 5,
        "num_layers": 2,
        "dropout": 0.5,
        "output": "softmax",
    }
    torch.manual_seed(0)
    state = CharLSTM(**params).state_dict()
    weights = {key: 3 * value.numpy() for key, value in state.items()}
    return weights, params, vocabulary


def score(model, texts):
    weights, params, vocabulary = model
    encoded = vocabulary.encode(texts)
    flat = token_log_likelihood(weights, params, encoded, vocabulary, CPU)
    return np.split(flat, np.cumsum(encoded.lengths)[:-1])


def score_alone(model, text):
    """Compute the same without batches, sorting or chunks."""
    weights, params, vocabulary = model
    module = CharLSTM(**params).eval()
    module.load_state_dict({k: torch.as_tensor(v) for k, v in weights.items()})
    targets = vocabulary.encode([text]).ids.astype(int).tolist()
    inputs = [vocabulary.first_input, *targets[:-1]]
    with torch.no_grad():
        log_p = module.log_probabilities(module(torch.tensor([inputs]))[0])[0]
    log_p = log_p.double().numpy() + vocabulary.log_known
    return [
        vocabulary.log_unknown if target == vocabulary.unknown else row[target]
        for row, target in zip(log_p, targets, strict=False)
    ]


@pytest.mark.parametrize(("max_tokens", "max_steps"), [(2**14, 256), (1, 1), (12, 3)])
def test_batches_and_chunks_change_nothing(model, monkeypatch, max_tokens, max_steps):
    monkeypatch.setattr(_scoring, "MAX_TOKENS", max_tokens)
    monkeypatch.setattr(_scoring, "MAX_STEPS", max_steps)
    for text, scores in zip(TEXTS, score(model, TEXTS), strict=True):
        expected = score_alone(model, text) if len(scores) else []
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
        assert scores.dtype == np.float64


def test_order_of_rows_is_of_no_account_to_the_last_bit(model, monkeypatch):
    monkeypatch.setattr(_scoring, "MAX_TOKENS", 12)
    scores = score(model, TEXTS)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for row, shuffled in zip(
        order, score(model, [TEXTS[i] for i in order]), strict=True
    ):
        np.testing.assert_array_equal(shuffled, scores[row])


def test_memory_is_bounded(model, monkeypatch):
    sizes = []
    forward = CharLSTM.forward

    def watch(self, inputs, state=None):
        sizes.append(inputs.numel())
        return forward(self, inputs, state)

    monkeypatch.setattr(_scoring, "MAX_TOKENS", 64)
    monkeypatch.setattr(_scoring, "MAX_STEPS", 16)
    monkeypatch.setattr(CharLSTM, "forward", watch)
    score(model, ["abc" * 100] * 9 + ["a"] * 500)
    assert max(sizes) <= 64


def test_torch_state_is_left_alone(model):
    before = torch.get_rng_state()
    score(model, TEXTS)
    assert torch.equal(torch.get_rng_state(), before)

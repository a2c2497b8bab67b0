import pytest
import torch

from sklearn_charlstm import _module
from sklearn_charlstm._module import CharLSTM


def make(**params):
    defaults = {
        "n_networks": 3,
        "embedding_dim": 3,
        "hidden_size": 4,
        "num_layers": 1,
        "dropout": 0.0,
        "output": "softmax",
    }
    torch.manual_seed(0)
    return CharLSTM(7, 5, **(defaults | params)).eval()


@pytest.mark.parametrize("num_layers", [1, 2])
def test_shapes(num_layers):
    logits, (h, c) = make(num_layers=num_layers)(torch.zeros(2, 6, dtype=torch.long))
    assert logits.shape == (3, 2, 6, 5)
    assert h.shape == c.shape == (3 * num_layers, 2, 4)


def test_causal():
    module = make()
    one = torch.tensor([[1, 2, 3, 4]])
    other = torch.tensor([[1, 2, 6, 0]])
    torch.testing.assert_close(module(one)[0][..., :2, :], module(other)[0][..., :2, :])
    assert not torch.allclose(module(one)[0][..., 2:, :], module(other)[0][..., 2:, :])


def test_state_carries_on():
    module = make(num_layers=2)
    inputs = torch.tensor([[1, 2, 3, 4, 5]])
    whole, _ = module(inputs)
    head, state = module(inputs[:, :2])
    tail, _ = module(inputs[:, 2:], state)
    torch.testing.assert_close(torch.cat([head, tail], dim=2), whole)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_probabilities_sum_to_one(output):
    log_p = make(output=output).log_probabilities(torch.randn(4, 3, 2, 5) * 20)
    torch.testing.assert_close(log_p.exp().sum(dim=-1), torch.ones(3, 2))


def test_sigmoid_is_divided_by_the_sum():
    logits = torch.tensor([0.5, -1.0, 2.0])
    p = torch.sigmoid(logits)
    expected = torch.log(p / p.sum())
    torch.testing.assert_close(
        make(output="sigmoid").log_probabilities(logits[None]), expected
    )


def test_the_probability_is_the_mean_of_the_networks():
    module = make(n_networks=2)
    logits, _ = module(torch.tensor([[1, 2, 3]]))
    one, other = torch.softmax(logits, dim=-1)
    assert not torch.allclose(one, other)
    expected = torch.log((one + other) / 2)
    torch.testing.assert_close(module.log_probabilities(logits), expected)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_log_likelihoods_are_those_of_the_targets(output):
    module = make(output=output)
    logits = torch.randn(4, 3, 2, 5) * 20
    targets = torch.tensor([[0, 4], [2, 2], [1, 3]])
    expected = module.log_probabilities(logits).gather(2, targets[..., None])
    torch.testing.assert_close(
        module.log_likelihoods(logits, targets), expected.squeeze(2)
    )


@pytest.mark.parametrize(
    ("min_windows", "max_size", "num_layers", "is_side_by_side"),
    [(4, 4, 1, True), (5, 4, 1, False), (4, 3, 1, False), (4, 4, 2, False)],
)
def test_training_computes_the_same(
    monkeypatch, min_windows, max_size, num_layers, is_side_by_side
):
    monkeypatch.setattr(_module, "MIN_WINDOWS", min_windows)
    monkeypatch.setattr(_module, "MAX_HIDDEN_SIZE", max_size)
    module = make(num_layers=num_layers)
    inputs = torch.randint(7, (4, 6))
    logits, _ = module(inputs)
    gradients = torch.autograd.grad(logits.square().sum(), [*module.parameters()])
    module.train()
    in_training, state = module(inputs)
    assert (state is None) == is_side_by_side
    torch.testing.assert_close(in_training, logits)
    in_training.square().sum().backward()
    for parameter, expected in zip(module.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-4)


def test_in_bfloat16_training_is_left_to_torch(monkeypatch, half):
    monkeypatch.setattr(_module, "MIN_WINDOWS", 4)
    module = make().train()
    inputs = torch.randint(7, (4, 6))
    exact, state = module(inputs)
    assert state is None
    with half.autocast():
        lower, state = module(inputs)
    assert state is not None
    torch.testing.assert_close(lower, exact, atol=0.02, rtol=0.02)


def test_gradients_have_memory_of_their_own(monkeypatch):
    monkeypatch.setattr(_module, "MIN_WINDOWS", 4)
    module = make().train()
    module(torch.randint(7, (4, 6)))[0].square().sum().backward()
    before = [p.grad.clone() for p in module.parameters()]
    for parameter in module.parameters():
        parameter.grad.mul_(2)
    for parameter, gradient in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)

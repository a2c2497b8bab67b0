import pytest
import torch
from torch import nn

from sklearn_charlstm._fused_lstm import fused_hidden_states
from sklearn_charlstm._lstm import _LSTM, hidden_states

N_NETWORKS, N_INPUTS, EMBEDDING, HIDDEN = 2, 5, 3, 4


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return [
        nn.ModuleList(
            [
                nn.Embedding(N_INPUTS, EMBEDDING),
                nn.LSTM(EMBEDDING, HIDDEN, batch_first=True),
            ]
        )
        for _ in range(N_NETWORKS)
    ]


def side_by_side(networks, inputs):
    def stacked(name):
        return torch.stack([network.get_parameter(name) for network in networks])

    return hidden_states(
        inputs,
        stacked("0.weight"),
        stacked("1.weight_ih_l0"),
        stacked("1.weight_hh_l0"),
        stacked("1.bias_ih_l0") + stacked("1.bias_hh_l0"),
    )


# More tokens than there are in the alphabet, and fewer.
@pytest.mark.parametrize(("n_windows", "n_steps"), [(7, 6), (1, 1), (3, 2), (2, 2)])
def test_is_that_of_torch(networks, n_windows, n_steps):
    inputs = torch.randint(N_INPUTS, (N_NETWORKS, n_windows, n_steps))
    weights = torch.randn(N_NETWORKS, n_windows, n_steps, HIDDEN)
    expected = torch.stack(
        [
            lstm(embedding(of_network))[0]
            for (embedding, lstm), of_network in zip(networks, inputs, strict=True)
        ]
    )
    parameters = [p for network in networks for p in network.parameters()]
    gradients = torch.autograd.grad((expected * weights).sum(), parameters)
    hidden = side_by_side(networks, inputs)
    torch.testing.assert_close(hidden, expected)
    of_hidden = torch.autograd.grad((hidden * weights).sum(), parameters)
    for gradient, of_torch in zip(of_hidden, gradients, strict=True):
        torch.testing.assert_close(gradient, of_torch, atol=1e-5, rtol=1e-4)


def test_gradients_are_exact():
    torch.manual_seed(0)
    flat = torch.randn(2, 3 * 2, 12, dtype=torch.float64, requires_grad=True)
    recurrent = torch.randn(2, 3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda flat, recurrent: _LSTM.apply(flat.clone(), recurrent, 3)[0],
        (flat, recurrent),
        check_undefined_grad=False,
    )


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_gradients_on_a_gpu_are_exact(lstm_kernels, n_steps):
    torch.manual_seed(0)
    of_inputs = torch.randn(n_steps, 2, 3, 16, dtype=torch.float64, requires_grad=True)
    recurrent = torch.randn(2, 4, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fused_hidden_states, (of_inputs, recurrent))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("n_windows", "n_steps"), [(7, 6), (1, 1), (2, 2)])
def test_a_gpu_agrees_with_the_cpu(networks, n_windows, n_steps):
    inputs = torch.randint(N_INPUTS, (N_NETWORKS, n_windows, n_steps))
    weights = torch.randn(N_NETWORKS, n_windows, n_steps, HIDDEN)
    results = []
    for device in ("cpu", "cuda"):
        on_device = [network.to(device) for network in networks]
        parameters = [p for network in on_device for p in network.parameters()]
        hidden = side_by_side(on_device, inputs.to(device))
        loss = (hidden * weights.to(device)).sum()
        results.append([hidden, *torch.autograd.grad(loss, parameters)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-5, rtol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_bfloat16_is_close(networks):
    networks = [network.to("cuda") for network in networks]
    inputs = torch.randint(N_INPUTS, (N_NETWORKS, 5, 6), device="cuda")
    parameters = [p for network in networks for p in network.parameters()]
    exact = side_by_side(networks, inputs)
    gradients = torch.autograd.grad(exact.sum(), parameters)
    with torch.autocast("cuda", torch.bfloat16):
        lower = side_by_side(networks, inputs)
    assert lower.dtype == torch.float32
    assert (lower - exact).abs().max() > 0
    torch.testing.assert_close(lower, exact, atol=0.02, rtol=0.02)
    of_lower = torch.autograd.grad(lower.sum(), parameters)
    for gradient, of_exact in zip(of_lower, gradients, strict=True):
        assert gradient.dtype == torch.float32
        scale = of_exact.abs().max().item()
        torch.testing.assert_close(gradient, of_exact, atol=0.03 * scale, rtol=0.05)


def test_products_of_a_gpu_may_be_of_bfloat16(lstm_kernels):
    torch.manual_seed(0)
    of_inputs = torch.randn(5, 2, 3, 16, requires_grad=True)
    recurrent = (torch.randn(2, 4, 16) / 2).bfloat16().requires_grad_()
    exact = recurrent.detach().float().requires_grad_()
    lower, hidden = (fused_hidden_states(of_inputs, r) for r in (recurrent, exact))
    assert lower.dtype == torch.float32
    assert (lower - hidden).abs().max() > 0
    torch.testing.assert_close(lower, hidden, atol=0.02, rtol=0.02)
    of_lower, of_exact = (
        torch.autograd.grad(h.sum(), [of_inputs, r])
        for h, r in ((lower, recurrent), (hidden, exact))
    )
    for gradient, expected in zip(of_lower, of_exact, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(
            gradient.float(), expected, atol=0.03 * scale, rtol=0.05
        )

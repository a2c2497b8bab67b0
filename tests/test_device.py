import pytest
import torch

from sklearn_charlstm._device import resolve_device, seeded

cpu = torch.device("cpu")


def test_auto_finds_the_best_device(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == cpu
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"'cuda' cannot be used: torch sees 0 CUDA"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match=r"'mps' cannot be used: .*no MPS device"):
        resolve_device("mps")
    with pytest.raises(ValueError, match=r"'meta' cannot be used: only CPU"):
        resolve_device("meta")
    with pytest.raises(ValueError, match=r"'gpu' is not a torch device; use 'auto'"):
        resolve_device("gpu")


def test_second_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"torch sees 2 CUDA device\(s\)"):
        resolve_device("cuda:2")


def test_seeded_restores_the_state_also_after_an_error():
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded(cpu, 3):
            drawn.append(torch.rand(2).tolist())
    with pytest.raises(ZeroDivisionError), seeded(cpu, 4):
        torch.rand(1) / (1 // 0)
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.get_rng_state(), before)

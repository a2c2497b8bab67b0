from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from sklearn_charlstm._replay import Replayed


@pytest.fixture
def captures(monkeypatch):
    """What graphs are made with: pool, stream and the GPU that is current."""
    captures, current = [], [0]

    @contextmanager
    def device(where):
        before, current[0] = current[0], where.index
        yield
        current[0] = before

    @contextmanager
    def graph(graph, pool, stream, capture_error_mode):
        captures.append((pool, stream, current[0]))
        yield

    made = SimpleNamespace(pool=lambda: "the pool", replay="replay")
    for name, value in {
        "device": device,
        "graph": graph,
        "Stream": lambda: f"a stream of GPU {current[0]}",
        "CUDAGraph": lambda: made,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return captures


def test_graphs_are_made_on_the_gpu_of_their_tensors(captures):
    called = []
    replayed = Replayed(called.append)
    tensor = SimpleNamespace(device=torch.device("cuda:1"))
    assert [replayed._captured([tensor]) for _ in range(2)] == ["replay"] * 2
    assert called == [tensor] * 2
    # One pool, and one stream for it.
    stream = "a stream of GPU 1"
    assert captures == [(None, stream, 1), ("the pool", stream, 1)]


def test_elsewhere_it_is_a_function():
    called = []
    replayed = Replayed(lambda *tensors: called.append(tensors))
    tensors = torch.ones(2), torch.ones(3)
    for _ in range(3):
        replayed(*tensors)
    assert called == [tensors] * 3

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_charlstm._device import Compute
from sklearn_charlstm._model import Model
from sklearn_charlstm._module import CharLSTM

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# A model that trains in a blink.
TINY = {
    "maxlen": 8,
    "epochs": 3,
    "n_networks": 1,
    "hidden_size": 8,
    "embedding_dim": 4,
    "batch_size": 16,
    "device": "cpu",
    "random_state": 0,
}


@pytest.fixture
def tiny():
    return dict(TINY)


@pytest.fixture
def half():
    compute = Compute(torch.device("cpu"), torch.bfloat16)
    if not compute.can_train:
        pytest.skip("torch cannot train in bfloat16 on this processor")
    return compute


@pytest.fixture
def texts():
    return ["the cat and the dog", "le chat et le chien"] * 4


@pytest.fixture
def labels():
    return np.array(["eng", "fra"] * 4)


@pytest.fixture
def ngrams(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("ngrams")


@pytest.fixture
def udhr_folder():
    folder = SHARED_DATA / "udhr"
    if not folder.is_dir():
        pytest.skip("the Universal Declaration is not beside the checkout")
    return folder


@pytest.fixture
def n_threads():
    """Give torch more than the one thread that `make test` leaves it."""
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    yield before + 1
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _short_joint_training(monkeypatch):
    # For discriminative_epochs="auto"; thirty epochs would take most of the time.
    monkeypatch.setattr("sklearn_charlstm._discriminative.MAX_AUTO_EPOCHS", 2)


class WaitsCounted(TorchDispatchMode):
    """Counts how often a tensor is asked for a number: there a GPU is waited for."""

    n_waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        counts = func == torch.ops.aten.repeat_interleave.Tensor
        size = (kwargs or {}).get("output_size")
        self.n_waits += (counts and size is None) or func in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        )
        return func(*args, **(kwargs or {}))


def lstm_kernel(of_input, of_hidden, cell):
    """Do what torch's kernel does on a GPU."""
    take_in, keep, candidate, give_out = (of_input + of_hidden).chunk(4, dim=1)
    gates = [take_in.sigmoid(), keep.sigmoid(), candidate.tanh(), give_out.sigmoid()]
    cell = gates[1] * cell + gates[0] * gates[2]
    return gates[3] * cell.tanh(), cell, torch.cat(gates, dim=1)


def lstm_gradient_kernel(of_hidden, of_new_cell, cell, new_cell, gates, has_bias):
    assert not has_bias
    take_in, keep, candidate, give_out = gates.chunk(4, dim=1)
    squashed = new_cell.tanh()
    of_cell = of_hidden * give_out * (1 - squashed**2)
    if of_new_cell is not None:
        of_cell = of_cell + of_new_cell
    of_gates = [
        of_cell * candidate * take_in * (1 - take_in),
        of_cell * cell * keep * (1 - keep),
        of_cell * take_in * (1 - candidate**2),
        of_hidden * squashed * give_out * (1 - give_out),
    ]
    return torch.cat(of_gates, dim=1), of_cell * keep, torch.empty(0)


@pytest.fixture
def lstm_kernels(monkeypatch):
    """What stands in for torch's kernels where there is no GPU."""
    kernels = lstm_kernel, lstm_gradient_kernel
    monkeypatch.setattr("sklearn_charlstm._fused_lstm._kernels", lambda: kernels)


@pytest.fixture
def waits_counted():
    return WaitsCounted


@pytest.fixture
def random_model():
    """Return a function that makes a language model of random weights."""

    def make(vocabulary, seed, output="softmax"):
        params = {
            "n_inputs": vocabulary.n_inputs,
            "n_outputs": vocabulary.n_outputs,
            "n_networks": 2,
            "embedding_dim": 3,
            "hidden_size": 5,
            "num_layers": 2,
            "dropout": 0.5,
            "output": output,
        }
        torch.manual_seed(seed)
        state = CharLSTM(**params).state_dict()
        weights = {key: 3 * value.numpy() for key, value in state.items()}
        return Model(weights, params, vocabulary)

    return make

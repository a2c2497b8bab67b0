import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from torch.nn import functional as F

from sklearn_charlstm import _training
from sklearn_charlstm._training import train
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import IGNORE, WindowBatches, targets_of

CPU = torch.device("cpu")


def run(texts=("abcd" * 20,), output="softmax", seed=0, **settings):
    vocabulary = Vocabulary(texts, "char")
    batches = WindowBatches(
        targets_of(vocabulary.encode(texts), vocabulary, True),
        vocabulary,
        boundaries=True,
        maxlen=8,
        batch_size=4,
        seed=seed,
    )
    module_params = {
        "n_inputs": vocabulary.n_inputs,
        "n_outputs": len(vocabulary) + 1,
        "embedding_dim": 4,
        "hidden_size": 8,
        "num_layers": 1,
        "dropout": 0.1,
        "output": output,
    }
    defaults = {
        "epochs": 10,
        "lr": 0.05,
        "weight_decay": 0.0,
        "net_params": None,
        "device": CPU,
        "name": "the model",
    }
    return train(batches, module_params, seed=seed, **(defaults | settings))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_learns(output):
    _, loss_curve = run(output=output, epochs=60)
    assert loss_curve.shape == (60,)
    assert loss_curve[0] > 1.2
    assert loss_curve[-1] < 0.4


def test_reports_each_epoch():
    seen = []
    _, loss_curve = run(report=lambda *args: seen.append(args))
    assert seen == list(enumerate(loss_curve, start=1))


def test_loss_is_weighted_by_targets():
    # A learning rate that changes nothing: the loss is that of the first weights.
    weights, loss_curve = run(["a" * 5, "b"] * 9, lr=1e-30, epochs=2)
    assert loss_curve[0] == pytest.approx(loss_curve[1], rel=0.05)
    assert {key: value.dtype for key, value in weights.items()} == dict.fromkeys(
        weights, np.dtype("float32")
    )


def test_binary_cross_entropy_is_a_sum_over_tokens_and_a_mean_over_targets():
    logits = torch.randn(4, 3)
    targets = torch.tensor([2, IGNORE, 0, IGNORE])
    wanted = torch.tensor([[0.0, 0, 1], [1, 0, 0]])
    expected = F.binary_cross_entropy_with_logits(logits[[0, 2]], wanted) * 3
    torch.testing.assert_close(
        _training._BinaryCrossEntropy()(logits, targets), expected
    )


def test_same_seed_same_weights_whatever_the_state_and_threads_around_it():
    first, _ = run()
    torch.rand(5)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(n_threads + 1)
    try:
        second, _ = run()
        assert torch.get_num_threads() == n_threads + 1
    finally:
        torch.set_num_threads(n_threads)
    other, _ = run(seed=1)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
        assert not np.array_equal(first[key], other[key])


def test_random_states_are_left_alone():
    torch_state = torch.get_rng_state()
    numpy_state = np.random.mtrand._rand.get_state(legacy=False)["state"]["key"].copy()
    run()
    assert torch.equal(torch.get_rng_state(), torch_state)
    after = np.random.mtrand._rand.get_state(legacy=False)["state"]["key"]
    np.testing.assert_array_equal(after, numpy_state)


def test_divergence_names_model_and_epoch():
    with pytest.raises(
        ValueError, match=r"the model diverged: .* (nan|inf) in epoch \d"
    ):
        run(lr=1e38, net_params={"optimizer": torch.optim.SGD})


class _Interrupt(Callback):
    def on_batch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_a_real_interrupt_is_raised():
    n_threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run(net_params={"callbacks": [_Interrupt()]})
    assert torch.get_num_threads() == n_threads


def test_early_stopping_stops_and_callbacks_are_not_touched():
    callbacks = [EarlyStopping(monitor="train_loss", patience=2, threshold=10)]
    _, loss_curve = run(net_params={"callbacks": callbacks})
    assert len(loss_curve) == 1 + 2
    assert len(callbacks) == 1
    assert callbacks[0].misses_ == 0


def test_net_params_reach_the_net():
    default, _ = run()
    changed, _ = run(net_params={"optimizer": torch.optim.SGD})
    assert not np.array_equal(default["linear.bias"], changed["linear.bias"])
    with pytest.raises(ValueError, match="no_such_setting"):
        run(net_params={"no_such_setting": 1})


@pytest.mark.parametrize(
    ("name", "advice"),
    [("max_epochs", "set `epochs` instead"), ("train_split", "it cannot be changed")],
)
def test_net_params_must_not_hide_a_parameter(name, advice):
    with pytest.raises(ValueError, match=f"{name}.*{advice}"):
        run(net_params={name: None})

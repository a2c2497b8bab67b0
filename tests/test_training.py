import dataclasses
import signal
import threading

import numpy as np
import pytest
import torch
from skorch import callbacks as callbacks_of_skorch
from torch.nn import functional as F

from sklearn_charlstm import _loop, _training
from sklearn_charlstm._device import Compute
from sklearn_charlstm._module import CharLSTM
from sklearn_charlstm._training import (
    EarlyStopping,
    TrainingJob,
    initial_state,
    train,
)
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import WindowBatches

CPU = Compute(torch.device("cpu"), torch.float32)


def run(
    texts=("abcd" * 20,),
    output="softmax",
    seed=0,
    sample_weight=None,
    batch_size=4,
    dropout=0.1,
    n_networks=1,
    state=None,
    epoch=0,
    smoothing=False,
    alphabet=None,
    boundaries=True,
    **settings,
):
    """Train a tiny model; return the state it ends in and the loss curve."""
    vocabulary = Vocabulary(alphabet or texts, "char", boundaries)
    batches = WindowBatches(
        vocabulary.encode(texts),
        np.ones(len(texts)) if sample_weight is None else np.array(sample_weight),
        vocabulary,
        maxlen=8,
        batch_size=batch_size,
        seed=seed,
        epoch=epoch,
        smoothing=smoothing,
    )
    module_params = {
        "n_inputs": vocabulary.n_inputs,
        "n_outputs": vocabulary.n_outputs,
        "n_networks": n_networks,
        "embedding_dim": 4,
        "hidden_size": 8,
        "num_layers": 1,
        "dropout": dropout,
        "output": output,
    }
    defaults = {
        "epochs": 10,
        "lr": 0.05,
        "weight_decay": 0.0,
        "net_params": None,
        "compute": CPU,
    }
    settings = defaults | settings
    job = TrainingJob(
        state or initial_state(module_params, seed),
        batches,
        module_params,
        settings.pop("epochs"),
        "the model",
        settings.pop("report", None),
    )
    return train(job, **settings)


def assert_equal_weights(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], **(tolerance or {"rtol": 0}))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_learns(output):
    _, loss_curve = run(output=output, epochs=60, dropout=0.0)
    assert len(loss_curve) == 60
    assert loss_curve[0] > 1.2
    # What follows a character left out, a tenth, or a cut can only be guessed.
    assert loss_curve[-1] < 0.8


def test_reports_each_epoch():
    seen = []
    _, loss_curve = run(report=seen.append)
    assert seen == loss_curve


def test_loss_is_weighted_by_targets():
    # A learning rate that changes nothing: the loss is that of the first weights.
    state, loss_curve = run(["a" * 5, "b"] * 9, lr=1e-30, epochs=2)
    assert loss_curve[0] == pytest.approx(loss_curve[1], rel=0.05)
    assert {values.dtype for values in state.weights.values()} == {np.dtype("float32")}


def test_average_of_the_weights():
    # The first average is the first weights; then old and new have the shares that
    # make it a mean weighted by a power of the number of the update.
    whole = ["abcd"]
    states = [run(whole, epochs=1)[0]]
    for epoch in (1, 2):
        states.append(run(whole, epochs=1, state=states[-1], epoch=epoch)[0])
    a = _loop.AVERAGE_DECAY
    assert [state.n_updates for state in states] == [1, 2, 3]
    expected = {name: 0 * values for name, values in states[0].weights.items()}
    for t, state in enumerate(states, start=1):
        share = (a + 1) / (t + a)
        for name, values in state.weights.items():
            expected[name] = (1 - share) * expected[name] + share * values
        assert_equal_weights(state.average, expected, rtol=1e-5, atol=1e-7)


def test_training_that_goes_on_is_training_that_never_stopped():
    whole, curve = run(epochs=7)
    first, first_curve = run(epochs=3)
    kept = {index: state["exp_avg"].clone() for index, state in moments(first)}
    then, then_curve = run(epochs=4, state=first, epoch=3)
    assert first_curve + then_curve == curve
    assert_equal_weights(then.weights, whole.weights)
    assert_equal_weights(then.average, whole.average)
    # And the state gone on from may be gone on from again.
    for index, state in moments(first):
        assert torch.equal(state["exp_avg"], kept[index])
    again, _ = run(epochs=4, state=first, epoch=3)
    assert_equal_weights(again.weights, whole.weights)


def moments(state):
    optimizer, by_parameter = state.optimizer
    assert optimizer == "AdamW"
    return by_parameter.items()


def test_going_on_with_other_settings_of_the_optimizer():
    state, _ = run(epochs=3)
    same, _ = run(epochs=2, state=state, epoch=3)
    faster, _ = run(epochs=2, state=state, epoch=3, lr=0.2)
    still, _ = run(epochs=2, state=state, epoch=3, lr=1e-30)
    bias = "networks.0.linear.bias"
    assert not np.allclose(faster.weights[bias], same.weights[bias])
    np.testing.assert_allclose(still.weights[bias], state.weights[bias], rtol=1e-6)
    sgd = {"optimizer": torch.optim.SGD}
    other, _ = run(epochs=2, state=state, epoch=3, net_params=sgd)
    assert other.optimizer[0] == "SGD"
    assert run(epochs=1, state=other, epoch=5)[0].n_updates == 6 * other.n_updates // 5


def test_the_order_of_the_weights_is_of_no_account():
    state, _ = run(epochs=2)
    reversed_ = dataclasses.replace(
        state,
        weights=dict(reversed(state.weights.items())),
        average=dict(reversed(state.average.items())),
    )
    one, _ = run(epochs=1, state=state, epoch=2)
    other, _ = run(epochs=1, state=reversed_, epoch=2)
    assert_equal_weights(one.average, other.average)


TEXTS = ["abab", "acca", "bb"]


def test_weights_of_texts_count_only_by_their_ratios():
    # A power of two changes no rounding.
    one, curve = run(TEXTS, sample_weight=[1, 2, 0.5])
    other, other_curve = run(TEXTS, sample_weight=[4, 8, 2])
    assert_equal_weights(one.weights, other.weights)
    assert curve == other_curve
    plain, _ = run(TEXTS)
    assert not np.allclose(
        one.weights["networks.0.linear.bias"], plain.weights["networks.0.linear.bias"]
    )


def test_weight_two_is_the_gradient_of_the_text_given_twice(monkeypatch):
    # Where a batch is the whole epoch and nothing is drawn at random, the models are
    # the same up to rounding.
    monkeypatch.setattr("sklearn_charlstm._windows.UNKNOWN_SHARE", 0.0)
    settings = {"batch_size": 100, "dropout": 0.0, "epochs": 5}
    weighted, curve = run(TEXTS, sample_weight=[2, 1, 3], **settings)
    repeated, other_curve = run([TEXTS[0], *TEXTS, TEXTS[2], TEXTS[2]], **settings)
    np.testing.assert_allclose(curve, other_curve, rtol=1e-5)
    assert_equal_weights(weighted.weights, repeated.weights, rtol=1e-3, atol=1e-4)


def test_binary_cross_entropy_is_a_sum_over_tokens():
    logits = torch.randn(2, 3)
    wanted = torch.tensor([[0.0, 0, 1], [1, 0, 0]])
    criterion = _training._BinaryCrossEntropy()
    losses, _ = criterion(logits, torch.tensor([2, 0]))
    for row in range(2):
        expected = F.binary_cross_entropy_with_logits(logits[row], wanted[row]) * 3
        torch.testing.assert_close(losses[row], expected)
    torch.testing.assert_close(criterion(logits, wanted)[0], losses)


@pytest.mark.parametrize("smoothing", [True, False])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_what_is_left_out_is_not_learned_from(output, smoothing, monkeypatch):
    monkeypatch.setattr("sklearn_charlstm._windows.UNKNOWN_SHARE", 0.0)
    settings = {"output": output, "smoothing": smoothing, "epochs": 3}
    settings |= {"alphabet": "abc", "boundaries": False, "dropout": 0.0}
    one, _ = run(["abab", "b"], **settings)
    other, _ = run(["abab??", "b"], **settings)
    assert_equal_weights(one.weights, other.weights, rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights_whatever_the_state_and_threads_around_it(request):
    first, _ = run()
    torch.rand(5)
    n_threads = request.getfixturevalue("n_threads")
    second, _ = run()
    assert torch.get_num_threads() == n_threads
    assert_equal_weights(first.weights, second.weights)
    other, _ = run(seed=1)
    for name in first.weights:
        assert not np.array_equal(first.weights[name], other.weights[name])


def test_random_states_are_left_alone():
    torch_state = torch.get_rng_state()
    numpy_state = np.random.mtrand._rand.get_state(legacy=False)["state"]["key"].copy()
    run()
    assert torch.equal(torch.get_rng_state(), torch_state)
    after = np.random.mtrand._rand.get_state(legacy=False)["state"]["key"]
    np.testing.assert_array_equal(after, numpy_state)


@pytest.mark.parametrize(
    "net_params", [{"optimizer": "adam"}, {"foo": 1}, {"callbacks": [threading.Lock()]}]
)
def test_settings_that_no_net_has(net_params):
    with pytest.raises(ValueError, match="`net_params` cannot be used"):
        run(net_params=net_params)


def test_divergence_names_model_and_epoch():
    with pytest.raises(
        ValueError, match=r"the model diverged: .* (nan|inf) in epoch \d"
    ):
        run(lr=1e38, net_params={"optimizer": torch.optim.SGD})


class _Interrupt(callbacks_of_skorch.Callback):
    def on_batch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_a_real_interrupt_is_raised(n_threads):
    with pytest.raises(KeyboardInterrupt):
        run(net_params={"callbacks": [_Interrupt()]})
    assert torch.get_num_threads() == n_threads


def test_callbacks_stop_and_are_not_touched():
    callbacks = [
        callbacks_of_skorch.EarlyStopping("train_loss", patience=2, threshold=10)
    ]
    _, loss_curve = run(net_params={"callbacks": callbacks})
    assert len(loss_curve) == 1 + 2
    assert len(callbacks) == 1
    assert callbacks[0].misses_ == 0


def test_early_stopping_keeps_the_best():
    losses = iter([3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 1.2, 0.5])
    seen = []

    def validation_loss(weights):
        seen.append(weights)
        return next(losses)

    early_stopping = EarlyStopping(validation_loss, n_iter_no_change=3)
    state, loss_curve = run(epochs=20, early_stopping=early_stopping)
    assert early_stopping.curve == [3, 2, 2.5, 1, 1.5, 1, 1.2]
    assert len(loss_curve) == 7
    assert early_stopping.best is seen[3]
    assert early_stopping.stops
    # What was validated is the average.
    assert_equal_weights(seen[-1], state.average)
    # Told of all epochs so far, it would not have gone on.
    assert EarlyStopping(validation_loss, 3, curve=early_stopping.curve).stops
    assert not EarlyStopping(validation_loss, 4, curve=early_stopping.curve).stops
    assert not EarlyStopping(validation_loss, 1).stops


def test_net_params_reach_the_net():
    default, _ = run()
    changed, _ = run(net_params={"optimizer": torch.optim.SGD})
    bias = "networks.0.linear.bias"
    assert not np.array_equal(default.weights[bias], changed.weights[bias])
    with pytest.raises(ValueError, match="no_such_setting"):
        run(net_params={"no_such_setting": 1})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("max_epochs", "set `epochs` instead"),
        ("dataset", "it cannot be changed"),
        ("module__dropout", "and `dropout` instead"),
        ("criterion__reduction", "set `output` instead"),
    ],
)
def test_net_params_must_not_hide_a_parameter(name, advice):
    with pytest.raises(ValueError, match=f"{name}.*{advice}"):
        run(net_params={name: None})


@pytest.mark.parametrize("value", ["disable", callbacks_of_skorch.EpochTimer()])
def test_callbacks_must_be_a_list(value):
    with pytest.raises(ValueError, match="must be a list"):
        run(net_params={"callbacks": value})


def test_an_interrupt_while_validating_is_raised():
    def validation_loss(weights):
        signal.raise_signal(signal.SIGINT)

    # A process in the background may have been started with Ctrl-C ignored.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(early_stopping=EarlyStopping(validation_loss, 3))
    finally:
        signal.signal(signal.SIGINT, previous)


def test_callbacks_see_the_validation_loss_of_every_epoch():
    losses = iter([3.0, 2.0, 2.5, 2.4])
    early_stopping = EarlyStopping(lambda weights: next(losses), 10)
    stopping = callbacks_of_skorch.EarlyStopping("valid_loss", patience=2)
    _, loss_curve = run(
        early_stopping=early_stopping, net_params={"callbacks": [stopping]}
    )
    assert len(loss_curve) == len(early_stopping.curve) == 4


@pytest.mark.parametrize("scale", [1e306, 1e-310, 5e-324])
def test_weights_of_any_size(scale):
    state, curve = run(TEXTS, sample_weight=[scale] * 3)
    plain, plain_curve = run(TEXTS)
    assert curve == plain_curve
    assert_equal_weights(state.weights, plain.weights)


def test_every_network_learns_by_itself():
    state, _ = run(n_networks=2, epochs=60, dropout=0.0)
    text = "abcd" * 3
    vocabulary = Vocabulary([text], "char", True)
    params = {
        "n_inputs": vocabulary.n_inputs,
        "n_outputs": vocabulary.n_outputs,
        "n_networks": 2,
        "embedding_dim": 4,
        "hidden_size": 8,
        "num_layers": 1,
        "dropout": 0.0,
        "output": "softmax",
    }
    ids = torch.tensor(vocabulary.encode([text]).ids.astype(int))
    module = CharLSTM.from_weights(state.average, params)
    logits, _ = module(ids[None, :-1])
    losses = [F.cross_entropy(own[0], ids[1:]).item() for own in logits]
    assert max(losses) < 0.4
    assert losses[0] != losses[1]


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_bfloat16_multiplies_and_keeps_weights_of_float32(monkeypatch, half, output):
    dtypes = set()
    forward = torch.nn.LSTM.forward

    def watch(self, inputs, state=None):
        hidden, state = forward(self, inputs, state)
        dtypes.add((self.weight_hh_l0.dtype, hidden.dtype))
        return hidden, state

    monkeypatch.setattr(torch.nn.LSTM, "forward", watch)
    exact, exact_curve = run(output=output)
    lower, curve = run(output=output, compute=half)
    assert dtypes == {(torch.float32, torch.float32), (torch.float32, torch.bfloat16)}
    np.testing.assert_allclose(curve, exact_curve, rtol=0.02)
    assert {values.dtype for values in lower.weights.values()} == {np.dtype("float32")}
    assert any((lower.weights[k] != exact.weights[k]).any() for k in exact.weights)


@pytest.mark.parametrize("smoothing", [True, False])
def test_no_batch_waits_for_the_device(waits_counted, smoothing, monkeypatch):
    # No history is in the table: all are looked up step by step.
    monkeypatch.setattr("sklearn_charlstm._smoothing.MAX_TABLE", 1)
    counts = []
    for n_letters in (10, 200):
        with waits_counted() as counted:
            run(["abcd" * n_letters], epochs=2, smoothing=smoothing)
        counts.append(counted.n_waits)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("lr", [1e20, 1e39])
def test_divergence_in_the_last_update(lr):
    # The losses are of the weights before it.
    with pytest.raises(ValueError, match=r"the model diverged: .*smaller `lr`"):
        run(["abab"], epochs=1, lr=lr)

import numpy as np
import pytest
import torch
from joblib import parallel_config

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    _class_models,
    _padded_batches,
    _stack,
    _stacked,
)
from sklearn_charlstm._device import Compute
from sklearn_charlstm._stacked import can_stack, train_stacked
from sklearn_charlstm._training import (
    TrainingJob,
    TrainingState,
    initial_state,
    train,
)
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import WindowBatches

CPU = Compute(torch.device("cpu"), torch.float32)
# Of other alphabets and lengths: one batch an epoch, and many.
TEXTS = [["abcd" * 20], ["xyz" * 3, "yyx"], ["abab ba " * 9, "cab"], ["zyx w" * 30]]
HOW = {"lr": 0.02, "weight_decay": 0.01}


def make_job(k, report=None, epochs=4, epoch=0, state=None, **params):
    boundaries = bool(params.pop("boundaries", True))
    vocabulary = Vocabulary(TEXTS[k], "char", boundaries)
    module_params = {
        "n_inputs": vocabulary.n_inputs,
        "n_outputs": vocabulary.n_outputs,
        "n_networks": 2,
        "embedding_dim": 4,
        "hidden_size": 8,
        "num_layers": 1,
        "dropout": 0.3,
        "output": "softmax",
        **params,
    }
    batches = WindowBatches(
        vocabulary.encode(TEXTS[k]),
        np.arange(1, len(TEXTS[k]) + 1),
        vocabulary,
        maxlen=8,
        batch_size=3,
        seed=k,
        epoch=epoch,
        smoothing=True,
    )
    state = state or initial_state(module_params, k)
    return TrainingJob(state, batches, module_params, epochs, f"model {k}", report)


def assert_same(one, other, atol=1e-5):
    (state, losses), (expected, expected_losses) = one, other
    for weights, expected_weights in (
        (state.weights, expected.weights),
        (state.average, expected.average),
    ):
        assert list(weights) == list(expected_weights)
        for name, values in weights.items():
            np.testing.assert_allclose(values, expected_weights[name], atol=atol)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert state.n_updates == expected.n_updates
    (name, moments), (expected_name, expected_moments) = (
        state.optimizer,
        expected.optimizer,
    )
    assert name == expected_name
    assert list(moments) == list(expected_moments)
    for number, values in moments.items():
        assert values.keys() == expected_moments[number].keys()
        for key, value in values.items():
            expected_value = expected_moments[number][key]
            assert value.shape == expected_value.shape
            torch.testing.assert_close(value, expected_value, atol=1e-5, rtol=1e-4)


SMALL = {"dropout": 0.0, "n_networks": 1, "boundaries": False}


@pytest.mark.parametrize("bounds", [{}, {"MIN_SETS": 1, "MAX_TARGETS": 1}])
@pytest.mark.parametrize(
    ("params", "max_values", "at_once"),
    [
        ({}, 2**29, [4]),
        ({}, 28_000, [3, 1]),
        ({}, 1, [1, 1, 1, 1]),
        (SMALL, 2**29, [4]),
        (SMALL, 10_000, [2, 2]),
        ({"output": "sigmoid"}, 28_000, [3, 1]),
    ],
)
def test_each_is_trained_as_by_itself(monkeypatch, params, max_values, at_once, bounds):
    for name, value in bounds.items():
        monkeypatch.setattr(_padded_batches, name, value)
    monkeypatch.setattr(_stack, "MAX_VALUES", max_values)
    n_jobs = []
    monkeypatch.setattr(
        _stacked,
        "_train",
        lambda jobs, *how, train=_stacked._train: (
            n_jobs.append(len(jobs)) or train(jobs, *how)
        ),
    )
    seen = [[] for _ in TEXTS]
    jobs = [make_job(k, of_model.append, **params) for k, of_model in enumerate(seen)]
    assert can_stack(jobs)
    assert len({len(job.batches) for job in jobs}) == 3
    results = train_stacked(jobs, **HOW, compute=CPU)
    assert n_jobs == at_once
    for k, result in enumerate(results):
        expected = train(make_job(k, **params), **HOW, net_params=None, compute=CPU)
        assert_same(result, expected)
        assert len(seen[k]) == 4
        assert seen[k] == result[1]


@pytest.mark.parametrize("stacked_before", [True, False])
def test_training_goes_on(stacked_before):
    numbers = range(len(TEXTS))
    if stacked_before:
        jobs = [make_job(k, epochs=2) for k in numbers]
        before = train_stacked(jobs, **HOW, compute=CPU)
    else:
        before = [train_one(k, epochs=2) for k in numbers]
    jobs = [make_job(k, epochs=2, epoch=2, state=before[k][0]) for k in numbers]
    # They have another number of updates behind them.
    assert can_stack(jobs)
    for k, result in enumerate(train_stacked(jobs, **HOW, compute=CPU)):
        state, losses = train_one(k, epochs=4)
        assert_same(result, (state, losses[2:]))


def train_one(k, epochs):
    job = make_job(k, epochs=epochs)
    return train(job, **HOW, net_params=None, compute=CPU)


def test_gradients_are_cut_for_each_model(monkeypatch):
    # So small a norm that every gradient is cut.
    monkeypatch.setattr(_stack, "MAX_GRADIENT_NORM", 1e-3)
    monkeypatch.setattr("sklearn_charlstm._training.MAX_GRADIENT_NORM", 1e-3)
    results = train_stacked([make_job(k) for k in range(3)], **HOW, compute=CPU)
    for k, result in enumerate(results):
        assert_same(result, train_one(k, epochs=4))


@pytest.mark.parametrize(
    "other",
    [
        {"hidden_size": 9},
        {"epochs": 5},
        {"output": "sigmoid"},
        {"epoch": 1},
    ],
)
def test_others_are_not_trained_together(other):
    assert not can_stack([make_job(0), make_job(1, **other)])
    assert can_stack([make_job(0), make_job(1)])


def test_optimizers_that_would_go_on_otherwise_are_not():
    job = make_job(0)
    (state, _), _ = train_stacked([job, make_job(1)], **HOW, compute=CPU)
    name, by_number = state.optimizer
    assert can_stack([make_job(0, state=state, epoch=4)])
    for changed in (
        {k: values for k, values in by_number.items() if k},
        by_number | {0: by_number[0] | {"step": torch.tensor(1.0)}},
        by_number | {0: by_number[0] | {"max_exp_avg_sq": torch.zeros(1)}},
    ):
        other = TrainingState(
            state.weights, state.average, state.n_updates, (name, changed)
        )
        assert not can_stack([make_job(0, state=other, epoch=4)])


def test_deep_ones_and_texts_without_estimates_are_not():
    assert not can_stack([make_job(k, num_layers=2) for k in range(2)])
    jobs = [make_job(k) for k in range(2)]
    jobs[1].batches.estimates = None
    assert not can_stack(jobs)
    state = TrainingState(jobs[0].state.weights, jobs[0].state.average, 4, ("SGD", {}))
    assert not can_stack([make_job(0, state=state)])


def test_no_batch_waits_for_the_device(waits_counted, monkeypatch):
    counts = []
    for n_times in (1, 8):
        monkeypatch.setitem(globals(), "TEXTS", [["abcd" * 20 * n_times]])
        with waits_counted() as counted:
            train_stacked([make_job(0), make_job(0)], **HOW, compute=CPU)
        counts.append(counted.n_waits)
    assert counts == [0, 0]


def test_divergence_says_which():
    jobs = [make_job(k) for k in range(3)]
    weights = jobs[1].state.weights
    weights["networks.1.linear.bias"][:] = np.nan
    with pytest.raises(ValueError, match="Training of model 1 diverged"):
        train_stacked(jobs, **HOW, compute=CPU)


def test_divergence_that_no_loss_tells():
    jobs = [make_job(k) for k in range(3)]
    # All outputs alike: the softmax does not see it.
    jobs[1].state.weights["networks.1.linear.bias"][:] = 1e13
    with pytest.raises(ValueError, match="Training of model 1 diverged: weights grew"):
        train_stacked(jobs, **HOW, compute=CPU)


def test_bfloat16_is_close(half):
    results = train_stacked([make_job(k) for k in range(3)], **HOW, compute=half)
    for k, (state, losses) in enumerate(results):
        expected, expected_losses = train(
            make_job(k), **HOW, net_params=None, compute=half
        )
        np.testing.assert_allclose(losses, expected_losses, rtol=0.01)
        for name, values in state.average.items():
            np.testing.assert_allclose(values, expected.average[name], atol=0.05)


@pytest.fixture
def clf(tiny):
    tiny.update(discriminative_epochs=1, calibration_folds=2, n_networks=2)
    return CharLMLanguageClassifier(**tiny)


X = ["the cat", "und der hund", "le chat et le chien", "the dog and the cat"] * 2
Y = ["en", "de", "fr", "en"] * 2


def test_classifier_is_the_same(clf, monkeypatch):
    expected = clf.fit(X, Y).log_likelihood(X)
    loss_curve = clf.loss_curve_
    n_stacked = []
    monkeypatch.setattr(_stacked, "_DEVICES", ("cpu",))
    monkeypatch.setattr(
        _class_models,
        "train_stacked",
        lambda jobs, **how: n_stacked.append(len(jobs)) or train_stacked(jobs, **how),
    )
    clf.fit(X, Y)
    # And the models of both folds.
    assert n_stacked == [3, 6]
    np.testing.assert_allclose(clf.log_likelihood(X), expected, rtol=1e-4)
    np.testing.assert_allclose(clf.loss_curve_, loss_curve, rtol=1e-5)
    assert clf.device_ == "cpu"


@pytest.mark.parametrize(
    ("backend", "n_jobs", "n_groups"),
    [("loky", 1, 1), ("loky", 2, 2), ("loky", 3, 2), ("threading", 2, 1)],
)
def test_several_devices_share_the_models(clf, monkeypatch, backend, n_jobs, n_groups):
    clf.set_params(discriminative_epochs=0, calibration_folds=0)
    expected = clf.fit(X, Y).log_likelihood(X)
    monkeypatch.setattr(_stacked, "_DEVICES", ("cpu",))
    monkeypatch.setattr(_class_models, "n_devices", lambda device: 2)
    n_jobs_run = []
    monkeypatch.setattr(
        _class_models,
        "run",
        lambda names, jobs, n_jobs, *rest, run=_class_models.run: (
            n_jobs_run.append(n_jobs) or run(names, jobs, n_jobs, *rest)
        ),
    )
    clf.set_params(n_jobs=n_jobs)
    with parallel_config(backend):
        found = clf.fit(X, Y).log_likelihood(X)
    assert n_jobs_run == [n_groups]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "params",
    [{"early_stopping": True}, {"net_params": {}}, {"num_layers": 2}],
)
def test_what_one_step_cannot_do_is_done_one_by_one(clf, monkeypatch, params):
    clf.set_params(**params, discriminative_epochs=0)
    expected = clf.fit(X, Y).log_likelihood(X)
    monkeypatch.setattr(_stacked, "_DEVICES", ("cpu",))
    found = clf.fit(X, Y).log_likelihood(X)
    np.testing.assert_array_equal(found, expected)


def test_warm_start_and_partial_fit(clf, monkeypatch):
    clf.set_params(warm_start=True)
    expected = clf.fit(X, Y).set_params(epochs=5).fit(X, Y).log_likelihood(X)
    again = CharLMLanguageClassifier(**clf.get_params()).set_params(epochs=3)
    monkeypatch.setattr(_stacked, "_DEVICES", ("cpu",))
    again.fit(X, Y).set_params(epochs=5).fit(X, Y)
    np.testing.assert_allclose(again.log_likelihood(X), expected, rtol=1e-4)
    # One that came from early stopping forgets its curve.
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(_stacked, "_DEVICES", devices)
        stopped = CharLMLanguageClassifier(**clf.get_params())
        stopped.set_params(early_stopping=True, epochs=1).fit(X, Y)
        stopped.set_params(early_stopping=False, epochs=2).fit(X, Y)
        curves = [model.validation_loss_curve_ for model in stopped.language_models_]
        assert curves == [None] * 3
    # Nothing to do, and nothing known.
    again.fit(X, Y)
    with pytest.raises(ValueError, match="No character in the texts"):
        again.set_params(epochs=6).fit(["äöü"] * 3, ["de", "en", "fr"])
    again.partial_fit(X, Y)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_on_a_gpu(dropout):
    cuda = Compute(torch.device("cuda"), torch.float32)
    jobs = [make_job(k, dropout=dropout) for k in range(3)]
    for k, result in enumerate(train_stacked(jobs, **HOW, compute=cuda)):
        job = make_job(k, dropout=dropout)
        expected = train(job, **HOW, net_params=None, compute=cuda)
        # Other roundings than of the same products, and steps as long as their signs
        # where gradients are next to nothing.
        assert_same(result, expected, atol=1e-4)

import threading
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.utils.parallel import Parallel

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel
from sklearn_charlstm._device import (
    Compute,
    nth_gpu,
    reproducibly,
    resolve_compute,
    seeded,
)
from sklearn_charlstm._parallel import run
from sklearn_charlstm._reading import MIN_TOKENS, in_threads

cpu = torch.device("cpu")


def resolve_device(device):
    return resolve_compute(device, "float32").device


def test_auto_finds_the_best_device(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == cpu
    assert resolve_device("mps") == torch.device("mps")
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
    with pytest.raises(ValueError, match=r"device=None is not a torch device"):
        resolve_device(None)


def test_a_precision_that_is_not_known():
    with pytest.raises(ValueError, match=r"precision='half' is not known; use"):
        resolve_compute("cpu", "half")


def test_second_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"torch sees 2 CUDA device\(s\)"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": True, "amx_bf16": False}, "float32"),
        ({"bf16": False}, "float32"),
    ],
)
def test_auto_precision_of_a_processor(monkeypatch, able, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve_compute("cpu", "auto").precision == precision
    # What is asked for is done, be it slow.
    assert resolve_compute("cpu", "bfloat16").dtype == torch.bfloat16
    assert resolve_compute("cpu", "float32").dtype == torch.float32


def test_a_processor_without_bfloat16(monkeypatch, tiny, texts, labels):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False
    )
    clf = CharLMLanguageClassifier(**tiny, precision="bfloat16")
    with pytest.raises(
        ValueError, match=r"precision='bfloat16' cannot be used .* 'auto'"
    ):
        clf.fit(texts, labels)
    # Where another machine has trained.
    clf.set_params(precision="float32").fit(texts, labels)
    exact = clf.predict_proba(texts)
    lower = clf.set_params(precision="bfloat16").predict_proba(texts)
    torch.testing.assert_close(lower, exact, atol=0.01, rtol=0.02)
    # Without oneDNN torch has loops of its own, with it GPUs theirs.
    assert Compute(torch.device("cuda"), torch.bfloat16).can_train
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert Compute(cpu, torch.bfloat16).can_train


def test_threads_stay_on_the_current_gpu(monkeypatch):
    current = threading.local()
    monkeypatch.setattr("sklearn_charlstm._reading.cpu_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda number: setattr(current, "gpu", number)
    )
    with in_threads(2, n_models=2, n_tokens=MIN_TOKENS) as each:
        assert list(each(lambda _: current.gpu, range(4))) == [1] * 4


def test_auto_precision_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    for device in ("mps", "cuda:1"):
        assert resolve_compute(device, "auto").precision == "float32"
        assert resolve_compute(device, "bfloat16").precision == "bfloat16"


@pytest.mark.parametrize(
    ("device", "n_jobs", "expected"),
    [
        ("cuda", 2, [0, 1, 2, 0, 1]),
        ("cuda", 1, [None] * 5),
        ("cuda:1", 2, [None] * 5),
        ("cpu", 2, [None] * 5),
    ],
)
def test_jobs_have_the_gpus_by_turns(monkeypatch, device, n_jobs, expected):
    current = []

    @contextmanager
    def as_current(number):
        current.append(number)
        yield
        current.pop()

    def job(number):
        return number, current[-1] if current else None

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device", as_current)
    names = ["a", "b", "c", "d", "e"]
    jobs = (partial(job, number) for number in range(5))
    # One after the other, whatever n_jobs, so that the patches are seen.
    monkeypatch.setattr(
        "sklearn_charlstm._parallel.Parallel",
        lambda **kwargs: Parallel(**kwargs | {"n_jobs": 1}),
    )
    results = run(names, jobs, n_jobs, torch.device(device))
    assert results == list(enumerate(expected))


def test_a_worker_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with (
        nth_gpu(1),
        pytest.raises(ValueError, match=r"torch sees 0 CUDA .* use device='auto'"),
    ):
        resolve_compute("cuda", "float32")


def test_float32_is_not_rounded_and_what_was_set_comes_back(n_threads):
    lstm = torch.backends.cudnn.rnn
    before = lstm.fp32_precision, n_threads
    within = []
    with pytest.raises(ZeroDivisionError), reproducibly():
        within += [lstm.fp32_precision, torch.get_num_threads() / 0]
    assert (lstm.fp32_precision, torch.get_num_threads()) == before
    with reproducibly():
        within += [lstm.fp32_precision, torch.get_num_threads()]
    assert within == ["ieee", 1]
    assert (lstm.fp32_precision, torch.get_num_threads()) == before


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


@pytest.mark.parametrize(
    ("n_jobs", "in_one_step"), [(None, ()), (2, ()), (1, ("cpu",))]
)
def test_what_is_set_in_torch_does_not_count(
    tiny, texts, labels, n_jobs, in_one_step, tmp_path, monkeypatch
):
    monkeypatch.setattr("sklearn_charlstm._stacked._DEVICES", in_one_step)
    tiny.update(n_jobs=n_jobs, discriminative_epochs=1, calibration_folds=2)
    as_usual = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    expected = as_usual.log_likelihood(texts)
    settings = {
        "dtype": (torch.set_default_dtype, torch.float64, torch.float32),
        "short dtype": (torch.set_default_dtype, torch.bfloat16, torch.float32),
        "device": (torch.set_default_device, "meta", None),
    }
    for setter, value, default in settings.values():
        setter(value)
        try:
            clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
            np.testing.assert_array_equal(clf.log_likelihood(texts), expected)
        finally:
            setter(default)
        clf.save(tmp_path / "clf.safetensors")
        path = tmp_path / "clf.safetensors"
        loaded = CharLMLanguageClassifier.load(path, device="cpu")
        np.testing.assert_array_equal(loaded.log_likelihood(texts), expected)


@pytest.mark.parametrize("in_one_step", [(), ("cpu",)])
@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_the_caller_has_switched_off(
    tiny, texts, labels, in_one_step, switched_off, monkeypatch
):
    monkeypatch.setattr("sklearn_charlstm._stacked._DEVICES", in_one_step)
    tiny.update(warm_start=True)
    jointly = {"discriminative_epochs": 1, "calibration_folds": 2}

    def trained():
        clf = CharLMLanguageClassifier(**tiny, **jointly).fit(texts, labels)
        clf.set_params(epochs=4).fit(texts, labels).partial_fit(texts, labels)
        clf.add_class("deu", ["der hund und die katze"])
        model = CharLSTMLanguageModel(**tiny, early_stopping=True).fit(texts)
        return clf.log_likelihood(texts), model.score_samples(texts)

    expected = trained()
    with switched_off():
        found = trained()
        assert not torch.is_grad_enabled()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_the_same_within_autocast(clf, texts, labels):
    expected = clf.fit(texts, labels).log_likelihood(texts)
    with torch.autocast("cpu", torch.bfloat16):
        clf.fit(texts, labels)
        np.testing.assert_array_equal(clf.log_likelihood(texts), expected)
        assert torch.is_autocast_enabled("cpu")


def test_autocast_of_the_caller(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, discriminative_epochs=1)
    assert_the_same_within_autocast(clf, texts, labels)


def test_autocast_of_the_caller_around_bfloat16(half, tiny, texts, labels):
    tiny.update(precision=half.precision, discriminative_epochs=1)
    clf = CharLMLanguageClassifier(**tiny)
    assert_the_same_within_autocast(clf, texts, labels)

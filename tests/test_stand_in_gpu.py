"""What would be computed on a GPU, on a stand-in for one.

It tells nothing of the speed and the roundings of a GPU, but where there is none it
tells whether all that is computed together is in one place.
"""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    CharLSTMLanguageModel,
    _module,
    _networks,
    _reading,
    _scoring,
)
from sklearn_charlstm._device import Compute
from sklearn_charlstm._module import CharLSTM
from sklearn_charlstm._replay import Replayed


def tensors_of(*values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def is_there(tensor):
    return getattr(tensor, "_is_there", False)


def put(result, there):
    for tensor in tensors_of(result):
        tensor._is_there = there
    return result


class StandIn(TorchFunctionMode):
    """Keep what is put on "cuda" on the CPU, and refuse to compute with both."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == torch.Tensor.device.__get__:
            return torch.device("cuda:0") if is_there(args[0]) else func(*args)
        if func == torch.Tensor.grad.__get__:
            return put(func(*args), is_there(args[0]))
        if func == torch.Tensor.data.__set__:
            put(args[0], is_there(args[1]))
            return func(*args)
        if func == torch.Tensor.to:
            device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **kwargs)
            return self._moved(args[0], device, dtype)
        if func == torch.Tensor.cpu:
            return self._moved(args[0], torch.device("cpu"), None)
        if func == torch.Tensor.pin_memory:
            return args[0]
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == "cuda"
            if there:
                kwargs = kwargs | {"device": "cpu"}
            return put(func(*args, **kwargs), there)
        tensors = tensors_of(args, kwargs)
        there = self._place(func, tensors)
        return put(func(*args, **kwargs), there)

    @staticmethod
    def _moved(tensor, device, dtype):
        there = is_there(tensor) if device is None else device.type == "cuda"
        dtype = dtype or tensor.dtype
        if (there, dtype) == (is_there(tensor), tensor.dtype):
            return tensor
        return put(tensor.to(dtype, copy=True), there)

    @staticmethod
    def _place(func, tensors):
        """Return where the result is, or raise an error as torch does."""
        places = [is_there(tensor) for tensor in tensors]
        if func in (torch.Tensor.copy_, torch._has_compatible_shallow_copy_type):
            return places[0]
        if func == torch.Tensor.numpy and places[0]:
            raise TypeError("can't convert a CUDA tensor to numpy")
        # Single numbers go anywhere, and what is there may be indexed from here.
        indexes = func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
        bound = {
            there
            for number, (tensor, there) in enumerate(zip(tensors, places, strict=True))
            if there or (tensor.dim() and not (indexes and number))
        }
        if len(bound) > 1:
            shapes = [tuple(tensor.shape) for tensor in tensors]
            raise RuntimeError(f"{func.__name__} in two places: {shapes}, {places}")
        return True in bound


@pytest.fixture
def stand_in(monkeypatch, lstm_kernels):
    for name, value in {
        "is_available": True,
        "is_bf16_supported": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "device": nullcontext(),
        "set_device": None,
        "empty_cache": None,
        "manual_seed": None,
        "get_rng_state": None,
        "set_rng_state": None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *a, value=value, **k: value)
    # Optimizers ask the GPU that a build for CUDA takes to be there.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *a, **k: None)
    # What a mode does not see.
    make = torch.Tensor._make_subclass
    monkeypatch.setattr(
        torch.Tensor,
        "_make_subclass",
        lambda cls, tensor, *args: put(make(cls, tensor, *args), is_there(tensor)),
    )
    # A graph calls the function again, with what has stayed where it was.
    monkeypatch.setattr(
        Replayed,
        "_captured",
        lambda self, tensors: lambda: self._function(*tensors),
    )
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: generator("cpu"))
    return StandIn()


def test_the_stand_in_refuses_to_mix(stand_in):
    here = torch.ones(2, 2)
    with stand_in:
        there = here.to("cuda")
        assert (here.device.type, there.device.type) == ("cpu", "cuda")
        assert (there @ there).mT[torch.tensor([0])].sum().item() == 4
        made = torch.zeros(2, device="cuda").new_zeros(2)
        assert made.cpu().numpy().tolist() == [0, 0]
        for mixed in (
            lambda: here + there,
            lambda: here[there.long()],
            lambda: torch.nn.Linear(2, 2).to("cuda")(here),
            lambda: torch.nn.Linear(2, 2)(there),
        ):
            with pytest.raises(RuntimeError, match="in two places"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def assert_same(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected)


LONG = ["hello my friend " * 10, "bonjour les amis " * 12]


@pytest.fixture
def clf(tiny, texts, labels):
    tiny.update(epochs=1, n_networks=2, discriminative_epochs=0, calibration_folds=0)
    return CharLMLanguageClassifier(**tiny).fit(texts, labels)


@pytest.mark.parametrize(
    "use",
    [
        lambda clf: clf.predict_proba(["the cat", "le chat"]),
        lambda clf: clf.predict_proba(LONG),
        lambda clf: clf.set_params(beam=1.0).predict(LONG),
        lambda clf: clf.sample("eng", 2, max_length=5, guidance=1.0, random_state=0),
    ],
)
def test_a_classifier_is_used(clf, stand_in, use):
    expected = use(clf)
    clf.set_params(device="cuda")
    with stand_in:
        assert_same(use(clf), expected)


@pytest.mark.parametrize(
    ("device", "n_jobs", "n_texts"),
    [
        ("cuda", 2, [2, 4]),
        ("cuda", 3, [1, 1, 4]),
        ("cuda", 9, [1, 1, 4]),
        ("cuda", 1, [6]),
        ("cuda:1", 2, [6]),
    ],
)
def test_gpus_share_the_texts(clf, stand_in, monkeypatch, device, n_jobs, n_texts):
    X = ["", "the cat", "le chat", "le", "the dog", "le", "le mien"]
    expected = clf.predict_proba(X)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(_reading, "MIN_TOKENS", 0)
    monkeypatch.setattr(_reading, "cpu_count", lambda: 3)
    # One after the other: the stand-in is that of a thread.
    monkeypatch.setattr(_scoring, "in_threads", lambda *_: nullcontext(map))
    gpus, read = [], []

    @contextmanager
    def on_gpu(number):
        if isinstance(number, int):
            gpus.append(number)
        yield

    monkeypatch.setattr(torch.cuda, "device", on_gpu)
    distinct = _scoring.distinct_log_likelihood

    def watch(models, texts, *args):
        read.append(len(texts.lengths))
        return distinct(models, texts, *args)

    monkeypatch.setattr(_scoring, "distinct_log_likelihood", watch)
    with stand_in:
        found = clf.set_params(device=device, n_jobs=n_jobs).predict_proba(X)
    assert_same(found, expected)
    assert gpus == ([*range(len(n_texts))] if len(n_texts) > 1 else [])
    assert read == n_texts


def test_memory_is_bounded_and_a_part_is_waited_for_once(clf, stand_in, monkeypatch):
    letters = np.random.default_rng(0).choice([*"abc the"], size=(30, 100))
    X = ["".join(row[: 100 - n]) for n, row in enumerate(letters)]
    expected = clf.predict_proba(X)
    monkeypatch.setattr(_reading, "ON_GPU", 2)
    monkeypatch.setattr(_reading, "MAX_TOKENS", 64)
    monkeypatch.setattr(_reading, "STEPS_ON_GPU", 8)
    sizes, n_waits = [], []
    read_levels = _networks.Networks.read_levels

    def watch(self, levels):
        sizes.append(len(levels.targets))
        return read_levels(self, levels)

    def wait(tensor):
        n_waits.append(is_there(tensor))
        return cpu(tensor)

    monkeypatch.setattr(_networks.Networks, "read_levels", watch)
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", wait)
    with stand_in:
        found = clf.set_params(device="cuda").predict_proba(X)
    assert_same(found, expected)
    # Blocks of 16 texts and 8 steps, and of more steps when fewer texts are left.
    assert 64 < max(sizes) <= 128
    assert sum(sizes) > 20 * len(n_waits)
    assert sum(n_waits) == 2


@pytest.mark.parametrize("few_states", [0, 10**6])
def test_beginnings_in_common_are_read_once_where_it_pays(
    clf, stand_in, monkeypatch, few_states
):
    X = ["the cat", "the dog", "le chat", "the", "le chien", "le c", "the end", "le"]
    expected = clf.predict_proba(X)
    monkeypatch.setattr(_reading, "FEW_STATES_ON_GPU", few_states)
    n_read = []
    read_levels = _networks.Networks.read_levels

    def watch(self, levels):
        n_read.append(len(levels.targets))
        return read_levels(self, levels)

    monkeypatch.setattr(_networks.Networks, "read_levels", watch)
    with stand_in:
        found = clf.set_params(device="cuda").predict_proba(X)
    assert_same(found, expected)
    n_different = len({text[:end] for text in X for end in range(1, 9)})
    assert sum(n_read) == (sum(map(len, X)) if few_states else n_different)


def test_few_texts_are_read_by_many_models(clf, monkeypatch):
    models = [model._as_model() for model in clf.language_models_] * 3
    # Two networks of eight units, for two texts.
    monkeypatch.setattr(
        _reading, "MAX_STATES_ON_GPU", 6 * 2 * _reading.STEPS_ON_GPU * 2 * 8
    )
    on_gpu = Compute(torch.device("cuda"), torch.float32)

    def sizes(n_texts, length):
        groups = _reading.groups_of_models(models, n_texts, n_texts * length, on_gpu)
        return [len(models[group]) for group in groups]

    assert sizes(2, 1000) == sizes(1, 1000) == sizes(2, 5) == [6]
    assert sizes(4, 1000) == [3, 3]
    assert sizes(1000, 1000) == [1] * 6


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.char_log_likelihood(LONG)[1],
        lambda model: model.next_char_proba(["the"]),
        lambda model: model.suggest("the"),
        lambda model: model.infill("the c", "t and", 2),
    ],
)
def test_a_model_is_used(clf, stand_in, use):
    model = clf.language_models_[0]
    expected = use(model)
    model.set_params(device="cuda")
    with stand_in:
        assert_same(use(model), expected)


def test_the_lower_precision(clf, texts, labels, stand_in):
    expected = clf.predict_log_proba([*texts, *LONG])
    clf.set_params(device="cuda", precision="bfloat16")
    seen = set()

    def note(module, inputs, outputs):
        if isinstance(module, torch.nn.LSTM):
            seen.add((outputs[0].dtype, torch.is_autocast_enabled("cuda")))

    with stand_in, torch.nn.modules.module.register_module_forward_hook(note):
        found = clf.predict_log_proba([*texts, *LONG])
        np.testing.assert_allclose(found, expected, atol=0.05, rtol=0.02)
        clf.sample("eng", max_length=5)
        clf.set_params(discriminative_epochs=1).fit(texts, labels)
        clf.predict(texts)
    # Of cuDNN's LSTM torch makes float16, or lays out its weights again and again.
    assert clf.precision_ == "bfloat16"
    assert seen == {(torch.float32, False)}


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("boundaries", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"discriminative_epochs": 1, "calibration_folds": 2},
        {"num_layers": 2},
        {"warm_start": True},
    ],
)
def test_a_classifier_is_trained(
    tiny, texts, labels, stand_in, output, boundaries, params
):
    tiny.update(epochs=1, discriminative_epochs=0, calibration_folds=0)
    tiny.update(output=output, boundaries=boundaries)
    # Equal ones are set aside together.
    texts = [text[k:] for k, text in enumerate(texts)]

    def trained(device):
        clf = CharLMLanguageClassifier(**tiny | params)
        clf.set_params(device=device).fit(texts, labels)
        if params.get("warm_start"):
            clf.set_params(epochs=2).fit(texts, labels)
        clf.partial_fit(texts, labels).add_class("deu", ["die Katze"])
        return clf.decision_function(texts)

    expected = trained("cpu")
    # The roundings of one step for all models, which the training after it multiplies;
    # how small they are is in test_stacked.
    with stand_in:
        np.testing.assert_allclose(trained("cuda"), expected, rtol=5e-3)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_model_is_trained(tiny, texts, stand_in, early_stopping):
    tiny.update(early_stopping=early_stopping)
    expected = CharLSTMLanguageModel(**tiny).fit(texts)
    with stand_in:
        model = CharLSTMLanguageModel(**tiny | {"device": "cuda"}).fit(texts)
        scores = model.score_samples(texts)
    np.testing.assert_allclose(scores, expected.score_samples(texts), atol=1e-5)
    assert model.device_ == "cuda"


@pytest.mark.parametrize("on_gpu", [True, False])
def test_torch_reads_and_we_train_on_a_cpu_only(clf, stand_in, monkeypatch, on_gpu):
    n_calls = {"with torch": 0, "side by side": 0}

    def counted(what, function):
        def call(*args):
            n_calls[what] += 1
            return function(*args)

        return call

    read = _networks.Networks.read_with_torch
    monkeypatch.setattr(
        _networks.Networks, "read_with_torch", counted("with torch", read)
    )
    side_by_side = CharLSTM._hidden_states
    monkeypatch.setattr(
        CharLSTM, "_hidden_states", counted("side by side", side_by_side)
    )
    monkeypatch.setattr(_module, "MIN_WINDOWS", 1)
    device = "cuda" if on_gpu else "cpu"
    model = clone(clf.language_models_[0]).set_params(device=device)
    with stand_in if on_gpu else nullcontext():
        clf.set_params(device=device).predict_proba(LONG)
        model.partial_fit(LONG)
    assert (n_calls["with torch"] > 0) == (not on_gpu)
    assert (n_calls["side by side"] > 0) == (not on_gpu)

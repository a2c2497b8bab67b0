"""One safe file: what is saved is loaded, and nothing else is."""

import copy
import itertools
import json
import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from operator import methodcaller
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel, _archive
from sklearn_charlstm._calibration import SLOPES, EvidenceWeight
from sklearn_charlstm._module import CharLSTM, weight_shapes

SAVED = Path(__file__).parent / "saved"
UNSEEN = ["", "the", "zq\ud800", "le chat et le chien " * 20]


def pairs(text):
    return [*itertools.pairwise(text), None, 2.5, np.int64(len(text))]


def classifier(tiny, texts, labels=("eng", "fra") * 4, **params):
    return CharLMLanguageClassifier(**tiny, **params).fit(texts, labels)


def after_partial_fit(tiny, texts):
    clf = CharLMLanguageClassifier(**tiny)
    return clf.partial_fit(texts, ["a", "b"] * 4, classes=["a", "b", "c"])


def with_another_class(tiny, texts):
    return classifier(tiny, texts).add_class("deu", ["der Hund und die Katze"])


FITTED = {
    "str": classifier,
    "int": lambda tiny, texts: classifier(tiny, texts, [3, -1] * 4),
    "float": lambda tiny, texts: classifier(tiny, texts, [3.0, -1.0] * 4),
    "bool": lambda tiny, texts: classifier(tiny, texts, [True, False] * 4),
    "object": lambda tiny, texts: classifier(
        tiny, texts, np.array(["a", "büb"] * 4, dtype=object)
    ),
    # Equal texts are set aside together, to calibrate.
    "boundaries": lambda tiny, texts: classifier(
        tiny,
        [text[k:] for k, text in enumerate(texts)],
        boundaries=True,
        class_prior=np.array([0.3, 0.7]),
    ),
    "byte": lambda tiny, texts: classifier(tiny, texts, analyzer="byte"),
    "all bytes": lambda tiny, texts: classifier(
        tiny, ["".join(map(chr, range(2**11))), *texts[1:]], analyzer="byte"
    ),
    "word": lambda tiny, texts: classifier(tiny, texts, analyzer="word"),
    "function": lambda tiny, texts: classifier(tiny, texts, analyzer=pairs),
    "layers": lambda tiny, texts: classifier(
        tiny, texts, num_layers=2, output="sigmoid", dropout=0.1
    ),
    "surrogates": lambda tiny, texts: classifier(
        tiny, [text + "\ud83d\ude00\ud83d" for text in texts]
    ),
    "early stopping": lambda tiny, texts: classifier(tiny, texts, early_stopping=True),
    "not calibrated": lambda tiny, texts: classifier(
        tiny, texts, discriminative_epochs=0, calibration_folds=0
    ),
    "partial_fit": after_partial_fit,
    "empirical": lambda tiny, texts: (
        after_partial_fit(tiny, texts)
        .set_params(class_prior="empirical")
        .partial_fit(texts, ["a", "b"] * 4)
    ),
    "add_class": with_another_class,
    "model": lambda tiny, texts: CharLSTMLanguageModel(**tiny).fit(texts),
    "model of a class": lambda tiny, texts: classifier(tiny, texts).language_models_[1],
}


def state(estimator):
    """Return all that a file should keep."""
    lost = (
        "device",
        "_training_state",
        "_generative_models",
        "_validation_fingerprint",
    )
    kept = {name: v for name, v in vars(estimator).items() if name not in lost}
    kept["class_prior"] = np.asarray(kept.get("class_prior")).tolist()
    kept["language_models_"] = [*map(state, kept.get("language_models_", []))]
    vocabulary = kept["vocabulary_"]
    common = vocabulary.common or vocabulary
    kept["vocabulary_"] = [
        [*vocabulary.items()],
        [*common.items()],
        {**vars(vocabulary), "common": None},
    ]
    return kept


def scores(estimator, texts):
    if hasattr(estimator, "predict_log_proba"):
        return np.column_stack(
            [estimator.predict_log_proba(texts), estimator.log_likelihood(texts)]
        )
    return estimator.score_samples(texts)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a model.safetensors"


@pytest.fixture
def clf(tiny, texts):
    tiny.update(hidden_size=2, embedding_dim=2)
    return classifier(tiny, texts)


@pytest.fixture
def saved(clf, path):
    clf.save(path)
    return path


@pytest.mark.parametrize("name", FITTED)
def test_all_that_was_learned_is_loaded(name, tiny, texts, path):
    fitted = FITTED[name](tiny, texts)
    before = joblib.hash(vars(fitted))
    fitted.save(path)
    assert joblib.hash(vars(fitted)) == before
    analyzer = pairs if name == "function" else None
    loaded = type(fitted).load(path, device="cpu", analyzer=analyzer)
    np.testing.assert_equal(state(loaded), state(fitted))
    X = [*texts, *UNSEEN]
    np.testing.assert_array_equal(scores(loaded, X), scores(fitted, X))
    again = path.with_name("again")
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_the_least_weight_of_evidence_is_loaded(clf, path):
    clf.evidence_weight_ = EvidenceWeight(0.01, 1.0)
    clf.save(path)
    loaded = CharLMLanguageClassifier.load(path)
    assert loaded.evidence_weight_ == clf.evidence_weight_


def test_the_greatest_weight_of_evidence_is_loaded(clf, path):
    # It is found as a logarithm, and may be above its bound by a rounding.
    clf.evidence_weight_ = EvidenceWeight(np.nextafter(SLOPES[1], np.inf), 1e6)
    clf.save(path)
    loaded = CharLMLanguageClassifier.load(path)
    assert loaded.evidence_weight_ == clf.evidence_weight_


def test_the_result_is_an_estimator_like_any_other(clf, saved, texts, labels):
    loaded = CharLMLanguageClassifier.load(saved)
    assert loaded.device == "auto"
    assert clone(loaded).get_params() == loaded.get_params()
    loaded.partial_fit(texts, labels)
    loaded.add_class("deu", ["der Hund"])
    fitted = loaded.set_params(device="cpu").fit(texts, labels)
    np.testing.assert_array_equal(scores(fitted, texts), scores(clf, texts))
    first = CharLMLanguageClassifier.load(saved).language_models_[0]
    first.fit(["xyz"]).save(saved)
    assert np.isfinite(CharLSTMLanguageModel.load(saved).score_samples(["xyz"]))


def test_a_file_without_the_curve_of_the_joint_training(clf, path, monkeypatch):
    content = clf._content

    def of_first_files(alphabets):
        of_now = content(alphabets)
        del of_now["discriminative_loss_curve"]
        return of_now

    monkeypatch.setattr(clf, "_content", of_first_files)
    clf.save(path)
    loaded = CharLMLanguageClassifier.load(path)
    assert loaded.discriminative_loss_curve_.shape == (0,)


def test_training_goes_on_from_the_weights(tiny, texts, path):
    fitted = CharLSTMLanguageModel(**tiny).fit(texts)
    fitted.save(path)
    loaded = CharLSTMLanguageModel.load(path, device="cpu")
    expected = fitted.set_params(warm_start=True, epochs=5).fit(texts)
    loaded.set_params(warm_start=True, epochs=5).fit(texts)
    np.testing.assert_array_equal(loaded.loss_curve_, expected.loss_curve_)
    np.testing.assert_array_equal(scores(loaded, texts), scores(expected, texts))


def test_weight_shapes_are_those_of_the_module():
    params = {
        "n_inputs": 7,
        "n_outputs": 5,
        "n_networks": 2,
        "embedding_dim": 3,
        "hidden_size": 4,
        "num_layers": 2,
    }
    module = CharLSTM(**params, dropout=0.1, output="softmax")
    expected = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
    assert list(weight_shapes(params)) == expected


ANY_CHARACTER = st.characters(exclude_categories=())


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(
    st.lists(st.text(ANY_CHARACTER, min_size=1), min_size=1, max_size=3),
    # numpy takes zeros off the end of a str.
    st.sets(st.text().filter(lambda s: s[-1:] != "\0"), min_size=2, max_size=2),
)
def test_any_text_and_any_label(tmp_path_factory, texts, labels):
    clf = CharLMLanguageClassifier(
        epochs=1,
        n_networks=1,
        hidden_size=2,
        embedding_dim=2,
        discriminative_epochs=0,
        calibration_folds=0,
        device="cpu",
    ).fit([*texts, texts[0]], [min(labels)] * len(texts) + [max(labels)])
    path = tmp_path_factory.mktemp("any") / "clf"
    clf.save(path)
    loaded = CharLMLanguageClassifier.load(path, device="cpu")
    assert loaded.classes_.tolist() == sorted(labels)
    np.testing.assert_array_equal(scores(loaded, texts), scores(clf, texts))


# What cannot be in a file


def test_only_what_is_fitted(path):
    with pytest.raises(NotFittedError):
        CharLMLanguageClassifier().save(path)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"random_state": np.random.RandomState(0)}, "`random_state` is a RandomState"),
        ({"net_params": {"callbacks": []}}, "`net_params` may hold functions"),
        ({"hidden_size": 16}, "`hidden_size` was 2 at the start of training and is"),
        ({"analyzer": "byte"}, "`analyzer` was 'char'"),
    ],
)
def test_parameters_that_are_no_data(clf, path, params, message):
    for estimator in (clf, clf.language_models_[0]):
        with pytest.raises(ValueError, match=message):
            estimator.set_params(**params).save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "token",
    [
        *(b"ab", frozenset("a"), np.inf, ("a", b"b"), 1j),
        *(np.timedelta64(5, "ns"), (np.timedelta64(5, "ns"),), np.longdouble(1) / 3),
    ],
)
def test_tokens_that_are_no_data(tiny, path, token):
    model = CharLSTMLanguageModel(**tiny, analyzer=lambda text: [*text, token])
    with pytest.raises(ValueError, match="cannot be written to a file"):
        model.fit(["abc"]).save(path)


@pytest.mark.parametrize("dtype", [np.longdouble, "M8[ns]", "m8[ns]", "M8[D]"])
def test_labels_of_a_type_that_no_file_has(tiny, texts, path, dtype):
    clf = classifier(tiny, texts, np.array([3, -1] * 4).astype(dtype))
    with pytest.raises(ValueError, match=r"Labels of type .* cannot be written"):
        clf.save(path)


def test_labels_that_json_does_not_give_back(tiny, texts, path):
    classifier(tiny, texts, ["\ud83d", "b"] * 4).save(path)
    assert CharLMLanguageClassifier.load(path).classes_.tolist() == ["b", "\ud83d"]
    # Two halves that JSON takes for one character.
    clf = classifier(tiny, texts, ["\ud83d\ude00", "b"] * 4)
    with pytest.raises(ValueError, match=r"label .* cannot be written to a file"):
        clf.save(path)


def test_a_long_record(clf, path, monkeypatch):
    monkeypatch.setattr(_archive, "MAX_RECORD", 500)
    with pytest.raises(ValueError, match="holds 500 at most"):
        clf.save(path)


def test_a_parameter_out_of_range_is_not_saved(clf, path):
    clf.save(path)
    with pytest.raises(ValueError, match="The 'beam' parameter of CharLM"):
        copy.copy(clf).set_params(beam=0).save(path)
    assert CharLMLanguageClassifier.load(path).beam is None


def test_a_function_must_be_passed_again(tiny, texts, path):
    classifier(tiny, texts, analyzer=pairs).save(path)
    with pytest.raises(ValueError, match=r"was the function 'pairs'.*pass it"):
        CharLMLanguageClassifier.load(path)
    with pytest.raises(ValueError, match="which a file cannot hold; pass it"):
        CharLMLanguageClassifier.load(path, analyzer="char")
    message = "function 'pairs' when .* and is 'list' now"
    with pytest.warns(UserWarning, match=message) as warned:
        CharLMLanguageClassifier.load(path, analyzer=list)
    assert warned[0].filename == __file__
    # Whatever can be called has a name.
    spaces = partial(str.split, sep=" ")
    classifier(tiny, texts, analyzer=spaces).save(path)
    CharLMLanguageClassifier.load(path, analyzer=spaces)
    message = "function 'str.split' when .* is 'methodcaller' now"
    with pytest.warns(UserWarning, match=message):
        CharLMLanguageClassifier.load(path, analyzer=methodcaller("split"))
    classifier(tiny, texts).save(path)
    with pytest.raises(ValueError, match="has analyzer='char'; do not pass another"):
        CharLMLanguageClassifier.load(path, analyzer=pairs)


# Writing


def test_the_checksum_is_that_of_the_bytes_in_the_file():
    # A machine of the other byte order reads numbers, not bytes.
    numbers = np.arange(3, dtype=np.float32)
    other = numbers.astype(numbers.dtype.newbyteorder())
    checksums = [_archive._checksum("", {"a": array}) for array in (numbers, other)]
    np.testing.assert_array_equal(*checksums)


def test_a_full_disk_leaves_the_old_file(clf, saved, texts):
    resource = pytest.importorskip("resource")
    content = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            clf.save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*saved.parent.iterdir()] == [saved]
    assert saved.read_bytes() == content


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_an_interrupt_leaves_the_old_file(clf, saved, monkeypatch, name):
    content = saved.read_bytes()

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, name, interrupt)
    with pytest.raises(KeyboardInterrupt):
        clf.save(saved)
    assert [*saved.parent.iterdir()] == [saved]
    assert saved.read_bytes() == content


def test_links_and_rights_stay(clf, saved, tmp_path):
    link = tmp_path / "link"
    try:
        link.symlink_to(saved)
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    clf.set_params(epochs=4).save(link)
    assert link.is_symlink()
    assert CharLMLanguageClassifier.load(saved).epochs == 4
    other = tmp_path / "other"
    other.touch()
    assert saved.stat().st_mode == other.stat().st_mode


def test_files_that_are_not_there(clf, tmp_path):
    with pytest.raises(FileNotFoundError):
        CharLMLanguageClassifier.load(tmp_path / "nothing")
    for call in (clf.save, CharLMLanguageClassifier.load):
        # Windows has but one error.
        with pytest.raises((IsADirectoryError, PermissionError)):
            call(tmp_path)


# Reading what is not as it should be


def rewritten(path, change):
    """Change the record or the arrays of a file, and make its checksum right again."""
    with path.open("rb") as file:
        [size] = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    record = json.loads(header["__metadata__"]["sklearn_charlstm"])
    arrays = load_file(path)
    del arrays["sha256"]
    change(record, arrays)
    text = json.dumps(record)
    arrays["sha256"] = _archive._checksum(text, arrays)
    path.write_bytes(save(arrays, metadata={"sklearn_charlstm": text}))


def test_rewritten_without_a_change(saved):
    rewritten(saved, lambda record, arrays: None)
    CharLMLanguageClassifier.load(saved)


def setting(path, value):
    """Return a change of one value."""

    def change(record, arrays):
        if path in arrays:
            arrays[path] = np.asarray(value)
            return
        *parents, name = [int(p) if p.isdigit() else p for p in path.split(".")]
        for parent in parents:
            record = record[parent]
        record[name] = value

    return change


def without(path):
    """Return a change that takes an array away."""
    return lambda record, arrays: arrays.pop(path)


def one_class(record, arrays):
    setting("fitted.classes.labels", ["eng"])(record, arrays)
    record["fitted"]["language_models"].pop()


def automatic_size(size):
    """Return a change to a size that `fit` chose."""

    def change(record, arrays):
        setting("params.hidden_size", "auto")(record, arrays)
        setting("fitted.language_models.1.hidden_size", size)(record, arrays)

    return change


WEIGHT = "fitted.language_models.0.weights.networks.0.linear.bias"
HOSTILE = {
    "later format": (setting("format", 2), "is of format 2.*install a later one"),
    "format of no number": (setting("format", "1"), "format is str"),
    "another estimator": (setting("estimator", "Other"), "holds a Other"),
    "no record of parameters": (setting("params", [1]), "params. is no JSON object"),
    "unknown parameter value": (setting("params.output", "relu"), "'output' parameter"),
    "huge network": (setting("params.hidden_size", 10**30), "is of shape"),
    "many networks": (setting("params.n_networks", 10**30), "there is no array"),
    "many layers": (setting("params.num_layers", 10**30), "there is no array"),
    "negative size": (setting("params.hidden_size", -2), "'hidden_size' parameter"),
    "negative automatic size": (automatic_size(-2), "the size of a layer is -2"),
    "huge automatic size": (automatic_size(10**30), "is of shape"),
    "no jobs": (setting("params.n_jobs", False), "'n_jobs' parameter"),
    "no number": (setting("params.lr", float("nan")), "'lr' parameter"),
    "no weights": (without(WEIGHT), f"there is no array {WEIGHT}"),
    "another array": (
        lambda record, arrays: arrays.update(more=np.ones(3)),
        "there is an array more",
    ),
    "NaN weight": (setting(WEIGHT, np.full(11, np.nan, "f4")), "holds NaN"),
    "infinite weight": (setting(WEIGHT, np.full(11, np.inf, "f4")), "holds inf"),
    "huge weight": (setting(WEIGHT, np.full(11, -1e38, "f4")), "holds 9.99"),
    "weight of another shape": (setting(WEIGHT, np.ones((11, 1), "f4")), "of shape"),
    "weight of another type": (setting(WEIGHT, np.ones(11)), "of type F64"),
    "a class twice": (setting("fitted.classes.labels", ["eng", "eng"]), "sorted"),
    "not sorted": (setting("fitted.classes.labels", ["fra", "eng"]), "sorted"),
    "labels of two types": (setting("fitted.classes.labels", ["a", 1]), "not of type"),
    "objects of two types": (
        setting("fitted.classes", {"labels": ["a", 1], "dtype": "O"}),
        "not sorted",
    ),
    "labels that are objects": (
        setting("fitted.classes", {"labels": [{}, {}], "dtype": "O"}),
        "an object stands",
    ),
    "labels of no type": (setting("fitted.classes.dtype", "V"), "not of type"),
    "long labels": (
        setting("fitted.classes.labels", ["a", "b" * 2**23 + "b"]),
        "too long",
    ),
    "a class too many": (setting("fitted.classes.labels", ["a", "b", "c"]), "2 models"),
    "no class": (setting("fitted.classes.labels", []), "2 models are of 0"),
    "one class and its model": (one_class, "1 models are of 1 classes"),
    "no model": (setting("fitted.language_models", []), "0 models"),
    "a model too many": (
        lambda record, arrays: record["fitted"]["language_models"].append({}),
        "random_state is NoneType",
    ),
    "priors": (setting("fitted.class_log_prior", np.zeros(2)), "sum to one"),
    "priors that are NaN": (setting("fitted.class_log_prior", [np.nan] * 2), "NaN"),
    "counts": (setting("fitted.class_count", np.ones(3)), "is of shape"),
    "steep slope": (setting("fitted.evidence_weight", [1e308, 5.0]), "evidence weight"),
    "flat slope": (setting("fitted.evidence_weight", [1e-9, 5.0]), "evidence weight"),
    "short half": (setting("fitted.evidence_weight", [1.0, 1e-9]), "evidence weight"),
    "negative counts": (setting("fitted.class_count", [-5.0, 1.0]), "class counts are"),
    "infinite counts": (setting("fitted.class_count", [1.0, np.inf]), "counts are no"),
    "random state": (
        setting("fitted.language_models.0.random_state", -7),
        "'random_state' parameter",
    ),
    "alphabet of a part": (setting("alphabets.2.common", 1), "is a part itself"),
    "slope": (setting("fitted.evidence_weight", [-1.0, 5.0]), "evidence weight is"),
    "no slope": (setting("fitted.evidence_weight", [0.0, 5.0]), "evidence weight is"),
    "no half length": (
        setting("fitted.evidence_weight", [1.0, 0.0]),
        "evidence weight is",
    ),
    "no alphabet": (setting("fitted.alphabet", 7), "there is no alphabet 7"),
    "alphabet of a class": (setting("fitted.alphabet", 1), "is that of one class"),
    "alphabet before the first": (setting("fitted.alphabet", -1), "no alphabet -1"),
    "alphabet of itself": (setting("alphabets.1.common", 1), "no alphabet 1"),
    "empty alphabet": (setting("alphabets.0.tokens", []), "is empty"),
    "a token twice": (setting("alphabets.0.tokens", ["a", "a"]), "is twice"),
    "a long token": (setting("alphabets.0.tokens", ["ab"]), "'ab' is no token"),
    "a token that is a list": (setting("alphabets.0.tokens", [["a"]]), "no token"),
    "another alphabet": (setting("alphabets.0.tokens", ["a"]), "not part of"),
    "a part with what is not in it": (
        setting("alphabets.1.ids", np.array([99], "u4")),
        "not part of",
    ),
    "a part with a token twice": (
        setting("alphabets.1.ids", np.array([1, 1], "u4")),
        "not part of",
    ),
    "impossible tokens": (setting("alphabets.0.log_unknown", 0.5), "log_unknown is"),
    "certain tokens": (setting("alphabets.0.log_unknown", -1.0), "log_unknown is"),
    "improbable tokens": (setting("alphabets.0.log_unknown", -1e308), "log_unknown is"),
    "tokens without a share": (setting("alphabets.0.log_unknown", None), "log_unknown"),
    "seed": (setting("fitted.language_models.0.seed", 2**40), "the seed is"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(saved, name):
    change, message = HOSTILE[name]
    rewritten(saved, change)
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
        CharLMLanguageClassifier.load(saved)


def test_nested_deeper_than_python_can_read(saved):
    text = "[" * 100_000
    arrays = {"sha256": _archive._checksum(text, {})}
    saved.write_bytes(save(arrays, metadata={"sklearn_charlstm": text}))
    with pytest.raises(ValueError, match="cannot be loaded"):
        CharLMLanguageClassifier.load(saved)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        pickle.dumps([1, 2]),
        # A header of ten gigabytes.
        struct.pack("<Q", 10 * 2**30) + b"{}",
        save({"a": np.ones(3)}),
        save({"a": np.ones(3)}, metadata={"sklearn_charlstm": "no JSON"}),
        save({"a": np.ones(3)}, metadata={"sklearn_charlstm": "[]"}),
        save({"a": np.ones(3)}, metadata={"sklearn_charlstm": " " * (2**24 + 1)}),
    ],
    ids=["empty", "zeros", "pickle", "header", "foreign", "text", "list", "long"],
)
def test_foreign_files(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be loaded: it is damaged, or was not"):
        CharLMLanguageClassifier.load(path)


def test_no_bit_can_be_flipped_and_no_byte_lost(clf, saved):
    content = saved.read_bytes()
    rng = np.random.default_rng(0)
    for place, bit in enumerate(rng.integers(8, size=len(content)).tolist()):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be loaded"):
            CharLMLanguageClassifier.load(saved)
    for size in range(0, len(content), 29):
        saved.write_bytes(content[:size])
        with pytest.raises(ValueError, match="cannot be loaded"):
            CharLMLanguageClassifier.load(saved)


def test_another_estimator(clf, saved):
    with pytest.raises(
        ValueError, match="holds a CharLMLanguageClassifier, not a Char"
    ):
        CharLSTMLanguageModel.load(saved)


AUDITED = """
import sys
from sklearn_charlstm import CharLMLanguageClassifier

path = sys.argv[1]
CharLMLanguageClassifier.load(path)  # what Python imports at the first use
events = set()
sys.addaudithook(lambda event, args: events.add(event.partition(".")[0]))
clf = CharLMLanguageClassifier.load(path, device="cpu")
assert "open" in events, events
assert not events & {"exec", "compile", "import", "pickle", "os", "subprocess"}, events
print(clf.predict_log_proba(["the cat"]).tolist())
clf.sample(clf.classes_[0])
# It takes torch a second or two to load its compiler.
assert "torch._dynamo" not in sys.modules
"""


def test_loading_runs_nothing_and_works_in_another_process(clf, saved):
    output = subprocess.check_output([sys.executable, "-c", AUDITED, saved], text=True)
    np.testing.assert_array_equal(
        json.loads(output), clf.predict_log_proba(["the cat"])
    )


@pytest.mark.parametrize(
    "path", sorted(SAVED.glob("*.safetensors")), ids=lambda p: p.name
)
def test_files_of_all_versions_load(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    clf = CharLMLanguageClassifier.load(path, device="cpu")
    assert clf.classes_.tolist() == expected["classes"]
    np.testing.assert_allclose(
        clf.log_likelihood(expected["texts"]), expected["log_likelihood"], rtol=1e-5
    )
    np.testing.assert_allclose(
        clf.predict_proba(expected["texts"]), expected["proba"], rtol=1e-4
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_what_was_trained_on_a_gpu_loads_without_one(tiny, texts, path):
    tiny["device"] = "cuda"
    fitted = classifier(tiny, texts)
    fitted.save(path)
    loaded = CharLMLanguageClassifier.load(path, device="cpu")
    np.testing.assert_allclose(scores(loaded, texts), scores(fitted, texts), rtol=1e-4)


# Pickles


def test_a_pickle_of_another_version_warns(clf, monkeypatch):
    pickled = pickle.dumps(clf)
    pickle.loads(pickled)
    copy.deepcopy(clf)
    monkeypatch.setattr("sklearn_charlstm._persistence.__version__", "9.0")
    with pytest.warns(UserWarning, match="was pickled by version .* is loaded by 9.0"):
        loaded = pickle.loads(pickled)
    assert vars(loaded).keys() == vars(clf).keys()


def test_methods_in_another_process(clf, texts):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        elsewhere = pool.submit(clf.predict_log_proba, texts).result()
    np.testing.assert_array_equal(elsewhere, clf.predict_log_proba(texts))

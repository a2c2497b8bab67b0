import numpy as np
import pytest
from sklearn.base import clone

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    CharLSTMLanguageModel,
    _model_training,
)
from sklearn_charlstm._model_training import resolve_hidden_size


@pytest.fixture
def auto(tiny, monkeypatch):
    """Parameters of networks of 4 units, and of 8 from thirty characters on."""
    monkeypatch.setattr(_model_training, "WIDE_FROM", 30)
    monkeypatch.setattr(_model_training, "NARROW", 4)
    monkeypatch.setattr(_model_training, "WIDE", 8)
    return tiny | {"hidden_size": "auto"}


def test_size_by_the_text():
    assert [resolve_hidden_size("auto", n) for n in (0, 49_999)] == [96, 96]
    assert [resolve_hidden_size("auto", n) for n in (50_000, 10**9)] == [192, 192]
    assert resolve_hidden_size(np.int64(5), 10**9) == 5


@pytest.mark.parametrize(("n", "hidden_size"), [(3, 4), (4, 8)])
def test_model(auto, n, hidden_size):
    X = ["abcd" * n] * 2
    model = CharLSTMLanguageModel(**auto).fit(X)
    assert model.hidden_size_ == hidden_size
    fixed = CharLSTMLanguageModel(**auto | {"hidden_size": hidden_size}).fit(X)
    assert model.score(["abca"]) == fixed.score(["abca"])


def test_all_classes_have_the_same(auto):
    # Twenty-two and forty characters; parts of them to calibrate.
    texts, labels = ["ab" * 11, "cd" * 20], [0, 1]
    clf = CharLMLanguageClassifier(**auto).fit(texts, labels)
    assert [model.hidden_size_ for model in clf.language_models_] == [8, 8]
    fixed = CharLMLanguageClassifier(**auto | {"hidden_size": 8}).fit(texts, labels)
    np.testing.assert_array_equal(
        clf.predict_proba(["abcd"]), fixed.predict_proba(["abcd"])
    )
    clf.add_class(2, ["xy"])
    assert clf.language_models_[2].hidden_size_ == 8
    # A model by itself is to be like the others.
    assert clone(clf.language_models_[0]).fit(["ab"]).hidden_size_ == 8


def test_training_that_goes_on_keeps_its_size(auto):
    model = CharLSTMLanguageModel(**auto, warm_start=True).fit(["abcd"])
    model.set_params(epochs=5).fit(["abcd" * 20])
    assert (model.hidden_size_, model.n_iter_) == (4, 5)
    model.partial_fit(["abcd" * 20])
    assert (model.hidden_size_, model.n_iter_) == (4, 6)
    # The number that was found is the same networks, and so is 'auto' again.
    for epochs, hidden_size in ((7, 4), (8, "auto")):
        model.set_params(hidden_size=hidden_size, epochs=epochs).fit(["abcd"])
        assert (model.hidden_size_, model.n_iter_) == (4, epochs)
    with pytest.raises(ValueError, match=r"`hidden_size` was 4 at the start .* now 8"):
        model.set_params(hidden_size=8, epochs=9).fit(["abcd"])


def test_the_first_part_tells_the_size(auto):
    clf = CharLMLanguageClassifier(**auto)
    clf.partial_fit(["ab" * 15, "cd" * 15], [0, 1], [0, 1]).partial_fit(["ab"], [0])
    assert [model.hidden_size_ for model in clf.language_models_] == [8, 8]


def test_save_and_load(auto, tmp_path):
    clf = CharLMLanguageClassifier(**auto).fit(["ab" * 11, "cd" * 20], [0, 1])
    clf.save(tmp_path / "clf")
    loaded = CharLMLanguageClassifier.load(tmp_path / "clf", device="cpu")
    assert loaded.hidden_size == "auto"
    assert [model.hidden_size_ for model in loaded.language_models_] == [8, 8]
    assert [model.hidden_size for model in loaded.language_models_] == [8, 8]
    np.testing.assert_array_equal(
        loaded.predict_proba(["abcd"]), clf.predict_proba(["abcd"])
    )


def test_the_size_that_was_found_is_no_change(auto, tmp_path):
    clf = CharLMLanguageClassifier(**auto).fit(["ab" * 11, "cd" * 20], [0, 1])
    clf.set_params(hidden_size=8)
    clf.add_class(2, ["xy"]).partial_fit(["ab"], [0])
    clf.save(tmp_path / "clf")
    clf.set_params(hidden_size=4)
    for change in (
        lambda: clf.save(tmp_path / "other"),
        lambda: clf.add_class(3, ["xy"]),
        lambda: clf.partial_fit(["ab"], [0]),
    ):
        with pytest.raises(ValueError, match=r"`hidden_size` was 8 .* is now 4"):
            change()


def test_a_file_of_different_sizes_is_refused(auto, tmp_path):
    texts, labels = ["ab" * 11, "cd" * 20], [0, 1]
    clf = CharLMLanguageClassifier(**auto).fit(texts, labels)
    small = clone(clf).set_params(hidden_size=4).fit(texts, labels)
    clf.language_models_[1] = small.language_models_[1]
    clf.save(tmp_path / "clf")
    with pytest.raises(ValueError, match="the networks of the classes differ in size"):
        CharLMLanguageClassifier.load(tmp_path / "clf")

import copy
import gc

import numpy as np
import pytest
import torch

from sklearn_charlstm import CharLMLanguageClassifier, _side_by_side
from sklearn_charlstm._device import Compute
from sklearn_charlstm._side_by_side import side_by_side
from sklearn_charlstm._vocabulary import Vocabulary

CPU = Compute(torch.device("cpu"), torch.float32)
TEXTS = ["abcab", "c", "bacb" * 20]


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Return what is kept, with nothing in it before."""
    kept = {}
    monkeypatch.setattr(_side_by_side, "_kept", kept)
    return kept


@pytest.fixture
def models(random_model):
    return [random_model(Vocabulary(["abc"], "char", False), seed) for seed in (0, 1)]


def test_is_kept(models, kept):
    once = side_by_side(models, CPU)
    assert side_by_side([*models], CPU) is once
    assert once.of_torch(models) is once.of_torch(models)
    half = CPU._replace(dtype=torch.bfloat16)
    networks = models[0].networks()
    names = [name.translate({48: "1", 49: "0"}) for name in models[0].weights]
    exchanged = dict(zip(names, models[0].weights.values(), strict=True))
    others = [
        side_by_side(models[::-1], CPU),
        side_by_side(models, half),
        side_by_side(networks, CPU),
        # The same arrays as of the networks.
        side_by_side(models[:1], CPU),
        # And by other names.
        side_by_side([models[0]._replace(weights=exchanged)], CPU),
    ]
    assert len({id(weights) for weights in [once, *others]}) == 6
    assert [len(weights.outward) for weights in others] == [2, 2, 2, 1, 1]
    assert not torch.equal(others[4].recurrent[0], others[3].recurrent[0])
    assert others[1].recurrent[0].dtype == torch.bfloat16
    assert side_by_side(models, CPU) is once
    assert len(kept) == 6


def test_is_forgotten_with_the_models(models, kept):
    side_by_side(models, CPU)
    alone = side_by_side(models[:1], CPU)
    del models[1]
    gc.collect()
    assert [weights for weights, _ in kept.values()] == [alone]
    models.clear()
    gc.collect()
    assert not kept


def test_is_bounded(models, monkeypatch, kept):
    size = sum(weights.size for weights in models[0].weights.values())
    monkeypatch.setattr(_side_by_side, "MAX_KEPT", 2 * size)
    first, second = (side_by_side([model], CPU) for model in models)
    assert side_by_side(models[:1], CPU) is first
    other = copy.deepcopy(models[1])
    side_by_side([other], CPU)
    assert side_by_side(models[:1], CPU) is first
    # It was used the longest time ago.
    assert side_by_side(models[1:], CPU) is not second
    monkeypatch.setattr(_side_by_side, "MAX_KEPT", size - 1)
    n_kept = len(kept)
    another = copy.deepcopy(models[1])
    assert side_by_side([another], CPU) is not side_by_side([another], CPU)
    assert len(kept) == n_kept
    assert all(weights.flags.writeable for weights in another.weights.values())


@pytest.fixture
def clf(tiny, texts, labels):
    return CharLMLanguageClassifier(**tiny).fit(texts, labels)


def test_weights_cannot_change_unnoticed(clf):
    model = clf.language_models_[0]
    scores = model.score_samples(TEXTS)
    name = "networks.0.linear.bias"
    with pytest.raises(ValueError, match="read-only"):
        model.weights_[name] += 1
    more = np.zeros_like(model.weights_[name])
    more[0] = 1
    model.weights_[name] = model.weights_[name] + more
    changed = model.score_samples(TEXTS)
    assert not np.isclose(changed, scores, rtol=1e-3).any()
    model.partial_fit(TEXTS)
    assert not np.isclose(model.score_samples(TEXTS), changed, rtol=1e-6).any()


def test_what_is_kept_gives_the_same(clf, kept):
    scores = clf.decision_function(TEXTS)
    assert kept
    np.testing.assert_array_equal(clf.decision_function(TEXTS), scores)
    kept.clear()
    np.testing.assert_array_equal(clf.decision_function(TEXTS), scores)

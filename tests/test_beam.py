import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    _beam,
    _networks,
    _reading,
)
from sklearn_charlstm._beam import beam_log_likelihood, look
from sklearn_charlstm._device import Compute
from sklearn_charlstm._module import CharLSTM
from sklearn_charlstm._scoring import text_log_likelihood
from sklearn_charlstm._vocabulary import Vocabulary

CPU = Compute(torch.device("cpu"), torch.float32)
# Of one token and none, with tokens that are unknown or foreign to a model.
TEXTS = ["abcab", "", "c", "bbbb", "a?b", "?", "cabcabcbacab", "xyxab", ""]


@pytest.fixture(params=[True, False], ids=["boundaries", "fragments"])
def models(request, random_model):
    common = Vocabulary(["abcxy"], "char", request.param)
    return [
        random_model(Vocabulary([letters], "char", request.param, common), seed)
        for seed, letters in enumerate(["abc", "xyab", "abcxy", "ac"])
    ]


@pytest.fixture
def common(models):
    return models[0].vocabulary.common


def look_alone(model, common, text, n_history):
    """Compute the look at one text, a token at a time."""
    weights, params, vocabulary = model
    module = CharLSTM(**params).eval()
    module.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    ids = vocabulary.ids_from(common)[common.encode([text]).ids]
    known, outputs, log_share = vocabulary.shares(ids)
    total = 0.0
    for i, output in enumerate(outputs):
        before = vocabulary.first_input if i <= n_history else vocabulary.cut
        history = ids[max(0, i - n_history) : i]
        read = [before, *vocabulary.as_inputs(history).tolist()]
        with torch.no_grad():
            log_p = module.log_probabilities(module(torch.tensor([read]))[0])[0, -1]
        total += known[i] * float(log_p[output]) + log_share[i]
    return total


def looked(models, texts, common, n_history=1, followed=None, n_jobs=1):
    """Look at texts under all models, or those that follow them."""
    if followed is None:
        followed = np.ones((len(texts), len(models)), dtype=bool)
    encoded = common.encode(texts)
    return look(models, encoded, common, CPU, followed, n_jobs, n_history=n_history)


@pytest.mark.parametrize(
    ("max_tokens", "max_logits", "min_tokens", "n_jobs"),
    # Each model by itself, perhaps in a thread, and all side by side.
    [
        (2**20, 2**24, 0, 2),
        (2**20, 2**24, 2**11, 1),
        (3, 16, 0, 1),
        (3, 16, 2**11, 2),
    ],
)
@pytest.mark.parametrize("n_history", [1, 2, 3])
# Few of the tokens that the models know, too.
@pytest.mark.parametrize("texts", [TEXTS, ["ayyaaya", "aay"]])
def test_a_look_sees_some_tokens_of_the_history(
    models,
    common,
    monkeypatch,
    texts,
    max_tokens,
    max_logits,
    min_tokens,
    n_history,
    n_jobs,
):
    monkeypatch.setattr(_beam, "MAX_PLACES", max_tokens)
    monkeypatch.setattr(_networks, "MAX_LOGITS", max_logits)
    monkeypatch.setattr(_reading, "MIN_TOKENS", min_tokens)
    found = looked(models, texts, common, n_history, n_jobs=n_jobs)
    expected = [
        [look_alone(model, common, text, n_history) for model in models]
        for text in texts
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Some texts with some models: two with the same, one with others, one with none.
    followed = np.zeros(found.shape, dtype=bool)
    followed[1:, :2] = followed[::2, 2] = True
    np.testing.assert_allclose(
        looked(models, texts, common, n_history, followed, n_jobs),
        np.where(followed, expected, -np.inf),
        rtol=1e-5,
    )


@pytest.mark.parametrize("n_history", [1, 2, 3])
def test_a_look_sees_all_of_a_short_text(models, common, n_history):
    texts = ["", "a", "c", "?", "ab", "x?", "aab", "abc", "bcab"]
    lengths = common.encode(texts).lengths
    found = looked(models, texts, common, n_history)
    read = text_log_likelihood(models, common.encode(texts), common, CPU)
    is_short = lengths <= n_history + 1
    np.testing.assert_allclose(found[is_short], read[is_short], rtol=1e-5)
    assert (
        not np.isclose(found[~is_short], read[~is_short], rtol=1e-5).all(axis=1).any()
    )


@pytest.mark.parametrize("n_history", [1, 2])
def test_memory_of_a_look_is_bounded(models, common, monkeypatch, n_history):
    # Of two windows whose histories have nothing in common.
    max_logits = 2 * 14 * (n_history + 1)
    monkeypatch.setattr(_networks, "MAX_LOGITS", max_logits)
    sizes = []
    read_levels = _networks.Networks.read_levels

    def watch(self, levels):
        n_outputs = max(bias.shape[2] for bias, _ in self._weights.outward)
        sizes.append(2 * len(levels.inputs) * n_outputs)
        return read_levels(self, levels)

    monkeypatch.setattr(_networks.Networks, "read_levels", watch)
    looked(models, [*TEXTS, "xbaycacyxbcay", "yyxbbccaaybxa"], common, n_history)
    assert max(sizes) <= max_logits
    assert len(sizes) > 2


def test_memory_of_models_side_by_side_is_bounded(models, common, monkeypatch):
    sizes = []
    score_windows = _beam._score_windows

    def watch(models, *what):
        scores = score_windows(models, *what)
        sizes.append(scores.shape)
        return scores

    monkeypatch.setattr(_beam, "_score_windows", watch)
    looked(models, TEXTS, common)
    [(n_models, n_windows)] = sizes
    assert n_models == 4
    # Two networks of five units each for two models.
    monkeypatch.setattr(_reading, "MAX_STATES", 2 * n_windows * 2 * 5)
    monkeypatch.setattr(_reading, "FEW_TOKENS", 0)
    looked(models, TEXTS, common)
    assert sizes[1:] == [(2, n_windows)] * 2


def test_memory_of_a_look_at_a_long_text_is_bounded_on_a_gpu(models, monkeypatch):
    on_gpu = Compute(torch.device("cuda"), torch.float32)
    # Two networks of five units each for two models, and a thousand windows.
    monkeypatch.setattr(_reading, "MAX_STATES_ON_GPU", 2 * 1000 * 2 * 5)
    followed = np.ones((1, 4), dtype=bool)
    groups = _beam._groups_that_follow(
        models, np.array([5000]), followed, on_gpu, max_tokens=1000
    )
    assert groups == [[0, 1], [2, 3]]


def test_a_look_is_at_followed_texts_only(models, common, monkeypatch):
    sizes = []
    score_windows = _beam._score_windows

    def watch(models, windows, *what):
        scores = score_windows(models, windows, *what)
        sizes.append((len(models), len(windows.tokens), scores.shape))
        return scores

    monkeypatch.setattr(_beam, "_score_windows", watch)
    followed = np.zeros((len(TEXTS), len(models)), dtype=bool)
    followed[TEXTS.index("bbbb"), 1:3] = True
    looked(models, TEXTS, common, followed=followed)
    # The first token and the others, which are the same; perhaps the second, which is
    # not then, and the end.
    n_more = int(common.boundaries)
    assert sizes == [(2, 1 + n_more, (2, 2 + 2 * n_more))]


@pytest.mark.parametrize(("logits_of_token", "in_threads"), [(1, True), (2**20, False)])
def test_large_alphabets_are_looked_at_in_threads(
    models, common, monkeypatch, logits_of_token, in_threads
):
    monkeypatch.setattr(_beam, "LOGITS_OF_TOKEN", logits_of_token)
    monkeypatch.setattr(_reading, "MIN_TOKENS", 20)
    monkeypatch.setattr(_reading, "cpu_count", lambda: 2)
    # Each model by itself.
    monkeypatch.setattr(_reading, "MAX_STATES", 1)
    names = set()
    score_windows = _beam._score_windows

    def watch(*what):
        names.add(threading.current_thread().name)
        return score_windows(*what)

    monkeypatch.setattr(_beam, "_score_windows", watch)
    looked(models, TEXTS, common, n_jobs=2)
    assert (threading.current_thread().name not in names) == in_threads


def test_every_pass_computes_in_one_thread(models, common, monkeypatch, n_threads):
    seen = []
    read_levels = _networks.Networks.read_levels

    def watch(self, levels):
        seen.append(torch.get_num_threads())
        return read_levels(self, levels)

    monkeypatch.setattr(_networks.Networks, "read_levels", watch)
    offsets = np.zeros((len(TEXTS), len(models)))
    encoded = common.encode(TEXTS)
    beam_log_likelihood(models, encoded, common, CPU, beam=1e6, offsets=offsets)
    assert set(seen) == {1}
    assert torch.get_num_threads() == n_threads


@pytest.mark.parametrize("min_tokens", [0, 2**11])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_all_within_a_wide_beam(models, common, monkeypatch, n_jobs, min_tokens):
    monkeypatch.setattr(_reading, "MIN_TOKENS", min_tokens)
    encoded = common.encode(TEXTS)
    offsets = np.zeros((len(TEXTS), len(models)))
    found = beam_log_likelihood(
        models, encoded, common, CPU, beam=1e6, offsets=offsets, n_jobs=n_jobs
    )
    expected = text_log_likelihood(models, encoded, common, CPU)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def passed(scores, width):
    """Which models are within the beam, and which of them are not the only one."""
    within = scores >= scores.max(axis=1, keepdims=True) - width
    return within, within & (within.sum(axis=1, keepdims=True) > 1)


@pytest.mark.parametrize(
    ("n_tokens", "widths"),
    # After the first look and after the second, in nats.
    [(2, (1.792, 1.344)), (5, (4.896, 3.245)), (14, (8, 5.802)), (100, (8, 6))],
)
def test_width_of_the_beam(monkeypatch, n_tokens, widths):
    common = Vocabulary(["a"], "char", boundaries=False)
    encoded = common.encode(["a" * n_tokens])
    models = [SimpleNamespace(networks=lambda: [None])] * 2

    def score(models, texts, *rest, **how):
        n_texts.append(len(texts.lengths))
        return np.tile([0.0, -behind[len(n_texts) - 1]], (n_texts[-1], 1))

    monkeypatch.setattr(_beam, "look", score)
    monkeypatch.setattr(_beam, "_followed_log_likelihood", score)
    offsets = np.zeros((1, 2))
    for number, width in enumerate(widths):
        for gap, n_followed in (width - 0.002, 1), (width + 0.002, 0):
            behind, n_texts = [0.0, 0.0, 0.0], []
            behind[number] = gap
            beam_log_likelihood(models, encoded, common, CPU, beam=8.0, offsets=offsets)
            assert n_texts[number + 1] == n_followed


def test_what_is_outside_of_the_beam_is_not_read(models, common, monkeypatch):
    texts = sorted({*TEXTS, *"bcy", "ab", "cab", "yx", "aab", "bca", "cc", "xa"})
    texts += ["abc" * n for n in range(3, 7)]
    encoded = common.encode(texts)
    offsets = np.random.default_rng(0).normal(size=(len(texts), len(models)))
    n_looked, n_read = [], []

    def watched_look(models, texts, common, compute, followed, *rest, **how):
        n_looked.append(followed.sum())
        return look(models, texts, common, compute, followed, *rest, **how)

    read = _beam.distinct_log_likelihood

    def watched_read(models, texts, *rest):
        n_read.append(len(models) * len(texts.lengths))
        return read(models, texts, *rest)

    monkeypatch.setattr(_beam, "look", watched_look)
    monkeypatch.setattr(_beam, "distinct_log_likelihood", watched_read)
    # Equal texts are read once.
    twice = common.encode(texts + texts[::-1])
    both = np.concatenate([offsets, offsets[::-1]])
    found = beam_log_likelihood(models, twice, common, CPU, beam=2.0, offsets=both)
    found, again = np.vsplit(found, 2)
    np.testing.assert_array_equal(found, again[::-1])
    monkeypatch.undo()

    first = [model.networks()[0] for model in models]
    expected = looked(first, texts, common)
    n_expected = [expected.size]
    for width, n_whole, scores in (
        (2.0, 2, looked(first, texts, common, n_history=2)),
        (1.5, 3, text_log_likelihood(models, encoded, common, CPU)),
    ):
        # Narrower where fewer than twelve tokens have a history that is cut.
        n_cut = np.clip(encoded.lengths - n_whole, 0, 12)[:, None]
        width *= (1 + n_cut**0.5) / (1 + 12**0.5)
        within, followed = passed(expected + offsets, width)
        expected = np.where(within, np.where(followed, scores, expected), -np.inf)
        n_expected.append(followed.sum())
        # Something falls out in each pass, and something is alone.
        assert not within.all()
        assert followed.any()
        assert (within & ~followed).any()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert [*n_looked, sum(n_read)] == n_expected


@pytest.fixture
def clf(tiny):
    texts = ["the cat and the dog", "le chat et le chien", "der hund und die katze"]
    tiny.update(discriminative_epochs=0, calibration_folds=0, epochs=20)
    return CharLMLanguageClassifier(**tiny).fit(texts * 2, ["en", "fr", "de"] * 2)


X = ["the", "chien", "katze", "", "und le", "?"]


def test_beam_is_for_predict_only(clf):
    exact, proba = clf.predict(X), clf.predict_proba(X)
    clf.set_params(beam=20.0)
    np.testing.assert_array_equal(clf.predict(X), exact)
    np.testing.assert_array_equal(clf.predict_proba(X), proba)
    # So narrow a beam has the best of the first look alone.
    clf.set_params(beam=1e-9)
    models = [model._as_model() for model in clf.language_models_]
    models = [model.networks()[0] for model in models]
    labels = clf.classes_[looked(models, X, clf.vocabulary_).argmax(axis=1)]
    np.testing.assert_array_equal(clf.predict(X), labels)


def test_a_class_without_a_text_is_not_followed(tiny):
    clf = CharLMLanguageClassifier(**tiny, class_prior="empirical", beam=8.0)
    clf.partial_fit(["aba", "bab"], ["a", "b"], classes=["a", "b", "c"])
    log_likelihood, _ = clf._evidence(["ab", "", "cc"], beam=1e6)
    assert np.isfinite(log_likelihood).tolist() == [[True, True, False]] * 3
    assert set(clf.predict(["ab", "", "cc"])) <= {"a", "b"}


def test_prior_counts_in_the_beam(clf):
    clf.set_params(beam=1e-9)
    for k, label in enumerate(clf.classes_):
        prior = np.full(3, 1e-12)
        prior[k] = 1 - 2e-12
        clf.class_log_prior_ = np.log(prior)
        assert set(clf.predict(["the", "chien", "hund"])) == {label}


@pytest.mark.parametrize("beam", [0, -1.0, np.inf, np.nan, "8"])
def test_a_beam_that_is_none(clf, texts, labels, beam):
    clf.set_params(beam=beam)
    with pytest.raises(ValueError, match="'beam' parameter"):
        clf.predict(X)
    with pytest.raises(ValueError, match="'beam' parameter"):
        clf.fit(texts, labels)


def test_files_have_it(clf, tmp_path):
    clf.set_params(beam=6.0).save(tmp_path / "clf.safetensors")
    loaded = CharLMLanguageClassifier.load(tmp_path / "clf.safetensors", device="cpu")
    assert loaded.beam == 6.0
    np.testing.assert_array_equal(loaded.predict(X), clf.predict(X))

import itertools

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_charlstm import CharLSTMLanguageModel, _model_training
from sklearn_charlstm._smoothing import KneserNey
from sklearn_charlstm._soft_targets import SoftTargets
from sklearn_charlstm._vocabulary import UNKNOWN_MASS


@pytest.fixture(params=[True, False], ids=["boundaries", "fragments"])
def model(request, tiny, texts):
    return CharLSTMLanguageModel(**tiny, boundaries=request.param).fit(texts)


def test_shapes_dtypes_and_sums(model):
    X = ["the cat", "", "x", "chien 😀"]
    scores = model.score_samples(X)
    assert scores.shape == (4,)
    assert scores.dtype == np.float64
    by_character = model.char_log_likelihood(X)
    lengths = [len(text) + model.boundaries for text in X]
    assert [values.shape for values in by_character] == [(n,) for n in lengths]
    np.testing.assert_allclose([values.sum() for values in by_character], scores)
    assert (np.concatenate(by_character) < 0).all()
    assert model.score(X) == pytest.approx(scores.mean())
    bits = -scores.sum() / np.log(2) / sum(lengths)
    assert model.bits_per_character(X) == pytest.approx(bits)
    assert model.perplexity(X) == pytest.approx(2**bits)


def test_fitted_attributes(model, texts):
    assert set(model.vocabulary_) == set("".join(texts))
    assert model.n_iter_ == len(model.loss_curve_) == 3
    assert (model.device_, model.precision_) == ("cpu", "float32")
    assert model.loss_curve_[-1] < model.loss_curve_[0]


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_probabilities_of_all_texts_sum_to_one(tiny, output):
    # Up to length 4 by enumeration. What remains is the mass of the texts that go on
    # with a known character, that is of all prefixes of length 5, and of those that
    # have a character outside the alphabet somewhere in the first five.
    model = CharLSTMLanguageModel(**tiny, boundaries=True, output=output)
    model.fit(["ab", "a", "", "bba"] * 5)
    n_max = 4
    complete, n_unknown = 0.0, 0.0
    for n in range(n_max + 2):
        strings = ["".join(s) for s in itertools.product("ab", repeat=n)]
        by_character = model.char_log_likelihood(strings)
        prefixes = np.exp([values[:-1].sum() for values in by_character])
        if n == n_max + 1:
            going_on = prefixes.sum()
        else:
            complete += np.exp(model.score_samples(strings)).sum()
            n_unknown += UNKNOWN_MASS * prefixes.sum()
    assert going_on > 1e-6
    assert complete + going_on + n_unknown == pytest.approx(1, abs=1e-6)


def test_mass_of_one_step_over_all_bytes(tiny):
    model = CharLSTMLanguageModel(**tiny, analyzer=tuple, boundaries=False)
    model.fit([(1, 2, 1, 3)])
    mass = np.exp(model.score_samples([(1,), (2,), (3,), ("never seen",)])).sum()
    assert mass == pytest.approx(1, abs=1e-6)
    model = CharLSTMLanguageModel(**tiny, analyzer=lambda b: b).fit([b"abc"])
    assert np.isfinite(model.score_samples([bytes(range(256))])).all()


def test_fragments_of_one_character_sum_to_one(tiny):
    model = CharLSTMLanguageModel(**tiny).fit(["hello world"])
    everything = [chr(code) for code in range(0x110000)]
    mass = np.exp(model.score_samples(everything)).sum()
    assert mass == pytest.approx(1, abs=1e-6)


def test_learns_a_pattern(tiny):
    tiny.update(epochs=30, hidden_size=16, lr=0.02)
    model = CharLSTMLanguageModel(**tiny).fit(["abcd" * 50])
    assert model.bits_per_character(["abcd" * 10]) < 0.5
    assert model.bits_per_character(["dcba" * 10]) > 2


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_smoothing_expects_pairs_that_were_never_seen(tiny, output, monkeypatch):
    texts = [f"{first}{second}" for first in "vwxyz" for second in "abcde"]
    texts.remove("xb")
    tiny.update(epochs=200, hidden_size=32, dropout=0.0, output=output, lr=0.02)
    smooth = CharLSTMLanguageModel(**tiny, boundaries=True).fit(texts)
    vocabulary = smooth.vocabulary_
    model = KneserNey(vocabulary.encode(texts), np.ones(24), vocabulary)
    # The place after <bos> and the x of "xa", the eleventh text.
    node = torch.from_numpy(model.nodes(np.array([[[3 * 10 + 1]]]), np.array([2])))
    row = SoftTargets([model], node.device).distributions(node, []).numpy().ravel()
    [scores] = smooth.char_log_likelihood(["xb"])
    assert scores[1] == pytest.approx(np.log(row[vocabulary["b"]]), abs=0.3)
    monkeypatch.setattr(_model_training, "MAX_SMOOTHED", 0)
    rough = CharLSTMLanguageModel(**tiny, boundaries=True).fit(texts)
    assert rough.char_log_likelihood(["xb"])[0][1] < scores[1] - 0.4


def test_boundaries_make_the_ends_evidence(tiny):
    tiny.update(epochs=30, hidden_size=16, lr=0.02)
    model = CharLSTMLanguageModel(**tiny, boundaries=True).fit(["abc"] * 50)
    whole, head, tail = model.score_samples(["abc", "ab", "bc"])
    assert whole > head + 2
    assert whole > tail + 2
    assert CharLSTMLanguageModel(**tiny).fit(["abc"] * 50).score_samples([""]) == 0


@pytest.mark.parametrize(
    ("analyzer", "X", "n_values"),
    [
        ("byte", ["été"], 5),
        ("word", ["the cat, the dog"], 5),
        (str.split, ["one  two"], 2),
        (tuple, [(60, ("up", 0.5), None)], 3),
    ],
)
def test_analyzers(tiny, analyzer, X, n_values):
    model = CharLSTMLanguageModel(**tiny, analyzer=analyzer).fit(X * 3)
    [values] = model.char_log_likelihood(X)
    assert len(values) == n_values
    assert np.isfinite(values).all()


def test_odd_texts_are_finite(model):
    odd = [
        "",
        "q",
        "ЖЖЖ",
        "😀",
        "👩‍👩‍👧",
        "e\u0301",
        "\ud800",
        "\x00",
        "\n\t",
        "the" * 2000,
    ]
    scores = model.score_samples(odd)
    assert np.isfinite(scores).all()
    assert scores[-1] < -1000
    composed, combining = model.score_samples(["é", "e\u0301"])
    assert composed != combining


def test_a_million_characters(tiny):
    tiny.update(epochs=1, hidden_size=4)
    model = CharLSTMLanguageModel(**tiny).fit(["ab ba"])
    scores = model.score_samples(["ab" * 500_000, "ab"])
    assert np.isfinite(scores).all()
    assert scores[0] < scores[1] * 1000


def test_one_character_is_enough_to_fit(tiny):
    model = CharLSTMLanguageModel(**tiny).fit(["a"])
    assert model.score_samples(["a"]) > model.score_samples(["b"])


def test_empty_texts(tiny):
    with pytest.raises(ValueError, match="All texts are empty"):
        CharLSTMLanguageModel(**tiny).fit(["", ""])
    model = CharLSTMLanguageModel(**tiny).fit(["", "a"])
    with pytest.raises(ValueError, match="no character to average"):
        model.perplexity([""])


def test_same_seed_same_model(tiny, texts):
    scores = [CharLSTMLanguageModel(**tiny).fit(texts).score(texts) for _ in range(2)]
    assert scores[0] == scores[1]
    tiny.update(random_state=1)
    assert CharLSTMLanguageModel(**tiny).fit(texts).score(texts) != scores[0]


def test_parameters_may_be_set_anew_after_fit(model):
    before = model.score_samples(["the cat"])
    model.set_params(hidden_size=3, num_layers=2)
    np.testing.assert_array_equal(model.score_samples(["the cat"]), before)


def test_verbose_is_one_line_and_silence_is_the_default(tiny, texts, capsys):
    CharLSTMLanguageModel(**tiny).fit(texts)
    assert capsys.readouterr() == ("", "")
    CharLSTMLanguageModel(**tiny, verbose=1).fit(texts)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "bits/char" in err


@pytest.mark.parametrize(
    "params",
    [
        {"maxlen": 0},
        {"epochs": 1.5},
        {"hidden_size": -1},
        {"dropout": 1.0},
        {"lr": 0.0},
        {"weight_decay": -0.1},
        {"analyzer": "letters"},
        {"output": "tanh"},
        {"boundaries": "yes"},
        {"device": 0},
        {"precision": "float16"},
        {"net_params": []},
    ],
)
def test_parameters_out_of_range(texts, params):
    with pytest.raises(InvalidParameterError, match=next(iter(params))):
        CharLSTMLanguageModel(**params).fit(texts)


def test_a_device_that_is_not_there(texts):
    with pytest.raises(ValueError, match="'cuda:99' cannot be used"):
        CharLSTMLanguageModel(device="cuda:99").fit(texts)


@pytest.mark.parametrize(
    "method",
    [
        "score_samples",
        "char_log_likelihood",
        "score",
        "perplexity",
        "bits_per_character",
    ],
)
def test_scoring_before_fit_and_bad_input(method, tiny, texts):
    model = CharLSTMLanguageModel(**tiny)
    with pytest.raises(NotFittedError):
        getattr(model, method)(texts)
    model.fit(texts)
    with pytest.raises(ValueError, match="put a single text in a list"):
        getattr(model, method)("one text")
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        getattr(model, method)([])


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(tiny, texts):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    tiny.update(device="cuda")
    state = torch.cuda.get_rng_state()
    model = CharLSTMLanguageModel(**tiny).fit(texts)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert model.device_ == "cuda"
    on_gpu = model.score_samples(texts)
    np.testing.assert_allclose(
        model.set_params(device="cpu").score_samples(texts), on_gpu, rtol=1e-4
    )


def test_sizes_may_be_any_integers(tiny):
    scores = [
        CharLSTMLanguageModel(**tiny | {"num_layers": one, "n_networks": one})
        .fit(["ab ab ba"])
        .score_samples(["ab"])
        for one in (1, True, np.int64(1))
    ]
    assert scores[0] == scores[1] == scores[2]

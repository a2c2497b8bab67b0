import threading

import numpy as np
import pytest
import torch

from sklearn_charlstm import _networks, _reading
from sklearn_charlstm._device import Compute
from sklearn_charlstm._module import CharLSTM
from sklearn_charlstm._reading import groups_of_models
from sklearn_charlstm._scoring import text_log_likelihood, token_log_likelihood
from sklearn_charlstm._vocabulary import Vocabulary

# Equal ones, prefixes of others, and long ones that part late.
TEXTS = ["abcab", "", "c", "bbbbbbbbbbbbbbbbb", "axb", "abc", "abcab"]
TEXTS += ["abc" * 7 + "a", "abc" * 7 + "b", "abc" * 7, "bb", "cabacab" * 4]
CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture(params=[True, False], ids=["boundaries", "fragments"])
def model(request, random_model):
    return random_model(Vocabulary(["abc"], "char", request.param), 0)


def score(model, texts):
    encoded = model.vocabulary.encode(texts)
    flat = token_log_likelihood(model, encoded, CPU)
    sums = text_log_likelihood([model], encoded, model.vocabulary, CPU)
    text = np.repeat(np.arange(len(texts)), encoded.lengths)
    np.testing.assert_allclose(np.bincount(text, flat, len(texts)), sums[:, 0])
    return np.split(flat, np.cumsum(encoded.lengths)[:-1])


def score_alone(model, text):
    """Compute the same without batches, sorting or chunks."""
    weights, params, vocabulary = model
    module = CharLSTM(**params).eval()
    module.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    targets = vocabulary.encode([text]).ids.astype(int).tolist()
    inputs = [vocabulary.first_input, *targets[:-1]]
    with torch.no_grad():
        log_p = module.log_probabilities(module(torch.tensor([inputs]))[0])[0]
    log_p = log_p.double().numpy() + vocabulary.log_known
    return [
        vocabulary.log_unknown if target == vocabulary.unknown else row[target]
        for row, target in zip(log_p, targets, strict=False)
    ]


@pytest.mark.parametrize(
    ("max_tokens", "max_steps", "min_steps", "few_texts"),
    [
        (2**14, 256, 32, 16),
        (2**14, 256, 1, 16),
        (2**14, 256, 1, 2),
        (1, 1, 1, 16),
        (12, 3, 1, 16),
        (12, 3, 1, 2),
        (12, 3, 5, 16),
    ],
)
def test_batches_and_chunks_change_nothing(
    model, monkeypatch, max_tokens, max_steps, min_steps, few_texts
):
    monkeypatch.setattr(_reading, "FEW_TEXTS", few_texts)
    monkeypatch.setattr(_reading, "MAX_TOKENS", max_tokens)
    monkeypatch.setattr(_reading, "MAX_STEPS", max_steps)
    monkeypatch.setattr(_reading, "MIN_STEPS", min_steps)
    for text, scores in zip(TEXTS, score(model, TEXTS), strict=True):
        expected = score_alone(model, text) if len(scores) else []
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
        assert scores.dtype == np.float64


@pytest.mark.parametrize(
    ("in_cache", "at_least", "n_at_once"), [(40, 1, 4), (40, 5, 5), (2**18, 1, 9)]
)
def test_texts_side_by_side(model, monkeypatch, in_cache, at_least, n_at_once):
    # The model has two networks of five units.
    monkeypatch.setattr(_reading, "VALUES_IN_CACHE", in_cache)
    monkeypatch.setattr(_reading, "MIN_TEXTS", at_least)
    encoded = model.vocabulary.encode(["abc"] * 9)
    parts = _reading.read_in_parts([model], encoded, model.vocabulary, CPU, map)
    texts, _ = next(parts)
    assert texts == slice(0, n_at_once)


def test_order_of_rows_is_of_no_account_to_the_last_bit(model, monkeypatch):
    monkeypatch.setattr(_reading, "MAX_TOKENS", 12)
    scores = score(model, TEXTS)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for row, shuffled in zip(
        order, score(model, [TEXTS[i] for i in order]), strict=True
    ):
        np.testing.assert_array_equal(shuffled, scores[row])


@pytest.fixture
def sizes(monkeypatch):
    """Return a list of how many tokens are read before their scores are handed on."""
    sizes = []
    read_with_torch = _networks.Networks.read_with_torch
    read_levels = _networks.Networks.read_levels

    def watch(self, inputs, targets):
        sizes.append(inputs.size)
        return read_with_torch(self, inputs, targets)

    def watch_levels(self, levels):
        sizes.append(len(levels.targets))
        return read_levels(self, levels)

    monkeypatch.setattr(_networks.Networks, "read_with_torch", watch)
    monkeypatch.setattr(_networks.Networks, "read_levels", watch_levels)
    return sizes


@pytest.mark.parametrize(("max_tokens", "max_logits"), [(64, 2**24), (2**14, 512)])
def test_memory_is_bounded(model, monkeypatch, sizes, max_tokens, max_logits):
    # Two networks, and four outputs or three.
    max_logits -= 128 * (model.vocabulary.n_outputs == 3)
    monkeypatch.setattr(_reading, "MAX_TOKENS", max_tokens)
    monkeypatch.setattr(_reading, "MAX_LOGITS", max_logits)
    monkeypatch.setattr(_reading, "MAX_STEPS", 16)
    monkeypatch.setattr(_reading, "MIN_STEPS", 4)
    letters = np.random.default_rng(0).choice([*"abc"], size=(40, 100))
    short = ["".join(row[:n]) for row in letters for n in range(10)]
    score(model, ["".join(row) for row in letters] + short)
    assert 16 < max(sizes) <= 64


@pytest.mark.parametrize("min_steps", [4, 100])
@pytest.mark.parametrize("max_tokens", [1, 8])
def test_memory_is_bounded_where_a_token_takes_much(
    model, monkeypatch, sizes, max_tokens, min_steps
):
    expected = score(model, TEXTS)
    sizes.clear()
    # Not even the logits of one token are fewer than that where it is 1.
    max_logits = max_tokens * 2 * model.vocabulary.n_outputs
    monkeypatch.setattr(_reading, "MAX_LOGITS", max_logits - (max_tokens == 1))
    monkeypatch.setattr(_reading, "MAX_STEPS", 16)
    monkeypatch.setattr(_reading, "MIN_STEPS", min_steps)
    for scores, same in zip(score(model, TEXTS), expected, strict=True):
        np.testing.assert_allclose(scores, same, rtol=1e-5)
    assert max(sizes) == max_tokens


@pytest.fixture
def shapes(monkeypatch):
    """Return a list of texts and steps that are left to torch's LSTM."""
    shapes = []
    read_with_torch = _networks.Networks.read_with_torch

    def watch(self, inputs, targets):
        shapes.append(inputs.T.shape)
        return read_with_torch(self, inputs, targets)

    monkeypatch.setattr(_networks.Networks, "read_with_torch", watch)
    return shapes


@pytest.mark.parametrize("n_texts", [1, 3])
def test_long_texts_that_part_are_left_to_torch(model, shapes, n_texts):
    for n_tokens, n_left in ((20, 0), (60, 50)):
        texts = [letter * n_tokens for letter in "abc"[:n_texts]]
        text_log_likelihood(
            [model], model.vocabulary.encode(texts), model.vocabulary, CPU
        )
        assert all(n == n_texts for n, _ in shapes)
        assert sum(n_steps for _, n_steps in shapes) >= n_left
        assert bool(shapes) == bool(n_left)


def test_many_texts_are_not_until_few_are_left(model, shapes, monkeypatch):
    monkeypatch.setattr(_reading, "FEW_TEXTS", 2)
    monkeypatch.setattr(_reading, "MAX_STEPS", 12)
    monkeypatch.setattr(_reading, "MIN_STEPS", 8)
    for n_of_last, n_left in ((60, 0), (10, 46)):
        texts = ["a" * 60, "b" * 60, "c" * n_of_last]
        scores = score(model, texts)
        # After two steps until they are apart and twelve more, both times that `score`
        # reads them.
        assert sum(n_steps for _, n_steps in shapes) >= 2 * n_left
        assert {n for n, _ in shapes} == ({2} if n_left else set())
        for text, scores_of_text in zip(texts, scores, strict=True):
            expected = score_alone(model, text)
            np.testing.assert_allclose(scores_of_text, expected, rtol=1e-5)
        shapes.clear()


def test_in_bfloat16_many_texts_are_while_most_go_on(model, shapes, monkeypatch):
    monkeypatch.setattr(_reading, "FEW_TEXTS", 2)
    monkeypatch.setattr(_reading, "MIN_STEPS", 8)
    half = CPU._replace(dtype=torch.bfloat16)
    lengths = [60, 50, 40, 30, 20, 20, 14, 4]
    letters = np.random.default_rng(0).choice([*"abc"], size=(8, 60))
    texts = ["".join(row[:n]) for row, n in zip(letters, lengths, strict=True)]
    encoded = model.vocabulary.encode(texts)
    exact = token_log_likelihood(model, encoded, CPU)
    assert not shapes
    lower = token_log_likelihood(model, encoded, half)
    np.testing.assert_allclose(lower, exact, atol=0.05)
    assert max(n for n, _ in shapes) > 2
    n_read = sum(n * n_steps for n, n_steps in shapes)
    assert n_read <= sum(lengths) * 4 / 3


def test_a_text_may_end_between_two_chunks(model, monkeypatch):
    monkeypatch.setattr(_reading, "MAX_STEPS", 3)
    monkeypatch.setattr(_reading, "MIN_STEPS", 1)
    for n in range(1, 10):
        texts = ["a" * 20, "b" * 15, "c" * n]
        for text, scores in zip(texts, score(model, texts), strict=True):
            np.testing.assert_allclose(scores, score_alone(model, text), rtol=1e-5)


def test_what_texts_have_in_common_is_computed_once(model, monkeypatch):
    n_histories = 0
    read_level = _networks.Networks._read_level

    def watch(self, source, rows):
        nonlocal n_histories
        n_histories += rows.shape[1]
        return read_level(self, source, rows)

    monkeypatch.setattr(_networks.Networks, "_read_level", watch)
    texts = ["abcab", "abcac", "abc", "abcab", "b"]
    ids, lengths = model.vocabulary.encode(texts)
    sequences = np.split(ids, np.cumsum(lengths)[:-1])
    histories = {tuple(seq[:n]) for seq in sequences for n in range(len(seq))}
    text_log_likelihood([model], model.vocabulary.encode(texts), model.vocabulary, CPU)
    assert n_histories == len(histories)


@pytest.mark.parametrize("min_steps", [1, 100])
def test_threads_change_nothing_and_compute_in_one_thread_each(
    model, monkeypatch, min_steps, n_threads
):
    seen = set()
    shared = _networks.Networks._shared

    def watch(self, *args):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return shared(self, *args)

    monkeypatch.setattr(_networks.Networks, "_shared", watch)
    monkeypatch.setattr(_reading, "cpu_count", lambda: 3)
    monkeypatch.setattr(_reading, "MIN_TOKENS", 0)
    monkeypatch.setattr(_reading, "MIN_STEPS", min_steps)
    encoded = model.vocabulary.encode(TEXTS)
    scores = [
        text_log_likelihood([model] * 3, encoded, model.vocabulary, CPU, n_jobs)
        for n_jobs in (1, 3)
    ]
    np.testing.assert_array_equal(*scores)
    threads, counts = zip(*seen, strict=True)
    assert threading.get_ident() in threads
    assert len(threads) > 1
    assert set(counts) == {1}


@pytest.mark.parametrize("boundaries", [True, False])
@pytest.mark.parametrize("min_steps", [1, 100])
@pytest.mark.parametrize("n_side_by_side", [2, 3])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_side_by_side_read_as_each_alone(
    random_model, monkeypatch, dtype, output, n_side_by_side, min_steps, boundaries
):
    compute = Compute(torch.device("cpu"), dtype)
    monkeypatch.setattr(_reading, "MIN_STEPS", min_steps)
    common = Vocabulary(["abcx"], "char", boundaries)
    models = [
        random_model(Vocabulary([letters], "char", boundaries, common), seed, output)
        for seed, letters in enumerate(["abc", "xa", "cb"])
    ]
    encoded = common.encode(TEXTS)
    alone = [text_log_likelihood([model], encoded, common, compute) for model in models]
    # Two networks of five units each.
    n_states = len(encoded.ids) * 2 * 5
    monkeypatch.setattr(_reading, "MAX_STATES", n_side_by_side * n_states)
    monkeypatch.setattr(_reading, "FEW_TOKENS", 0)
    groups = groups_of_models(models, len(TEXTS), len(encoded.ids), compute)
    n_models = [len(models[group]) for group in groups]
    assert n_models == ([2, 1] if n_side_by_side == 2 else [3])
    together = text_log_likelihood(models, encoded, common, compute)
    np.testing.assert_allclose(together, np.hstack(alone), rtol=1e-5)


def test_few_tokens_are_read_in_the_same_groups(model, monkeypatch):
    # Two networks of five units each.
    monkeypatch.setattr(_reading, "MAX_STATES", _reading.FEW_TOKENS * 2 * 5 * 20)
    groups = [
        groups_of_models([model] * 50, 1, n_tokens, CPU)
        for n_tokens in (1, 7, _reading.FEW_TOKENS, 2 * _reading.FEW_TOKENS)
    ]
    assert groups[0] == groups[1] == groups[2]
    assert [len(of_some) for of_some in groups[2:]] == [3, 5]


@pytest.mark.parametrize("min_steps", [1, 100])
def test_bfloat16_is_close(model, monkeypatch, min_steps):
    monkeypatch.setattr(_reading, "MIN_STEPS", min_steps)
    encoded = model.vocabulary.encode(TEXTS)
    exact = token_log_likelihood(model, encoded, CPU)
    lower = token_log_likelihood(model, encoded, CPU._replace(dtype=torch.bfloat16))
    assert np.abs(lower - exact).max() > 0
    np.testing.assert_allclose(lower, exact, atol=0.05)


def test_torch_state_is_left_alone(model):
    before = torch.get_rng_state()
    score(model, TEXTS)
    assert torch.equal(torch.get_rng_state(), before)

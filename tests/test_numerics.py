"""Scores against a reference in double precision, and training at the edges."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax, logsumexp

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel
from sklearn_charlstm._device import Compute
from sklearn_charlstm._networks import _lstm_cell
from sklearn_charlstm._scoring import token_log_likelihood


def reference(model, text):
    """Compute the log-likelihood of every token with NumPy in double precision."""
    weights = {name: w.astype(np.float64) for name, w in model.weights_.items()}
    vocabulary = model.vocabulary_
    targets = vocabulary.encode([text]).ids.tolist()
    inputs = [vocabulary.first_input, *targets[:-1]]
    of_networks = []
    for number in range(model.n_networks):
        w = {n.split(".", 2)[2]: v for n, v in weights.items() if f"s.{number}." in n}
        size = model.hidden_size
        states = [(np.zeros(size), np.zeros(size)) for _ in range(model.num_layers)]
        rows = []
        for token in inputs:
            x = w["embedding.weight"][token]
            for layer, (hidden, cell) in enumerate(states):
                gates = w[f"lstm.weight_ih_l{layer}"] @ x + w[f"lstm.bias_ih_l{layer}"]
                gates += w[f"lstm.weight_hh_l{layer}"] @ hidden
                gates += w[f"lstm.bias_hh_l{layer}"]
                take_in, keep, candidate, give_out = np.split(gates, 4)
                cell = expit(keep) * cell + expit(take_in) * np.tanh(candidate)
                x = expit(give_out) * np.tanh(cell)
                states[layer] = x, cell
            logits = w["linear.weight"] @ x + w["linear.bias"]
            if model.output == "sigmoid":
                logits = log_expit(logits)
            rows.append(log_softmax(logits))
        of_networks.append(rows)
    log_p = logsumexp(of_networks, axis=0) - np.log(model.n_networks)
    known = np.array(targets) != vocabulary.unknown
    picked = log_p[np.arange(len(targets)), np.where(known, targets, 0)]
    return np.where(known, picked + vocabulary.log_known, vocabulary.log_unknown)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("boundaries", [True, False])
def test_scores_are_those_of_double_precision(tiny, texts, output, boundaries):
    tiny.update(hidden_size=64, embedding_dim=16, n_networks=2, epochs=30)
    model = CharLSTMLanguageModel(
        **tiny, num_layers=2, output=output, boundaries=boundaries
    ).fit(texts)
    letters = np.random.default_rng(0).choice([*"the cat and dog le chien Z"], 2000)
    text = "".join(letters)
    expected = reference(model, text)
    [scores] = model.char_log_likelihood([text])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-5)
    assert abs(scores.sum() - expected.sum()) < 1e-3
    half = Compute(torch.device("cpu"), torch.bfloat16)
    encoded = model.vocabulary_.encode([text])
    lower = token_log_likelihood(model._as_model(), encoded, half)
    assert np.abs(lower - expected).mean() < 0.02
    assert abs(np.mean(lower - expected)) < 0.002


def test_the_cell_keeps_its_digits_where_the_rest_is_bfloat16():
    generator = torch.Generator().manual_seed(0)
    gates = torch.randn(100, 2, 1, 4 * 5, generator=generator).bfloat16()
    cell = exact = torch.zeros(2, 1, 5)
    for step in gates:
        hidden, cell = _lstm_cell(step, cell)
        _, exact = _lstm_cell(step.double(), exact.double())
        assert hidden.dtype == torch.bfloat16
    np.testing.assert_allclose(cell, exact, atol=1e-5)


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b" * 10_000],
        ["a" * 500, "a" * 500 + "b"],
        ["ab" * 500, "a"],
        ["", "a"] * 5 + ["b"],
        ["a" * 3000, "\0"],
    ],
)
@pytest.mark.filterwarnings("ignore:The probabilities are not calibrated")
def test_texts_that_say_little(tiny, texts):
    clf = CharLMLanguageClassifier(**tiny)
    labels = ["one"] * (len(texts) - 1) + ["two"]
    clf.fit(texts, labels)
    X = ["", "a", "b", "ab" * 1000, "z" * 1000, "\ud800", *texts]
    for values in (clf.predict_log_proba(X), clf.log_likelihood(X)):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("lr", [1e-30, 1e3, 1e30])
def test_extreme_learning_rates_are_an_error_or_a_model(tiny, texts, labels, lr):
    clf = CharLMLanguageClassifier(**tiny, lr=lr)
    try:
        clf.fit(texts, labels)
    except ValueError as error:
        # Not an assertion that it comes, but of what it says.
        if "diverged" not in str(error) or "use a smaller `lr`" not in str(error):
            raise
        assert lr > 1
        assert not hasattr(clf, "classes_")
    else:
        assert np.isfinite(clf.predict_log_proba([*texts, "zq" * 500])).all()

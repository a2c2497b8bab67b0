import tracemalloc

import numpy as np
import pytest

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    _joint_batches,
    _model_training,
    _reading,
)


def peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bytes_per_character(function, lines, n=200_000):
    """Measure what twice the text takes more, beside the text itself.

    With much less of it the sizes of the batches tell more than that of the text.
    """
    letters = np.random.default_rng(0).choice([*"abcde fghij"], size=2 * n)
    less, more = (lines("".join(letters[:length])) for length in (n, 2 * n))
    function(lines("abcdefghij" * 200))  # imports
    return (peak(lambda: function(more)) - peak(lambda: function(less))) / n


def as_one_line(text):
    return [text, "a short one"]


def as_many_lines(text):
    return [text[i : i + 1000] for i in range(0, len(text), 1000)] + ["a"]


@pytest.fixture
def clf(tiny, monkeypatch):
    # What bounded amounts of text take more.
    monkeypatch.setattr(_model_training, "MAX_SMOOTHED", 0)
    monkeypatch.setattr(_joint_batches, "MAX_PAIRS", 2**10)
    tiny.update(hidden_size=2, embedding_dim=2, epochs=1, batch_size=2048)
    return CharLMLanguageClassifier(**tiny)


@pytest.mark.filterwarnings("ignore:The probabilities are not calibrated")
@pytest.mark.parametrize("lines", [as_one_line, as_many_lines])
def test_fit_takes_less_than_four_bytes_a_character(clf, lines):
    def fit(X):
        clf.fit(X, ["a"] * (len(X) - 1) + ["b"])

    assert bytes_per_character(fit, lines) < 4


@pytest.mark.parametrize("lines", [as_one_line, as_many_lines])
def test_prediction_takes_less_than_four_bytes_a_character(clf, lines, monkeypatch):
    monkeypatch.setattr(_reading, "MAX_TOKENS", 2**10)
    clf.fit(["abc def", "gh ij"], ["a", "b"])
    assert bytes_per_character(clf.predict_log_proba, lines) < 4

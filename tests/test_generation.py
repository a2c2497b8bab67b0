"""Language models as writers, against all that can be written."""

import itertools

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from sklearn_charlstm import (
    CharLMLanguageClassifier,
    CharLSTMLanguageModel,
    _generation,
)
from sklearn_charlstm._generation import Choice


@pytest.fixture(scope="module", params=[False, True], ids=["fragments", "whole"])
def model(request):
    return CharLSTMLanguageModel(
        epochs=10,
        n_networks=2,
        hidden_size=8,
        num_layers=2,
        boundaries=request.param,
        device="cpu",
        random_state=0,
    ).fit(["ab ba", "abba ab", "a bab"] * 5)


@pytest.fixture(scope="module")
def clf():
    return CharLMLanguageClassifier(
        epochs=10,
        n_networks=1,
        hidden_size=16,
        discriminative_epochs=0,
        calibration_folds=0,
        device="cpu",
        random_state=0,
    ).fit(["abcabc " * 5, "cbacba " * 5, "xyabc " * 5], ["up", "down", "xy"])


def log_likelihood(model, prefix):
    """Return the log-likelihood of a beginning, without the end of a text."""
    [scores] = model.char_log_likelihood([prefix])
    return scores[: len(prefix)].sum()


PREFIXES = ["", "a", "ab b", "zz", "ba", "b", "b" * 100]


def test_next_character(model):
    proba = model.next_char_proba(PREFIXES)
    vocabulary = model.vocabulary_
    for row, prefix in zip(proba, PREFIXES, strict=True):
        before = log_likelihood(model, prefix)
        expected = [log_likelihood(model, prefix + c) - before for c in vocabulary]
        if vocabulary.boundaries:
            expected.append(model.score_samples([prefix])[0] - before)
        np.testing.assert_allclose(row, np.exp(expected), rtol=1e-4)
    np.testing.assert_allclose(proba.sum(axis=1), 1 - 1e-3, rtol=1e-5)


def test_samples_are_drawn_from_the_model(model):
    n = 5000
    samples = model.sample(n, max_length=2, random_state=0)
    assert len(samples) == n
    proba = model.next_char_proba(["", "a"]) / (1 - 1e-3)
    firsts = [text[0] for text in samples if text]
    seconds = [text[1] for text in samples if len(text) == 2 and text[0] == "a"]
    n_of_a = sum(text[:1] == "a" for text in samples)
    for row, drawn, total in zip(proba, [firsts, seconds], [n, n_of_a], strict=True):
        for column, character in enumerate(model.vocabulary_):
            p = row[column]
            tolerance = 5 * np.sqrt(p * (1 - p) / total) + 1e-3
            assert abs(drawn.count(character) / total - p) < tolerance


def test_lengths_prompts_and_seeds(model, monkeypatch):
    samples = model.sample(20, max_length=7, prompt="ab", random_state=0)
    assert all(text.startswith("ab") for text in samples)
    lengths = {len(text) - 2 for text in samples}
    assert max(lengths) == 7
    assert (len(lengths) > 1) == model.boundaries
    again = model.sample(20, max_length=7, prompt="ab", random_state=0)
    assert again == samples
    assert model.sample(20, max_length=7, prompt="ab", random_state=1) != samples
    monkeypatch.setattr(_generation, "MAX_ROWS", 3)
    assert len(model.sample(20, max_length=7, random_state=0)) == 20
    # A character that is not in the alphabet is read and stays.
    assert model.sample(1, max_length=3, prompt="Ж")[0][0] == "Ж"


def test_what_is_no_text_is_called_by_its_name(model):
    with pytest.raises(ValueError, match=r"^`prompt` is a missing value"):
        model.sample(prompt=None)
    with pytest.raises(TypeError, match=r"^`prefix` is int, not str"):
        model.suggest(3)
    for name in ("before", "after"):
        parts = {"before": "a", "after": "b"} | {name: None}
        with pytest.raises(ValueError, match=rf"^`{name}` is a missing value"):
            model.infill(**parts, length=2)


def test_the_random_state_of_others_is_left_alone(model):
    state = np.random.mtrand._rand
    before = state.get_state(legacy=False)["state"]["key"].copy()
    model.sample(3, random_state=0)
    after = state.get_state(legacy=False)["state"]["key"]
    np.testing.assert_array_equal(after, before)


LOG_PROBA = np.log([[0.1, 0.5, 0.25, 0.15]])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), [0.1, 0.5, 0.25, 0.15]),
        (Choice(temperature=0.5), np.square([0.1, 0.5, 0.25, 0.15]) / 0.345),
        (Choice(temperature=1e-9), [0, 1, 0, 0]),
        (Choice(top_k=2), [0, 2 / 3, 1 / 3, 0]),
        (Choice(top_k=99), [0.1, 0.5, 0.25, 0.15]),
        (Choice(top_p=0.5), [0, 1, 0, 0]),
        (Choice(top_p=0.51), [0, 2 / 3, 1 / 3, 0]),
        (Choice(top_p=1.0), [0.1, 0.5, 0.25, 0.15]),
        (Choice(top_p=1e-9), [0, 1, 0, 0]),
        (Choice(top_k=3, top_p=0.8), [0, 5 / 9, 2.5 / 9, 1.5 / 9]),
    ],
)
def test_what_can_be_drawn(choice, expected):
    n = 20_000
    drawn = choice.draw(np.repeat(LOG_PROBA, n, axis=0), np.random.RandomState(0))
    shares = np.bincount(drawn, minlength=4) / n
    np.testing.assert_allclose(shares, expected, atol=0.015)
    np.testing.assert_array_equal(shares == 0, np.array(expected) == 0)


@pytest.mark.parametrize("prefix", ["", "a", "ab ", "bab", "ba!"])
def test_suggestions_are_the_best_of_all(model, prefix):
    max_length = 4
    least = 1 if prefix[-1:] in ("", " ", "!") else 0
    expected = {}
    for length in range(least, max_length + 1):
        for word in map("".join, itertools.product("ab", repeat=length)):
            proba = model.next_char_proba([prefix + word])[0]
            ends = proba[list(model.vocabulary_).index(" ")]
            if model.boundaries:
                ends += proba[-1]
            run = log_likelihood(model, prefix + word) - log_likelihood(model, prefix)
            expected[word] = np.exp(run) * ends
    best = sorted(expected, key=expected.get, reverse=True)
    for n in (1, 3, 7):
        suggestions = model.suggest(prefix, n, max_length=max_length)
        assert [word for word, _ in suggestions] == best[:n]
        np.testing.assert_allclose(
            [proba for _, proba in suggestions],
            [expected[word] for word in best[:n]],
            rtol=1e-4,
        )


@pytest.mark.parametrize(
    ("before", "after"), [("a", "ba"), ("", ""), ("ab ", "Жb a"), ("Ж", "a" * 70)]
)
def test_gaps_are_filled_with_the_best_of_all(model, before, after):
    gaps = list(map("".join, itertools.product("ab ", repeat=3)))
    scores = model.score_samples([before + gap + after for gap in gaps])
    if len(after) > _generation.MAX_END:
        # The end of the text is too far away to count.
        read = 3 + len(before) + _generation.MAX_END
        texts = [(before + gap + after)[:read] for gap in gaps]
        scores = [log_likelihood(model, text) for text in texts]
    assert model.infill(before, after, 3) == gaps[int(np.argmax(scores))]
    assert len(model.infill(before, after, 5, beam_width=1)) == 5


def test_tokens_of_other_kinds(tiny):
    word = CharLSTMLanguageModel(**tiny, analyzer="word").fit(["the cat, the dog."])
    [text] = word.sample(prompt="the", max_length=4, random_state=0)
    assert len(text.split()) == 5
    assert {word for word, _ in word.suggest("the", 3)} <= set(word.vocabulary_)
    assert word.infill("the", "the dog", 2).count(" ") == 1
    byte = CharLSTMLanguageModel(**tiny, analyzer="byte").fit(["héé"] * 5)
    assert isinstance(byte.sample(max_length=9, random_state=0)[0], str)
    with pytest.raises(ValueError, match="a byte is neither"):
        byte.suggest("h")
    moves = CharLSTMLanguageModel(**tiny, analyzer=tuple).fit([[1, 2, 1], [1, 2]])
    [sequence] = moves.sample(prompt=[1], max_length=3, random_state=0)
    assert len(sequence) == 4
    assert set(sequence) <= {1, 2}
    assert moves.sample(max_length=1)[0][0] in (1, 2)
    assert moves.suggest([1], 1)[0][0] in (1, 2)
    assert moves.infill([1], [1], 1)[0] in (1, 2)


def test_samples_of_a_class(clf):
    for label in clf.classes_:
        samples = clf.sample(label, 30, max_length=30, random_state=0)
        assert np.mean(clf.predict(samples) == label) > 0.9
    first = clf.language_models_[0].sample(5, random_state=0)
    assert clf.sample("down", 5, random_state=0) == first
    with pytest.raises(ValueError, match="no class 'left' in"):
        clf.sample("left")


def test_samples_of_a_class_may_be_of_the_likeliest_characters_only(clf):
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-9}):
        assert len(set(clf.sample("up", 20, max_length=5, **narrow))) == 1
    assert len(set(clf.sample("up", 20, max_length=5, random_state=0))) > 1


def test_one_text_of_a_class_is_drawn_if_nothing_else_is_said(clf):
    [text] = clf.sample("up", random_state=0)
    assert [text] == clf.sample("up", 1, random_state=0)


def test_a_classifier_without_models_has_no_samples():
    with pytest.raises(NotFittedError):
        CharLMLanguageClassifier().sample("up")


def test_guidance_is_the_ratio_to_the_other_classes(clf):
    # Drawn is p(c) (p(c) / q(c)) ** guidance, q of the mixture of the others.
    prompt, guidance, n = "abc", 1.5, 4000
    own, *others = clf.language_models_
    tokens = list(own.vocabulary_)
    before = np.array([log_likelihood(other, prompt) for other in others])
    joint = np.array(
        [[log_likelihood(other, prompt + c) for c in tokens] for other in others]
    )
    q = np.exp(joint).sum(axis=0) / np.exp(before).sum()
    p = own.next_char_proba([prompt])[0]
    expected = p * (p / q) ** guidance
    expected /= expected.sum()
    samples = clf.sample(
        "down", n, guidance=guidance, prompt=prompt, max_length=1, random_state=0
    )
    drawn = [text[-1] for text in samples]
    shares = [drawn.count(token) / n for token in tokens]
    np.testing.assert_allclose(shares, expected, atol=0.03)
    assert np.abs(shares - p / p.sum()).max() > 0.05


def test_guided_samples_are_more_typical(clf):
    def evidence(**params):
        samples = clf.sample("up", 100, max_length=10, random_state=0, **params)
        return clf.predict_log_proba(samples)[:, 1].mean()

    assert evidence(guidance=2.0) > evidence() + 0.01


def test_a_bar_where_it_is_asked_for(model, capsys):
    model.sample(2, max_length=5)
    assert not capsys.readouterr().err
    try:
        model.set_params(verbose=1).sample(2, max_length=5)
    finally:
        model.set_params(verbose=0)
    assert "Sampling" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "args", "params", "message"),
    [
        ("sample", (0,), {}, "'n_samples' parameter of sample must be"),
        ("sample", (), {"max_length": 0}, "'max_length' parameter"),
        ("sample", (), {"temperature": 0}, "'temperature' parameter"),
        ("sample", (), {"top_k": 0}, "'top_k' parameter"),
        ("sample", (), {"top_p": 0.0}, "'top_p' parameter"),
        ("sample", (), {"top_p": 1.5}, "'top_p' parameter"),
        ("sample", (), {"random_state": "a"}, "'random_state' parameter"),
        ("sample", (), {"prompt": None}, "missing value"),
        ("suggest", ("a", 0), {}, "'n' parameter of suggest"),
        ("suggest", ("a",), {"max_length": -1}, "'max_length' parameter"),
        ("infill", ("a", "b", 0), {}, "'length' parameter of infill"),
        ("infill", ("a", "b", 1), {"beam_width": 0}, "'beam_width' parameter"),
        ("infill", ("a", ["b"], 1), {}, "`after` is list, not one text"),
        ("next_char_proba", ("ab",), {}, "put a single text in a list"),
    ],
)
def test_bad_arguments(model, method, args, params, message):
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(*args, **params)


def test_nothing_ends_a_word(tiny):
    letters = CharLSTMLanguageModel(**tiny).fit(["abcdefgh"])
    with pytest.raises(ValueError, match=r"ends a word.*boundaries=True"):
        letters.suggest("a")
    whole = CharLSTMLanguageModel(**tiny, boundaries=True).fit(["abcdefgh"])
    assert whole.suggest("a", 1, max_length=2)


@pytest.mark.parametrize(
    ("bound", "per_run"), [("MAX_RUNS", 1), ("MAX_OUTPUTS_OF_RUNS", None)]
)
def test_a_word_hardly_ends(model, monkeypatch, bound, per_run):
    per_run = per_run or model.n_networks * model.vocabulary_.n_outputs
    monkeypatch.setattr(_generation, bound, 3 * per_run)
    with pytest.raises(ValueError, match=r"More than 3 runs .* `n=50` is large"):
        model.suggest("a", 50, max_length=4)


def test_marks_do_not_end_a_word(tiny):
    model = CharLSTMLanguageModel(**tiny).fit(["हिन्दी भाषा "] * 5)
    assert len(model.suggest("ह", 3, max_length=2)) == 3
    assert all(" " not in word and word for word, _ in model.suggest("", 3))
    marks = [token for token in model.vocabulary_ if not token.isalpha()]
    assert set(marks) - {" "}
    [proba] = model.next_char_proba(["ह"])
    of_end = dict(zip(model.vocabulary_, proba, strict=True))[" "]
    assert dict(model.suggest("ह", 1000, max_length=1))[""] == pytest.approx(of_end)


def test_a_long_beginning_is_read_in_blocks(model, monkeypatch):
    beginnings = ["ab ba?abba ab", "bab bab a bab"]
    expected = model.next_char_proba(beginnings)
    gap = model.infill("abba ab", "a ab ba", 2)
    sample = model.sample(3, prompt=beginnings[0], random_state=0)
    monkeypatch.setattr(_generation, "MAX_OUTPUTS", 1)
    advance = _generation._Reader._advance
    lengths = []

    def watch(reader, inputs):
        lengths.append(inputs.shape[1])
        return advance(reader, inputs)

    monkeypatch.setattr(_generation._Reader, "_advance", watch)
    np.testing.assert_allclose(model.next_char_proba(beginnings), expected, rtol=1e-5)
    assert set(lengths) == {1}
    assert model.infill("abba ab", "a ab ba", 2) == gap
    assert model.sample(3, prompt=beginnings[0], random_state=0) == sample


def test_the_lowest_temperature_takes_the_likeliest(model):
    for temperature in (1e-300, 5e-324):
        samples = model.sample(5, max_length=5, temperature=temperature, prompt="a")
        assert samples == model.sample(5, max_length=5, top_k=1, prompt="a")


@pytest.mark.parametrize(
    "label", [["up", "xy"], ["up"], np.array(["up", "xy", "no"]), "no", None, {}]
)
def test_samples_are_of_one_class(clf, label):
    with pytest.raises(ValueError, match="There is no class"):
        clf.sample(label)


@pytest.mark.parametrize(
    ("method", "args"), [("sample", ()), ("suggest", ("a",)), ("infill", ("a", "b", 1))]
)
def test_a_model_that_is_not_fitted_does_not_write(method, args):
    with pytest.raises(NotFittedError):
        getattr(CharLSTMLanguageModel(), method)(*args)


def test_no_beginning_is_not_analyzed(tiny):
    # The analyzer reads numbers only.
    digits = CharLSTMLanguageModel(**tiny, analyzer=lambda n: [*f"{n:d}"])
    digits.fit([1212, 2121])
    assert len(digits.sample(1, max_length=5)[0]) == 5
    assert len(digits.infill("", "", 3)) == 3

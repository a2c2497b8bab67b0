"""What holds for any text, whatever its characters."""

from itertools import chain

import numpy as np
import pytest
from conftest import TINY
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from sklearn_charlstm import CharLMLanguageClassifier, _reading
from sklearn_charlstm._analysis import analyze
from sklearn_charlstm._vocabulary import UNKNOWN_MASS, Vocabulary

# The same examples in every run.
settings.register_profile(
    "properties", max_examples=15, deadline=None, derandomize=True, database=None
)
settings.load_profile("properties")

TRAINING = {
    "eng": ["the cat and the dog", "a cat, a dog", "the end"] * 2,
    "fra": ["le chat et le chien", "un chat, un chien", "la fin"] * 2,
    "deu": ["die Katze und der Hund", "ein Hund, ein Kater", "das Ende"] * 2,
}
# Analyzer, boundaries, number of classes: every pair of these is there.
CLASSIFIERS = [
    ("char", False, 3),
    ("char", True, 2),
    ("byte", False, 2),
    ("byte", True, 3),
    ("word", False, 3),
    ("word", True, 2),
]
FRAGMENTS = [case for case in CLASSIFIERS if not case[1]]

# A lone surrogate is a character too, and one in 500 code points: draw more.
SURROGATE = st.characters(categories=["Cs"])
ANY_CHARACTER = st.characters(exclude_categories=()) | SURROGATE
# Whole words too: texts get long, begin alike, and have known words.
KNOWN = st.sampled_from([*"acdehtKn, ", "the cat ", "le chien ", "und der Hund "])
TEXT = st.lists(ANY_CHARACTER | KNOWN, max_size=12).map("".join)
TEXTS = st.lists(TEXT, min_size=1, max_size=6)
# The alphabets are ASCII. The em spaces, outside of them like the rest, keep it apart
# from the words around it.
OUTSIDE = st.text(
    st.characters(min_codepoint=128, exclude_categories=()) | SURROGATE
).map("\u2003{}\u2003".format)
ANALYZER = st.sampled_from(["char", "byte", "word"])


@pytest.fixture(scope="module", params=CLASSIFIERS, ids=str)
def clf(request):
    analyzer, boundaries, n_classes = request.param
    labelled = [
        (text, label) for label in [*TRAINING][:n_classes] for text in TRAINING[label]
    ]
    clf = CharLMLanguageClassifier(
        **(TINY | {"n_networks": 2}),
        analyzer=analyzer,
        boundaries=boundaries,
        discriminative_epochs=2,
    )
    return clf.fit(*zip(*labelled, strict=True))


@given(X=TEXTS)
def test_likelihoods_and_probabilities_are_such(clf, X):
    log_likelihood = clf.log_likelihood(X)
    assert np.isfinite(log_likelihood).all()
    assert (log_likelihood <= 0).all()
    proba = clf.predict_proba(X)
    assert (proba >= 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    total = logsumexp(clf.predict_joint_log_proba(X), axis=1)
    # Of an empty fragment it is 0.
    np.testing.assert_allclose(clf.score_samples(X), total, atol=1e-12)


@given(X=TEXTS)
def test_predictions_agree(clf, X):
    predicted = np.searchsorted(clf.classes_, clf.predict(X))
    log_likelihood = clf.log_likelihood(X)
    np.testing.assert_array_equal(predicted, clf.predict_proba(X).argmax(axis=1))
    # The priors are equal.
    np.testing.assert_array_equal(predicted, log_likelihood.argmax(axis=1))
    decision = clf.decision_function(X)
    if len(clf.classes_) == 2:
        np.testing.assert_array_equal(predicted, decision > 0)
        ratio = log_likelihood[:, 1] - log_likelihood[:, 0]
        np.testing.assert_allclose(decision, ratio, atol=1e-9)
    else:
        np.testing.assert_array_equal(predicted, decision.argmax(axis=1))


@given(
    X=TEXTS,
    others=TEXTS,
    max_tokens=st.integers(1, 40),
    max_steps=st.integers(1, 9),
    min_steps=st.integers(1, 9),
)
def test_what_is_scored_together_does_not_matter(
    clf, X, others, max_tokens, max_steps, min_steps
):
    # As long as these, so that only the characters tell which comes first.
    X = X + [text[::-1] for text in X]
    alone = clf.log_likelihood(X)
    # Batches of another shape sum in another order, in float32, which has 7 digits.
    together = clf.log_likelihood(X + others)[: len(X)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_reading, "MAX_TOKENS", max_tokens)
        patch.setattr(_reading, "MAX_STEPS", max_steps)
        patch.setattr(_reading, "MIN_STEPS", min_steps)
        in_pieces = clf.log_likelihood(X)
        turned = clf.log_likelihood([*X[::-1], *X])
    np.testing.assert_allclose(in_pieces, alone, rtol=1e-5)
    # Every text is scored once, in an order of their own: no bit may change.
    np.testing.assert_array_equal(turned, [*in_pieces[::-1], *in_pieces])


@given(X=TEXTS)
def test_texts_are_left_alone_in_any_container(clf, X):
    given_texts = tuple(X)
    array = np.array(X, dtype=object)
    proba = clf.predict_proba(given_texts)
    np.testing.assert_array_equal(clf.predict_proba(X), proba)
    np.testing.assert_array_equal(clf.predict_proba(array), proba)
    assert tuple(X) == tuple(array) == given_texts


@given(head=TEXT, outside=OUTSIDE, tail=TEXT)
def test_unknown_tokens_count_only_by_what_follows(clf, head, outside, tail):
    n_head, n_outside = map(len, analyze([head, outside], clf.analyzer))
    for model in clf.language_models_:
        alone, inside = model.char_log_likelihood([head, head + outside + tail])
        np.testing.assert_allclose(inside[:n_head], alone[:n_head], rtol=1e-5)
        of_outside = inside[n_head : n_head + n_outside]
        np.testing.assert_array_equal(of_outside, clf.vocabulary_.log_unknown)
    # Whatever they are.
    one, other = clf.log_likelihood(
        [head + outside + tail, head + outside[::-1] + tail]
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("clf", FRAGMENTS, indirect=True, ids=str)
@given(text=TEXT, outside=OUTSIDE)
def test_unknown_tokens_at_the_end_are_no_evidence(clf, text, outside):
    before, after, alone = clf.log_likelihood([text, text + outside, outside])
    # Sums of the same float32 numbers, in float64.
    np.testing.assert_allclose(after - after[0], before - before[0], atol=1e-9)
    np.testing.assert_array_equal(alone, alone[0])
    [proba] = clf.predict_proba([outside])
    np.testing.assert_allclose(proba, np.exp(clf.class_log_prior_))


@given(text=TEXT)
def test_what_may_come_next_sums_to_one(clf, text):
    tokens = clf.vocabulary_
    if clf.analyzer == "byte":
        tokens = map(chr, tokens)
    elif clf.analyzer == "word":
        text += " "
    X = [text, *(text + token for token in tokens)]
    for model in clf.language_models_:
        values = model.char_log_likelihood(X)
        # Of the text itself it is its end, where that is predicted.
        n_before = len(values[0]) - clf.boundaries
        log_next = [row[n_before] for row in values if len(row) > n_before]
        assert len(log_next) == len(clf.vocabulary_) + clf.boundaries
        assert np.exp(log_next).sum() + UNKNOWN_MASS == pytest.approx(1, abs=1e-5)


@given(training=TEXTS, X=TEXTS, analyzer=ANALYZER, boundaries=st.booleans())
def test_ids_stand_for_the_tokens(training, X, analyzer, boundaries):
    of_class, *of_others = analyze(training, analyzer)
    assume(of_class)
    common = Vocabulary([of_class, *of_others], analyzer, boundaries)
    sequences = analyze(X, analyzer)
    common_ids = common.encode(sequences).ids
    for vocabulary in (
        common,
        Vocabulary([of_class], analyzer, boundaries, common=common),
    ):
        tokens = list(vocabulary)
        special = [vocabulary.bos, vocabulary.unknown, vocabulary.cut]
        special += [vocabulary.foreign] * (vocabulary.n_foreign > 0)
        assert sorted([*vocabulary.values(), *special]) == [*range(vocabulary.n_inputs)]
        ids, lengths = vocabulary.encode(sequences)
        np.testing.assert_array_equal(vocabulary.ids_from(common)[common_ids], ids)
        assert len(lengths) == len(sequences)
        for sequence, row in zip(
            sequences, np.split(ids, np.cumsum(lengths)[:-1]), strict=True
        ):
            if boundaries:
                *row, end = row
                assert end == vocabulary.eos
            for token, id_ in zip(sequence, row, strict=True):
                if token in vocabulary:
                    assert tokens[id_] == token
                elif token in common:
                    assert id_ == vocabulary.foreign
                else:
                    assert id_ == vocabulary.unknown


@settings(max_examples=10)
@given(first=TEXTS, second=TEXTS, analyzer=ANALYZER, boundaries=st.booleans())
def test_fit_to_any_text(first, second, analyzer, boundaries):
    for texts in (first, second):
        assume(any(analyze(texts, analyzer)))
    clf = CharLMLanguageClassifier(
        **(TINY | {"epochs": 1}),
        analyzer=analyzer,
        boundaries=boundaries,
        discriminative_epochs=0,
        calibration_folds=0,
    ).fit(first + second, ["first"] * len(first) + ["second"] * len(second))
    for model, texts in zip(clf.language_models_, (first, second), strict=True):
        tokens = set(chain.from_iterable(analyze(texts, analyzer)))
        assert model.vocabulary_.keys() == tokens <= clf.vocabulary_.keys()
    assert np.isfinite(clf.loss_curve_).all()
    assert np.isfinite(clf.log_likelihood(first + second)).all()

from collections import Counter

import numpy as np
import pytest

from sklearn_charlstm import CharLMLanguageClassifier, _calibration, _refinement
from sklearn_charlstm._analysis import LabelledSequences
from sklearn_charlstm._calibration import (
    LENGTHS,
    Evidence,
    EvidenceWeight,
    folds,
    held_out_evidence,
)
from sklearn_charlstm._vocabulary import Vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def letters_of(part):
    return Counter(
        (letter, k, weight)
        for sequence, k, weight in zip(*part, strict=True)
        for letter in sequence
    )


def cut_folds(sequences, class_index, weights, n_folds, rng, *, whole):
    texts = LabelledSequences(sequences, class_index, weights)
    return [part.split() for part in folds(texts, n_folds, rng, whole=whole)]


@pytest.mark.parametrize("whole", [True, False])
def test_every_character_is_set_aside_once(whole):
    sequences = ["abcdefghij", "", "ABCD", "klmnop", "EFGHIJKLMN", "qrst"]
    class_index = np.array([0, 0, 1, 0, 1, 0])
    weights = np.arange(6.0)
    everything = letters_of((sequences, class_index, weights))
    rng = np.random.default_rng(0)
    pairs = cut_folds(sequences, class_index, weights, 3, rng, whole=whole)
    held_out = sum((letters_of(pair[1]) for pair in pairs), Counter())
    if whole:
        # The second class has two texts: one of the parts is without it.
        assert 1 <= len(pairs) <= 2
        assert held_out <= everything
    else:
        assert len(pairs) == 3
        assert held_out == everything
    for training, apart in pairs:
        assert letters_of(training) + letters_of(apart) == everything
        for part in (training, apart):
            assert set(part.class_index) == {0, 1}
            assert all(map(len, part.sequences))
            if whole:
                assert set(part.sequences) < set(sequences)
    # Contiguous: a part begins where the one before it ends.
    texts = ["".join(apart.sequences) for _, apart in pairs]
    if not whole:
        assert texts == ["abcdefABCD", "ghijklmEFGHI", "nopJKLMNqrst"]


def test_equal_names_are_set_aside_together():
    names = ["Maria", "Anna", "Jean", "Eva", "Paul", "Tom"] * 2
    rng = np.random.default_rng(0)
    pairs = cut_folds(names, np.arange(12) // 6, np.ones(12), 3, rng, whole=True)
    assert len(pairs) == 3
    for training, apart in pairs:
        assert not set(training.sequences) & set(apart.sequences)
        assert len(apart.sequences) == 4
    # And of tokens that are no characters.
    lists = [[1, 2], [3], [1, 2], [3]]
    [(_, apart), _] = cut_folds(
        lists, np.arange(4) // 2, np.ones(4), 2, rng, whole=True
    )
    assert apart.sequences[0] == apart.sequences[1]


def test_no_more_is_set_aside_than_is_needed(monkeypatch):
    monkeypatch.setattr(_calibration, "ENOUGH_TOKENS", 10)
    texts = ["a" * 24, "b" * 100]
    rng = np.random.default_rng(0)
    pairs = cut_folds(texts, np.array([0, 1]), np.ones(2), 4, rng, whole=False)
    assert [len(apart.sequences[0]) for _, apart in pairs] == [6, 6]
    assert [len(apart.sequences[1]) for _, apart in pairs] == [25, 25]


def test_sequences_of_any_tokens():
    texts = [(1, 2, 3, 4), ["x", ("y",), None]]
    rng = np.random.default_rng(0)
    [(training, held_out), _] = cut_folds(
        texts, np.array([0, 1]), np.ones(2), 2, rng, whole=False
    )
    assert held_out.sequences == [(1, 2), ["x"]]
    assert training.sequences == [(3, 4), [("y",), None]]


class OneNatForEach:
    """A model to which every known character costs its number in the alphabet."""

    def __init__(self, vocabulary, factor):
        self.vocabulary_ = vocabulary
        self.factor = factor

    def _token_log_likelihood(self, encoded):
        known = encoded.ids != self.vocabulary_.unknown
        return -self.factor * known.astype(float)


@pytest.mark.parametrize("whole", [True, False])
def test_evidence_of_fragments(whole):
    vocabulary = Vocabulary(["a"], "char", whole)
    models = [OneNatForEach(vocabulary, 1.0), OneNatForEach(vocabulary, 2.0)]
    held_out = LabelledSequences(
        ["a" * 500, "aa?", "a?" * 250], np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0])
    )
    rng = np.random.default_rng(0)
    evidence = held_out_evidence(models, vocabulary, held_out, rng)
    n_known = evidence.n_known
    np.testing.assert_array_equal(evidence.log_likelihood[:, 0], -n_known)
    np.testing.assert_array_equal(evidence.log_likelihood[:, 1], -2 * n_known)
    assert set(evidence.weights[evidence.class_index == 0]) == {1.0}
    assert set(evidence.weights[evidence.class_index == 1]) == {2.0, 3.0}
    if whole:
        # Each once, with its end.
        assert sorted(n_known) == [3, 251, 501]
    else:
        of_first = evidence.n_known[evidence.class_index == 0]
        assert set(LENGTHS) < set(of_first)
        assert max(of_first) == LENGTHS[-1]
        # Of the class with unknown characters half are known.
        assert max(n_known[evidence.class_index == 1]) == LENGTHS[-1] // 2


def simulated(slope, half_length, n_classes=3, n=20_000, seed=0):
    """Return evidence that has to be weighted like that to be calibrated."""
    rng = np.random.default_rng(seed)
    n_known = rng.choice(LENGTHS, size=n)
    scores = rng.normal(size=(n, n_classes)) * np.sqrt(n_known / 10)[:, None]
    proba = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    class_index = (rng.random(n)[:, None] > proba.cumsum(axis=1)).sum(axis=1)
    weight = EvidenceWeight(slope, half_length)(n_known)
    return Evidence(scores / weight[:, None], class_index, np.ones(n), n_known)


@pytest.mark.parametrize(("slope", "half_length"), [(0.5, 100.0), (1.5, 10.0)])
def test_the_weight_that_calibrates_is_found(slope, half_length):
    evidence = simulated(slope, half_length)
    fitted = EvidenceWeight.fitted(evidence)
    assert fitted.slope == pytest.approx(slope, rel=0.1)
    assert fitted.half_length == pytest.approx(half_length, rel=0.2)
    best = EvidenceWeight(slope, half_length).cross_entropy(evidence)
    assert fitted.cross_entropy(evidence) == pytest.approx(best, rel=1e-3)


def test_classes_and_texts_count_by_their_weights():
    few = simulated(0.5, 100.0, n_classes=2, n=400, seed=1)
    again = np.repeat(np.arange(400), 1 + 3 * (few.class_index == 1))
    repeated = Evidence(*(column[again] for column in few))
    # A class of more fragments does not count more.
    one, other = EvidenceWeight.fitted(few), EvidenceWeight.fitted(repeated)
    assert one.slope == pytest.approx(other.slope, rel=1e-2)
    weighted = few._replace(weights=np.where(np.arange(400) < 200, 1.0, 1e-12))
    half = Evidence(*(column[:200] for column in few))
    one, other = EvidenceWeight.fitted(weighted), EvidenceWeight.fitted(half)
    assert one.slope == pytest.approx(other.slope, rel=1e-2)


def test_evidence_without_limits_has_a_finite_weight():
    # Perfectly told apart: the more weight the better.
    ratio = np.array([[0.0, -9.0], [-9.0, 0.0]])
    evidence = Evidence(ratio, np.array([0, 1]), np.ones(2), np.array([5, 5]))
    fitted = EvidenceWeight.fitted(evidence)
    assert 1 < fitted.slope <= 10
    # And told by nothing at all.
    nothing = evidence._replace(log_likelihood=np.zeros((2, 2)))
    assert EvidenceWeight.fitted(nothing).slope > 0


def noisy(words, n, seed):
    """Return texts of words that two classes use nearly alike, and their classes."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for label, shares in ((0, [4, 3, 2, 1]), (1, [3, 4, 1, 2])):
        drawn = rng.choice(words, size=(n, 30), p=np.array(shares) / 10)
        texts += [" ".join(row) for row in drawn]
        labels += [label] * n
    return texts, np.array(labels)


@pytest.fixture(scope="module")
def close_classes():
    words = ["tara", "rata", "atar", "arta"]
    return noisy(words, 8, 0), noisy(words, 100, 1)


@pytest.mark.parametrize("boundaries", [True, False])
def test_probabilities_of_close_classes_are_better(tiny, close_classes, boundaries):
    (X, y), (X_test, y_test) = close_classes
    tiny.update(epochs=20, lr=0.02, discriminative_epochs=0)
    clf = CharLMLanguageClassifier(**tiny, boundaries=boundaries).fit(X, y)
    as_they_are = CharLMLanguageClassifier(
        **tiny, boundaries=boundaries, calibration_folds=0
    ).fit(X, y)
    assert as_they_are.evidence_weight_ == EvidenceWeight(1.0, np.inf)
    rows = np.arange(len(y_test))
    loss = -clf.predict_log_proba(X_test)[rows, y_test].mean()
    loss_as_they_are = -as_they_are.predict_log_proba(X_test)[rows, y_test].mean()
    assert loss < loss_as_they_are
    # The models are the same, and so is what they rank by and decide.
    np.testing.assert_allclose(
        clf.decision_function(X_test), as_they_are.decision_function(X_test)
    )
    np.testing.assert_array_equal(clf.predict(X_test), as_they_are.predict(X_test))


def test_the_weight_does_not_depend_on_the_jobs(tiny, texts, labels):
    tiny.update(discriminative_epochs=1)
    one = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    two = CharLMLanguageClassifier(**tiny, n_jobs=2).fit(texts, labels)
    assert one.evidence_weight_ == two.evidence_weight_ != EvidenceWeight()


def test_too_little_text_to_set_any_aside(tiny):
    tiny.update(boundaries=True)
    message = "not calibrated: a class has too little"
    with pytest.warns(UserWarning, match=message) as warned:
        clf = CharLMLanguageClassifier(**tiny).fit(["ab", "cd"], [0, 1])
    assert warned[0].filename == __file__
    assert clf.evidence_weight_ == EvidenceWeight()
    texts = ["abab", "cdcd", "bbaa", "ccdd", "abba", "dcdc"]
    clf = CharLMLanguageClassifier(**tiny).fit(texts, [0, 1] * 3)
    assert clf.evidence_weight_ != EvidenceWeight()


def test_only_fit_learns_the_weight(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny).partial_fit(texts, labels, ["eng", "fra"])
    assert clf.evidence_weight_ == EvidenceWeight()
    clf.fit(texts, labels)
    weight = clf.evidence_weight_
    clf.partial_fit(texts, labels).add_class("abc", [LETTERS])
    assert clf.evidence_weight_ == weight != EvidenceWeight()


def test_early_stopping_needs_no_more_texts_than_without(tiny):
    tiny.update(early_stopping=True, n_iter_no_change=1)
    X, y = ["abab", "ab", "cdcd", "cd"], [0, 0, 1, 1]
    clf = CharLMLanguageClassifier(**tiny).fit(X, y)
    assert clf.evidence_weight_ != EvidenceWeight()


def test_without_folds_no_earlier_weight_is_kept(tiny, texts, labels):
    clf = CharLMLanguageClassifier(**tiny, warm_start=True).fit(texts, labels)
    assert clf.evidence_weight_ != EvidenceWeight()
    clf.set_params(calibration_folds=0).fit(texts, labels)
    assert clf.evidence_weight_ == EvidenceWeight()


def test_models_without_a_part_are_trained_like_the_others(
    tiny, texts, labels, monkeypatch
):
    classifiers = []
    evidence_of_folds = _refinement._evidence_of_folds

    def watch(of_folds, *args):
        classifiers.extend(of_folds)
        return evidence_of_folds(of_folds, *args)

    monkeypatch.setattr(_refinement, "_evidence_of_folds", watch)
    tiny.update(n_networks=2, epochs=20, lr=1e-30)
    tiny.update(early_stopping=True, n_iter_no_change=1)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    n_epochs = round(np.mean(clf.n_iter_))
    assert n_epochs < 20
    assert len(classifiers) == 3
    for part in classifiers:
        assert part.discriminative_epochs == len(clf.discriminative_loss_curve_)
        assert len(part.discriminative_loss_curve_) == part.discriminative_epochs
        for model in part.language_models_:
            assert (model.n_networks, model.n_iter_) == (1, n_epochs)
            assert model.validation_loss_curve_ is None


def test_models_without_a_part_begin_like_the_others(tiny, texts, labels, monkeypatch):
    trained = []
    held_out_evidence = _refinement.held_out_evidence

    def watch(models, *args, **kwargs):
        trained.append(models)
        return held_out_evidence(models, *args, **kwargs)

    monkeypatch.setattr(_refinement, "held_out_evidence", watch)
    tiny.update(epochs=1)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    assert len(trained) == 3
    for models in trained:
        for model, whole in zip(models, clf.language_models_, strict=True):
            assert model.n_iter_ == 1
            # Each knows the characters of its own class only.
            assert set(model.vocabulary_) <= set(whole.vocabulary_)


def test_a_fragment_counts_once():
    vocabulary = Vocabulary(["a"], "char", False)
    models = [OneNatForEach(vocabulary, 1.0), OneNatForEach(vocabulary, 2.0)]
    # As long as a beginning that is read off the running sums, and longer.
    held_out = LabelledSequences(["a" * 6, "a" * 7], np.array([0, 1]), np.ones(2))
    evidence = held_out_evidence(models, vocabulary, held_out, np.random.default_rng(0))
    n_whole = np.bincount(evidence.n_known)[[6, 7]]
    n_drawn = _calibration.N_FRAGMENTS
    # One in six begins at the first character of the first, one in seven of the second.
    assert n_whole[1] == pytest.approx(n_drawn / 2 / 7, rel=0.4)
    assert n_whole[0] == pytest.approx(n_drawn / 2 / 6 + n_drawn / 2 * 2 / 7, rel=0.2)

import pickle
import sys

import numpy as np
import pytest
import torch

from sklearn_charlstm import CharLMLanguageClassifier, _vocabulary
from sklearn_charlstm._device import Compute
from sklearn_charlstm._generation import _Reader
from sklearn_charlstm._vocabulary import Vocabulary

CPU = Compute(torch.device("cpu"), torch.float32)


def test_ids_follow_the_first_occurrence_and_symbols_come_after():
    vocabulary = Vocabulary(["ba", "ac"], "char", False)
    assert vocabulary == {"b": 0, "a": 1, "c": 2}
    symbols = [vocabulary.bos, vocabulary.unknown, vocabulary.cut]
    assert sorted(symbols) == [3, 4, 5]
    assert vocabulary.eos == vocabulary.bos
    assert vocabulary.n_inputs == 6
    assert repr(vocabulary) == "Vocabulary(3 tokens)"


def test_encode_is_flat_and_small():
    vocabulary = Vocabulary(["abc"], "char", False)
    ids, lengths = vocabulary.encode(["cab", "", "bx"])
    assert ids.tolist() == [2, 0, 1, 1, vocabulary.unknown]
    assert ids.dtype == np.uint8
    assert lengths.tolist() == [3, 0, 2]
    assert "x" not in vocabulary


def test_many_tokens_need_a_wider_dtype():
    vocabulary = Vocabulary([range(300)], tuple, False)
    ids, _ = vocabulary.encode([[299, 300]])
    assert ids.dtype == np.uint16
    assert ids.tolist() == [299, vocabulary.unknown]


def test_where_boundaries_count_the_end_of_text_is_predicted():
    vocabulary = Vocabulary(["abc"], "char", True)
    end = vocabulary.eos
    ids, lengths = vocabulary.encode(["ab", "", "c"])
    assert ids.tolist() == [0, 1, end, end, 2, end]
    assert lengths.tolist() == [3, 1, 2]
    assert vocabulary.first_input == vocabulary.bos
    assert vocabulary.n_outputs == 4
    fragments = Vocabulary(["abc"], "char", False)
    assert fragments.first_input == fragments.cut
    assert fragments.n_outputs == 3


def test_take_selects_texts_in_any_order():
    encoded = Vocabulary(["abc"], "char", False).encode(["ab", "", "c", "bca"])
    ids, lengths = encoded.take(np.array([3, 1, 0, 3]))
    assert ids.tolist() == [1, 2, 0, 0, 1, 1, 2, 0]
    assert lengths.tolist() == [3, 0, 2, 3]
    ids, lengths = encoded.take(np.array([], dtype=int))
    assert len(ids) == len(lengths) == 0
    # Many of one length are cut out together.
    for rows in ([3] * 40 + [1] * 30, [3, 1, 0] * 20):
        ids, lengths = encoded.take(np.array(rows))
        assert ids.tolist() == [i for row in rows for i in encoded.take([row]).ids]
        assert lengths.tolist() == encoded.lengths[rows].tolist()


POSSIBLE = pytest.mark.parametrize(
    ("analyzer", "n_possible"),
    [("char", sys.maxunicode + 1), ("byte", 256), ("word", 3), (tuple, 3)],
)


def total_mass(vocabulary, n_possible):
    n_unknown = n_possible - len(vocabulary)
    return np.exp(vocabulary.log_known) + n_unknown * np.exp(vocabulary.log_unknown)


@POSSIBLE
def test_known_and_unknown_mass_sum_to_one(analyzer, n_possible):
    vocabulary = Vocabulary([[1, 2]], analyzer, False)
    assert total_mass(vocabulary, n_possible) == pytest.approx(1, abs=1e-12)
    assert vocabulary.log_unknown > -np.inf


@POSSIBLE
def test_an_extended_alphabet_gives_an_unknown_token_the_same_mass(
    analyzer, n_possible
):
    vocabulary = Vocabulary([[1, 2]], analyzer, True)
    extended = vocabulary.extended([[2, 3], [4]])
    assert list(extended) == [1, 2, 3, 4]
    assert extended.log_unknown == vocabulary.log_unknown
    # Of words there are as many as there are; the unknown one stays one event.
    n_possible = n_possible + 2 if n_possible == 3 else n_possible
    assert total_mass(extended, n_possible) == pytest.approx(1, abs=1e-12)
    assert extended.n_outputs == 5
    assert list(vocabulary) == [1, 2]


@POSSIBLE
def test_the_alphabet_of_a_class_leaves_the_unknown_the_same_mass(analyzer, n_possible):
    common = Vocabulary([[1, 2, 3, 4]], analyzer, False)
    vocabulary = Vocabulary([[2, 3]], analyzer, False, common)
    assert vocabulary.n_foreign == 2
    assert vocabulary.log_unknown == common.log_unknown
    assert vocabulary.log_known == common.log_known


def test_which_mass_unknown_tokens_can_have():
    words = Vocabulary([["the"]], "word", False)
    assert words.can_share(-1e-9)
    # All of it would leave nothing to the known ones.
    assert not words.can_share(0.0)
    assert not words.can_share(-np.inf)
    # Where there are none, any probability is as good as another.
    all_bytes = Vocabulary([bytes(range(256))], "byte", False)
    assert all_bytes.can_share(-np.inf)
    assert all_bytes.can_share(0.0)
    assert not all_bytes.can_share(0.5)


def test_no_mass_is_kept_where_nothing_can_be_unknown():
    vocabulary = Vocabulary([bytes(range(256))], "byte", False)
    assert vocabulary.log_known == 0


def test_pickle_keeps_everything():
    vocabulary = Vocabulary(["hello"], "char", True)
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert copy == vocabulary
    assert vars(copy) == vars(vocabulary)
    assert copy.encode(["oh?"]).ids.tolist() == vocabulary.encode(["oh?"]).ids.tolist()


@pytest.mark.parametrize("block", [1, 3, 2**16])
def test_characters_are_looked_up_by_their_code_points(monkeypatch, block):
    monkeypatch.setattr(_vocabulary, "BLOCK", block)
    common = Vocabulary(["ab\ud800 \U0001f600", "xyz"], "char", True)
    own = Vocabulary(["xyz"], "char", True, common=common)
    # Also one that comes as far after the last of the table as one of it is from 0.
    after = chr(ord("\U0001f600") + 2 + ord("a"))
    texts = [
        "",
        "a\ud800x\ud801",
        "\U0001f600\U0001f601",
        after,
        "zq\U0010ffff\x00b" * 9,
    ]
    for vocabulary in (common, own):
        ids, lengths = vocabulary.encode(texts)
        expected = [
            id_
            for text in texts
            for id_ in (*map(vocabulary.__getitem__, text), vocabulary.eos)
        ]
        assert ids.tolist() == expected
        assert lengths.tolist() == [len(text) + 1 for text in texts]
    rows = np.array([4, 0, 1])
    taken = common.encode(texts).take(rows)
    assert taken.ids.tolist() == common.encode([texts[k] for k in rows]).ids.tolist()
    taken.ids[:] = 0


@pytest.mark.parametrize("analyzer", ["word", str.split])
def test_new_words_speak_for_the_class_that_was_added(tiny, analyzer):
    X = ["the cat sat", "the dog", "le chat", "le chien dort"]
    clf = CharLMLanguageClassifier(**tiny, analyzer=analyzer)
    clf.fit(X, ["eng", "eng", "fra", "fra"])
    of_class = {"deu": ["XYZ", "QÜX"], "ell": ["αβγ", "ΩΨΦ", "δεζ"]}
    for label, words in of_class.items():
        clf.add_class(label, [" ".join(words * 5)])
    for label, words in of_class.items():
        assert set(clf.predict(words)) == {label}
    # All words, and any other. Of a model that came before some of them the sum is
    # above one by a thousandth at most, what the unknown word has.
    log_likelihood = clf.log_likelihood([*clf.vocabulary_, "another"])
    sums = np.exp(log_likelihood).sum(axis=0)
    np.testing.assert_allclose(sums, 1, atol=1e-3)
    assert set(log_likelihood[-1]) == {clf.vocabulary_.log_unknown}
    # The same where one model writes and another judges what it writes.
    for model in clf.language_models_:
        with torch.inference_mode():
            judge = _Reader(model._as_model(), [*clf.vocabulary_], [[]], CPU)
        assert np.exp(judge.log_proba).sum() == pytest.approx(1, abs=1e-3)

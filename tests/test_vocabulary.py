import pickle
import sys

import numpy as np
import pytest

from sklearn_charlstm._vocabulary import Vocabulary


def test_ids_follow_the_first_occurrence_and_symbols_come_after():
    vocabulary = Vocabulary(["ba", "ac"], "char")
    assert vocabulary == {"b": 0, "a": 1, "c": 2}
    symbols = [vocabulary.bos, vocabulary.unknown, vocabulary.cut]
    assert sorted(symbols) == [3, 4, 5]
    assert vocabulary.eos == vocabulary.bos
    assert vocabulary.n_inputs == 6
    assert repr(vocabulary) == "Vocabulary(3 tokens)"


def test_encode_is_flat_and_small():
    vocabulary = Vocabulary(["abc"], "char")
    ids, lengths = vocabulary.encode(["cab", "", "bx"])
    assert ids.tolist() == [2, 0, 1, 1, vocabulary.unknown]
    assert ids.dtype == np.uint8
    assert lengths.tolist() == [3, 0, 2]
    assert "x" not in vocabulary


def test_many_tokens_need_a_wider_dtype():
    vocabulary = Vocabulary([range(300)], tuple)
    ids, _ = vocabulary.encode([[299, 300]])
    assert ids.dtype == np.uint16
    assert ids.tolist() == [299, vocabulary.unknown]


@pytest.mark.parametrize(
    ("analyzer", "n_possible"),
    [("char", sys.maxunicode + 1), ("byte", 256), ("word", 3), (tuple, 3)],
)
def test_known_and_unknown_mass_sum_to_one(analyzer, n_possible):
    vocabulary = Vocabulary([[1, 2]], analyzer)
    n_unknown = n_possible - len(vocabulary)
    known, unknown = np.exp(vocabulary.log_known), np.exp(vocabulary.log_unknown)
    assert known + n_unknown * unknown == pytest.approx(1, abs=1e-12)
    assert unknown > 0


def test_no_mass_is_kept_where_nothing_can_be_unknown():
    vocabulary = Vocabulary([bytes(range(256))], "byte")
    assert vocabulary.log_known == 0


def test_pickle_keeps_everything():
    vocabulary = Vocabulary(["hello"], "char")
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert copy == vocabulary
    assert vars(copy) == vars(vocabulary)
    assert copy.encode(["oh?"]).ids.tolist() == vocabulary.encode(["oh?"]).ids.tolist()

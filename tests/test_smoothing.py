import numpy as np
import pytest
import torch

from sklearn_charlstm import _smoothing
from sklearn_charlstm._smoothing import ORDER, KneserNey
from sklearn_charlstm._soft_targets import SoftTargets
from sklearn_charlstm._vocabulary import Vocabulary

TEXT = (
    "everyone has the right to recognition everywhere as a person before the law " * 3
)


def estimates(texts, places, n_before, *, boundaries=False, weights=None, alphabet=()):
    vocabulary = Vocabulary(alphabet or texts, "char", boundaries)
    weights = np.ones(len(texts)) if weights is None else np.array(weights)
    model = KneserNey(vocabulary.encode(texts), weights, vocabulary)
    nodes = model.nodes(np.array(places), np.array(n_before))
    on_device = SoftTargets([model], torch.device("cpu"))
    probabilities = on_device.distributions(
        torch.from_numpy(nodes).view(1, nodes.size, 1), model.n_discounted(nodes)
    )
    return vocabulary, probabilities.numpy().reshape(*nodes.shape, -1)


# All histories are in the table, those of up to two tokens, and none.
@pytest.mark.parametrize("n_values", [2**22, 2000, 30])
def test_is_that_of_a_plain_implementation(ngrams, n_values, monkeypatch):
    monkeypatch.setattr(_smoothing, "MAX_TABLE", n_values)
    reference = ngrams.KneserNey([TEXT], frozenset(TEXT), ORDER)
    places, n_before = np.mgrid[ORDER : len(TEXT), : ORDER + 2]
    vocabulary, probabilities = estimates([TEXT], places, n_before)
    assert probabilities.shape == (*places.shape, len(vocabulary))
    for place, n, row in zip(
        places.ravel(),
        n_before.ravel(),
        probabilities.reshape(-1, len(vocabulary)),
        strict=True,
    ):
        history = TEXT[place - min(n, ORDER - 1) : place]
        expected = [reference.probability(c, history) for c in vocabulary]
        np.testing.assert_allclose(row, expected, rtol=1e-5)


@pytest.mark.parametrize("boundaries", [True, False])
def test_probabilities_sum_to_one(boundaries):
    texts = ["abcab", "", "b", "xyabcx", "aaaa"]
    _, probabilities = estimates(
        texts,
        np.arange(16),
        np.zeros(16, dtype=int),
        boundaries=boundaries,
        weights=[1.0, 1.0, 0.25, 3.0, 1e-9],
        # x, y and z are unknown: they are in histories, and have no probability here.
        alphabet=["abc"],
    )
    assert probabilities.shape == (16, 3 + boundaries)
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_histories_end_where_texts_begin():
    vocabulary, [first, second] = estimates(["ab", "cd", "cd"], [2, 3], [0, 1])
    # Nothing is known before c but the frequencies; after c there was only d.
    assert first[vocabulary["c"]] == pytest.approx(first[vocabulary["d"]])
    assert second.argmax() == vocabulary["d"]


def test_the_beginning_of_a_text_is_a_history():
    texts = ["ab", "ac", "ad", "ae"]
    vocabulary, [known, unknown] = estimates(texts, [0, 0], [1, 0], boundaries=True)
    assert known[vocabulary["a"]] > 0.8
    assert unknown[vocabulary["a"]] < 0.5
    _, [end] = estimates(texts, [2], [2], boundaries=True)
    assert end.argmax() == vocabulary.eos


def test_weights_are_counts_and_discounts_go_by_numbers():
    # Of too few n-grams to estimate it from, the discount is a half.
    vocabulary, [row] = estimates(["ab", "ac"], [1], [1], weights=[3.0, 1.0])
    shorter = 0.5 * np.array([0, 3 / 4, 1 / 4]) + 0.5 / 3
    expected = 0.5 * np.array([0, 3 / 4, 1 / 4]) + 0.5 * shorter
    np.testing.assert_allclose(row[[vocabulary[c] for c in "abc"]], expected, rtol=1e-6)


def test_several_models_and_the_targets_themselves(monkeypatch):
    texts = ["abcabdabc" * 3, "xy" * 4, TEXT]
    models = []
    # A table of all histories, of all, and of none.
    for text, n_values in zip(texts, [2**22, 2**22, 30], strict=True):
        monkeypatch.setattr(_smoothing, "MAX_TABLE", n_values)
        vocabulary = Vocabulary([text], "char", False)
        encoded = vocabulary.encode([text])
        models.append(KneserNey(encoded, np.ones(1), vocabulary))
    places, n_before = np.array([[5, 6, 4], [4, 5, 5]]), np.array([0, 3, 4])
    nodes = np.stack([model.nodes(places, n_before) for model in models])
    targets = np.array([[[0, 1, 0], [1, -100, 1]]] * 3)
    beyond = np.array([[[False, True, True], [False] * 3]] * 3)
    n_discounted = models[2].n_discounted(nodes[2])
    assert [len(model.n_discounted(nodes[0])) for model in models[:2]] == [0, 0]
    assert len(n_discounted) == ORDER

    def expected(rows, n_discounted):
        tensors = (torch.from_numpy(part[rows]) for part in (targets, nodes, beyond))
        on_device = SoftTargets(models[rows], torch.device("cpu"))
        return on_device(*tensors, n_discounted).numpy()

    together = expected(slice(3), n_discounted)
    for k, n in enumerate([[], [], n_discounted]):
        [alone] = expected(slice(k, k + 1), n)
        n_outputs = alone.shape[-1]
        np.testing.assert_array_equal(together[k, ..., :n_outputs], alone)
        assert not together[k, ..., n_outputs:].any()
        on_device = SoftTargets(models[k : k + 1], torch.device("cpu"))
        smoothed = on_device.distributions(torch.from_numpy(nodes[k : k + 1]), n)[0]
        np.testing.assert_allclose(smoothed.sum(axis=-1), 1, rtol=1e-5)
        # Where more is known the target, 1 and 0, counts half.
        smoothed[0, 1:] /= 2
        smoothed[0, 1, 1] += 0.5
        smoothed[0, 2, 0] += 0.5
        np.testing.assert_allclose(alone, smoothed, rtol=1e-6)

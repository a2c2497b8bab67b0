"""Estimators in several threads, and what a thread notices of another."""

import multiprocessing
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.utils import check_random_state
from skorch.callbacks import Callback

from sklearn_charlstm import CharLMLanguageClassifier
from sklearn_charlstm._device import reproducibly
from sklearn_charlstm._scoring import text_log_likelihood

N_THREADS = 8


@pytest.fixture(autouse=True)
def _torch_keeps_its_threads(n_threads):
    def n_torch_threads():
        # As a thread that begins has it.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    assert n_torch_threads() == n_threads
    yield
    assert n_torch_threads() == n_threads


@pytest.fixture
def pool():
    with ThreadPoolExecutor(N_THREADS) as pool:
        yield pool


def long(texts):
    """Return texts that take both ways of scoring."""
    return [text * 5 for text in texts]


def as_long_as(future, function):
    """Call a function at least once and until a future is done."""
    results = [function()]
    while not future.done():
        results.append(function())
    return results


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_predict_at_once(tiny, texts, labels, pool, n_jobs, monkeypatch):
    monkeypatch.setattr("sklearn_charlstm._reading.MIN_TOKENS", 1)
    tiny.update(n_networks=2)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels).set_params(n_jobs=n_jobs)
    # Other texts in each: what one thread has in hand is wrong for another.
    X = [[text[k:] * (k + 1) for text in texts] for k in range(N_THREADS)]

    def predict(k):
        return clf.predict(X[k]), clf.predict_proba(X[k])

    def predict_often(k):
        ready.wait()
        return [predict(k) for _ in range(3)]

    expected = [predict(k) for k in range(N_THREADS)]
    ready = threading.Barrier(N_THREADS)
    for k, results in enumerate(pool.map(predict_often, range(N_THREADS))):
        for result in results:
            np.testing.assert_equal(result, expected[k])


class _Begun(Callback):
    event = threading.Event()

    def on_batch_end(self, net, **kwargs):
        self.event.set()


def test_fit_beside_predict(tiny, texts, labels, pool):
    tiny.update(epochs=10)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    X = long(texts)
    expected = clf.predict_proba(X)
    other = CharLMLanguageClassifier(**tiny)
    other.set_params(net_params={"callbacks": [_Begun()]})
    _Begun.event.clear()
    fitted = pool.submit(other.fit, texts, labels)
    assert _Begun.event.wait(60)
    for result in as_long_as(fitted, lambda: clf.predict_proba(X)):
        np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(fitted.result().predict_proba(X), expected)


def test_fit_at_once(tiny, texts, labels, pool):
    tiny.update(discriminative_epochs=1, calibration_folds=0)
    expected = CharLMLanguageClassifier(**tiny).fit(texts, labels).predict_proba(texts)
    ready = threading.Barrier(4)

    def fit(_):
        clf = CharLMLanguageClassifier(**tiny)
        ready.wait()
        return clf.fit(texts, labels)

    for fitted in pool.map(fit, range(4)):
        np.testing.assert_array_equal(fitted.predict_proba(texts), expected)


def test_fit_leaves_the_random_numbers_of_numpy_alone(tiny, texts, labels, pool):
    of_process = check_random_state(None)
    before = of_process.get_state()
    try:
        of_process.seed(0)
        fitted = pool.submit(CharLMLanguageClassifier(**tiny).fit, texts, labels)
        drawn = as_long_as(fitted, of_process.random_sample)
    finally:
        of_process.set_state(before)
    fitted.result()
    assert drawn == check_random_state(0).random_sample(len(drawn)).tolist()


def test_fit_restores_the_random_state_of_torch(tiny, texts, labels, pool):
    with torch.random.fork_rng([]):
        torch.manual_seed(7)
        before = torch.get_rng_state()
        pool.submit(CharLMLanguageClassifier(**tiny).fit, texts, labels).result()
        assert torch.equal(torch.get_rng_state(), before)


def test_predict_draws_no_random_numbers(tiny, texts, labels, pool):
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    X = long(texts)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        predicted = pool.submit(lambda: [clf.predict(X) for _ in range(10)])
        drawn = as_long_as(predicted, lambda: torch.rand(()))
    predicted.result()
    assert drawn == [torch.rand((), generator=generator) for _ in drawn]


def test_fitted_anew_while_a_prediction_waits(tiny, texts, labels, pool, monkeypatch):
    def watched(*args):
        in_hand.release()
        return text_log_likelihood(*args)

    in_hand = threading.Semaphore(0)
    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    before = clf.predict_proba(texts)
    others = [*texts, "xyz zyx"]
    methods = (clf.predict, clf.predict_proba, clf.decision_function)
    monkeypatch.setattr("sklearn_charlstm._classifier.text_log_likelihood", watched)
    with reproducibly():
        # They have the models of now in hand, and wait for this thread.
        waiting = [pool.submit(method, texts) for method in methods]
        for _ in waiting:
            in_hand.acquire()
        clf.fit(others, [*labels, "a third one"])
    predicted, proba, decision = (future.result() for future in waiting)
    assert set(predicted) <= {*labels}
    np.testing.assert_array_equal(proba, before)
    assert decision.shape == (len(texts),)
    assert clf.predict_proba(texts).shape == (len(texts), 3)


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="processes are not forked here"
)
def test_a_process_forked_while_another_thread_computes(tiny, texts, labels, pool):
    def compute():
        with reproducibly():
            began.set()
            go_on.wait()

    clf = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    began, go_on = threading.Event(), threading.Event()
    computed = pool.submit(compute)
    began.wait()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=lambda: results.put(clf.predict(texts)))
    with warnings.catch_warnings():
        # Python warns of just that.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    try:
        predicted = results.get(timeout=60)
    finally:
        process.kill()
        go_on.set()
        computed.result()
    np.testing.assert_array_equal(predicted, clf.predict(texts))

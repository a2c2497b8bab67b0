"""Training on a cluster: dask.distributed with two worker processes."""

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from sklearn_charlstm import CharLMLanguageClassifier

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def executed(client):
    """Return how many tasks each worker has done."""
    counts = client.run(lambda dask_worker: dask_worker.state.executed_count)
    return np.array([counts[worker] for worker in sorted(counts)])


def test_classes_networks_and_folds_are_spread(client, tiny, texts, labels):
    tiny.update(n_networks=2, discriminative_epochs=1)
    here = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    before = executed(client)
    with joblib.parallel_config(backend="dask"):
        there = CharLMLanguageClassifier(**tiny, n_jobs=2).fit(texts, labels)
    assert (executed(client) > before).all()
    np.testing.assert_array_equal(
        there.log_likelihood(texts), here.log_likelihood(texts)
    )
    assert there.evidence_weight_ == here.evidence_weight_


def test_candidates_of_a_search_are_spread(client, tiny, texts, labels):
    tiny.update(discriminative_epochs=0, calibration_folds=0)
    clf = CharLMLanguageClassifier(**tiny)
    settings = {"cv": 2, "scoring": "neg_log_loss", "n_jobs": 2}
    here = GridSearchCV(clf, {"maxlen": [4, 8]}, **settings).fit(texts, labels)
    # The texts go to the workers once, not with every candidate.
    with joblib.parallel_config(backend="dask", scatter=[texts, labels]):
        there = GridSearchCV(clf, {"maxlen": [4, 8]}, **settings).fit(texts, labels)
    np.testing.assert_array_equal(
        there.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"]
    )

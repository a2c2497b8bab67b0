"""How much a grid over `epochs` costs: one training run a fold, or one a value.

    python benchmarks/epochs_search.py

Prints the time of a search over 5, 10 and 20 epochs in units of one over 20 alone, all
of them in turn in one run, medians of several. Without joint training and calibration,
which each number of epochs has to have anew.
"""

# SPDX-License-Identifier: BSD-3-Clause

import time
from statistics import median

from sklearn.model_selection import GridSearchCV

from sklearn_charlstm import CharLMLanguageClassifier, WarmStartGridSearchCV
from sklearn_charlstm.datasets import load_languages

REPEATS = 5
EPOCHS = [5, 10, 20]


def main():
    """Measure and print."""
    X, y = load_languages(["eng", "fra"], return_X_y=True)
    clf = CharLMLanguageClassifier(
        n_networks=1,
        hidden_size=64,
        discriminative_epochs=0,
        calibration_folds=0,
        random_state=0,
    )
    settings = {"cv": 3, "refit": False, "scoring": "neg_log_loss"}
    searches = {
        "20 epochs alone": GridSearchCV(clf, {"epochs": [20]}, **settings),
        "GridSearchCV": GridSearchCV(clf, {"epochs": EPOCHS}, **settings),
        "WarmStartGridSearchCV": WarmStartGridSearchCV(
            clf, {"epochs": EPOCHS}, **settings
        ),
    }
    ratios = {name: [] for name in searches}
    for _ in range(REPEATS):
        seconds = {}
        for name, search in searches.items():
            start = time.perf_counter()
            search.fit(X, y)
            seconds[name] = time.perf_counter() - start
        for name in searches:
            ratios[name].append(seconds[name] / seconds["20 epochs alone"])
    one, other = (searches[name].cv_results_ for name in list(searches)[1:])
    assert (one["mean_test_score"] == other["mean_test_score"]).all()
    for name, values in ratios.items():
        print(
            f"{name:22} {median(values):.2f}  ({min(values):.2f} to {max(values):.2f})"
        )


if __name__ == "__main__":
    main()

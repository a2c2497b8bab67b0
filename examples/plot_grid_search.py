"""
Grid search over the history and the epochs
===========================================

Danish and Norwegian Bokmål are close. Which ``maxlen``, the longest history in
training, and how many ``epochs`` tell fragments of ten characters apart best? A grid
search with cross-validation answers. :class:`~sklearn_charlstm.WarmStartGridSearchCV`
gives the scores that :class:`~sklearn.model_selection.GridSearchCV` gives, but trains
once for each fold and ``maxlen``: on its way to the last number of epochs it stops at
the others and scores.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Text
# ----
# The search sees the first half of the sentences of each language. The second half is
# put aside for one test at the end.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from sklearn_charlstm import CharLMLanguageClassifier, WarmStartGridSearchCV
from sklearn_charlstm.datasets import load_languages

LANGUAGES = ["dan", "nob"]
LENGTH = 10

X_train, y_train, X_test, y_test = [], [], [], []
for language in LANGUAGES:
    sentences = load_languages([language]).data
    half = len(sentences) // 2
    X_train += sentences[:half]
    y_train += [language] * half
    X_test += sentences[half:]
    y_test += [language] * (len(sentences) - half)

# %%
# Score
# -----
# Whole sentences are too easy: nearly all of them are recognised whatever the
# parameters. The scorer therefore cuts the held-out sentences into consecutive
# fragments and computes the AUC of those. Training still uses the sentences.


def fragment_auc(classifier, X, y):
    """Return the AUC of the log-likelihood ratio for fragments of the texts."""
    fragments, labels = [], []
    for text, label in zip(X, y, strict=True):
        for start in range(0, len(text) - LENGTH + 1, LENGTH):
            fragments.append(text[start : start + LENGTH])
            labels.append(label)
    return roc_auc_score(labels, classifier.decision_function(fragments))


# %%
# Search
# ------
# The folds are runs of sentences, not shuffled: neighbouring sentences tell the same
# story and share words, and must not be on both sides.

# One network, and none of the joint training, which would follow after every number of
# epochs: enough to compare.
clf = CharLMLanguageClassifier(
    n_networks=1, discriminative_epochs=0, calibration_folds=0, random_state=0
)
param_grid = {"maxlen": [4, 8, 16, 32], "epochs": [5, 10, 20, 30]}
search = WarmStartGridSearchCV(
    clf,
    param_grid,
    scoring=fragment_auc,
    cv=3,
    n_jobs=2,
)
search.fit(X_train, y_train)
print(f"best: {search.best_params_}, AUC {search.best_score_:.3f} in cross-validation")

# %%
# The columns of ``cv_results_`` are in the order of the grid, the last name of the
# alphabet running fastest.

shape = len(param_grid["epochs"]), len(param_grid["maxlen"])
mean = search.cv_results_["mean_test_score"].reshape(shape)
spread = search.cv_results_["std_test_score"].reshape(shape)

figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
image = axes.imshow(mean, cmap="viridis", aspect="auto", origin="lower")
for row, column in np.ndindex(shape):
    dark = image.norm(mean[row, column]) < 0.6
    axes.text(
        column,
        row,
        f"{mean[row, column]:.3f}\n± {spread[row, column]:.3f}",
        ha="center",
        va="center",
        color="white" if dark else "black",
        weight="bold" if mean[row, column] == search.best_score_ else "normal",
    )
axes.set(
    title=f"Danish or Norwegian? Fragments of {LENGTH} characters",
    xlabel="maxlen",
    ylabel="epochs",
    xticks=range(shape[1]),
    xticklabels=param_grid["maxlen"],
    yticks=range(shape[0]),
    yticklabels=param_grid["epochs"],
)
figure.colorbar(image, label="mean AUC over three folds")
plt.show()

# %%
# Test
# ----
# Beside the best of the grid, the default parameters.

default = CharLMLanguageClassifier(n_jobs=2, random_state=0).fit(X_train, y_train)
print(f"best of the grid: test AUC {search.score(X_test, y_test):.3f}")
print(f"default:          test AUC {fragment_auc(default, X_test, y_test):.3f}")

# %%
# Longer windows need more epochs: of them there are fewer, so an epoch makes fewer
# updates of the weights. With 5 epochs a ``maxlen`` of 4 is the best, with 30 one of
# 32. Around the defaults, 16 and 20, little changes. On the test text the default
# parameters, with three networks and joint training, are level with the best of the
# grid with one.

"""
Which languages are confused?
=============================

All ten languages of the bundled corpus, in fragments of 15 characters. The confusion
matrix shows which of them the models take for each other.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Text
# ----
# The first 80 % of the sentences of each language are for training. The test part is
# cut at random places into 500 fragments of each language.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, confusion_matrix

from sklearn_charlstm import CharLMLanguageClassifier
from sklearn_charlstm.datasets import load_languages

LENGTH = 15
N_FRAGMENTS = 500
# Languages that are related stand together.
NAMES = {
    "dan": "Danish",
    "nob": "Norwegian",
    "swe": "Swedish",
    "deu": "German",
    "nld": "Dutch",
    "eng": "English",
    "fra": "French",
    "ita": "Italian",
    "spa": "Spanish",
    "por": "Portuguese",
}

rng = np.random.default_rng(0)
train, X_test, y_test = [], [], []
for language in NAMES:
    sentences = load_languages([language]).data
    cut = len(sentences) * 8 // 10
    train.append(" ".join(sentences[:cut]))
    text = " ".join(sentences[cut:])
    for start in rng.integers(0, len(text) - LENGTH + 1, size=N_FRAGMENTS):
        X_test.append(text[start : start + LENGTH])
        y_test.append(language)

# %%
# Training and test
# -----------------

clf = CharLMLanguageClassifier(n_jobs=2, random_state=0).fit(train, list(NAMES))
y_pred = clf.predict(X_test)
print(f"accuracy {accuracy_score(y_test, y_pred):.3f}")

# %%
# Rows sum to 100 %.

figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
percent = 100 * confusion_matrix(y_test, y_pred, labels=list(NAMES), normalize="true")
ConfusionMatrixDisplay(percent, display_labels=list(NAMES.values())).plot(
    ax=axes, cmap="Blues", values_format=".0f", xticks_rotation=45, colorbar=False
)
axes.set_title(f"Fragments of {LENGTH} characters, percent of each language")
plt.show()

# %%
# The pairs confused most, both ways together:

errors = percent + percent.T
first, second = np.triu_indices(len(NAMES), k=1)
names = list(NAMES.values())
for pair in np.argsort(-errors[first, second])[:6]:
    a, b = first[pair], second[pair]
    print(
        f"{names[a]} taken for {names[b]}: {percent[a, b]:.1f} %, "
        f"the other way round: {percent[b, a]:.1f} %"
    )

# %%
# Danish and Norwegian Bokmål are taken for each other most, in both directions: much of
# a fragment of 15 characters is spelt alike. Spanish and Portuguese follow, and
# Swedish, the third of the Scandinavian languages. Errors between Germanic and Romance
# languages are rarer; the most frequent is Dutch taken for French.

"""
Allemagne, Germania, Saksa: names of countries
==============================================

In which language is the name of a country or a language written? Names are whole
texts, not fragments: with ``boundaries=True`` their beginnings and their ends, such as
the German *-isch* and the Finnish *-maa*, are evidence. The names are those of the
Unicode Common Locale Data Repository, as the package Babel brings them.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Names
# -----
# Eight languages in the Latin script. Names that two or more of them share, such as
# *Andorra*, are dropped: nobody could tell their language. Case is folded, because
# English writes *German* and French *allemand*, and the capital alone would say much.

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from babel import Locale
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GroupShuffleSplit
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from sklearn_charlstm import CharLMLanguageClassifier

LANGUAGES = {
    "de": "German",
    "nl": "Dutch",
    "en": "English",
    "fr": "French",
    "it": "Italian",
    "es": "Spanish",
    "pl": "Polish",
    "fi": "Finnish",
}

origin_of = {}
english = Locale("en")
for code, language in LANGUAGES.items():
    for kind in ("territories", "languages"):
        english_names = getattr(english, kind)
        for entry, name in getattr(Locale(code), kind).items():
            # Two letters: no continents, and only the languages best known.
            if len(entry) == 2:
                origin_of[name.lower(), language] = english_names[entry][:3]
n_languages = Counter(name for name, language in origin_of)
rows = sorted(row for row in origin_of if n_languages[row[0]] == 1)
print(f"{len(rows)} of {len(origin_of)} names belong to one language only")

# %%
# Training and test
# -----------------
# A third of the names is for the test. A name is there in all languages or in none,
# and so are those of a country and of its language: the names are grouped by the first
# three letters in English, as in *Spain* and *Spanish*. (*Dutch* may still part from
# *Netherlands*.)

X, y = (np.array(column) for column in zip(*rows, strict=True))
splitter = GroupShuffleSplit(n_splits=1, test_size=1 / 3, random_state=0)
[(train, test)] = splitter.split(X, y, groups=[origin_of[row] for row in rows])
print(f"{len(train)} for training, {len(test)} for the test")
for boundaries in (False, True):
    clf = CharLMLanguageClassifier(boundaries=boundaries, n_jobs=2, random_state=0)
    clf.fit(X[train], y[train])
    print(f"boundaries={boundaries!s:6} accuracy {clf.score(X[test], y[test]):.3f}")

# %%
# For comparison, naive Bayes on counts of n-grams. ``char_wb`` puts spaces around the
# words, so that it too knows where they end.

naive_bayes = make_pipeline(
    CountVectorizer(analyzer="char_wb", ngram_range=(1, 4)), MultinomialNB()
)
naive_bayes.fit(X[train], y[train])
print(f"naive Bayes       accuracy {naive_bayes.score(X[test], y[test]):.3f}")

# %%
# Guessing would be right for one name in eight. The boundaries help: with them
# the language models are a little better than naive Bayes, on less than two thousand
# characters of most languages.

# %%
# Confusions
# ----------
# Of the models with boundaries.

figure, axes = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
ConfusionMatrixDisplay.from_estimator(
    clf,
    X[test],
    y[test],
    labels=list(LANGUAGES.values()),
    normalize="true",
    values_format=".0%",
    cmap="Blues",
    xticks_rotation=45,
    colorbar=False,
    ax=axes,
)
axes.set_title("Share of the names of each language")
plt.show()

# %%
# Single names
# ------------
# Three test names of each language, drawn at random, and the probability of each
# language. The true one is framed.

rng = np.random.default_rng(0)
shown = np.concatenate(
    [rng.choice(test[y[test] == name], 3, replace=False) for name in LANGUAGES.values()]
)
proba = clf.predict_proba(X[shown])
# The columns are in the order of the alphabet; draw them in ours.
columns = [list(clf.classes_).index(name) for name in LANGUAGES.values()]

figure, axes = plt.subplots(figsize=(7.5, 7.5), layout="constrained")
image = axes.imshow(proba[:, columns], cmap="Greens", vmin=0, vmax=1, aspect="auto")
for row, column in np.argwhere(proba[:, columns] >= 0.01):
    value = proba[row, columns[column]]
    color = "white" if value > 0.6 else "black"
    axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
for column in range(len(LANGUAGES)):
    frame = (column - 0.5, 3 * column - 0.5), 1, 3
    axes.add_patch(plt.Rectangle(*frame, fill=False, edgecolor="black", linewidth=1.5))
axes.set_xticks(range(len(LANGUAGES)), LANGUAGES.values())
axes.set_yticks(range(len(shown)), X[shown])
axes.set_title("Probability of each language given the name")
plt.show()

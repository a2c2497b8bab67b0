"""
English or French? A language model decides
===========================================

One LSTM language model reads English, another French, about eight thousand characters
each. Then they see strings of five characters, cut anywhere from text they do not
know. Each model says how probable the string is, one character after the other; the
logarithm of the ratio of the two probabilities is the score.

Run it with ``python examples/plot_english_french.py``. It uses the corpus that comes
with the package; ``--udhr DIR`` uses the Universal Declaration of Human Rights from
the files ``DIR/eng.txt`` and ``DIR/fra.txt``, and ``--udhr`` alone downloads it.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Text
# ----
# Lower-cased, white space folded. The first 80 % of the words are for training, the
# last 20 % for the test.

import argparse
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import RocCurveDisplay, roc_auc_score

from sklearn_charlstm import CharLMLanguageClassifier
from sklearn_charlstm.datasets import fetch_udhr, load_languages

parser = argparse.ArgumentParser(description="English or French?")
parser.add_argument(
    "--udhr",
    metavar="DIR",
    nargs="?",
    const="",
    help="use the Universal Declaration: from this folder, or downloaded",
)
parser.add_argument(
    "--picture", metavar="FILE", default="english_french_roc.png", help="save it here"
)
args = parser.parse_args()

LANGUAGES = ["eng", "fra"]
N_FRAGMENTS = 2000
LENGTHS = [1, 2, 3, 5, 10, 20, 50]

if args.udhr is None:
    corpus = load_languages(LANGUAGES)
else:
    corpus = fetch_udhr(LANGUAGES, data_home=args.udhr or None)

train, test = {}, {}
for language in LANGUAGES:
    rows = np.flatnonzero(corpus.target == language)
    words = " ".join(corpus.data[row] for row in rows).lower().split()
    cut = len(words) * 8 // 10
    train[language], test[language] = " ".join(words[:cut]), " ".join(words[cut:])
    print(
        f"{language}: {len(train[language])} characters for training, "
        f"{len(test[language])} for the test"
    )

# %%
# Training
# --------
# One model per language. A class may be a single long text.

clf = CharLMLanguageClassifier(n_jobs=2, random_state=0, verbose=1)
start = time.perf_counter()
clf.fit([train[language] for language in LANGUAGES], LANGUAGES)
print(f"fit took {time.perf_counter() - start:.0f} s")

for language, model in zip(clf.classes_, clf.language_models_, strict=True):
    bits = model.bits_per_character([test[language]])
    print(f"{language}: {bits:.2f} bits per character of the test text")

# %%
# Step by step
# ------------
# The probability of a string is the product of the conditional probabilities of its
# characters.


def fragments(text, length, rng):
    """Cut strings from random places of a text."""
    starts = rng.integers(0, len(text) - length + 1, size=N_FRAGMENTS)
    return [text[start : start + length] for start in starts]


for string in [" nati", " perf", "ght t", "eux q"]:
    steps = [np.exp(m.char_log_likelihood([string])[0]) for m in clf.language_models_]
    print(f"\n{'':16}{clf.classes_[0]:>12}{clf.classes_[1]:>12}")
    for position, character in enumerate(string):
        event = f"P({character}|{string[:position] or 'START'})"
        print(f"{event:16}" + "".join(f"{p[position]:12.3g}" for p in steps))
    print("-" * 40)
    print(f"{f'P({string})':16}" + "".join(f"{np.prod(p):12.3g}" for p in steps))
    print("-" * 40)
    [ratio] = clf.decision_function([string])
    print(f"log-likelihood ratio {ratio:+.2f} nats: {clf.predict([string])[0]}")

# %%
# Evaluation
# ----------
# Thousands of random strings of each length. As a control, two models of English,
# trained on alternate pieces of the English text, have to tell English from English:
# their AUC must be 0.5 up to chance.

pieces = np.array_split(train["eng"].split(" "), 40)
halves = [" ".join(np.concatenate(pieces[start::2])) for start in (0, 1)]
control = CharLMLanguageClassifier(calibration_folds=0, n_jobs=2, random_state=0)
control.fit(halves, ["one", "other"])

rng = np.random.default_rng(0)
y_true = np.repeat([0, 1], N_FRAGMENTS)
scores = {}
print(f"\n{N_FRAGMENTS} fragments a class\n\ncharacters       AUC   control")
for length in LENGTHS:
    X = [f for language in LANGUAGES for f in fragments(test[language], length, rng)]
    scores[length] = clf.decision_function(X)
    auc = roc_auc_score(y_true, scores[length])
    X = fragments(test["eng"], length, rng) + fragments(test["eng"], length, rng)
    auc_of_control = roc_auc_score(y_true, control.decision_function(X))
    print(f"{length:10}{auc:10.4f}{auc_of_control:10.3f}")

# %%
# The ROC curve
# -------------

figure, axes = plt.subplots(figsize=(5.6, 5.6), layout="constrained")
shades = plt.get_cmap("viridis")(np.linspace(0.9, 0.1, len(LENGTHS)))
for length, shade in zip(LENGTHS, shades, strict=True):
    unit = "character" if length == 1 else "characters"
    display = RocCurveDisplay.from_predictions(
        y_true,
        scores[length],
        name=f"{length} {unit}",
        ax=axes,
        plot_chance_level=length == LENGTHS[-1],
    )
    display.line_.set(color=shade, linewidth=3 if length == 5 else 1.5)
axes.set(
    title="English or French? Random fragments of unseen text",
    xlabel="False positive rate (English taken for French)",
    ylabel="True positive rate (French found)",
)
axes.legend(loc="lower right", frameon=False)
figure.savefig(args.picture, dpi=120)
print(f"\nROC curves saved as {args.picture}")

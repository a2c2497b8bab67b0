"""
Writing: samples, suggestions, gaps
===================================

A language model that gives probabilities to texts can also write them. Here two models,
of English and of French, draw texts, complete words, and mend a text with a gap.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Two models
# ----------
# Of the sentences that come with the package, one after the other as running text; the
# last tenth is set aside.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from sklearn_charlstm import CharLMLanguageClassifier
from sklearn_charlstm.datasets import load_languages

LANGUAGES = ["eng", "fra"]
train, unseen = [], {}
for language in LANGUAGES:
    sentences = [text.lower() for text in load_languages([language]).data]
    cut = len(sentences) * 9 // 10
    train.append(" ".join(sentences[:cut]))
    unseen[language] = sentences[cut:]

clf = CharLMLanguageClassifier(n_jobs=2, random_state=0).fit(train, LANGUAGES)
english, french = clf.language_models_

# %%
# Samples
# -------
# A character is drawn from what the model says may come, and so on. A `temperature`
# below 1 makes likely characters likelier; ``top_p=0.9`` draws among the likeliest
# only, as many as have nine tenths of the probability together.

for choice in ({}, {"top_p": 0.9}, {"temperature": 0.5}):
    [text] = english.sample(max_length=70, prompt="the ", random_state=1, **choice)
    print(f"{choice!s:20} {text}")

# %%
# No prose, from models that have read some thousand characters, but English: the
# classifier finds the language of a sample nearly always, and with `guidance`, which
# prefers the characters that tell the class from the other, sooner.

LENGTHS = (5, 10, 20, 50)
for guidance in (0, 1):
    found = []
    for n in LENGTHS:
        texts = [
            text
            for language in LANGUAGES
            for text in clf.sample(
                language, 200, guidance=guidance, max_length=n, random_state=0
            )
        ]
        found.append(clf.score(texts, np.repeat(LANGUAGES, 200)))
    shares = ", ".join(f"{share:.1%}" for share in found)
    print(f"guidance {guidance}: of {LENGTHS} characters, {shares} found")

# %%
# What may come next
# ------------------
# ``next_char_proba`` gives the probability of each character after each prefix. Below
# it is drawn for the prefixes of an unseen sentence: in each column the likeliest
# characters from the top, with the one that came framed.

text = min(unseen["eng"], key=lambda sentence: abs(len(sentence) - 34))
SHOWN = 6
proba = english.next_char_proba([text[:i] for i in range(len(text))])
characters = np.array([*english.vocabulary_])
best = np.argsort(-proba, axis=1)[:, :SHOWN]

figure, axes = plt.subplots(figsize=(10, 2.6), layout="constrained")
image = axes.imshow(
    np.take_along_axis(proba, best, axis=1).T, cmap="Blues", vmin=0, vmax=1
)
for place, (character, columns) in enumerate(zip(text, best, strict=True)):
    for rank, column in enumerate(columns):
        likely = proba[place, column] > 0.6
        axes.text(
            place,
            rank,
            characters[column].replace(" ", "␣"),
            ha="center",
            va="center",
            family="monospace",
            color="white" if likely else "black",
        )
        if characters[column] == character:
            frame = (place - 0.5, rank - 0.5), 1, 1
            axes.add_patch(plt.Rectangle(*frame, fill=False, edgecolor="C3", lw=1.8))
axes.set_xticks(range(len(text)), text.replace(" ", "␣"), family="monospace")
axes.tick_params(axis="x", length=0)
axes.set_yticks(range(SHOWN), range(1, SHOWN + 1))
axes.set(ylabel="rank", title="The likeliest next characters; framed is what came")
figure.colorbar(image, label="probability", shrink=0.7)
plt.show()

# %%
# Completions
# -----------
# ``suggest`` finds the likeliest rests of the word that was begun, to its end. The
# search is exact: a longer text is never likelier than its beginning. The rest is empty
# where the word may be complete.

for prefix in ("she took the bo", "it was a long wi"):
    for rest, probability in english.suggest(prefix, 3):
        print(f"{prefix}|{rest:8} {probability:.2f}")

# %%
# Gaps
# ----
# Every eighth character of unseen sentences is lost. ``infill`` finds the likeliest
# for the place, given the text on both sides: what was mended before, and what comes
# after up to the next gap.

EVERY = 8


def mend(model, damaged):
    """Fill the gaps of a text, from left to right."""
    text = ""
    parts = damaged.split("_")
    for part, after in pairwise(parts):
        text += part
        text += model.infill(text, after, 1)
    return text + parts[-1]


for language, model in zip(LANGUAGES, clf.language_models_, strict=True):
    n_lost = n_found = 0
    for number, sentence in enumerate(unseen[language]):
        lost = sentence[EVERY - 1 :: EVERY]
        damaged = "".join(
            "_" if i % EVERY == EVERY - 1 else character
            for i, character in enumerate(sentence)
        )
        mended = mend(model, damaged)
        n_lost += len(lost)
        n_found += sum(map(str.__eq__, lost, mended[EVERY - 1 :: EVERY]))
        if number == 0:
            print(damaged, mended, sep="\n")
    print(f"{language}: {n_found} of {n_lost} characters found\n")

# %%
# Guessing the space, the most frequent character, would find about one in six. The page
# :doc:`/accuracy` has the share that is found of longer gaps, beside an n-gram model.

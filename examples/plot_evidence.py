"""
Where in a sentence the decision falls
======================================

The log-likelihood ratio of a text is a sum over its characters: each one adds the
logarithm of the ratio of its two conditional probabilities. Drawn character by
character, the sum shows which of them tell the languages apart, and where a text
changes its language.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Two models
# ----------
# English and French. The last tenth of the sentences of each is kept out of training.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_charlstm import CharLMLanguageClassifier
from sklearn_charlstm.datasets import load_languages

LANGUAGES = ["eng", "fra"]
train, unseen = [], {}
for language in LANGUAGES:
    sentences = load_languages([language]).data
    cut = len(sentences) * 9 // 10
    train.append(" ".join(sentences[:cut]))
    unseen[language] = sentences[cut:]

clf = CharLMLanguageClassifier(n_jobs=2, random_state=0).fit(train, LANGUAGES)

# %%
# Evidence
# --------
# ``char_log_likelihood`` of one model minus that of the other. The sum over a text is
# its ``decision_function``, as the priors are equal.


def evidence(text):
    """Return what each character adds to the log-likelihood ratio, in nats."""
    english, french = (m.char_log_likelihood([text])[0] for m in clf.language_models_)
    return french - english


def draw(axes, text):
    """Draw the evidence of each character as a colour and its sum as a line."""
    steps = evidence(text)
    places = np.arange(len(text))
    total = np.cumsum(steps)
    margin = 0.1 * (max(total.max(), 0) - min(total.min(), 0))
    low, high = min(total.min(), 0) - margin, max(total.max(), 0) + margin
    image = axes.imshow(
        steps[np.newaxis],
        cmap="RdBu",
        vmin=-6,
        vmax=6,
        alpha=0.8,
        aspect="auto",
        extent=(-0.5, len(text) - 0.5, low, high),
    )
    axes.plot(places, total, ".-", color="black", markersize=5, linewidth=1.2)
    axes.axhline(0, color="black", linestyle=":", linewidth=0.8)
    # A label that is a space would not be seen.
    labels = text.replace(" ", "␣")
    axes.set_xticks(places, labels, family="monospace", fontsize=10, va="baseline")
    axes.tick_params(axis="x", length=0, pad=12)
    axes.set_ylabel("sum, nats")
    return image


# %%
# An English and a French sentence
# --------------------------------
# Both are from the part that the models have not seen. A few characters carry most of
# the decision: an *h* after *t* or *s*, a *w*, or *é*, which no English text in the
# training part has.

texts = [
    next(text for text in unseen["eng"] if text.startswith("That hurt")),
    next(text for text in unseen["fra"] if text.startswith("Tout avait")),
]
figure, panels = plt.subplots(2, figsize=(10, 5), layout="constrained")
for axes, text in zip(panels, texts, strict=True):
    image = draw(axes, text)
    print(f"{clf.decision_function([text])[0]:+.1f} nats: {text}")
panels[0].set_title("Log-likelihood ratio: positive for French, negative for English")
figure.colorbar(image, ax=panels, extend="both", label="of the character, nats")
plt.show()

# %%
# A change of language
# --------------------
# Parts of two unseen sentences, joined. If a text is English up to some place and
# French from there on, the most probable place is where the sum is lowest. Each model
# has the other language in its history at first.

text = "She said not a word about it; on ne se salua plus pendant tout l'été."
change = np.argmin(np.cumsum(evidence(text))) + 1

figure, axes = plt.subplots(figsize=(10, 3), layout="constrained")
image = draw(axes, text)
axes.axvline(change - 0.5, color="black", linestyle="--", linewidth=1)
axes.set_title("The dashed line is the most probable place of the change")
figure.colorbar(image, extend="both", label="of the character, nats")
plt.show()

print(f"{text[:change]!r} | {text[change:]!r}")
print(f"the whole: {clf.decision_function([text])[0]:+.1f} nats")

# %%
# The decision on the whole text only says which of the languages has more evidence.

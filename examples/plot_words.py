"""
The next word
=============

With ``analyzer="word"`` a model reads words and punctuation marks instead of
characters. Three things are measured or shown: the perplexity on text that it has not
seen, what a cut of the vocabulary does to it, and the words that the model suggests.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Text
# ----
# Python comes with the chapters of its reference manual that ``help("topics")`` shows,
# some hundred kilobytes of plain English prose about Python. A tenth of its paragraphs,
# drawn at random, is for the test.

import re
from collections import Counter
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np

from sklearn_charlstm import CharLSTMLanguageModel

# Without the marks of emphasis and of code.
paragraphs = {
    " ".join(re.sub('["*]', "", paragraph).split()).lower()
    for topic in topics.values()
    for paragraph in re.split(r"\n\s*\n", topic)
}
# Prose begins with a letter and ends a sentence; examples of code do not.
paragraphs = sorted(p for p in paragraphs if re.fullmatch(r"[a-z].{40,}\.", p))
paragraphs = np.random.default_rng(0).permutation(paragraphs).tolist()
cut = len(paragraphs) * 9 // 10
train, test = paragraphs[:cut], paragraphs[cut:]
print(
    f"{sum(map(len, train)):,} characters for training, {sum(map(len, test)):,} to test"
)

# %%
# A cut of the vocabulary
# -----------------------
# Most words are rare, and of a word seen once little can be learned. What is not in the
# vocabulary is one event of the fixed probability 0.001, which is far too little for
# the rare words of a language. So those that occur less often than some number are read
# as ``<rare>``, in training and later: then the model learns how often a rare word
# comes, and where. An ``analyzer`` may be any callable from a text to tokens.


def words(text):
    """Return words and punctuation marks, of English as ``analyzer='word'`` does."""
    return re.findall(r"\w+|[^\w\s]", text)


class FrequentWords:
    """Words of a text, where those that are rare in the training texts are one.

    Parameters
    ----------
    texts : list of str
    min_count : int
    """

    def __init__(self, texts, min_count):
        counts = Counter(word for text in texts for word in words(text))
        self.kept = {word for word, count in counts.items() if count >= min_count}

    def __call__(self, text):
        """Return the tokens of a text."""
        return [word if word in self.kept else "<rare>" for word in words(text)]


# %%
# Perplexity
# ----------
# The exponential of the mean of -log p of a token, rare ones included. The more words
# are one, the lower it is, for it says less. To compare, -log p of a rare word must
# also say which word it is: as if they were equally likely, it costs the logarithm of
# the number of all words that are read as ``<rare>``. That gives the adjusted
# perplexity. The unigram, a model of the frequencies alone, shows how much the words
# before say.

MIN_COUNTS = (1, 3, 10)
all_words = {word for text in paragraphs for word in words(text)}
n_tokens = sum(len(words(text)) for text in test)
models, rows = {}, []
for min_count in MIN_COUNTS:
    analyzer = FrequentWords(train, min_count)
    model = CharLSTMLanguageModel(
        analyzer=analyzer, n_networks=1, epochs=10, random_state=0
    )
    models[min_count] = model.fit(train)
    test_tokens = [token for text in test for token in analyzer(text)]
    n_rare = test_tokens.count("<rare>")
    counts = Counter(token for text in train for token in analyzer(text))
    # With one more than was counted, so that a new word is possible.
    unigram = [
        np.log((counts[token] + 1) / (counts.total() + len(counts) + 1))
        for token in test_tokens
    ]
    which = n_rare * np.log(len(all_words - analyzer.kept))
    log_likelihood = model.score_samples(test).sum()
    unknown = sum(token not in model.vocabulary_ for token in test_tokens)
    rows.append(
        {
            "words": len(model.vocabulary_),
            "unknown": unknown / n_tokens,
            "rare": n_rare / n_tokens,
            "unigram": np.exp(-np.sum(unigram) / n_tokens),
            "LSTM": np.exp(-log_likelihood / n_tokens),
            "adjusted": np.exp((which - log_likelihood) / n_tokens),
        }
    )
print("at least  words  unknown   rare  unigram  LSTM  adjusted")
for min_count, row in zip(MIN_COUNTS, rows, strict=True):
    print(
        f"{min_count:8d}  {row['words']:5d}  {row['unknown']:7.1%}  {row['rare']:5.1%}"
        f"  {row['unigram']:7.0f}  {row['LSTM']:4.0f}  {row['adjusted']:8.0f}"
    )

# %%
# Without a cut, words that were never seen are the costly ones. With a high one the
# model has less to say, and which of the rare words comes it cannot know. The page
# :doc:`/sequences` has a model with three networks and twice as many epochs beside
# n-grams.

# %%
# Suggestions
# -----------
# ``suggest`` gives the likeliest next words and their probabilities, as the keyboard of
# a phone does. The beginnings are not from the text.

BEGINNINGS = ["the value of the", "if the object is not", "this is", "a class can"]
model = models[3]
figure, panels = plt.subplots(2, 2, figsize=(9, 5), layout="constrained", sharex=True)
for axes, beginning in zip(panels.flat, BEGINNINGS, strict=True):
    suggested, proba = zip(*model.suggest(beginning, 6), strict=True)
    print(f"{beginning} ... {', '.join(suggested)}")
    axes.barh(
        suggested, proba, color=["0.75" if w == "<rare>" else "C0" for w in suggested]
    )
    axes.invert_yaxis()
    axes.set_title(f"{beginning} …", loc="left")
for axes in panels[-1]:
    axes.set_xlabel("probability")
plt.show()

# %%
# Sentences
# ---------
# ``sample`` draws words one after the other, here among the likeliest that have 80 % of
# the probability together.

for text in model.sample(3, prompt="the", max_length=25, top_p=0.8, random_state=0):
    print(" ".join(text))

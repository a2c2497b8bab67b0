"""The usual Keras script for the task, to compare with: it needs Keras only.

    python benchmarks/keras_script.py --data DATA

One LSTM of 128 units for each language, on the one-hot characters of windows of five;
the target is the character after the window; RMSprop, batches of 128, five epochs. A
string's log-likelihood is the sum over its characters, each given those before it, in
a window that is padded with nothing. Prints a line of JSON: the seconds of training and
of scoring, how many targets and strings these were, and the AUC.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

CODES = ("eng", "fra")
MAXLEN = 5
N_STRINGS = 2000


def read(data, codes):
    """Return the first four fifths of each text, and the rest.

    Lower-cased, their white space folded.
    """
    paths = [Path(data) / "udhr" / f"{code}.txt" for code in codes]
    words = [p.read_text(encoding="utf-8").lower().split() for p in paths]
    cuts = [len(of_text) * 4 // 5 for of_text in words]
    train = [" ".join(w[:cut]) for w, cut in zip(words, cuts, strict=True)]
    return train, [" ".join(w[cut:]) for w, cut in zip(words, cuts, strict=True)]


def fragments(texts, length, n_fragments):
    """Draw as many fragments of each text."""
    rng = np.random.default_rng(0)
    return [
        text[start : start + length]
        for text in texts
        for start in rng.integers(0, len(text) - length + 1, size=n_fragments)
    ]


def one_hot(strings, index):
    """Return an array of shape (n_strings, MAXLEN, n_characters)."""
    hot = np.zeros((len(strings), MAXLEN, len(index)), dtype=bool)
    for row, string in enumerate(strings):
        for step, character in enumerate(string):
            hot[row, step, index[character]] = True
    return hot


def train(text, index, epochs):
    """Fit the model of one language."""
    import keras

    starts = range(len(text) - MAXLEN)
    X = one_hot([text[i : i + MAXLEN] for i in starts], index)
    y = np.eye(len(index))[[index[text[i + MAXLEN]] for i in starts]]
    model = keras.Sequential(
        [
            keras.Input((MAXLEN, len(index))),
            keras.layers.LSTM(128),
            keras.layers.Dense(len(index), activation="softmax"),
        ]
    )
    model.compile("rmsprop", "categorical_crossentropy")
    model.fit(X, y, batch_size=128, epochs=epochs, verbose=0)
    return model


def log_likelihood(model, strings, index):
    """Sum the logarithms of what the model makes of every character."""
    prefixes = [string[:n] for string in strings for n in range(len(string))]
    proba = model.predict(one_hot(prefixes, index), verbose=0)
    targets = [index[character] for string in strings for character in string]
    log_proba = np.log(proba[np.arange(len(targets)), targets])
    return log_proba.reshape(len(strings), -1).sum(axis=1)


def main():
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the texts")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(0)
    texts, held_out = read(args.data, CODES)
    index = {c: i for i, c in enumerate(sorted(set("".join(texts + held_out))))}
    strings = fragments(held_out, MAXLEN, N_STRINGS)
    begin = time.perf_counter()
    models = [train(text, index, args.epochs) for text in texts]
    fitted = time.perf_counter()
    english, french = (log_likelihood(model, strings, index) for model in models)
    scored = time.perf_counter()
    result = {
        "targets": args.epochs * sum(len(text) - MAXLEN for text in texts),
        "fit seconds": fitted - begin,
        "strings": len(strings),
        "score seconds": scored - fitted,
        "AUC": roc_auc_score(np.repeat([0, 1], N_STRINGS), french - english),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

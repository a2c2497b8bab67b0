"""What moves the AUC: one setting changed at a time, English against French.

    python benchmarks/what_moves_the_auc.py --data DATA --out docs/measured

`--data` holds `udhr/eng.txt` and `udhr/fra.txt`, the Universal Declaration of Human
Rights, and `sentences/en.txt` and `sentences/fr.txt`, a thousand sentences each. The
results are written to `what_moves_the_auc.csv` and `.png` in the folder `--out`.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from sklearn_charlstm import CharLMLanguageClassifier

N_FRAGMENTS = 2000
LENGTHS = (5, 10)
SEEDS = (0, 1, 2)
# One network for each language, trained apart, as in the experiment.
DEFAULT = CharLMLanguageClassifier(
    hidden_size=96, n_networks=1, discriminative_epochs=0, calibration_folds=0
)
# The value of the tutorial is among them where it has one; the default always is.
ONE_AT_A_TIME = {
    "maxlen": (2, 5, 8, 16, 32, 50),
    "hidden_size": (32, 64, 96, 128, 256),
    "output": ("softmax", "sigmoid"),
}
PARTS = {"mean": np.mean, "lowest": np.min, "highest": np.max}
EPOCHS = (1, 2, 5, 10, 20, 30, 60)
N_CHARACTERS = (1_000, 3_000, 9_000, 30_000, 80_000)
TITLES = {
    "epochs": "Epochs",
    "maxlen": "maxlen, in characters",
    "hidden_size": "Hidden units",
    "output": "Output and loss",
    "characters": "Characters of text per language\n(sentences)",
}


def declaration(data):
    """Return a training and a test text per language: the first 80 % of the words."""
    train, test = [], []
    for code in ("eng", "fra"):
        path = Path(data) / "udhr" / f"{code}.txt"
        words = path.read_text(encoding="utf-8").lower().split()
        cut = len(words) * 8 // 10
        train.append(" ".join(words[:cut]))
        test.append(" ".join(words[cut:]))
    return train, test


def sentences(data, n_characters):
    """Return so many characters per language for training; the last fifth to test."""
    train, test = [], []
    for code in ("en", "fr"):
        path = Path(data) / "sentences" / f"{code}.txt"
        lines = path.read_text(encoding="utf-8").lower().splitlines()
        lines = [" ".join(line.split()) for line in lines]
        cut = len(lines) * 8 // 10
        train.append(" ".join(lines[:cut])[:n_characters])
        test.append(" ".join(lines[cut:]))
    return train, test


def auc_by_length(clf, test):
    """Return the AUC for random fragments of the test texts."""
    rng = np.random.default_rng(0)
    aucs = []
    for length in LENGTHS:
        X = [
            text[start : start + length]
            for text in test
            for start in rng.integers(0, len(text) - length + 1, size=N_FRAGMENTS)
        ]
        y = np.repeat([0, 1], N_FRAGMENTS)
        aucs.append(roc_auc_score(y, clf.decision_function(X)))
    return aucs


def measure(setting, value, seed, train, test, **params):
    """Train with one setting; return rows (setting, value, seed, AUCs)."""
    clf = clone(DEFAULT).set_params(random_state=seed, **params)
    if setting != "epochs":
        clf.fit(train, [0, 1])
        return [(setting, value, seed, *auc_by_length(clf, test))]
    rows = []
    clf.set_params(warm_start=True)
    for epochs in value:
        clf.set_params(epochs=epochs).fit(train, [0, 1])
        rows.append((setting, epochs, seed, *auc_by_length(clf, test)))
    return rows


def jobs(data):
    """Yield the calls to make, the longest first."""
    for seed in SEEDS:
        for n_characters in reversed(N_CHARACTERS):
            yield delayed(measure)(
                "characters", n_characters, seed, *sentences(data, n_characters)
            )
    for seed in SEEDS:
        yield delayed(measure)("epochs", EPOCHS, seed, *declaration(data))
        for setting, values in ONE_AT_A_TIME.items():
            for value in values:
                params = {setting: value}
                yield delayed(measure)(
                    setting, value, seed, *declaration(data), **params
                )


def draw(table, path):
    """Draw one panel per setting: means and the range over the seeds."""
    figure, axes = plt.subplots(
        2, 3, figsize=(8.4, 6), sharey=True, layout="constrained"
    )
    *panels, empty = axes.flat
    for ax, (setting, title) in zip(panels, TITLES.items(), strict=True):
        rows = [row for row in table if row["setting"] == setting]
        values = [row["value"] for row in rows]
        categories = isinstance(values[0], str)
        for length, color in zip(LENGTHS, ("C0", "C1"), strict=True):
            mean, low, high = (
                np.array([row[f"{part}, {length} characters"] for row in rows])
                for part in PARTS
            )
            ax.errorbar(
                values,
                mean,
                yerr=(mean - low, high - mean),
                fmt="o" if categories else "o-",
                color=color,
                markersize=4,
                capsize=3,
                label=f"{length} characters",
            )
        if categories:
            ax.set_xlim(-0.6, len(values) - 0.4)
        else:
            ax.set_xscale("log")
            ax.set_xticks(values, [f"{value:,}" for value in values], rotation=45)
            ax.minorticks_off()
        default = DEFAULT.get_params().get(setting)
        if default is not None:
            ax.axvline(default, color="0.8", zorder=0)
        ax.set_xlabel(title)
        ax.grid(axis="y", color="0.9")
    for ax in axes[:, 0]:
        ax.set_ylabel("AUC, English or French")
    empty.axis("off")
    empty.legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.savefig(path, dpi=130)


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the texts")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--n-jobs", type=int, default=2)
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    results = Parallel(n_jobs=args.n_jobs)(jobs(args.data))
    rows = [row for rows in results for row in rows]
    table = []
    for setting in TITLES:
        of_setting = [row for row in rows if row[0] == setting]
        for value in dict.fromkeys(sorted((row[1] for row in of_setting), key=rank)):
            aucs = np.array([row[3:] for row in of_setting if row[1] == value])
            assert len(aucs) == len(SEEDS)
            entry = {"setting": setting, "value": value}
            for length, column in zip(LENGTHS, aucs.T, strict=True):
                for part, function in PARTS.items():
                    entry[f"{part}, {length} characters"] = round(function(column), 3)
            table.append(entry)
    path = out / "what_moves_the_auc.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    print(path.read_text(encoding="utf-8"))
    draw(table, out / "what_moves_the_auc.png")


def rank(value):
    """Order numbers by size and words as they come."""
    return value if not isinstance(value, str) else 0


if __name__ == "__main__":
    main()

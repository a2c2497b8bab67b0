"""How well fragments of text are classified, beside rivals trained on the same text.

    python benchmarks/accuracy.py --data DATA --out docs/measured

`--data` holds `udhr/<code>.txt` and `sentences/<code>.txt`. All text is lower-cased,
its white space folded; fragments are cut anywhere from text no classifier has seen.
Names are whole texts: of countries and languages, in ten languages, as Babel brings
them from the Common Locale Data Repository; those to test with are of other countries
and languages, in every one of the ten. There the rivals are given marks of both ends.
Each seed draws other fragments and trains other models. The intervals are 95 % of the
bootstrap over blocks of 100 characters of the test text, as fragments overlap, or over
what is named. In the task of one language against itself nothing can be learned: there
an AUC of 0.5 is right. fastText, lingua and py3langid are compared where they are
installed. With `--quick` a few tiny models show that everything runs.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
import copy
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from ngrams import KneserNey, NGramLanguageClassifier, WittenBell
from rivals import SMALLEST, FastText, Lingua, Py3Langid, installed
from scipy.stats import rankdata
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from sklearn_charlstm import CharLMLanguageClassifier

LSTM = "LSTM"
LSTM_APART = "LSTM apart"
# The classifier without its own calibration, in CalibratedClassifierCV.
SIGMOID, ISOTONIC = "LSTM, sigmoid", "LSTM, isotonic"
TEN = ("da", "nb", "sv", "nl", "de", "en", "fr", "es", "pt", "it")
TWENTY = (*TEN, "bg", "cs", "el", "fi", "hu", "pl", "ru", "sk", "tr", "uk")
# Some texts of the Declaration are only its title.
SHORTEST_TEXT = 3000
START, END = "\x02", "\x03"
# Of the calibration error, what one without an error would have on so much text.
BY_CHANCE = "by chance"
BLOCK = 100
RUN = 20
N_RESAMPLES = 200
N_BINS = 10
# Columns with a table of their own, and what its file is called.
SIDE_BY_SIDE = {
    "AUC or accuracy": "side_by_side",
    "log loss": "log_loss",
    "calibration error": "calibration",
}


@dataclass(frozen=True)
class Task:
    """Classes, the lengths of the fragments, and how many of them for each class."""

    name: str
    corpus: str
    # None: all there are.
    codes: tuple[str, ...] | None
    # "whole": texts that are not cut.
    lengths: tuple[int | str, ...]
    n_fragments: int
    # Of training text for each class; None: all there is.
    n_characters: int | None = None
    # Some take too long, or too much memory, with hundreds of classes.
    rivals: tuple[str, ...] | None = None

    @property
    def is_whole(self):
        """Whether the texts are not cut."""
        return self.lengths == ("whole",)


PAIRS = [("eng", "fra"), ("spa", "por_PT"), ("dan", "nob"), ("ces", "slk")]
TASKS = [
    *(Task("/".join(p), "udhr", p, (3, 5, 10, 20, 50, 200), 2000) for p in PAIRS),
    Task("eng/eng", "udhr", ("eng", "eng"), (3, 5, 10, 20), 2000),
    Task("ten languages", "sentences", TEN, (5, 10, 20, 40), 300),
    Task("twenty languages", "sentences", TWENTY, (5, 10, 20, 40), 300),
    Task(
        "all of the Declaration",
        "udhr",
        None,
        (10, 20, 50),
        8,
        rivals=("Kneser-Ney", "fastText"),
    ),
    Task("names in ten languages", "names", TEN, ("whole",), 0),
    *(
        Task(
            f"{'/'.join(pair)}, calibrated outside",
            "udhr",
            pair,
            (3, 5, 10, 20, 50, 200),
            2000,
            rivals=(SIGMOID, ISOTONIC),
        )
        for pair in PAIRS
    ),
    *(
        Task(f"{'/'.join(pair)}, {n:,} characters", "sentences", pair, (5, 10), 2000, n)
        for pair in [("en", "fr"), ("da", "nb")]
        for n in (1_000, 3_000, 9_000, 30_000, 80_000)
    ),
]
TINY = {"epochs": 2, "n_networks": 1, "hidden_size": 16, "discriminative_epochs": 2}
QUICK = [
    Task("eng/fra", "udhr", PAIRS[0], (5, 20), 50),
    Task("names", "names", ("en", "fr"), ("whole",), 0),
]


def all_codes(data):
    """Return the names of the texts of the Declaration that are no mere title."""
    paths = sorted((Path(data) / "udhr").glob("*.txt"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    return tuple(code for code, text in texts.items() if len(text) >= SHORTEST_TEXT)


def read(data, task):
    """Return the training and the test texts of each class: four fifths and one.

    Running text is one text.
    """
    if task.corpus == "names":
        return read_names(task.codes)
    train, test = [], []
    for k, code in enumerate(task.codes):
        path = Path(data) / task.corpus / f"{code}.txt"
        text = path.read_text(encoding="utf-8").lower()
        # Of sentences the last ones, of the Declaration the last words.
        parts = text.splitlines() if task.corpus == "sentences" else text.split()
        if task.codes.count(code) == 2:
            # Against itself: runs of words go to one class and the other by turns.
            parts = [word for i, word in enumerate(parts) if i // RUN % 2 == k]
        cut = len(parts) * 8 // 10
        train.append([" ".join(" ".join(parts[:cut]).split())[: task.n_characters]])
        test.append([" ".join(" ".join(parts[cut:]).split())])
    return train, test


def read_names(codes):
    """Return names of countries and languages, of others to train than to test."""
    from babel import Locale

    locales = [Locale(code) for code in codes]
    names = [{**locale.territories, **locale.languages} for locale in locales]
    # Regions of the world have numbers.
    common = set.intersection(*map(set, names))
    keys = sorted(key for key in common if not key.isdigit())
    keys = np.random.default_rng(0).permutation(keys)
    cut = len(keys) * 8 // 10
    return tuple(
        [[of_locale[key].lower() for key in part] for of_locale in names]
        for part in (keys[:cut], keys[cut:])
    )


def whole_texts(texts):
    """Return the texts, their classes, and which of its class each is."""
    X = [text for of_class in texts for text in of_class]
    y = np.repeat(range(len(texts)), [len(of_class) for of_class in texts])
    return X, y, np.concatenate([np.arange(len(of_class)) for of_class in texts])


def marked(texts):
    """Return the texts with marks of both ends, for those that do not see them."""
    return [[f"{START}{text}{END}" for text in of_class] for of_class in texts]


def n_blocks_of(text):
    """Return how many blocks a text has, the last one perhaps shorter."""
    return len(text) // BLOCK + 1


def cut_fragments(texts, length, n_fragments, rng):
    """Return fragments, their classes, and the blocks of text they begin in."""
    X, y, blocks = [], [], []
    first_block = 0
    for k, [text] in enumerate(texts):
        for start in rng.integers(0, len(text) - length + 1, size=n_fragments):
            X.append(text[start : start + length])
            y.append(k)
            blocks.append(first_block + start // BLOCK)
        first_block += n_blocks_of(text)
    return X, np.array(y), np.array(blocks)


def of_fragments(classifier, texts, lengths, seed):
    """Fit a classifier that needs many samples: to fragments of the training text.

    They are so many that the text is read twice, and more where there is little.
    """
    if lengths == ("whole",):
        X, y, _ = whole_texts(texts)
        return classifier.fit(X, y)
    rng = np.random.default_rng(seed)
    at_least = 4000 if len(texts) <= len(TWENTY) else 400
    X, y = [], []
    for k, [text] in enumerate(texts):
        n_fragments = max(at_least, 4 * len(text) // (max(lengths) + 1))
        for length in rng.integers(1, max(lengths) + 1, size=n_fragments):
            start = rng.integers(0, len(text) - length + 1)
            X.append(text[start : start + length])
            y.append(k)
    return classifier.fit(X, y)


def n_grams(vectorizer):
    """Return a vectorizer of character n-grams."""
    return vectorizer(analyzer="char", ngram_range=(1, 5), lowercase=False)


def lstm(texts, task, seed, params, n_jobs):
    """Fit the classifier of this package."""
    clf = CharLMLanguageClassifier(random_state=seed, **params)
    # `warm_start` for `without_joint_training`; it changes nothing here.
    clf.set_params(boundaries=task.is_whole, n_jobs=n_jobs, warm_start=True)
    X, y, _ = whole_texts(texts)
    return clf.fit(X, y)


def without_joint_training(clf, texts):
    """Return the same classifier as it was before, and not calibrated."""
    apart = copy.copy(clf).set_params(discriminative_epochs=0, calibration_folds=0)
    X, y, _ = whole_texts(texts)
    return apart.fit(X, y)


def calibrated_outside(method, params, texts, lengths, seed):
    """Fit to four fifths of the text, and let scikit-learn calibrate on the rest."""
    cuts = [len(text) * 4 // 5 for [text] in texts]
    pieces = [[text[:cut]] for [text], cut in zip(texts, cuts, strict=True)]
    held_out = [[text[cut:]] for [text], cut in zip(texts, cuts, strict=True)]
    clf = CharLMLanguageClassifier(random_state=seed, **params)
    clf.set_params(calibration_folds=0)
    X, y, _ = whole_texts(pieces)
    frozen = FrozenEstimator(clf.fit(X, y))
    calibrated = CalibratedClassifierCV(frozen, method=method)
    of_fragments(calibrated, held_out, lengths, seed)
    # It gives probabilities only, and isotonic regression some that are 0.
    calibrated.predict_log_proba = lambda X: np.log(
        np.clip(calibrated.predict_proba(X), SMALLEST, 1 - SMALLEST)
    )
    return calibrated


def rivals(task, params) -> dict[str, Callable]:
    """Return functions from (training texts, lengths, seed) to fitted classifiers."""
    by_name = {
        "naive Bayes": lambda texts, lengths, seed: make_pipeline(
            n_grams(CountVectorizer), MultinomialNB(alpha=0.1)
        ).fit(*whole_texts(texts)[:2]),
        "logistic regression": lambda texts, lengths, seed: of_fragments(
            make_pipeline(
                n_grams(TfidfVectorizer), LogisticRegression(C=10, max_iter=1000)
            ),
            texts,
            lengths,
            seed,
        ),
    }
    for smoothing, name in ((WittenBell, "Witten-Bell"), (KneserNey, "Kneser-Ney")):
        by_name[name] = lambda texts, lengths, seed, smoothing=smoothing: (
            NGramLanguageClassifier(smoothing).fit(*whole_texts(texts)[:2])
        )
    if installed("fasttext"):
        by_name["fastText"] = lambda texts, lengths, seed: of_fragments(
            FastText(random_state=seed), texts, lengths, seed
        )
    # These two have read far more text, of other sources.
    if len(set(task.codes)) == len(task.codes):
        if installed("lingua"):
            by_name["lingua"] = lambda texts, lengths, seed: Lingua(task.codes)
        if installed("py3langid"):
            by_name["py3langid"] = lambda texts, lengths, seed: Py3Langid(task.codes)
    if task.rivals is None:
        return by_name
    for name, method in ((SIGMOID, "sigmoid"), (ISOTONIC, "isotonic")):
        by_name[name] = partial(calibrated_outside, method, params)
    return {name: fit for name, fit in by_name.items() if name in task.rivals}


def score(y, log_proba):
    """Return the AUC of two classes or the accuracy of more."""
    if log_proba.shape[1] == 2:
        # By the sum of ranks of Mann and Whitney: fast, for the many resamples.
        positive = y == 1
        n = np.count_nonzero(positive)
        rank_sum = rankdata(log_proba @ [-1, 1])[positive].sum()
        return (rank_sum - n * (n + 1) / 2) / (n * (len(y) - n))
    return np.mean(log_proba.argmax(axis=1) == y)


def calibration_gaps(y, proba):
    """Return hits less what was expected of each bin of the predicted probability."""
    confidence = proba.max(axis=1)
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    hits = proba.argmax(axis=1) == y
    return np.bincount(bins, weights=hits - confidence, minlength=N_BINS) / len(y)


def calibration_error(y, proba):
    """Return the expected calibration error of the predicted class."""
    return np.abs(calibration_gaps(y, proba)).sum()


def calibration_error_by_chance(y, proba, blocks, n_blocks):
    """Return the error that one without an error would have on so much text."""
    gaps = calibration_gaps(y, proba)
    return np.mean(
        [
            np.abs(calibration_gaps(y[rows], proba[rows]) - gaps).sum()
            for rows in resamples(blocks, n_blocks)
        ]
    )


def resamples(blocks, n_blocks):
    """Yield the rows of bootstrap samples of the blocks, the same in every call."""
    # The same draws for every seed: all seeds share the test text, and a mean over
    # seeds must not average its sampling error away.
    rng = np.random.default_rng(0)
    # Also blocks where no fragment of this seed begins: a number is a place.
    members = [np.flatnonzero(blocks == block) for block in range(n_blocks)]
    for _ in range(N_RESAMPLES):
        drawn = rng.integers(n_blocks, size=n_blocks)
        yield np.concatenate([members[block] for block in drawn])


def run(task, seed, data, params, n_jobs):
    """Train everything on one task with one seed; return a row per length."""
    if task.codes is None:
        task = replace(task, codes=all_codes(data))
    train, test = read(data, task)
    fitted, seconds = {}, {}
    start = time.perf_counter()
    fitted[LSTM] = lstm(train, task, seed, params, n_jobs)
    seconds[LSTM] = time.perf_counter() - start
    print(f"{task.name}, seed {seed}: {LSTM} fitted", flush=True)
    for name, fit in rivals(task, params).items():
        start = time.perf_counter()
        fitted[name] = fit(
            marked(train) if task.is_whole else train, task.lengths, seed
        )
        seconds[name] = time.perf_counter() - start
        print(f"{task.name}, seed {seed}: {name} fitted", flush=True)
    fitted[LSTM_APART] = without_joint_training(fitted[LSTM], train)
    seconds[LSTM_APART] = np.nan
    bits_per_character = {name: bits(clf, test) for name, clf in fitted.items()}
    rows = []
    for length in task.lengths:
        if task.is_whole:
            X, y, blocks = whole_texts(test)
            # What is named, in all languages.
            n_blocks = len(test[0])
            X_of_rivals, _, _ = whole_texts(marked(test))
        else:
            rng = np.random.default_rng([seed, length])
            # Long ones overlap so much that more of them say nothing new.
            n_fragments = task.n_fragments // (1 if length <= 20 else 4)
            X, y, blocks = cut_fragments(test, length, n_fragments, rng)
            n_blocks = sum(n_blocks_of(text) for [text] in test)
            X_of_rivals = X
        log_probas = []
        for name, clf in fitted.items():
            sees_ends = name in (LSTM, LSTM_APART, "lingua", "py3langid")
            log_probas.append(clf.predict_log_proba(X if sees_ends else X_of_rivals))
        scores = [score(y, log_proba) for log_proba in log_probas]
        resampled = np.array(
            [
                [score(y[rows], log_proba[rows]) for log_proba in log_probas]
                for rows in resamples(blocks, n_blocks)
            ]
        )
        for number, name in enumerate(fitted):
            proba = np.exp(log_probas[number])
            rows.append(
                {
                    "task": task.name,
                    "length": length,
                    "classifier": name,
                    "seed": seed,
                    "score": scores[number],
                    # Against this one, on the same resamples.
                    "LSTM minus": resampled[:, 0] - resampled[:, number],
                    # scikit-learn's would forgive what is surer than rounding is.
                    "log loss": -log_probas[number][np.arange(len(y)), y].mean(),
                    "calibration error": calibration_error(y, proba),
                    BY_CHANCE: calibration_error_by_chance(y, proba, blocks, n_blocks),
                    "fit seconds": seconds[name],
                    "bits per character": bits_per_character[name],
                }
            )
    return rows


def bits(clf, test):
    """Return the mean bits per character of the test texts, of a language model."""
    if isinstance(clf, CharLMLanguageClassifier):
        models = clf.language_models_
        return np.mean(
            [m.bits_per_character(texts) for m, texts in zip(models, test, strict=True)]
        )
    # Of whole texts they say nothing: their marks are characters like others.
    if isinstance(clf, NGramLanguageClassifier) and len(test[0]) == 1:
        return np.mean([clf.bits_per_character(k, t) for k, [t] in enumerate(test)])
    return np.nan


def summary(rows):
    """Return one row per task, length and classifier: means over the seeds."""
    groups = {}
    for row in rows:
        groups.setdefault((row["task"], row["length"], row["classifier"]), []).append(
            row
        )
    table = []
    for (task, length, name), group in groups.items():
        # The mean of the seeds, each with resamples of its own.
        difference = np.mean([row["LSTM minus"] for row in group], axis=0)
        low, high = np.percentile(difference, [2.5, 97.5])
        entry = {"task": task, "characters": length, "classifier": name}
        entry["AUC or accuracy"] = f"{np.mean([row['score'] for row in group]):.4f}"
        entry["LSTM minus this"] = (
            ""
            if name == LSTM
            else f"{difference.mean():+.4f} ({low:+.4f} to {high:+.4f})"
        )
        for column in (
            "log loss",
            "calibration error",
            BY_CHANCE,
            "bits per character",
        ):
            mean = np.mean([row[column] for row in group])
            entry[column] = "" if np.isnan(mean) else f"{mean:.3f}"
        seconds = np.median([row["fit seconds"] for row in group])
        entry["fit seconds"] = "" if np.isnan(seconds) else f"{seconds:.1f}"
        table.append(entry)
    return table


def side_by_side(table, column):
    """Return one row per task and length, with a column's value of each classifier."""
    rows = {}
    for entry in table:
        row = rows.setdefault((entry["task"], entry["characters"]), {})
        row |= {"task": entry["task"], "length": entry["characters"]}
        row[entry["classifier"]] = f"{float(entry[column]):.3f}"
        if column == "calibration error" and entry["classifier"] == LSTM:
            row[f"{LSTM}, by chance"] = entry[BY_CHANCE]
    return list(rows.values())


def write(rows, path):
    """Write dictionaries as a CSV file, with the columns of all."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the texts")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--name", default="accuracy", help="of the files of results")
    parser.add_argument("--tasks", nargs="*", help="names of the tasks; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--hidden-size", type=int, help="of the LSTM; default: 'auto'")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    tasks = QUICK if args.quick else TASKS
    params = TINY if args.quick else {}
    if args.hidden_size is not None:
        params = params | {"hidden_size": args.hidden_size}
    if args.tasks:
        tasks = [task for task in tasks if task.name in args.tasks]
    # Side by side the tasks, or the classes of one.
    n_runs = len(tasks) * args.seeds
    of_runs, of_classes = (args.n_jobs, 1) if n_runs > 1 else (1, args.n_jobs)
    results = Parallel(n_jobs=of_runs)(
        delayed(run)(task, seed, args.data, params, of_classes)
        for task in tasks
        for seed in range(args.seeds)
    )
    table = summary([row for rows in results for row in rows])
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    write(table, out / f"{args.name}.csv")
    for column, suffix in SIDE_BY_SIDE.items():
        write(side_by_side(table, column), out / f"{args.name}_{suffix}.csv")
    for entry in table:
        print("  ".join(f"{value!s:>14}" for value in entry.values()))


if __name__ == "__main__":
    main()

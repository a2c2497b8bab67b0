"""How time and memory grow with classes, with text, and with what is to classify.

    python benchmarks/scale.py --data DATA --out docs/measured

`--data` holds `udhr/<code>.txt` and `sentences/<code>.txt`. Each row is measured in a
process of its own, so that its peak of memory is its own; what the process takes
before, with the texts, is subtracted. One network of 96 units and one epoch, and with
the classes one epoch of joint training, and calibration. Linux only. With `--quick`
small numbers show that everything runs.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from accuracy import SHORTEST_TEXT, all_codes

from sklearn_charlstm import CharLMLanguageClassifier

PARAMS = {"n_networks": 1, "hidden_size": 96, "epochs": 1, "random_state": 0}
APART = {"discriminative_epochs": 0, "calibration_folds": 0}
TASKS = {
    "classes": (2, 10, 75, 380),
    "characters": (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000),
    "texts": (1_000, 10_000, 100_000, 1_000_000),
    "longest text": (10, 10_000_000),
}
QUICK = {
    "classes": (2, 4),
    "characters": (1000, 4000),
    "texts": (10, 100),
    "longest text": (10, 1000),
}


def folded(path):
    """Return a text, lower-cased, its white space folded."""
    return " ".join(path.read_text(encoding="utf-8").lower().split())


def peak(*, anew=False):
    """Return the peak of this process's memory in MiB, ever or from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


def repeated(text, length):
    """Return as many characters of a text, from its beginning again at its end."""
    return (text * (length // len(text) + 1))[:length]


def two_languages(data):
    """Return the English and the French sentences."""
    return [folded(Path(data) / "sentences" / f"{code}.txt") for code in ("en", "fr")]


def classes(data, n):
    """Train with the beginnings of n texts of the Declaration, and classify."""
    codes = all_codes(data)
    rows = np.linspace(0, len(codes) - 1, n).astype(int)
    texts = [folded(Path(data) / "udhr" / f"{codes[row]}.txt") for row in rows]
    train = [text[:SHORTEST_TEXT] for text in texts]
    clf = CharLMLanguageClassifier(**PARAMS, discriminative_epochs=1)
    rng = np.random.default_rng(0)
    X = [
        train[k][start : start + 20]
        for k, start in zip(
            np.arange(2000) % n, rng.integers(0, SHORTEST_TEXT - 20, 2000), strict=True
        )
    ]
    return clf, train, [codes[row] for row in rows], X


def characters(data, n):
    """Train with n characters of two languages."""
    train = [repeated(text, n // 2) for text in two_languages(data)]
    clf = CharLMLanguageClassifier(**PARAMS, **APART, batch_size=256)
    return clf, train, ["en", "fr"], ["a"]


def texts(data, n):
    """Classify n strings of ten characters."""
    train = [text[:5000] for text in two_languages(data)]
    clf = CharLMLanguageClassifier(**PARAMS, **APART)
    rng = np.random.default_rng(0)
    text = " ".join(two_languages(data))
    X = [text[i : i + 10] for i in rng.integers(0, len(text) - 10, size=n)]
    return clf, train, ["en", "fr"], X


def longest_text(data, n):
    """Classify a text of n characters among 100,000 of ten."""
    clf, train, y, X = texts(data, 100_000)
    return clf, train, y, [*X, repeated(" ".join(train), n)]


SETUPS = {
    "classes": classes,
    "characters": characters,
    "texts": texts,
    "longest text": longest_text,
}


def measure(task, data, n):
    """Return seconds and mebibytes of `fit` and of prediction."""
    clf, train, y, X = SETUPS[task](data, n)
    before = peak(anew=True)
    start = time.perf_counter()
    clf.fit(train, y)
    fitted, after_fit = time.perf_counter(), peak()
    clf.predict(X)
    row = {
        "task": task,
        "number": n,
        "fit seconds": f"{fitted - start:.1f}",
        "fit MiB": f"{after_fit - before:.0f}",
        "predict seconds": f"{time.perf_counter() - fitted:.2f}",
        "predict MiB": f"{peak() - before:.0f}",
    }
    weights = [w for model in clf.language_models_ for w in model.weights_.values()]
    return row | {"weights MiB": f"{sum(w.nbytes for w in weights) / 2**20:.1f}"}


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the texts")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only[0], args.data, int(args.only[1]))))
        return
    rows = []
    for task, numbers in (QUICK if args.quick else TASKS).items():
        for n in numbers:
            command = [sys.executable, __file__, "--data", args.data, "--out", args.out]
            command += ["--only", task, str(n)]
            rows.append(json.loads(subprocess.check_output(command)))
            print("  ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "scale.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

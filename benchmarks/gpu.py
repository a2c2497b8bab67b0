"""What a GPU is good for: training and prediction, of few classes and of many.

    python benchmarks/gpu.py --data DATA --out docs/measured

`--data` holds `udhr/<code>.txt`. Classifiers of some texts of the Declaration are
trained on the device and those of two on all cores of the CPU too, strings of all texts
are scored on both, and bfloat16 is compared with float32. Medians, but of one call on
the cores, which take long. With `--quick` a few tiny models show that everything runs,
without a GPU too.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
from functools import partial
from pathlib import Path
from statistics import median

import joblib
import numpy as np
import torch
from accuracy import all_codes, write
from keras_script import fragments, read
from sklearn.metrics import roc_auc_score
from speed import CLOSE_CODES, seconds, times_as_fast

from sklearn_charlstm import CharLMLanguageClassifier

# And the characters that are scored.
CLASSES = {2: 4_000_000, 75: 1_000_000}
LENGTHS = (10, 20, 200, 2000)
# Cores read a part, or it would take hours.
OF_CORES = 100
HIDDEN_SIZES = (96, 192, 512, 1024)
EPOCHS = 10
APART = {"discriminative_epochs": 0, "calibration_folds": 0}


def classifier(**params):
    """Return a classifier that is the same in every run."""
    return CharLMLanguageClassifier(random_state=0, **params)


def texts_of(data, n_classes):
    """Return texts of so many languages, two of them English and French."""
    codes = ("eng", "fra")
    if n_classes > 2:
        codes = np.array(all_codes(data))
        codes = codes[np.linspace(0, len(codes) - 1, n_classes).astype(int)]
    return read(data, codes)


def typical(function, place, repeats):
    """Return the median of the seconds of some calls, or those of one on the cores."""
    return median(seconds(function) for _ in range(repeats if place == "device" else 1))


def measure_fit(data, places, classes, repeats, params):
    """Yield a row per number of classes and what is trained: seconds of `fit`."""
    for n in classes:
        train, _ = texts_of(data, n)
        parts = {f"models apart, {EPOCHS} epochs": {"epochs": EPOCHS} | APART}
        if n == min(classes):
            parts["everything, by default"] = {}
        for name, part in parts.items():
            row = {"classes": n, "fit": name}
            for place, where in places.items():
                if place == "device" or n == min(classes):
                    clf = classifier(**params | part | where)
                    fit = partial(clf.fit, train, range(n))
                    row[f"{place}, seconds"] = f"{typical(fit, place, repeats):.2f}"
            yield row


def measure_scoring(data, places, classes, lengths, repeats, params):
    """Yield a row per number of classes and length: million characters a second."""
    every_text, _ = read(data, all_codes(data))
    for n, n_characters in classes.items():
        train, _ = texts_of(data, n)
        clf = classifier(**params | {"epochs": 1} | APART | places["device"])
        clf.fit(train, range(n))
        for length in lengths:
            texts = [text for text in every_text if len(text) >= length]
            X = fragments(texts, length, -(-n_characters // length // len(texts)))
            row = {"classes": n, "length": length}
            for place, where in places.items():
                strings = X if place == "device" else X[::OF_CORES]
                score = partial(clf.set_params(**where).predict_log_proba, strings)
                rate = n * length * len(strings) / typical(score, place, repeats)
                row[f"{place}, times classes"] = f"{rate / 1e6:.1f}"
            yield row


def measure_precision(data, device, sizes, repeats, params):
    """Yield a row per hidden size: how many times as fast bfloat16 is, and the AUC."""
    train, held_out = read(data, CLOSE_CODES)
    for size in sizes:
        classifiers = {
            precision: classifier(
                device=device,
                precision=precision,
                **params | {"hidden_size": size, "calibration_folds": 0},
            )
            for precision in ("float32", "bfloat16")
        }

        faster = times_as_fast(
            {
                precision: lambda clf=clf: clf.fit(train, CLOSE_CODES)
                for precision, clf in classifiers.items()
            },
            repeats,
        )
        X = fragments(held_out, 20, 5000)
        y = np.repeat([0, 1], len(X) // 2)
        auc = {
            precision: roc_auc_score(y, clf.decision_function(X))
            for precision, clf in classifiers.items()
        }
        X = fragments(train, 200, 10_000)
        scoring = times_as_fast(
            {
                precision: lambda clf=clf, X=X: clf.decision_function(X)
                for precision, clf in classifiers.items()
            },
            repeats,
        )
        yield {
            "hidden_size": size,
            "fit, times as fast": faster,
            "scoring, times as fast": scoring,
            **{f"AUC, {name}": f"{value:.4f}" for name, value in auc.items()},
        }


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the texts")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tables", nargs="*", help="names of tables; default: all")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    classes, lengths, sizes = CLASSES, LENGTHS, HIDDEN_SIZES
    repeats, params = args.repeats, {}
    if args.quick:
        classes, lengths, sizes, repeats = {3: 1000}, (10,), (8,), 1
        params = {"hidden_size": 8, "n_networks": 1, "epochs": 1}
        params |= {"discriminative_epochs": 1, "calibration_folds": 2}
    if args.device == "cuda":
        print(torch.cuda.get_device_name(), "and", joblib.cpu_count(), "cores")
    n_jobs = 1 if args.quick else -1
    cores = {"device": "cpu", "n_jobs": n_jobs, "precision": "float32"}
    on_device = {"device": args.device, "n_jobs": None, "precision": "float32"}
    places = {"device": on_device, "CPU, all cores": cores}
    tables = {
        "fit": measure_fit(args.data, places, classes, repeats, params),
        "scoring": measure_scoring(
            args.data, places, classes, lengths, repeats, params
        ),
    }
    if args.device == "cuda":
        tables["precision"] = measure_precision(
            args.data, args.device, sizes, repeats, params
        )
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        if args.tables and name not in args.tables:
            continue
        written = []
        for row in rows:
            written.append(row)
            print(
                f"{name}:", "  ".join(f"{k}: {v}" for k, v in row.items()), flush=True
            )
            write(written, out / f"gpu_{name}.csv")


if __name__ == "__main__":
    main()

"""What a GPU is good for: training and prediction, of few classes and of many.

    python benchmarks/gpu.py --data ../shared/data --out docs/measured

`--data` holds `udhr/<code>.txt`. Classifiers of some texts of the Declaration are
trained on the device and on all cores of the CPU, strings are scored on both, and
bfloat16 is compared with float32. All in turn, and medians. With `--quick` a few tiny
models show that everything runs, without a GPU too.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
from pathlib import Path
from statistics import median

import joblib
import numpy as np
import torch
from accuracy import all_codes, write
from keras_script import fragments, read
from sklearn.metrics import roc_auc_score
from speed import CLOSE_CODES, in_turn, times_as_fast

from sklearn_charlstm import CharLMLanguageClassifier

CLASSES = (2, 75)
LENGTHS = (10, 20, 200, 2000)
N_CHARACTERS = 2_000_000
HIDDEN_SIZES = (96, 512)
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


def measure_fit(data, places, numbers, repeats, params):
    """Yield a row per number of classes and what is trained: seconds of `fit`."""
    for n in numbers:
        train, _ = texts_of(data, n)
        parts = {f"models apart, {EPOCHS} epochs": {"epochs": EPOCHS} | APART}
        if n == min(numbers):
            parts["everything, by default"] = {}
        for name, part in parts.items():
            clf = classifier(**params | part)
            times = in_turn(
                {
                    place: lambda clf=clf, where=where, train=train: clf.set_params(
                        **where
                    ).fit(train, range(len(train)))
                    for place, where in places.items()
                },
                repeats,
            )
            row = {"classes": n, "fit": name}
            for place, values in times.items():
                row[f"{place}, seconds"] = f"{median(values):.2f}"
            yield row


def measure_scoring(data, places, numbers, lengths, n_characters, repeats, params):
    """Yield a row per number of classes and length: million characters a second."""
    for n in numbers:
        train, _ = texts_of(data, n)
        clf = classifier(**params | {"epochs": 1} | APART)
        clf.set_params(**places["device"])
        clf.fit(train, range(n))
        for length in lengths:
            X = fragments(train, length, max(1, n_characters // length // n))
            # Cores read a part: it is the rate that is measured.
            of_cores = X[:: 10 * n]
            texts = dict.fromkeys(places, X) | {"CPU, all cores": of_cores}
            times = in_turn(
                {
                    place: lambda clf=clf, where=where, X=texts[place]: clf.set_params(
                        **where
                    ).predict_log_proba(X)
                    for place, where in places.items()
                },
                repeats,
            )
            row = {"classes": n, "length": length}
            for place, values in times.items():
                rate = n * length * len(texts[place]) / median(values)
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
    numbers, lengths, sizes = CLASSES, LENGTHS, HIDDEN_SIZES
    n_characters, repeats, params = N_CHARACTERS, args.repeats, {}
    if args.quick:
        numbers, lengths, sizes, n_characters, repeats = (3,), (10,), (8,), 1000, 1
        params = {"hidden_size": 8, "n_networks": 1, "epochs": 1}
        params |= {"discriminative_epochs": 1, "calibration_folds": 2}
    if args.device == "cuda":
        print(torch.cuda.get_device_name(), "and", joblib.cpu_count(), "cores")
    n_jobs = 1 if args.quick else -1
    cores = {"device": "cpu", "n_jobs": n_jobs, "precision": "float32"}
    on_device = {"device": args.device, "n_jobs": None, "precision": "float32"}
    places = {"device": on_device, "CPU, all cores": cores}
    tables = {
        "fit": measure_fit(args.data, places, numbers, repeats, params),
        "scoring": measure_scoring(
            args.data, places, numbers, lengths, n_characters, repeats, params
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

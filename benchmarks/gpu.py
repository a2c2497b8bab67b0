"""What a GPU is good for: many classes in one step, and prediction.

    python benchmarks/gpu.py --data ../shared/data --out docs/measured

`--data` holds `udhr/<code>.txt`. The language models of some texts of the Declaration
are trained for two epochs, in one step, one after the other, and on all cores of the
CPU; then strings are scored on the device and on the CPU. All in turn, and medians.
With `--quick` a few tiny models show that everything runs, without a GPU too.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
from accuracy import all_codes, write
from keras_script import fragments, read
from speed import in_turn

from sklearn_charlstm import CharLMLanguageClassifier, _class_models

CLASSES = (2, 10, 75, 380)
LENGTHS = (10, 20, 200, 2000)
N_CHARACTERS = 4_000_000
EPOCHS = 2


def fit(params, texts, *, in_one_step):
    """Train the models of texts, in one step or one after the other."""
    clf = CharLMLanguageClassifier(
        epochs=EPOCHS,
        discriminative_epochs=0,
        calibration_folds=0,
        random_state=0,
        **params,
    )
    devices = ("cuda", "cpu") if in_one_step else ()
    with patch.object(_class_models, "_STACKING_DEVICES", devices):
        return clf.fit(texts, range(len(texts)))


def measure_fit(data, device, numbers, repeats, params):
    """Yield a row per number of classes: seconds of `fit`."""
    codes = all_codes(data)
    for n in numbers:
        rows = np.linspace(0, len(codes) - 1, n).astype(int)
        texts, _ = read(data, [codes[row] for row in rows])
        on_device, on_cpu = ({"device": where, **params} for where in (device, "cpu"))
        times = in_turn(
            {
                "in one step": lambda on_device=on_device, texts=texts: fit(
                    on_device, texts, in_one_step=True
                ),
                "one by one": lambda on_device=on_device, texts=texts: fit(
                    on_device, texts, in_one_step=False
                ),
                "CPU, all cores": lambda on_cpu=on_cpu, texts=texts: fit(
                    {"n_jobs": -1, **on_cpu}, texts, in_one_step=False
                ),
            },
            repeats,
        )
        n_targets = sum(map(len, texts)) * EPOCHS
        yield {
            "classes": n,
            **{name: f"{median(values):.1f}" for name, values in times.items()},
            "thousand characters a second": (
                f"{n_targets / median(times['in one step']) / 1000:.0f}"
            ),
        }


def measure_scoring(data, device, lengths, n_characters, repeats, params):
    """Yield a row per length: million characters per second and class."""
    train, _ = read(data, ("eng", "fra"))
    clf = fit({"device": "cpu", **params}, train, in_one_step=False)
    places = {
        "device": {"device": device},
        "device, bfloat16": {"device": device, "precision": "bfloat16"},
        "CPU, all cores": {"device": "cpu", "n_jobs": -1},
    }
    defaults = {"precision": "float32", "n_jobs": None}
    for length in lengths:
        X = fragments(train, length, n_characters // length // 2)
        times = in_turn(
            {
                name: lambda where=where, X=X: clf.set_params(
                    **defaults | where
                ).decision_function(X)
                for name, where in places.items()
            },
            repeats,
        )
        n_scored = 2 * length * len(X)
        yield {
            "characters": length,
            **{
                name: f"{n_scored / median(values) / 1e6:.2f}"
                for name, values in times.items()
            },
        }


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the texts")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    numbers, lengths, n_characters, params = CLASSES, LENGTHS, N_CHARACTERS, {}
    if args.quick:
        numbers, lengths, n_characters = (3,), (10,), 1000
        params = {"hidden_size": 8, "n_networks": 1}
    args.repeats = 1 if args.quick else args.repeats
    tables = {
        "fit": measure_fit(args.data, args.device, numbers, args.repeats, params),
        "scoring": measure_scoring(
            args.data, args.device, lengths, n_characters, args.repeats, params
        ),
    }
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        rows = list(rows)
        write(rows, out / f"gpu_{name}.csv")
        for row in rows:
            print("  ".join(f"{key}: {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()

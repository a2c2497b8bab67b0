"""How fast training and prediction are, as ratios within one run.

    python benchmarks/speed.py --data DATA --out docs/measured

`--data` holds `udhr/<code>.txt`. Machines are noisy: everything that is compared is run
in turn, several times, and the medians of the ratios are what counts. The rate of a
matrix product of 1024 x 1024 in float32 on one core is measured beside. lingua,
py3langid and fastText are compared where they are installed, and `keras_script.py`
where `--keras` names a Python that has Keras. With `--quick` tiny models show that
everything runs.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from accuracy import cut_fragments, of_fragments
from keras_script import fragments, read
from rivals import ISO_639_1, FastText, Lingua, Py3Langid, installed
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel
from sklearn_charlstm._device import Compute
from sklearn_charlstm._loop import MAX_GRADIENT_NORM
from sklearn_charlstm._module import CharLSTM
from sklearn_charlstm._soft_targets import SoftTargets
from sklearn_charlstm._vocabulary import Vocabulary
from sklearn_charlstm._windows import WindowBatches

CODES = ("eng", "fra")
CLOSE_CODES = ("dan", "nob")
HIDDEN_SIZES = (64, 96, 128, 256, 512)
PRECISION_SIZES = (96, 256)
LENGTHS = (5, 10, 20, 100)
# In nats.
BEAM = 8.0


def seconds(function):
    """Return how long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turn(functions, repeats):
    """Return the seconds of every function in each of the repeats."""
    rows = [[seconds(f) for f in functions.values()] for _ in range(repeats)]
    return dict(zip(functions, zip(*rows, strict=True), strict=True))


def times_as_fast(functions, repeats):
    """Return how many times as fast the second function is as the first."""
    first, second = in_turn(functions, repeats).values()
    return f"{median(a / b for a, b in zip(first, second, strict=True)):.2f}"


def matmul_rate(repeats):
    """Return float32 operations per second of one core."""
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    (a @ a).sum()
    return 2 * 1024**3 / median(seconds(lambda: a @ a) for _ in range(10 * repeats))


def operations_per_target(model):
    """Return those of the matrix products of one network, forward."""
    # Not those with embeddings: by default one of each token.
    n_outputs, size = model.vocabulary_.n_outputs, model.hidden_size
    return 2 * (4 * size * size + size * n_outputs)


def plain_loop(text, model):
    """Train the same networks on the same batches in a plain loop."""
    vocabulary = Vocabulary([text], "char", False)
    batches = WindowBatches(
        vocabulary.encode([text]),
        np.ones(1),
        vocabulary,
        maxlen=model.maxlen,
        batch_size=model.batch_size,
        seed=0,
        smoothing=True,
    )
    module = CharLSTM(
        vocabulary.n_inputs,
        vocabulary.n_outputs,
        n_networks=model.n_networks,
        embedding_dim=model.embedding_dim,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        dropout=model.dropout,
        output="softmax",
    )
    soft_targets_of = SoftTargets([batches.estimates], torch.device("cpu"))
    optimizer = torch.optim.AdamW(module.parameters(), lr=model.lr, fused=True)
    average = [p.detach().clone() for p in module.parameters()]
    n_updates = 0
    torch.set_num_threads(1)
    for _ in range(model.epochs):
        for inputs, (targets, _, nodes, beyond, n_discounted) in batches:
            logits, _ = module(torch.from_numpy(inputs))
            places = (torch.from_numpy(part)[None] for part in (targets, nodes, beyond))
            soft_targets = soft_targets_of(*places, n_discounted).expand(logits.shape)
            loss = F.cross_entropy(logits.flatten(0, 2), soft_targets.flatten(0, 2))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            n_updates += 1
            with torch.no_grad():
                torch._foreach_lerp_(
                    average, list(module.parameters()), 4 / (n_updates + 3)
                )


def measure_training(text, sizes, repeats, epochs):
    """Yield a row per size: rates, and the time in units of the plain loop."""
    rate = matmul_rate(repeats)
    # Long ones, that have hardly a beginning in common.
    X = fragments([text], 200, 200)
    for size in sizes:
        model = CharLSTMLanguageModel(hidden_size=size, epochs=epochs, random_state=0)
        times = in_turn(
            {
                "fit": lambda model=model: model.fit([text]),
                "plain": lambda model=model: plain_loop(text, model),
            },
            repeats,
        )
        n_targets = len(text) * epochs * model.n_networks
        per_second = n_targets / median(times["fit"])
        ratios = [a / b for a, b in zip(times["fit"], times["plain"], strict=True)]
        of_reading = [seconds(partial(model.score_samples, X)) for _ in range(repeats)]
        n_read = sum(map(len, X)) * model.n_networks
        read_per_second = n_read / median(of_reading)
        operations = operations_per_target(model)
        yield {
            "hidden_size": size,
            "targets per second": f"{per_second:.0f}",
            # Forward and backward.
            "share of the matmul rate": f"{3 * per_second * operations / rate:.2f}",
            "time of a plain loop": f"{median(ratios):.2f}",
            "read per second": f"{read_per_second:.0f}",
            "share in reading": f"{read_per_second * operations / rate:.2f}",
        }


def measure_fit(texts, repeats, params):
    """Yield the time of `fit` with its parts, in units of one job."""
    clf = CharLMLanguageClassifier(random_state=0, **params)
    parts = {
        "models apart": {"discriminative_epochs": 0, "calibration_folds": 0},
        "and joint training": {"calibration_folds": 0},
        "and calibration": {},
        "two jobs": {"n_jobs": 2},
    }

    def fit(part):
        CharLMLanguageClassifier(**clf.get_params() | part).fit(texts, CODES)

    fit({"n_jobs": 2})  # the worker processes start
    times = in_turn(
        {name: lambda part=part: fit(part) for name, part in parts.items()}, repeats
    )
    whole = times["and calibration"]
    for name, values in times.items():
        ratios = [a / b for a, b in zip(values, whole, strict=True)]
        yield {
            "fit": name,
            "seconds": f"{median(values):.1f}",
            "share": f"{median(ratios):.2f}",
        }


def measure_prediction(texts, lengths, n_texts, repeats, params):
    """Yield a row per length: thousand characters per second of every classifier."""
    two_jobs = {"n_jobs": 2}
    parts = {"LSTM": {}, "two jobs": two_jobs}
    if Compute(torch.device("cpu"), torch.bfloat16).can_train:
        two_jobs = two_jobs | {"precision": "bfloat16"}
        parts["two jobs, bfloat16"] = two_jobs
    parts["and one network"] = two_jobs | {"n_networks": 1}
    classifiers = {
        name: CharLMLanguageClassifier(
            random_state=0,
            discriminative_epochs=0,
            calibration_folds=0,
            **params | part | {"epochs": 1, "precision": "float32"},
        )
        .fit(texts, CODES)
        .set_params(**part)
        for name, part in parts.items()
    }
    if installed("lingua"):
        classifiers["lingua"] = Lingua(CODES)
    if installed("py3langid"):
        classifiers["py3langid"] = Py3Langid(CODES)
    if installed("fasttext"):
        of_class = [[text] for text in texts]
        classifiers["fastText"] = of_fragments(FastText(), of_class, (20,), 0)
    for length in lengths:
        X = fragments(texts, length, n_texts * min(lengths) // length)
        times = in_turn(
            {
                name: lambda clf=clf, X=X: clf.predict_log_proba(X)
                for name, clf in classifiers.items()
            },
            repeats,
        )
        row = {"characters": length}
        for name, values in times.items():
            row[name] = f"{len(X) * length / median(values) / 1000:.0f}"
        yield row


def measure_beam(data, codes, lengths, n_characters, repeats, params):
    """Yield a row per length: `predict` with all classes and with those in the beam."""
    train, held_out = read(data, codes)
    clf = CharLMLanguageClassifier(
        discriminative_epochs=0, calibration_folds=0, n_jobs=2, random_state=0
    )
    clf.set_params(**params).fit(train, range(len(codes)))
    one = clone(clf).set_params(n_networks=1).fit(train, range(len(codes)))
    functions = {
        "all": lambda X: clf.set_params(beam=None).predict(X),
        "beam": lambda X: clf.set_params(beam=BEAM).predict(X),
        "one network": lambda X: one.set_params(beam=BEAM).predict(X),
    }
    if installed("lingua"):
        functions["lingua"] = Lingua(codes).predict
    for length in lengths:
        X, y, _ = cut_fragments(
            [[text] for text in held_out],
            length,
            max(1, n_characters // len(codes) // length),
            np.random.default_rng(length),
        )
        found = {name: predict(X) for name, predict in functions.items()}
        times = in_turn(
            {
                name: lambda predict=predict, X=X: predict(X)
                for name, predict in functions.items()
            },
            repeats,
        )
        row = {"characters": length}
        for name, values in times.items():
            row[name] = f"{len(X) * length / median(values) / 1000:.1f}"
        log_likelihood, _ = clf._evidence(X, BEAM)
        row["followed"] = f"{np.isfinite(log_likelihood).sum(axis=1).mean():.1f}"
        row["changed"] = f"{np.mean(found['beam'] != found['all']):.5f}"
        for name, labels in found.items():
            row[f"accuracy, {name}"] = f"{np.mean(labels == y):.3f}"
        yield row


def measure_precision(train, held_out, sizes, lengths, repeats, params):
    """Yield a row per size and task: how many times as fast bfloat16 is, both AUCs."""
    for size in sizes:
        classifiers = {
            precision: CharLMLanguageClassifier(
                random_state=0,
                precision=precision,
                calibration_folds=0,
                **params | {"hidden_size": size},
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
        row = {"hidden_size": size, "task": "fit", "times as fast": faster}
        yield row | {"AUC": "", "AUC bfloat16": ""}
        for length in lengths:
            X = fragments(held_out, length, 20_000 // length)
            y = np.repeat([0, 1], len(X) // 2)
            scored = {
                precision: lambda clf=clf, X=X: clf.decision_function(X)
                for precision, clf in classifiers.items()
            }
            auc = [f"{roc_auc_score(y, score()):.4f}" for score in scored.values()]
            yield {
                "hidden_size": size,
                "task": f"predict, {length} characters",
                "times as fast": times_as_fast(scored, repeats),
                "AUC": auc[0],
                "AUC bfloat16": auc[1],
            }


def measure_keras(python, data, repeats):
    """Yield what the usual Keras script does in a second, and this package."""
    train, held_out = read(data, CODES)
    X = fragments(held_out, 5, 2000)
    y = np.repeat([0, 1], len(X) // 2)
    command = [python, Path(__file__).parent / "keras_script.py", "--data", data]
    clf = CharLMLanguageClassifier(
        hidden_size=128,
        epochs=20,
        n_networks=1,
        discriminative_epochs=0,
        calibration_folds=0,
        n_jobs=2,
        random_state=0,
    )
    targets, strings, auc = [], [], []
    for _ in range(repeats):
        result = json.loads(
            subprocess.check_output(command, stderr=subprocess.DEVNULL).splitlines()[-1]
        )
        time_of_fit = seconds(lambda: clf.fit(train, CODES))
        time_of_scoring = seconds(lambda: clf.decision_function(X))
        targets.append(
            (
                result["targets"] / result["fit seconds"],
                clf.epochs * sum(map(len, train)) / time_of_fit,
            )
        )
        strings.append(
            (result["strings"] / result["score seconds"], len(X) / time_of_scoring)
        )
        auc.append((result["AUC"], roc_auc_score(y, clf.decision_function(X))))
    for what, pairs in (("targets", targets), ("strings", strings)):
        keras, ours = (median(values) for values in zip(*pairs, strict=True))
        yield {
            "per second": what,
            "Keras script": f"{keras:.0f}",
            "one network": f"{ours:.0f}",
            "ratio": f"{median(b / a for a, b in pairs):.0f}",
        }
    keras, ours = (median(values) for values in zip(*auc, strict=True))
    yield {
        "per second": "AUC, 5 characters",
        "Keras script": f"{keras:.3f}",
        "one network": f"{ours:.3f}",
        "ratio": "",
    }


def measure_one_text(texts, repeats, params):
    """Yield lengths, and the seconds that it takes to classify one text of so many."""
    clf = CharLMLanguageClassifier(
        random_state=0, discriminative_epochs=0, calibration_folds=0
    )
    clf.set_params(**params | {"epochs": 1}).fit(texts, CODES)
    for length in (11, 100):
        predict = partial(clf.predict, [texts[0][:length]])
        yield length, median(seconds(predict) for _ in range(100 * repeats))


def import_ratio(repeats):
    """Return the time to import the package in units of importing torch."""
    # All modules compiled, as installed packages are.
    env = {**os.environ}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    functions = {
        module: lambda module=module: subprocess.run(
            [sys.executable, "-c", f"import {module}"], check=True, env=env
        )
        for module in ("torch", "sklearn_charlstm")
    }
    in_turn(functions, 1)
    times = in_turn(functions, repeats)
    pairs = zip(times["sklearn_charlstm"], times["torch"], strict=True)
    return median(a / b for a, b in pairs)


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the texts")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keras", help="a Python that has Keras")
    parser.add_argument("--tables", nargs="*", help="names of tables; default: all")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    repeats = 1 if args.quick else args.repeats
    sizes, few_sizes = HIDDEN_SIZES, PRECISION_SIZES
    if args.quick:
        sizes = few_sizes = (8,)
    params = {"hidden_size": 8, "n_networks": 1, "epochs": 1} if args.quick else {}
    n_texts = 20 if args.quick else 20_000
    n_classes = 3 if args.quick else None
    end = 1000 if args.quick else None
    texts, _ = read(args.data, CODES)
    texts = [text[:end] for text in texts]
    train, held_out = read(args.data, CLOSE_CODES)
    train = [text[:end] for text in train]
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    print(f"matrix product: {matmul_rate(repeats) / 1e9:.0f} GFLOP/s")
    print(f"import: {import_ratio(repeats):.2f} times torch alone")
    for length, one in measure_one_text(texts, repeats, params):
        print(f"predict, one text of {length} characters: {1000 * one:.1f} ms")
    tables = {
        "training": measure_training(texts[0], sizes, repeats, 1 if args.quick else 5),
        "fit": measure_fit(texts, repeats, params),
        "prediction": measure_prediction(texts, LENGTHS, n_texts, repeats, params),
        **{
            name: measure_beam(args.data, codes, LENGTHS, n_texts * 5, repeats, params)
            for name, codes in (
                ("beam_two", CODES),
                ("beam_many", tuple(ISO_639_1)[:n_classes]),
            )
        },
    }
    if Compute(torch.device("cpu"), torch.bfloat16).can_train:
        tables["precision"] = measure_precision(
            train, held_out, few_sizes, (5, 20, 200), repeats, params
        )
    elif not args.tables or "precision" in args.tables:
        print("precision: this processor cannot train in bfloat16")
    if args.keras:
        tables["keras"] = measure_keras(args.keras, args.data, repeats)
    for name, rows in tables.items():
        if args.tables and name not in args.tables:
            continue
        rows = list(rows)
        for row in rows:
            print(
                "  ".join(f"{key}: {value}" for key, value in row.items()), flush=True
            )
        with (out / f"speed_{name}.csv").open("w", encoding="utf-8", newline="") as f:
            writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()

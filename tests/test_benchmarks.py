"""The benchmarks run; what they measure is in the documentation."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sklearn_charlstm import CharLSTMLanguageModel

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("smoothing", ["WittenBell", "KneserNey"])
@pytest.mark.parametrize("history", ["", "a", "ab", "bab", "zzz"])
def test_the_rivals_are_probabilities(ngrams, smoothing, history):
    alphabet = frozenset("abcz")
    texts = ["abab babac cab ab" * 3, "ab", "cab"]
    model = getattr(ngrams, smoothing)(texts, alphabet | {" "}, 4)
    total = sum(model.probability(c, history) for c in alphabet | {" "})
    assert total == pytest.approx(1)


def test_witten_bell_by_hand(ngrams):
    # After "a" came b twice and c once; unigrams: a 3, b 2, c 1 of 6, uniform 1/3.
    model = ngrams.WittenBell(["abacab"], frozenset("abc"), 2)
    unigram = (2 + 3 * (1 / 3)) / (6 + 3)
    assert model.probability("b", "") == pytest.approx(unigram)
    assert model.probability("b", "a") == pytest.approx((2 + 2 * unigram) / (3 + 2))
    expected = np.log((1 - ngrams.UNKNOWN_MASS) * (3 + 1) / 9)
    assert model.log_likelihood("a") == pytest.approx(expected)


def test_an_unknown_character_costs_the_rivals_what_it_costs_the_lstm(ngrams):
    rival = ngrams.NGramLanguageClassifier().fit(["abacab", "cab"], [0, 1])
    known, mixed = (rival.bits_per_character(0, text) for text in ("ab", "abz"))
    model = CharLSTMLanguageModel(epochs=1, hidden_size=4).fit(["abc"])
    of_unknown = model.bits_per_character(["z"])
    assert 3 * mixed == pytest.approx(2 * known + of_unknown)


def test_accuracy_quick(udhr_folder, tmp_path):
    command = [sys.executable, BENCHMARKS / "accuracy.py", "--quick", "--seeds", "1"]
    command += ["--n-jobs", "1", "--data", udhr_folder.parent, "--out", tmp_path]
    command += ["--hidden-size", "12"]
    subprocess.run(command, check=True, capture_output=True)
    with (tmp_path / "accuracy.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["characters"] for row in rows} == {"5", "20", "whole"}
    names = {row["classifier"] for row in rows}
    assert {"LSTM", "Kneser-Ney", "naive Bayes"} < names
    assert len(rows) == 3 * len(names)
    for row in rows:
        assert 0.6 < float(row["AUC or accuracy"]) <= 1
        assert 0 <= float(row["calibration error"]) <= 1
        assert (row["classifier"] == "LSTM") == (row["LSTM minus this"] == "")


def test_speed_quick(udhr_folder, tmp_path):
    names = ("training", "fit", "prediction", "beam_two", "beam_many")
    command = [sys.executable, BENCHMARKS / "speed.py", "--quick", "--tables", *names]
    command += ["--data", udhr_folder.parent, "--out", tmp_path]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "GFLOP/s" in result.stdout
    tables = {
        name: list(
            csv.DictReader((tmp_path / f"speed_{name}.csv").read_text().splitlines())
        )
        for name in names
    }
    [row] = tables["training"]
    assert float(row["time of a plain loop"]) > 0
    assert [row["fit"] for row in tables["fit"]][2:] == ["and calibration", "two jobs"]
    lengths = [row["characters"] for row in tables["prediction"]]
    assert lengths == ["5", "10", "20", "100"]
    for name in ("beam_two", "beam_many"):
        assert all(float(row["changed"]) < 0.1 for row in tables[name])


def test_speed_of_precisions_quick(half, udhr_folder, tmp_path):
    command = [sys.executable, BENCHMARKS / "speed.py", "--quick"]
    command += ["--data", udhr_folder.parent, "--out", tmp_path]
    subprocess.run([*command, "--tables", "precision"], check=True)
    rows = csv.DictReader((tmp_path / "speed_precision.csv").read_text().splitlines())
    fit, *predictions = rows
    assert fit["task"] == "fit"
    for row in predictions:
        assert abs(float(row["AUC"]) - float(row["AUC bfloat16"])) < 0.02


def test_gpu_quick(udhr_folder, tmp_path):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--quick", "--device", "cpu"]
    command += ["--data", udhr_folder.parent, "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    for name, n_rows in (("fit", 2), ("scoring", 1)):
        text = (tmp_path / f"gpu_{name}.csv").read_text()
        rows = list(csv.DictReader(text.splitlines()))
        assert len(rows) == n_rows
        for row in rows:
            row.pop("fit", None)
            assert all(float(value) >= 0 for value in row.values())


def test_writing_quick(udhr_folder, tmp_path):
    command = [sys.executable, BENCHMARKS / "writing.py", "--quick", "--n-jobs", "1"]
    command += ["--data", udhr_folder.parent, "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    for name, n_rows, columns in (
        ("samples", 1, ("by the classifier", "guided, by Kneser-Ney")),
        ("gaps", 2, ("LSTM", "Kneser-Ney")),
    ):
        path = tmp_path / f"writing_{name}.csv"
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        assert len(rows) == n_rows
        assert all(0 <= float(row[column]) <= 1 for row in rows for column in columns)


def test_sequences_quick(udhr_folder, tmp_path):
    command = [sys.executable, BENCHMARKS / "sequences.py", "--quick"]
    command += ["--data", udhr_folder.parent, "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    tables = {
        name: list(
            csv.DictReader(
                (tmp_path / f"sequences_{name}.csv").read_text("utf-8").splitlines()
            )
        )
        for name in ("tunes", "new_tunes", "words")
    }
    # Jigs go in quavers; how long notes are tells a lot to any model.
    of_lengths = [row for row in tables["tunes"] if row["tokens"] == "length"]
    assert [row["notes"] for row in of_lengths] == ["4", "8", "16", "32"]
    assert float(of_lengths[-1]["LSTM"]) > 0.9
    assert float(of_lengths[-1]["Kneser-Ney"]) > 0.9
    assert len(tables["new_tunes"]) == 2 * 4
    of_collection = tables["new_tunes"][0]
    assert float(of_collection["read"]) > 0.8
    assert float(of_collection["full bars"]) > 0.7
    for row in tables["words"]:
        assert float(row["2-gram"]) > 1
        assert 1 < float(row["LSTM"]) < 2 * int(row["vocabulary"])

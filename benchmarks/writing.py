"""Whether the models write what they were trained on, and fill gaps.

    python benchmarks/writing.py --data DATA --out docs/measured

`--data` holds `udhr/<code>.txt`. Of each text the first four fifths train a classifier
with default parameters. Samples of a class should be taken for that class, by the
classifier itself and by n-gram models of the same text. Gaps are cut into the last
fifth, 30 characters apart from its ends, and filled by the language model and by an
n-gram model, both with a beam of 256. With `--quick` small models show that it runs.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
from pathlib import Path

import numpy as np
from accuracy import PAIRS, write
from ngrams import KneserNey, NGramLanguageClassifier

from sklearn_charlstm import CharLMLanguageClassifier

N_SAMPLES = 500
N_GAPS = 300
CONTEXT = 30
BEAM_WIDTH = 256


def read(data, code):
    """Return training and test text of a language."""
    path = Path(data) / "udhr" / f"{code}.txt"
    words = path.read_text(encoding="utf-8").lower().split()
    cut = len(words) * 8 // 10
    return " ".join(words[:cut]), " ".join(words[cut:])


def samples(name, clf, judge, lengths, n_samples):
    """Yield how many samples are taken for what they are."""
    y = np.repeat(clf.classes_, n_samples)
    for length in lengths:
        row = {"task": name, "characters": length}
        for guidance, prefix in ((0, ""), (1, "guided, ")):
            texts = [
                text
                for label in clf.classes_
                for text in clf.sample(
                    label,
                    n_samples,
                    guidance=guidance,
                    max_length=length,
                    random_state=0,
                )
            ]
            row[f"{prefix}by the classifier"] = f"{clf.score(texts, y):.3f}"
            row[f"{prefix}by Kneser-Ney"] = f"{judge.score(texts, y):.3f}"
        yield row


def n_gram_gap(model, before, after, length):
    """Fill a gap with an n-gram model as `infill` does."""
    context = before[-model.order :]
    alphabet = sorted(model.alphabet)
    beam = [(0.0, "")]
    for _ in range(length):
        extended = [
            (
                log_p
                + np.log(model.probability(c, (context + gap)[1 - model.order :])),
                gap + c,
            )
            for log_p, gap in beam
            for c in alphabet
        ]
        beam = sorted(extended, reverse=True)[:BEAM_WIDTH]
    # Further on no n-gram reaches back into the gap.
    after = after[: model.order - 1]

    def with_end(log_p_and_gap):
        log_p, gap = log_p_and_gap
        for i, c in enumerate(after):
            history = (context + gap + after[:i])[1 - model.order :]
            log_p += np.log(model.probability(c, history))
        return log_p

    return max(beam, key=with_end)[1]


def gaps(code, model, rival, test, lengths, n_gaps):
    """Yield how many characters of gaps are found."""
    rng = np.random.default_rng(0)
    for length in lengths:
        found = {"LSTM": [], "Kneser-Ney": []}
        starts = rng.integers(CONTEXT, len(test) - length - CONTEXT, size=n_gaps)
        for start in starts.tolist():
            before = test[start - CONTEXT : start]
            gap = test[start : start + length]
            after = test[start + length : start + length + CONTEXT]
            filled = {
                "LSTM": model.infill(before, after, length, beam_width=BEAM_WIDTH),
                "Kneser-Ney": n_gram_gap(rival, before, after, length),
            }
            for name, by_model in filled.items():
                found[name].append([a == b for a, b in zip(gap, by_model, strict=True)])
        of_lstm, of_rival = (np.mean(found[name], axis=1) for name in found)
        difference = of_lstm - of_rival
        resampled = [
            difference[rng.integers(n_gaps, size=n_gaps)].mean() for _ in range(1000)
        ]
        low, high = np.quantile(resampled, [0.025, 0.975])
        yield {
            "language": code,
            "gap": length,
            "LSTM": f"{of_lstm.mean():.3f}",
            "Kneser-Ney": f"{of_rival.mean():.3f}",
            "LSTM minus Kneser-Ney, 95 %": f"{low:+.3f} to {high:+.3f}",
        }


def main():
    """Train, write, count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the texts")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    tiny = {"epochs": 2, "n_networks": 1, "hidden_size": 16, "discriminative_epochs": 1}
    lengths, n_samples = (10, 20, 50, 100), N_SAMPLES
    gap_lengths, n_gaps = (1, 2, 4, 8), N_GAPS
    pairs = PAIRS
    if args.quick:
        lengths, n_samples, gap_lengths, n_gaps = (10,), 10, (2,), 5
        pairs = PAIRS[:1]
    of_samples, of_gaps = [], []
    for pair in pairs:
        train, test = zip(*(read(args.data, code) for code in pair), strict=True)
        clf = CharLMLanguageClassifier(random_state=0, n_jobs=args.n_jobs)
        clf.set_params(**(tiny if args.quick else {})).fit(train, pair)
        judge = NGramLanguageClassifier(KneserNey).fit(train, pair)
        of_samples += samples("/".join(pair), clf, judge, lengths, n_samples)
        for k in np.searchsorted(clf.classes_, pair):
            of_gaps += gaps(
                clf.classes_[k],
                clf.language_models_[k],
                judge.models_[k],
                test[pair.index(clf.classes_[k])],
                gap_lengths,
                n_gaps,
            )
        print(of_samples[-1], of_gaps[-1], flush=True)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    write(of_samples, out / "writing_samples.csv")
    write(of_gaps, out / "writing_gaps.csv")


if __name__ == "__main__":
    main()

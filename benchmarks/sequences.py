"""Sequences that are not characters: tunes as notes, text as words.

    python benchmarks/sequences.py --data DATA --out docs/measured

`--data` holds `abc/jigs.abc` and `abc/reels*.abc`, tunes in ABC notation, and
`sentences/en.txt`; music21 reads the tunes. A fifth of the tunes, of the sentences and
of the paragraphs of Python's reference is for the test. All with default parameters,
but for the tunes that are written, beside n-gram models with modified Kneser-Ney
smoothing of the same tokens. With `--quick` little text and small models show that it
runs.
"""

# SPDX-License-Identifier: BSD-3-Clause

import argparse
import io
import re
from collections import Counter
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from accuracy import write
from music21 import converter
from music21.exceptions21 import Music21Exception
from ngrams import KneserNey, NGramLanguageClassifier
from sklearn.metrics import roc_auc_score

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel

# How the tunes of a kind are written, and the length of a bar in crotchets.
HEADERS = {"jig": "M:6/8\nL:1/8\n", "reel": "M:4/4\nL:1/4\n"}
BAR = {"jig": 3.0, "reel": 4.0}
RUNS = (4, 8, 16, 32)
N_RUNS = 20
N_NEW_TUNES = 100
# In characters of its notation.
SHORTEST_TUNE = 40
MIN_COUNT = 3
TINY = {"epochs": 1, "n_networks": 1, "hidden_size": 8}
FEW = 20


def read_tunes(folder, kind):
    """Return the tunes of one kind that stay in one key, as its name and the bars."""
    tunes = []
    for path in sorted(Path(folder).glob(f"{kind}s*.abc")):
        for text in re.split(r"\n(?=X:)", path.read_text(encoding="latin-1")):
            lines = [line.partition("%")[0].rstrip("\\ ") for line in text.splitlines()]
            fields = re.findall(r"^([A-Z]): *(.*?) *$", "\n".join(lines), re.MULTILINE)
            keys = {value for name, value in fields if name == "K"}
            header = "".join(
                f"{name}:{dict(fields).get(name, '1/8')}\n" for name in "ML"
            )
            bars = "".join(line for line in lines if not re.match(r"[A-Za-z]:", line))
            # Chords for the accompaniment are in quotation marks.
            bars = re.sub(r'"[^"]*"|\s+', "", bars)
            if len(keys) == 1 and header == HEADERS[kind] and len(bars) > SHORTEST_TUNE:
                tunes.append((keys.pop(), bars))
    return tunes


def bars_of(kind, tune):
    """Return the bars of a tune as music21 reads them; None where it complains."""
    key, bars = tune
    text = f"X:1\n{HEADERS[kind]}K:{key}\n{bars}\n"
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            stream = converter.parse(text, format="abc")
    except (Music21Exception, ValueError):
        return None
    if complaints.getvalue():
        return None
    return [*stream.recurse().getElementsByClass("Measure")]


def notes(bars):
    """Return the pitch and the length, in crotchets, of every note."""
    return [
        (note.pitch.nameWithOctave, float(note.quarterLength))
        for bar in bars
        for note in bar.notes
        if note.isNote
    ]


def as_characters(sequences):
    """Return texts with a character for each token, for models that need texts."""
    number = {}
    return [
        "".join(chr(0x4E00 + number.setdefault(token, len(number))) for token in tokens)
        for tokens in sequences
    ]


def kinds_of_tunes(tunes, quick):
    """Yield how well runs of notes of unseen tunes are classified."""
    melodies = {
        kind: [notes(bars) for bars in map(partial(bars_of, kind), of_kind) if bars]
        for kind, of_kind in tunes.items()
    }
    views = {
        "pitch and length": lambda melody: melody,
        "pitch": lambda melody: [pitch for pitch, _ in melody],
        "length": lambda melody: [length for _, length in melody],
    }
    for view, seen in views.items():
        rng = np.random.default_rng(0)
        train, y, test = [], [], []
        for kind, of_kind in melodies.items():
            shuffled = [seen(of_kind[row]) for row in rng.permutation(len(of_kind))]
            cut = len(shuffled) * 8 // 10
            train += shuffled[:cut]
            y += [kind] * cut
            test += [(kind, melody) for melody in shuffled[cut:]]
        clf = CharLMLanguageClassifier(analyzer=tuple, random_state=0, n_jobs=2)
        clf.set_params(**(TINY | {"calibration_folds": 0} if quick else {}))
        clf.fit(train, y)
        as_texts = as_characters([*train, *(melody for _, melody in test)])
        rival = NGramLanguageClassifier(KneserNey).fit(as_texts[: len(train)], y)
        for n in RUNS:
            runs, runs_as_texts, kinds = [], [], []
            for (kind, melody), text in zip(test, as_texts[len(train) :], strict=True):
                starts = rng.integers(len(melody) - n + 1, size=N_RUNS)
                runs += [melody[start : start + n] for start in starts]
                runs_as_texts += [text[start : start + n] for start in starts]
                kinds += [kind] * N_RUNS
            is_reel = np.array(kinds) == clf.classes_[1]
            log_proba = rival.predict_log_proba(runs_as_texts)
            by_rival = log_proba[:, 1] - log_proba[:, 0]
            yield {
                "tokens": view,
                "notes": n,
                "LSTM": f"{roc_auc_score(is_reel, clf.decision_function(runs)):.3f}",
                "Kneser-Ney": f"{roc_auc_score(is_reel, by_rival):.3f}",
            }


def share_of_full_bars(kind, tunes):
    """Return the shares of tunes read without complaint and, of those, of full bars."""
    read = [bars for bars in map(partial(bars_of, kind), tunes) if bars]
    full = [bar.duration.quarterLength == BAR[kind] for bars in read for bar in bars]
    return len(read) / len(tunes), np.mean(full) if full else 0.0


def new_tunes(tunes, quick):
    """Yield whether tunes that are written character by character are tunes."""
    texts = [f"{key}\n{bars}" for of_kind in tunes.values() for key, bars in of_kind]
    y = [kind for kind, of_kind in tunes.items() for _ in of_kind]
    clf = CharLMLanguageClassifier(
        boundaries=True,
        maxlen=64,
        hidden_size=96,
        calibration_folds=0,
        random_state=0,
        n_jobs=2,
    )
    clf.set_params(**(TINY if quick else {})).fit(texts, y)
    for kind, of_kind in tunes.items():
        read, full = share_of_full_bars(kind, of_kind[:N_NEW_TUNES])
        yield {
            "kind": kind,
            "tunes": "of the collection",
            "read": f"{read:.2f}",
            "full bars": f"{full:.2f}",
            "taken for its kind": "",
        }
        for temperature in (1.0, 0.7, 0.5):
            written = clf.sample(
                kind,
                FEW if quick else N_NEW_TUNES,
                max_length=1000,
                temperature=temperature,
                random_state=0,
            )
            split = [text.partition("\n")[::2] for text in written]
            read, full = share_of_full_bars(kind, split)
            yield {
                "kind": kind,
                "tunes": f"written at temperature {temperature}",
                "read": f"{read:.2f}",
                "full bars": f"{full:.2f}",
                "taken for its kind": f"{np.mean(clf.predict(written) == kind):.2f}",
            }


def words_of(text):
    """Return words and punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def reference_manual():
    """Return the paragraphs of prose of the reference of Python's `help`."""
    paragraphs = {
        " ".join(re.sub('["*]', "", paragraph).split())
        for topic in topics.values()
        for paragraph in re.split(r"\n\s*\n", topic)
    }
    return sorted(p for p in paragraphs if re.fullmatch(r"[A-Za-z].{40,}\.", p))


def words(corpora, quick):
    """Yield the perplexity of words of unseen texts."""
    for name, texts in corpora.items():
        tokens = [
            words_of(texts[row])
            for row in np.random.default_rng(0).permutation(len(texts))
        ]
        cut = len(tokens) * 8 // 10
        counts = Counter(word for text in tokens[:cut] for word in text)
        tokens = [
            [word if counts[word] >= MIN_COUNT else "<rare>" for word in text]
            for text in tokens
        ]
        n_tokens = sum(map(len, tokens[cut:]))
        as_texts = as_characters(tokens)
        n_rare = sum(text.count("<rare>") for text in tokens[cut:])
        row = {
            "text": name,
            "words": sum(map(len, tokens[:cut])),
            "vocabulary": sum(count >= MIN_COUNT for count in counts.values()) + 1,
            "rare": f"{n_rare / n_tokens:.3f}",
        }
        for order in (1, 2, 3, 5):
            model = KneserNey(as_texts[:cut], set("".join(as_texts)), order)
            log_p = sum(map(model.log_likelihood, as_texts[cut:]))
            row[f"{order}-gram"] = f"{np.exp(-log_p / n_tokens):.1f}"
        model = CharLSTMLanguageModel(analyzer=tuple, random_state=0)
        model.set_params(**(TINY if quick else {})).fit(tokens[:cut])
        log_p = model.score_samples(tokens[cut:]).sum()
        yield row | {"LSTM": f"{np.exp(-log_p / n_tokens):.1f}"}


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of tunes and texts")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    few = slice(FEW if args.quick else None)
    data = Path(args.data)
    tunes = {kind: read_tunes(data / "abc", kind)[few] for kind in HEADERS}
    sentences = (data / "sentences" / "en.txt").read_text(encoding="utf-8").splitlines()
    corpora = {
        "reference of Python": reference_manual()[few],
        "sentences": sentences[few],
    }
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (
        ("tunes", kinds_of_tunes(tunes, args.quick)),
        ("new_tunes", new_tunes(tunes, args.quick)),
        ("words", words(corpora, args.quick)),
    ):
        table = []
        for row in rows:
            print("  ".join(f"{value!s:>12}" for value in row.values()), flush=True)
            table.append(row)
        write(table, out / f"sequences_{name}.csv")


if __name__ == "__main__":
    main()

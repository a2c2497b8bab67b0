"""
Jigs and reels: sequences of notes
==================================

A "character" is whatever `analyzer` makes of a sample. Here it is a note. Two models
tell jigs from reels, by the notes alone, and then write tunes of their own, as notes on
paper and as sound.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Tunes
# -----
# Two dozen, written for this example in the style of folk dances, in ABC notation. A
# letter is a note, lower case an octave higher, a number its length in quavers; ``|``
# parts two bars. A bar of a jig has six quavers, of a reel eight. All are in G major.

import argparse
import base64
import io
import re
import wave
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from music21 import converter
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from sklearn_charlstm import CharLMLanguageClassifier

JIGS = """
GABBAB|dBdg2d|edBdBA|GABA2D|GABBAB|dBdg2d|edcBcA|GAGG3|
gfgedB|defg2d|edBdBA|GABA2D|gfgedB|defg2d|edcBcA|GAGG3

B2ddBd|egedBG|AGABAG|E2FG2A|B2ddBd|egedBG|AGABAB|G3G3|
gagfed|efgd2B|c2edcB|ABcA3|gagfed|efgdBG|AGABAB|G3G3

DGGGAB|c2ABGE|DGGGBd|cAFG3|DGGGAB|c2edBG|ABcBcA|GFFG3|
dgggfe|dBdefg|fedcBA|BcAd3|dgggfe|dBdefg|fedcBA|BGFG3

GBdgdB|cecBdB|AcAGBG|FAFD3|GBdgdB|cecBdB|AcAFAF|GBGG3|
gbgfaf|eged2B|cecBdB|AcAD2F|gbgfaf|egedBG|cBADEF|G2BG3

G3B3|dcBA2G|EGEDGB|AGAB2A|G3B3|dcBe2d|cBADEF|G3G2D|
g3f3|edcB2d|ededBG|ABAA2D|g3f3|edcBdg|fedcAF|G3G3

BGBAFA|GEGD2D|GABcBc|dBGA3|BGBAFA|GEGD2D|GABcAF|G3G3|
dgdege|dBGABc|dgdedB|cBAd3|dgdege|dBGABc|dcBAGF|G3G3

dBGGBd|ecAAce|dBGGBd|AFDDFA|dBGGBd|ecAAce|fdBcAF|G2BG3|
gdBdgb|aeceac|gdBdgb|afdd3|gdBdgb|aeceac|fedcAF|G3G3

D2GGFG|A2Bc2B|A2GGBd|e2dd3|D2GGFG|A2Bc2e|d2BAGF|G3G3|
g2ggfe|d2ddcB|c2ccBA|B2AB2d|g2ggfe|d2ddcB|c2ADEF|G3G3

GFGAGA|BABd2e|dBdgfe|dcBA2F|GFGAGA|BABd2e|dBdcAF|GFED3|
efedBd|gfgedB|cecBdB|AGAB2d|efedBd|gfgedB|cBAdAF|G3G3

g2dB2G|A2Bc2A|B2GE2G|F2ED3|g2dB2G|A2Bc2e|dBGAFD|G3G3|
b2gg2d|e2fg2e|d2Bc2A|BdBA3|b2gg2d|e2fg2e|dBGAFD|G3G3

EGBedB|AFAdBA|GBGFAF|EGED2D|EGBedB|AFAdBA|GBdcAF|G3E3|
e2fgfe|d2BBAG|ABAGBG|FAFE3|e2fgfe|d2BBAG|ABcdAF|G3E3

dedBGB|c2BA2G|FGADFA|cBAG2B|dedBGB|c2BA2G|FGADFA|G3G3|
Bcdefg|fede2d|cdedcB|ABGA3|Bcdefg|fede2d|cBADFA|G3G3
"""
REELS = """
G2BGDGBG|A2cAEAcA|G2BGDGBd|cAFAG2D2|G2BGDGBG|A2cAEAce|dBGBcAFA|G2BGG4|
gfgdBGBd|edefg2ed|cBcedBGB|AGFAD2EF|gfgdBGBd|edefg2ed|cBAGFDEF|G2BGG4

B2dBABdB|G2BGDEGA|B2dBABde|gedBA2G2|B2dBABdB|G2BGDEGA|BAGBcAFA|G2GFG4|
g2bgfaed|e2gedBGB|c2ecBcdB|AGABcAFD|g2bgfaed|e2gedBGB|cedcBAGF|G2GFG4

DGGFGABc|dBGBdBGB|cAEAcAEA|BGDGBGDG|DGGFGABc|dBGBdefg|fdcAFDEF|G2GAG4|
dggfgabg|egdgegdB|caagafed|efgfefdc|dggfgabg|egdgegdB|cAdcBGAF|G2GAG4

GABGdGBG|GABdedBA|GABGdBGB|ABAGEGDG|GABGdGBG|GABdedBA|GBdBcAFA|G2G2G4|
degabgag|edegdBAB|degabgaf|gedBA2Bc|degabgag|edegdBAB|GBdBcAFA|G2G2G4

g2fgedBd|egdgedBA|GABdefge|dBAGA2Bd|g2fgedBd|egdgedBA|GABdcAFA|G2B2G4|
G2DGBGDG|c2BcAFDF|G2DGBGBd|cBAFG2D2|G2DGBGDG|c2BcAFDF|EFGABcdB|cAFAG4

BAGBAGEG|DGGFG2BG|c2BcdBGB|ABAGFADA|BAGBAGEG|DGGFG2BG|cBcAdcBA|G2GFG4|
BddedBGB|ceegecAc|BddedBGB|cAFAG2AB|BddedBGB|ceefgfed|cBAGFADF|G2GFG4

dBGBdBgB|ecAcecac|dBGBdBgd|cAFAD2GA|dBGBdBgB|ecAcecac|bgafgedB|cAFAG4|
g2dgBgdg|a2eacaea|g2dgBgdg|faefd2ef|g2dgBgdg|a2eacaea|bgafgedB|cAFAG4

G3BAGEG|D2EGABAG|G3BAGAB|dedBA2BA|G3BAGEG|D2EGABAG|GABdedBd|AGEFG4|
g3edBGB|d2edBGBd|g3edBGB|ABAGE2D2|g3edBGB|d2edBGBd|gedBcABG|AGEFG4

EGGFGBAG|FAAGAcBA|GBBABdcB|AFDFA2GF|EGGFGBAG|FAAGAcBA|GBdBcAFD|EGFAG4|
eggfgbag|faagafdf|eggfgbag|fdefd2Bd|eggfgbag|faagafdf|gfedcBAF|EGFAG4

GdBdcABd|GdBdA2GA|GdBdcABG|EAAGA2BA|GdBdcABd|GdBdA2GA|BcdBcedc|BGAFG4|
gbagfagf|edefgedB|gbagfagf|edcBA2d2|gbagfagf|edefgedB|cBcedBAF|BGAFG4

D2GBAGFG|E2cED2BD|D2GBAGAB|cdcBAGFE|D2GBAGFG|E2cED2Bd|cBAGFGAF|G2D2G4|
d2gdBdgd|e2aeceae|d2gdBdgb|agfedcBA|d2gdBdgd|e2aeceae|dcBAGFEF|G2D2G4

BGdGeGdG|BGdBAFDF|GBdBegdB|cBAcBGG2|BGdGeGdG|BGdBAFDF|GBdgfdcA|BGAFG4|
bgdgbgdg|afdfafdf|gdBdgdBd|cedcB2A2|bgdgbgdg|afdfafdf|gfedcAdF|BGAFG4
"""

QUAVERS = {"jig": 6, "reel": 8}
X, y = [], []
for kind, text in (("jig", JIGS), ("reel", REELS)):
    for tune in text.split("\n\n"):
        X.append(tune.replace("\n", ""))
        y.append(kind)
X, y = np.array(X), np.array(y)


def notes(bars):
    """Return the notes, each with its length."""
    return re.findall(r"[A-Ga-g]\d?", bars)


def length(note):
    """Return the length of a note in quavers."""
    return int(note[1:] or 1)


print(f"{len(X)} tunes, {sum(len(notes(tune)) for tune in X)} notes")

# %%
# By the notes alone
# ------------------
# Bar lines would give the kind away, so they are left out. Each quarter of the tunes is
# classified by models of the others: all runs of 4, 8, 16 and 32 notes, as lists of
# notes. ``analyzer=tuple`` takes a list as the sequence that it is.

RUNS = (4, 8, 16, 32)
truth = {n: [] for n in RUNS}
ratio = {n: [] for n in RUNS}
folds = StratifiedKFold(4, shuffle=True, random_state=0)
for train, test in folds.split(X, y):
    clf = CharLMLanguageClassifier(analyzer=tuple, n_jobs=2, random_state=0)
    clf.fit([notes(tune) for tune in X[train]], y[train])
    for n in RUNS:
        for row in test:
            melody = notes(X[row])
            runs = [melody[i : i + n] for i in range(len(melody) - n + 1)]
            truth[n] += [y[row] == "reel"] * len(runs)
            ratio[n] += clf.decision_function(runs).tolist()
for n in RUNS:
    print(f"{n:2d} notes: AUC {roc_auc_score(truth[n], ratio[n]):.2f}")

# %%
# Twenty-four tunes are few, and jigs and reels share their scale. What tells them apart
# is which notes fall together, and the crotchets and long notes of their rhythms.

# %%
# New tunes
# ---------
# A tune must keep its bars. A model of bare notes would have to count quavers; it is
# easier to tell it where in the bar a note falls. So now a token is a pair, the note
# and its place, and with ``boundaries=True`` a tune has a beginning and an end.


def placed(tune):
    """Return the notes with their places in the bar, in quavers."""
    tokens = []
    for bar in tune.split("|"):
        lengths = [length(note) for note in notes(bar)]
        places = np.cumsum([0, *lengths[:-1]]).tolist()
        tokens += zip(notes(bar), places, strict=True)
    return tokens


def in_bars(tokens):
    """Return the tune of a list of notes with places."""
    bars = []
    for note, place in tokens:
        if place == 0 or not bars:
            bars.append("")
        bars[-1] += note
    return "|".join(bars)


writer = CharLMLanguageClassifier(
    analyzer=placed, boundaries=True, maxlen=32, epochs=60, n_jobs=2, random_state=0
)
writer.fit(X, y)

known_bars = set("|".join(X).split("|"))
print("temperature  kind  full bars  new bars")
written = {}
for temperature in (1.0, 0.7, 0.5):
    for kind in QUAVERS:
        written[kind, temperature] = [
            in_bars(tokens)
            for tokens in writer.sample(
                kind, 100, max_length=200, temperature=temperature, random_state=0
            )
        ]
        bars = "|".join(written[kind, temperature]).split("|")
        full = np.mean([sum(map(length, notes(bar))) == QUAVERS[kind] for bar in bars])
        new = np.mean([bar not in known_bars for bar in bars])
        print(f"{temperature:11.1f}  {kind:4}  {full:9.0%}  {new:8.0%}")

# %%
# A lower temperature keeps the bars, and invents less. Of each kind, take the first at
# 0.7 that is eight bars or longer and has all its bars full, as any musician would.


def well_formed(tune, kind):
    """Return whether a tune has eight full bars or more."""
    bars = tune.split("|")
    full = [sum(map(length, notes(bar))) == QUAVERS[kind] for bar in bars]
    return len(bars) >= 8 and all(full)


chosen = {
    kind: next(tune for tune in written[kind, 0.7] if well_formed(tune, kind))
    for kind in QUAVERS
}
for kind, tune in chosen.items():
    print(f"{kind}: {tune}")
    print("  new bars:", *sorted(set(tune.split("|")) - known_bars))

# %%
# On paper
# --------
# `music21 <https://www.music21.org>`_ reads the notation, as it would any other tune,
# and says which pitch and which length each note has.


def score(kind):
    """Return a tune as music21 reads it."""
    header = f"X:1\nM:{QUAVERS[kind]}/8\nL:1/8\nK:G\n"
    return converter.parse(header + chosen[kind] + "|", format="abc")


def bars_of(kind):
    """Return the bars of a tune, each a list of notes."""
    bars = score(kind).recurse().getElementsByClass("Measure")
    return [list(bar.notes) for bar in bars]


# Staff lines are two steps apart; the lowest is E, step 31 from the lowest C of all.
LOWEST_LINE = 31
BARS_A_LINE = 4


def draw(axes, bars, quavers):
    """Draw bars of notes on one staff."""
    width = quavers + 1.0
    left = -3.0
    right = width * BARS_A_LINE
    for line in range(5):
        axes.plot([left, right], [2 * line] * 2, color="0.6", linewidth=0.8, zorder=0)
    # The clef names the line of G; F is sharp.
    axes.text(left + 0.4, 2, "G", fontsize=17, family="serif", va="center")
    axes.text(left + 1.6, 8, "♯", fontsize=13, va="center")
    group = quavers // 2
    for number, bar in enumerate(bars):
        stems = {}
        for note in bar:
            place = note.offset * 2
            x = number * width + float(place) + 0.5
            y = note.pitch.diatonicNoteNum - LOWEST_LINE
            duration = note.quarterLength * 2
            hollow = "none" if duration >= 4 else "black"
            axes.plot(x, y, "o", color="black", markerfacecolor=hollow, markersize=6.5)
            if duration == 3:
                axes.plot(x + 0.45, y + 0.5, "o", color="black", markersize=2)
            for ledger in range(-2, y - 1, -2):
                axes.plot([x - 0.4, x + 0.4], [ledger] * 2, color="0.4", linewidth=0.8)
            for ledger in range(10, y + 1, 2):
                axes.plot([x - 0.4, x + 0.4], [ledger] * 2, color="0.4", linewidth=0.8)
            if duration == 1:
                stems.setdefault(place // group, []).append((x, y))
            else:
                axes.plot([x + 0.25] * 2, [y, y + 6], color="black", linewidth=1)
        for heads in stems.values():
            top = max(y for _, y in heads) + 5
            for x, y in heads:
                axes.plot([x + 0.25] * 2, [y, top], color="black", linewidth=1)
            first, last = heads[0][0] + 0.25, heads[-1][0] + 0.25
            last += 0.5 * (len(heads) == 1)
            axes.plot([first, last], [top] * 2, color="black", linewidth=3)
        end = (number + 1) * width - 0.25
        axes.plot([end] * 2, [0, 8], color="0.4", linewidth=1)
    axes.set(xlim=(left, right), ylim=(-4, 16))
    axes.axis("off")


def draw_tune(kind):
    """Draw a tune, some bars a line."""
    bars = bars_of(kind)
    lines = [bars[i : i + BARS_A_LINE] for i in range(0, len(bars), BARS_A_LINE)]
    figure, panels = plt.subplots(
        len(lines), figsize=(9, 1.4 * len(lines)), layout="constrained"
    )
    for axes, line in zip(panels, lines, strict=True):
        draw(axes, line, QUAVERS[kind])
    figure.suptitle(f"A {kind} that a model wrote")
    plt.show()


draw_tune("jig")

# %%

draw_tune("reel")

# %%
# To hear
# -------
# A plucked string: sine waves of a note and its overtones, the higher the shorter.

RATE = 11_025
SECONDS_A_QUAVER = 0.17


class Sound:
    """A tune that plays in a notebook and on a web page, and can be written to a file.

    Parameters
    ----------
    bars : list of lists of music21 notes
    """

    def __init__(self, bars):
        parts = []
        for note in (note for bar in bars for note in bar):
            seconds = SECONDS_A_QUAVER * 2 * float(note.quarterLength)
            t = np.arange(int(RATE * seconds)) / RATE
            tone = sum(
                np.sin(2 * np.pi * k * note.pitch.frequency * t)
                * np.exp(-3 * k * t)
                / k
                for k in range(1, 5)
            )
            # Without a gap between two notes they would crack.
            parts.append(tone * np.minimum(1, (seconds - t) * 50))
        samples = np.concatenate(parts)
        self.wav = io.BytesIO()
        with wave.open(self.wav, "wb") as file:
            file.setparams((1, 1, RATE, 0, "NONE", ""))
            scaled = 127.5 + 100 * samples / np.abs(samples).max()
            file.writeframes(scaled.astype(np.uint8).tobytes())

    def _repr_html_(self):
        data = base64.b64encode(self.wav.getvalue()).decode()
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'


Sound(bars_of("jig"))

# %%

Sound(bars_of("reel"))

# %%
# ``python plot_tunes.py --out FOLDER`` also writes them as files: WAV, and MIDI by
# music21, for a programme with better instruments.

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, help="folder for the tunes")
args = parser.parse_args()
if args.out:
    for kind in QUAVERS:
        (args.out / f"{kind}.wav").write_bytes(Sound(bars_of(kind)).wav.getvalue())
        score(kind).write("midi", fp=args.out / f"{kind}.mid")

# %%
# The files of a whole collection of tunes are read in the same way; the page
# :doc:`/sequences` has figures for 717 of them.

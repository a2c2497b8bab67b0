"""Draw the figures of the user guide: ``python docs/figures.py``."""

# SPDX-License-Identifier: BSD-3-Clause

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_charlstm import CharLMLanguageClassifier
from sklearn_charlstm.datasets import load_languages

IMAGES = Path(__file__).parent / "images"
MEASURED = Path(__file__).parent / "measured"
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#767676"
# Those that read the same text, each with a colour and a marker.
CLASSIFIERS = {
    "LSTM": {"color": BLUE, "marker": "o", "linewidth": 2.5, "zorder": 3},
    "Kneser-Ney": {"color": ORANGE, "marker": "s"},
    "Witten-Bell": {"color": "#fdae61", "marker": "D"},
    "naive Bayes": {"color": "#1b7837", "marker": "^"},
    "logistic regression": {"color": "#762a83", "marker": "v"},
    "fastText": {"color": GREY, "marker": "x"},
}
SHADES = ["#c6dbef", "#fdd0a2", "#c7e9c0", "#dadaeb", "#fbc4d0"]


def save(figure, name):
    """Save as SVG, the same file in every run."""
    figure.savefig(IMAGES / name, metadata={"Date": None})


def shown(character):
    """Make white space visible."""
    return {" ": "␣"}.get(character, character)


def draw_windows(text="the hat is on the chair", cuts=((3, 4), (2, 8))):
    """Draw how a text is cut in two epochs, and what one window becomes."""
    figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    axes.set(xlim=(-4.2, len(text) + 0.2), ylim=(-6.9, 2.1), aspect="equal")
    axes.axis("off")

    def cell(x, y, label, color, size=11):
        axes.add_patch(plt.Rectangle((x, y), 1, 1, facecolor=color, edgecolor="white"))
        axes.text(x + 0.5, y + 0.46, label, ha="center", va="center", fontsize=size)

    for epoch, (first, length) in enumerate(cuts):
        y = 1 - 1.6 * epoch
        axes.text(-0.4, y + 0.46, f"epoch {epoch + 1}", ha="right", va="center")
        window = 0
        for position, character in enumerate(text):
            if position >= first and (position - first) % length == 0:
                window += 1
            cell(position, y, shown(character), SHADES[window % len(SHADES)])

    start, length = cuts[1]
    piece = text[start : start + length]
    y_input, y_target = -5.4, -3.2
    for x in (start, start + length):
        axes.plot([x, x], [-0.75, -2.1], color=GREY, linewidth=0.8, linestyle=":")
    axes.text(-0.4, y_target + 0.46, "predict", ha="right", va="center")
    axes.text(-0.4, y_input + 0.46, "read", ha="right", va="center")
    inputs = ["cut", *piece[:-1]]
    for step, (read, target) in enumerate(zip(inputs, piece, strict=True)):
        x = start + step
        size = 8 if read == "cut" else 11
        color = "#e5e5e5" if read == "cut" else SHADES[1]
        cell(x, y_input, shown(read), color, size)
        cell(x, y_target, shown(target), SHADES[1])
        axes.annotate(
            "",
            xy=(x + 0.5, y_target - 0.05),
            xytext=(x + 0.5, y_input + 1.05),
            arrowprops={"arrowstyle": "->", "color": GREY},
        )
        if step:
            axes.annotate(
                "",
                xy=(x + 0.45, -3.8),
                xytext=(x - 0.45, -3.8),
                arrowprops={"arrowstyle": "->", "color": BLUE, "linewidth": 1.6},
            )
    axes.text(start + length + 0.3, -3.8, "LSTM", color=BLUE, va="center")
    axes.text(
        start,
        y_input - 1.1,
        "one loss for every arrow up; the state starts anew in each window",
        color=GREY,
    )
    save(figure, "windows.svg")


def draw_evidence(text="part of it"):
    """Draw the probabilities of the characters of a text under two models."""
    X, y = load_languages(["eng", "fra"], return_X_y=True)
    clf = CharLMLanguageClassifier(calibration_folds=0, random_state=0).fit(X, y)
    eng, fra = (m.char_log_likelihood([text])[0] for m in clf.language_models_)
    positions = np.arange(len(text))

    figure, (above, below) = plt.subplots(
        2, sharex=True, figsize=(8, 5), layout="constrained"
    )
    step = fra - eng
    total = np.cumsum(step)
    colors = np.where(step > 0, ORANGE, BLUE)
    above.vlines(positions, np.exp(eng), np.exp(fra), colors=colors, linewidth=5)
    above.plot(positions, np.exp(eng), "o", color=BLUE, label="English model")
    above.plot(positions, np.exp(fra), "s", color=ORANGE, label="French model")
    above.set(yscale="log", ylabel="P(character | those before)")
    above.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))

    below.vlines(positions, total - step, total, colors=colors, linewidth=5)
    below.hlines(total, positions, positions + 1, color=GREY, linewidth=0.8)
    below.axhline(0, color="black", linewidth=0.8)
    below.set(ylabel="log-likelihood ratio\nso far (nats)")
    below.set_xticks(positions, [shown(character) for character in text], fontsize=12)
    below.margins(y=0.15)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
    label = {"x": 0.01, "transform": below.transAxes}
    below.text(y=1, s="French", color=ORANGE, va="top", **label)
    below.text(y=0.02, s="English", color=BLUE, va="bottom", **label)
    print(clf.decision_function([text]))
    save(figure, "evidence.svg")


def draw_accuracy_by_text():
    """Draw the measured AUC against the characters of training text."""
    with (MEASURED / "accuracy_by_text.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pairs = {"en/fr": "English or French?", "da/nb": "Danish or Norwegian?"}
    figure, panels = plt.subplots(
        2, 2, figsize=(9, 7), sharex=True, sharey="col", layout="constrained"
    )
    for (row, column), axes in np.ndenumerate(panels):
        length, (pair, title) = (5, 10)[row], list(pairs.items())[column]
        for name, style in CLASSIFIERS.items():
            points = sorted(
                (
                    int(entry["task"].split()[1].replace(",", "")),
                    float(entry["AUC or accuracy"]),
                )
                for entry in rows
                if entry["task"].startswith(f"{pair},")
                and (int(entry["characters"]), entry["classifier"]) == (length, name)
            )
            axes.plot(*zip(*points, strict=True), label=name, **style)
        axes.set(title=f"{title} {length} characters", xscale="log")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1]:
        ticks = [point for point, _ in points]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("characters of training text for each")
    for axes in panels[:, 0]:
        axes.set_ylabel("AUC")
    labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=3, frameon=False)
    save(figure, "accuracy_by_text.svg")


def draw_scale():
    """Draw the measured seconds against classes, characters and texts."""
    with (MEASURED / "scale.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    panels = {
        "classes": ("fit", "classes, 3,000 characters each"),
        "characters": ("fit", "characters of training text, two classes"),
        "texts": ("predict", "texts of ten characters, two classes"),
    }
    figure, all_axes = plt.subplots(1, 3, figsize=(9.5, 3.4), layout="constrained")
    for axes, (task, (what, label)) in zip(all_axes, panels.items(), strict=True):
        numbers, seconds = np.array(
            [
                (float(row["number"]), float(row[f"{what} seconds"]))
                for row in rows
                if row["task"] == task
            ]
        ).T
        axes.plot(
            numbers,
            seconds[-1] * numbers / numbers[-1],
            color=GREY,
            linestyle=":",
            label="proportional",
        )
        axes.plot(numbers, seconds, color=BLUE, marker="o", linewidth=2.5)
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel=f"seconds of {what}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].legend(frameon=False)
    save(figure, "scale.svg")


if __name__ == "__main__":
    plt.rcParams["svg.hashsalt"] = "sklearn_charlstm"
    draw_accuracy_by_text()
    draw_scale()
    draw_windows()
    draw_evidence()

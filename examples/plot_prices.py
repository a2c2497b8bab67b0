"""
Prices: what a model finds, and what it does not
================================================

Daily prices of a share, binned into tokens: a language model gives the distribution of
the next day's token. Does it know more than how often each bin occurs, or than a Markov
chain? Of the returns it does not; of the range of prices within a day it does. Neither
tells anybody whether to buy.
"""

# SPDX-License-Identifier: BSD-3-Clause

# %%
# Tokens
# ------
# Matplotlib comes with four years of prices of the Google share, 2004 to 2008. Two
# series: the logarithm of the return from one close to the next, and that of the ratio
# of the highest to the lowest price of the day. ``KBinsDiscretizer`` makes each into
# four tokens, with as many training days in each. The first 70 % of the days are for
# training, and the bins are theirs too.

import csv

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data
from sklearn.preprocessing import KBinsDiscretizer

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel

N_BINS = 4
with get_sample_data("goog.npz") as prices:
    prices = prices["price_data"]
dates = prices["date"][1:]
series = {
    "return": np.diff(np.log(prices["adj_close"])),
    "range": np.log(prices["high"] / prices["low"])[1:],
}
cut = len(dates) * 7 // 10


def binned(values, n_train):
    """Return the bin of each value; the bins are those of the first `n_train`."""
    bins = KBinsDiscretizer(
        N_BINS, encode="ordinal", quantile_method="averaged_inverted_cdf"
    )
    bins.fit(values[:n_train, np.newaxis])
    return bins.transform(values[:, np.newaxis]).ravel().astype(int).tolist()


tokens = {name: binned(values, cut) for name, values in series.items()}
print(f"training to {dates[cut - 1]}, {cut} days; test to {dates[-1]}")
print("returns:", *tokens["return"][:20], "...")

# %%
# The loss on later days
# ----------------------
# Three forecasts of the same days: how often each bin occurred in training; a Markov
# chain, which knows the last token; and the language model, which knows all before. The
# loss is the mean of -log p of what came. The intervals are 95 % of the bootstrap over
# runs of 20 days, of the difference to the marginal distribution.


def marginal_loss(days):
    """Return -log p of each test day by how often its bin occurred before."""
    counts = np.bincount(days[:cut], minlength=N_BINS) + 1
    return -np.log(counts / counts.sum())[days[cut:]]


def markov_loss(days):
    """Return -log p of each test day by how often its bin followed that before."""
    counts = np.ones((N_BINS, N_BINS))
    np.add.at(counts, (days[: cut - 1], days[1:cut]), 1)
    proba = counts / counts.sum(axis=1, keepdims=True)
    return -np.log(proba[days[cut - 1 : -1], days[cut:]])


def language_model(days, seed):
    """Fit a model to the training days, which are one text."""
    model = CharLSTMLanguageModel(analyzer=tuple, random_state=seed)
    return model.fit([days[:cut]])


def interval(difference):
    """Return the bootstrap interval of a mean over days that depend on each other."""
    rng = np.random.default_rng(0)
    runs = difference[: len(difference) // 20 * 20].reshape(-1, 20).mean(axis=1)
    means = rng.choice(runs, (10_000, len(runs))).mean(axis=1)
    return np.quantile(means, [0.025, 0.975])


models = {
    name: [language_model(days, seed) for seed in range(3)]
    for name, days in tokens.items()
}
losses = {}
print("                       nats a day  less the marginal's")
for name, days in tokens.items():
    losses[name] = {
        "marginal": marginal_loss(days),
        "Markov chain": markov_loss(days),
        # The mean of three seeds.
        "language model": np.mean(
            [-model.char_log_likelihood([days])[0][cut:] for model in models[name]],
            axis=0,
        ),
    }
    for forecast, loss in losses[name].items():
        low, high = interval(loss - losses[name]["marginal"])
        print(f"{name:6}  {forecast:14} {loss.mean():10.3f}  {low:+.3f} to {high:+.3f}")

# %%
# Of the returns nothing is found: the interval of the language model holds zero, and
# the Markov chain is no better than counting. Of the range something is: calm days
# follow calm days and wild days wild ones, which is known as the clustering of
# volatility. The language model sees it in more than the last day, and is better than
# the chain too:

days = losses["range"]
low, high = interval(days["language model"] - days["Markov chain"])
print(f"language model less Markov chain: {low:+.3f} to {high:+.3f} nats a day")

# %%
# The forecast
# ------------
# The probability of each bin of the range, before each of the last 150 days, and what
# came (dots). ``next_char_proba`` gives a row of probabilities for each beginning.
# Below, the gain over the marginal distribution, added up over the test days.

SHOWN = 150
model, days = models["range"][0], tokens["range"]
first = len(days) - SHOWN
proba = model.next_char_proba([days[:day] for day in range(first, len(days))])
# Columns are in the order in which the tokens first occur.
proba = proba[:, [model.vocabulary_[token] for token in range(N_BINS)]]

figure, (above, below) = plt.subplots(2, figsize=(9, 5.5), layout="constrained")
image = above.imshow(
    proba.T, aspect="auto", origin="lower", cmap="Blues", vmin=0, interpolation="none"
)
above.plot(np.arange(SHOWN), days[first:], ".", color="black", markersize=3)
above.set_yticks(range(N_BINS), ["calm", "2", "3", "wild"])
ticks = np.arange(0, SHOWN, 30)
above.set_xticks(ticks, dates[first:][ticks])
above.set_title("Range of the day: probability of each bin, and what came")
figure.colorbar(image, ax=above, label="probability")
for forecast in ("language model", "Markov chain"):
    for name, style in (("range", "-"), ("return", ":")):
        gain = losses[name]["marginal"] - losses[name][forecast]
        color = "C0" if forecast == "language model" else "C1"
        below.plot(
            dates[cut:], gain.cumsum(), style, color=color, label=f"{name}, {forecast}"
        )
below.axhline(0, color="black", linewidth=0.8)
below.set(title="Gain over the marginal distribution", ylabel="sum, nats")
below.legend(loc="upper left")
plt.show()

# %%
# Which share is it?
# ------------------
# Matplotlib also has monthly prices of ten series since 1990. A model for each of five
# shares, of the returns in bins that all share; then the months of the last 30 % are
# classified, a year or two at a time.

SHARES = ["IBM", "AAPL", "MSFT", "XRX", "ADBE"]
with open(get_sample_data("Stocks.csv", asfileobj=False), encoding="utf-8") as file:
    table = [*csv.DictReader(line for line in file if not line.startswith("#"))]
# Days of a dividend have no prices.
monthly = [[row[share] for share in SHARES] for row in table]
monthly = np.array([row for row in monthly if all(row)], dtype=float)
returns = np.diff(np.log(monthly), axis=0)
n_train = len(returns) * 7 // 10
edges = np.quantile(returns[:n_train], np.arange(1, N_BINS) / N_BINS)
months = np.digitize(returns, edges).T.tolist()

clf = CharLMLanguageClassifier(analyzer=tuple, n_jobs=2, random_state=0)
clf.fit([of_share[:n_train] for of_share in months], SHARES)
for n in (12, 24):
    starts = range(n_train, len(returns) - n + 1)
    runs = [of_share[i : i + n] for of_share in months for i in starts]
    accuracy = clf.score(runs, np.repeat(SHARES, len(starts)))
    print(f"{n} months: accuracy {accuracy:.2f}, by chance {1 / len(SHARES):.2f}")

# %%
# Nothing: what told these shares apart until 2012 does not later. That is a finding
# too, and on such data the usual one. One share in four years, and thirty years of
# months, say little about other times; and a forecast of how much prices move is none
# of where to.

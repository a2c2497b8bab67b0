"""Text classification with one character LSTM language model per class."""

# SPDX-License-Identifier: BSD-3-Clause

from sklearn_charlstm._classifier import CharLMLanguageClassifier
from sklearn_charlstm._language_model import CharLSTMLanguageModel
from sklearn_charlstm._search import WarmStartGridSearchCV
from sklearn_charlstm._version import __version__ as __version__

__all__ = [
    "CharLMLanguageClassifier",
    "CharLSTMLanguageModel",
    "WarmStartGridSearchCV",
]

"""Text classification with one character LSTM language model per class."""

# SPDX-License-Identifier: BSD-3-Clause

from sklearn_charlstm._classifier import CharLMLanguageClassifier
from sklearn_charlstm._language_model import CharLSTMLanguageModel

__all__ = ["CharLMLanguageClassifier", "CharLSTMLanguageModel"]
__version__ = "0.1.0.dev0"

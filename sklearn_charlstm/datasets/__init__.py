"""Texts in many languages."""

# SPDX-License-Identifier: BSD-3-Clause

from sklearn_charlstm.datasets._languages import load_languages
from sklearn_charlstm.datasets._udhr import fetch_udhr

__all__ = ["fetch_udhr", "load_languages"]

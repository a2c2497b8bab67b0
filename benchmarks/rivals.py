"""Classifiers of other packages, for the comparison of accuracy.

They are compared where they are installed:

    pip install fasttext-wheel lingua-language-detector py3langid
"""

# SPDX-License-Identifier: BSD-3-Clause

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

# Texts of the Universal Declaration in languages that lingua knows, and their codes in
# ISO 639-1.
LANGUAGES = """
afr:af als:sq arb:ar azj_latn:az bel:be ben:bn bos_latn:bs bul:bg cat:ca ces:cs
cmn_hans:zh cym:cy dan:da deu:de ell_monotonic:el eng:en epo:eo est:et eus:eu
fin:fi fra:fr gle:ga guj:gu heb:he hin:hi hrv:hr hun:hu hye:hy ind:id isl:is
ita:it jpn:ja kat:ka kaz:kk khk:mn kor:ko lat:la lav:lv lit:lt lug:lg mar:mr
mkd:mk mri:mi nld:nl nno:nn nob:nb pan:pa pes_1:fa pol:pl por_PT:pt ron:ro
rus:ru slk:sk slv:sl sna:sn som:so sot:st spa:es srp_cyrl:sr swe:sv swh:sw
tam:ta tgl:tl tha:th tsn:tn tso_MZ:ts tur:tr ukr:uk urd:ur vie:vi xho:xh yor:yo
zul:zu
"""
ISO_639_1 = dict(pair.split(":") for pair in LANGUAGES.split())
# A class of probability 0 would have an infinite log loss, however rare the mistake.
SMALLEST = 1e-6


def installed(package):
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def _log(proba):
    proba = np.clip(proba, SMALLEST, None)
    return np.log(proba / proba.sum(axis=1, keepdims=True))


class FastText(ClassifierMixin, BaseEstimator):
    """Joulin et al., "Bag of tricks for efficient text classification", 2017.

    Trained on the same text, with the character n-grams of its words.
    """

    def __init__(self, random_state=0):
        self.random_state = random_state

    def fit(self, X, y):
        """Train on samples in random order: fastText does not shuffle."""
        import fasttext

        self.classes_ = np.unique(y)
        order = np.random.default_rng(self.random_state).permutation(len(X))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.txt"
            lines = [f"__label__{y[row]} {X[row]}\n" for row in order]
            path.write_text("".join(lines), encoding="utf-8")
            self.model_ = fasttext.train_supervised(
                str(path), minn=1, maxn=5, dim=32, epoch=25, lr=0.5, thread=1, verbose=0
            )
        return self

    def predict_log_proba(self, X):
        """Return log p(class | text), of shape (n_samples, n_classes)."""
        proba = np.zeros((len(X), len(self.classes_)))
        for row, text in enumerate(X):
            # The public `predict` does not work with NumPy 2.
            for p, label in self.model_.f.predict(f"{text}\n", -1, 0.0, "strict"):
                proba[row, int(label.removeprefix("__label__"))] = p
        return _log(proba)


class Lingua:
    """lingua, which has seen far more text, restricted to the languages."""

    def __init__(self, codes):
        from lingua import IsoCode639_1, LanguageDetectorBuilder

        self.codes = [ISO_639_1.get(code, code).upper() for code in codes]
        iso = [getattr(IsoCode639_1, code) for code in self.codes]
        self.detector = LanguageDetectorBuilder.from_iso_codes_639_1(*iso).build()

    def predict(self, X):
        """Return the number of the language of each text, -1 where it has no idea."""
        # On all cores.
        found = self.detector.detect_languages_in_parallel_of(X)
        return np.array(
            [
                -1 if of_text is None else self.codes.index(of_text.iso_code_639_1.name)
                for of_text in found
            ]
        )

    def predict_log_proba(self, X):
        """Return log p(class | text), of shape (n_samples, n_classes)."""
        proba = np.zeros((len(X), len(self.codes)))
        # On all cores.
        all_values = self.detector.compute_language_confidence_values_in_parallel(X)
        for row, values in enumerate(all_values):
            for value in values:
                code = value.language.iso_code_639_1.name
                proba[row, self.codes.index(code)] = value.value
        return _log(proba)


class Py3Langid:
    """py3langid, which has seen far more text, restricted to the languages."""

    def __init__(self, codes):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        # It knows Norwegian, mostly Bokmål, as one language.
        norwegian = {"nob": "no", "nb": "no"}
        self.codes = [norwegian.get(code, ISO_639_1.get(code, code)) for code in codes]
        self.identifier = LanguageIdentifier.from_model_file(
            MODEL_FILE, norm_probs=True
        )
        self.identifier.set_languages(self.codes)

    def predict_log_proba(self, X):
        """Return log p(class | text), of shape (n_samples, n_classes)."""
        proba = np.zeros((len(X), len(self.codes)))
        for row, text in enumerate(X):
            for code, p in self.identifier.rank(text):
                proba[row, self.codes.index(code)] = p
        return _log(proba)

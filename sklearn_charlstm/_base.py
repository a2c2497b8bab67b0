"""What all estimators here tell scikit-learn of themselves."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.base import _fit_context
from sklearn.utils import Tags

__all__ = ["DocumentationLinkMixin", "TextInputMixin", "fit_context"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Method], _Method]:
    """Return scikit-learn's decorator of `fit`, under which a method keeps its type."""
    decorator: Callable[[_Method], _Method] = _fit_context(
        prefer_skip_nested_validation=prefer_skip_nested_validation
    )
    return decorator


class DocumentationLinkMixin:
    """Where the display of an estimator in a notebook links to."""

    _doc_link_module = "sklearn_charlstm"
    _doc_link_template = (
        "https://sklearn-charlstm.readthedocs.io/en/stable/generated/"
        "{estimator_module}.{estimator_name}.html"
    )


class TextInputMixin(DocumentationLinkMixin):
    """An estimator whose X is a list of texts."""

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()  # type: ignore[misc] # BaseEstimator's
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

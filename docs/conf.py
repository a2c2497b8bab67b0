"""Configuration of Sphinx."""

# SPDX-License-Identifier: BSD-3-Clause

import inspect
import os

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

os.environ["TQDM_DISABLE"] = "1"  # no progress lines in the output of the examples

import sklearn_charlstm

project = "sklearn_charlstm"
copyright = "2026, the sklearn_charlstm developers"
version = release = sklearn_charlstm.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["templates"]
default_role = "literal"
nitpicky = True

html_title = project
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "header_links_before_dropdown": 6,
    "show_prev_next": False,
}
html_static_path = ["static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_sidebars = {"*": []}  # only the API and the examples have pages below

autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
# The page of a class describes the methods that are written here, and names the others.
autosummary_context = {
    "own_methods": {
        name: [
            method
            for method, function in inspect.getmembers(class_, inspect.isfunction)
            if not method.startswith("_") and function.__module__.startswith(project)
        ]
        for name, class_ in inspect.getmembers(sklearn_charlstm, inspect.isclass)
    }
}

# The few names of other projects that are linked to, in a file for each: a build
# needs no network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "joblib": ("https://joblib.readthedocs.io/en/stable", "inventories/joblib.inv"),
    "sklearn": ("https://scikit-learn.org/stable", "inventories/sklearn.inv"),
    "skorch": ("https://skorch.readthedocs.io/en/stable", "inventories/skorch.inv"),
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "download_all_examples": False,
    "write_computation_times": False,
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _visit_math(translator, node):
    as_block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=as_block))
    raise nodes.SkipNode


def setup(app):
    """Render formulas as MathML, which browsers show without a script."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))


html_math_renderer = "mathml"

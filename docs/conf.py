"""Sphinx. No page needs a network, to be built or to be read.

sphinx-build -W --keep-going -b html docs docs/_build/html         the tutorials are run; cached in docs/_build/.jupyter_cache
MWORK_DOCS_EXECUTE=0 sphinx-build ...                              without running them
MWORK_DOCS_EXECUTE=0 sphinx-build -W -b doctest docs docs/_build/doctest
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
os.environ.setdefault("TQDM_DISABLE", "1")

import mwork_lens  # noqa: E402

project = "mwork_lens"
author = "The mwork_lens authors"
copyright = "2026, the mwork_lens authors"
release = version = mwork_lens.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.doctest",
    "mathml",
    "plain_docstrings",
    "sources",
]
exclude_patterns = ["_build", "_ext", "**.ipynb_checkpoints"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!mwork_lens).*"),  # the names of other packages are not looked up: no network
    ("py:.*", r"mwork_lens\.[a-z_.]*\.[A-Z]"),  # type variables
]
smartquotes_action = "De"  # dashes; quotation marks stay as they are typed

myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
html_math_renderer = "mathml"

nb_execution_mode = "off" if os.environ.get("MWORK_DOCS_EXECUTE", "1") == "0" else "cache"
nb_execution_timeout = 900  # seconds a notebook
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False
toc_object_entries_show_parents = "hide"

doctest_global_setup = """
import torch
from mwork_lens.corpora import Corpus
from mwork_lens.languages import from_counts, require_language, script
from mwork_lens.neurons import NeuronSet, jaccard
from mwork_lens.stages import Stages
"""

html_theme = "furo"
html_title = "mwork_lens"
html_static_path = ["_static"]
html_css_files = ["mwork.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
linkcheck_timeout = 20

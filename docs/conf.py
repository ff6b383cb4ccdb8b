"""How Sphinx builds the documentation: `make docs`."""

import sys
from pathlib import Path

from sphinx.ext import autosummary

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Before autodoc imports mmdet and mmaction2: it serves mmcv's ops and mends other known faults.
import mmctx  # noqa: E402

mmctx.compat.install_runtime()
# A summary is a docstring's first sentence, which does not end after these.
autosummary.WELL_KNOWN_ABBREVIATIONS += ('Eq.', 'Eqs.', 'Sec.')

project = 'mmctx'
author = 'mmctx contributors'
copyright = '2026, mmctx contributors'
version = release = mmctx.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
templates_path = ['_templates']
exclude_patterns = ['_build', '_templates']

html_theme = 'furo'
html_title = f'mmctx {version}'
html_theme_options = dict(navigation_with_keys=True)
html_static_path = ['_static']
html_css_files = ['wide.css']
# Options such as --resume keep their two hyphens.
smartquotes = False

# Anchors of headings as GitHub makes them, so that links work on both.
myst_heading_anchors = 4

# A word between single backticks is code in the docstrings.
default_role = 'code'
autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
# The docstrings name the types, with what they mean.
autodoc_typehints = 'none'
autosummary_generate = True
autosummary_ignore_module_all = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

copybutton_exclude = '.linenos, .gp, .go'

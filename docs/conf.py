"""The web site, by Sphinx: `make site`. The folder that it reads is the repository's."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs/_ext"))
about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "ldm_course"
author = about["authors"][0]["name"]
version = release = about["version"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.githubpages",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "notebook_figures",
    "repository_links",
]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/**.ipynb", "ldm_course/pretrained/README.md"]

nb_execution_mode = "off"  # the notebooks are committed with their outputs
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]  # their words instead
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_numpy_docstring = False

repository = about["urls"]["Repository"]
html_theme = "sphinx_book_theme"
html_title = "ldm_course"
html_static_path = ["_static"]
mathjax_path = "mathjax/tex-chtml.js"  # which `make site` copies there, so that no page needs another server
html_extra_path = ["_root"]  # the front door leads to the live page
html_css_files = ["site.css"]
html_theme_options = {
    "repository_url": repository,
    "repository_branch": "main",
    "use_repository_button": True,
    "use_issues_button": True,
    "launch_buttons": {
        "colab_url": "https://colab.research.google.com",
        "binderhub_url": "https://mybinder.org",
        "notebook_interface": "jupyterlab",
    },
    "show_navbar_depth": 1,
    "navbar_persistent": [],  # the search is in the side bar
    "show_toc_level": 1,
}

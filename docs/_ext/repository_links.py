"""Point links to files that are no pages of the site at the repository."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def to_repository(app: Sphinx, doctree: nodes.document) -> None:
    """Replace what MyST makes of links to files and folders, unless they are pages of the site."""
    for node in [*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref)]:
        if node.get("refdomain") == "doc" and node["reftarget"] in app.env.found_docs:
            continue
        if isinstance(node, addnodes.pending_xref) and node.get("reftype") != "myst":
            continue
        relative = node.get("refdomain") != "doc"
        link = _link(app, app.env.docname if relative else "", node["reftarget"])
        if link is not None:
            link.extend(node.children)
            node.replace_self(link)


def _link(app: Sphinx, page: str, target: str) -> nodes.reference | None:
    path, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    for suffix in ("", ".md"):
        found = Path(app.srcdir, path + suffix)
        if found.exists():
            kind = "tree" if found.is_dir() else "blob"
            address = f"{app.config.html_theme_options['repository_url']}/{kind}/main/{path}{suffix}"
            return nodes.reference("", "", refuri=f"{address}#{anchor}" if anchor else address, internal=False)
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", to_repository, priority=100)  # before downloads are collected
    return {"parallel_read_safe": True, "parallel_write_safe": True}

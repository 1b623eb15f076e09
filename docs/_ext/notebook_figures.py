"""Keep the alternative texts of the notebooks' figures, which myst-nb leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_render_image = NbElementRenderer.render_image


def render_image(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
    """The image, with the alternative text that stands in its output's metadata."""
    images = _render_image(self, data)
    for image in images:
        image["alt"] = data.output_metadata.get(data.mime_type, {}).get("alt", "")
    return images


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    NbElementRenderer.render_image = render_image  # type: ignore[method-assign]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

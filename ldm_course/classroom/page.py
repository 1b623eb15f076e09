"""HTML pages that work from a stick: Markdown with formulas, in a page whose style and scripts lie beside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

from ldm_course.errors import InputError

STYLES = Path(__file__).parents[2] / "docs" / "class"
KATEX = ("katex.min.css", "katex.min.js", "contrib/auto-render.min.js")
MATH = """<script defer src="{assets}/katex.min.js"></script>
<script defer src="{assets}/auto-render.min.js" onload="renderMathInElement(document.body, {{delimiters: [
{{left: '$$', right: '$$', display: true}}, {{left: '$', right: '$', display: false}}]}})"></script>"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{assets}/katex.min.css">
<link rel="stylesheet" href="{assets}/{style}">
{math}
</head>
<body>
{body}
</body>
</html>
"""


def markdown(text: str) -> str:
    """Markdown as HTML. Formulas stay in their dollars, for KaTeX."""
    from nbconvert.filters import markdown2html  # comes with JupyterLab

    html = markdown2html(text)
    return re.sub(r'<a class="anchor-link".*?</a>', "", html)


def page(title: str, body: str, style: str, assets: str = "assets") -> str:
    return PAGE.format(title=escape(title), body=body, style=style, assets=assets, math=MATH.format(assets=assets))


def copy_assets(folder: Path, packages: Path, styles: tuple[str, ...]) -> None:
    """KaTeX and our style sheets into a folder. Raises InputError if KaTeX is not there."""
    katex = packages / "katex" / "dist"
    if not katex.is_dir():
        raise InputError(f"There is no KaTeX in {packages}; run: npm --prefix docs/class ci")
    folder.mkdir(parents=True, exist_ok=True)
    for name in KATEX:
        shutil.copy(katex / name, folder)
    fonts = folder / "fonts"
    fonts.mkdir(exist_ok=True)
    for font in (katex / "fonts").glob("*.woff2"):
        shutil.copy(font, fonts)
    for style in styles:
        shutil.copy(STYLES / style, folder)


def print_pdf(html: Path) -> Path | None:
    """The page as a PDF beside it, by Chromium; None where there is none, or where it fails."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, filter(None, names))), None)
    if program is None:
        return None
    pdf = html.with_suffix(".pdf")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=20000"]
    command = [program, *options, f"--print-to-pdf={pdf}", html.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=300)
    return pdf if done.returncode == 0 and pdf.is_file() else None

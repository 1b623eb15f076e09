"""Where the model that ships with the package is; without torch, for programs that only want the folder."""

from __future__ import annotations

from pathlib import Path


def bundled_path() -> Path:
    """The folder of the model that ships with the package, in diffusers' format."""
    return Path(__file__).parents[1] / "pretrained"

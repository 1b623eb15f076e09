"""Render the scenes that the page offers, and masks of their parts: python web/make_scenes.py web/public/scenes"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ldm_course.scenes import Scene

SCENES: tuple[dict[str, Any], ...] = (
    {"animal": "dog", "colour": "brown", "action": "sitting", "place": "beach"},
    {"animal": "cat", "colour": "white", "action": "sitting", "place": "room"},
    {"animal": "bear", "colour": "orange", "action": "running", "place": "forest"},
    {"animal": "pig", "colour": "pink", "action": "sitting", "place": "city"},
    {"animal": "rabbit", "colour": "black", "accessory": "crown", "action": "sitting", "place": "snow"},
    {"animal": "elephant", "colour": "blue", "action": "running", "place": "beach"},
)
PARTS = ("face", "body", "animal", "background")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for fields in SCENES:
        scene, name = Scene(**fields), fields["animal"]
        scene.render(128).save(folder / f"{name}.png", optimize=True)
        for part in PARTS:
            scene.mask(part, 128).save(folder / f"{name}-{part}.png", optimize=True)
        code = ", ".join(f'{field}="{value}"' for field, value in fields.items())
        described.append({"name": name, "caption": scene.caption(), "code": f"ldm.scenes.Scene({code})"})
    (folder / "scenes.json").write_text(json.dumps({"scenes": described, "parts": PARTS}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

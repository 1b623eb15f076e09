"""The wheel as a test model for other projects: docs/in_your_ci.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(code):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_folder_of_the_model_needs_only_the_lazy_loader():
    code = """
import sys, json
before = set(sys.modules)
import ldm_course
ldm_course.bundled_path()
roots = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(roots - sys.stdlib_module_names)))
"""
    assert json.loads(run(code)) == ["lazy_loader", "ldm_course"]


@pytest.mark.slow
def test_the_page_s_code_runs_and_the_image_is_right():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/in_your_ci.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2 and "assert" in blocks[1]
    run("\n".join(blocks))

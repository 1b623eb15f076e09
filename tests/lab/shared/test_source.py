"""The package's source in a notebook."""

from __future__ import annotations

import ldm_course as ldm
from ldm_course.lab.shared.source import show_source
from ldm_course.schedule import NoiseSchedule


def test_the_source_is_shown_as_it_is(shown):
    show_source(ldm.denoise, NoiseSchedule, ldm.inpaint)
    (loop, _), (schedule, _), (decorated, _) = shown
    assert loop["text/markdown"].startswith("`ldm_course/sampling.py`\n\n```python\ndef denoise(")
    assert "class NoiseSchedule:" in schedule["text/markdown"]
    assert decorated["text/markdown"].startswith("`ldm_course/pipelines.py`\n\n```python\n@")

"""Instant checks of the exercises, one module per notebook."""

from ldm_course.lab.checks import txt2img
from ldm_course.lab.checks.verdict import Verdict

__all__ = ["Verdict", "txt2img"]

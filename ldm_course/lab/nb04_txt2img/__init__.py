"""Notebook 04: text to image."""

from ldm_course.lab.nb04_txt2img import broken, checks, clip, figures, studio

__all__ = ["broken", "checks", "clip", "figures", "studio"]

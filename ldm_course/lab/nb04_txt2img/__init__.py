"""Notebook 04: text to image."""

from ldm_course.lab.nb04_txt2img import checks, clip, figures, studio

__all__ = ["checks", "clip", "figures", "studio"]

"""Notebook 06: in-painting."""

from ldm_course.lab.nb06_inpainting import checks, figures, measures, studio

__all__ = ["checks", "figures", "measures", "studio"]

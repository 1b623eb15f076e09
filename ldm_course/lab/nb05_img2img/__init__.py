"""Notebook 05: image to image."""

from ldm_course.lab.nb05_img2img import checks, experiment, figures, studio

__all__ = ["checks", "experiment", "figures", "studio"]

"""Notebook 05: image to image."""

from ldm_course.lab.nb05_img2img import broken, checks, figures, studio

__all__ = ["broken", "checks", "figures", "studio"]

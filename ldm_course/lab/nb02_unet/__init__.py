"""Notebook 02: the UNet."""

from ldm_course.lab.nb02_unet import checks, figures, probes

__all__ = ["checks", "figures", "probes"]

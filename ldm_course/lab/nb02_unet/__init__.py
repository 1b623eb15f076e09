"""Notebook 02: denoising, and the UNet that does it."""

from ldm_course.lab.nb02_unet import checks, figures, liar, probes, training

__all__ = ["checks", "figures", "liar", "probes", "training"]

"""Instant checks of the exercises, one module per notebook."""

from ldm_course.lab.checks import groupnorm, schedulers, txt2img, unet, vae
from ldm_course.lab.checks.verdict import Verdict

__all__ = ["Verdict", "groupnorm", "schedulers", "txt2img", "unet", "vae"]

"""Instant checks of the exercises, one module per notebook."""

from ldm_course.lab.checks import groupnorm, img2img, inpaint, schedulers, txt2img, unet, vae
from ldm_course.lab.checks.verdict import Verdict

__all__ = ["Verdict", "groupnorm", "img2img", "inpaint", "schedulers", "txt2img", "unet", "vae"]

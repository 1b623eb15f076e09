"""Notebook 03: noise, samplers and GroupNorm."""

from ldm_course.lab.nb03_groupnorm import checks, explorer, figures, toy

__all__ = ["checks", "explorer", "figures", "toy"]

"""Notebook 03: GroupNorm, noise and samplers."""

from ldm_course.lab.nb03_groupnorm import checks, figures, noise

__all__ = ["checks", "figures", "noise"]

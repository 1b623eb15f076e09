"""Notebook beyond/teach_it: LoRA."""

from ldm_course.lab.beyond_teach import checks, figures
from ldm_course.lab.beyond_teach import world as world

__all__ = ["checks", "figures", "world"]

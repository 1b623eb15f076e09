"""Notebook beyond/teach_it: LoRA."""

from ldm_course.lab.beyond_teach import checks, figures
from ldm_course.lab.beyond_teach import world as world
from ldm_course.lab.beyond_teach.asker import ask

__all__ = ["ask", "checks", "figures", "world"]

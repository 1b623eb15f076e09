"""The notebook beyond/flow: flows in two dimensions, and Stable Diffusion as one."""

from ldm_course.lab.beyond_flow import checks, easel, figures, toy

__all__ = ["checks", "easel", "figures", "toy"]

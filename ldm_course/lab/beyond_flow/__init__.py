"""The notebook beyond/flow: flows in two dimensions, and Stable Diffusion as one."""

from ldm_course.lab.beyond_flow import checks, dot, easel, figures, giants, toy

__all__ = ["checks", "dot", "easel", "figures", "giants", "toy"]

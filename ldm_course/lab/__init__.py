"""What only the notebooks use: the setup, figures, widgets, plugs and checks. Needs `pip install ldm-course[lab]`."""

from ldm_course.lab import (
    autoencoders,
    checks,
    contrastive,
    diagrams,
    masks,
    noise,
    norms,
    plots,
    strength,
    studio,
    unet_plots,
    unets,
    widgets,
)
from ldm_course.lab.measure import interval
from ldm_course.lab.painter import MaskPainter, box_mask
from ldm_course.lab.plugs import plug
from ldm_course.lab.setup import diffusers_pipeline, load_model
from ldm_course.lab.source import show_source

__all__ = [
    "MaskPainter",
    "autoencoders",
    "box_mask",
    "checks",
    "contrastive",
    "diagrams",
    "diffusers_pipeline",
    "interval",
    "load_model",
    "masks",
    "noise",
    "norms",
    "plots",
    "plug",
    "show_source",
    "strength",
    "studio",
    "unet_plots",
    "unets",
    "widgets",
]

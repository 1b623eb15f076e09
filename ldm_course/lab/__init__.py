"""What only the notebooks use. Needs `pip install ldm-course[lab]`.

Here are the names that all notebooks share. Each notebook's own figures and checks are in a package of its own:
`from ldm_course.lab import nb01_vae as nb`.
"""

from ldm_course.evaluate.reference import diffusers_pipeline
from ldm_course.lab.shared import diagrams, plots, widgets
from ldm_course.lab.shared.exercises import exercise, summary
from ldm_course.lab.shared.measure import interval
from ldm_course.lab.shared.painter import MaskPainter
from ldm_course.lab.shared.plugs import plug
from ldm_course.lab.shared.setup import load_model
from ldm_course.lab.shared.source import show_source
from ldm_course.lab.shared.widgets import Bet

__all__ = [
    "Bet",
    "MaskPainter",
    "diagrams",
    "diffusers_pipeline",
    "exercise",
    "interval",
    "load_model",
    "plots",
    "plug",
    "show_source",
    "summary",
    "widgets",
]

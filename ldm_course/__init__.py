"""Build latent diffusion yourself, and prove every part equal to `diffusers`.

import ldm_course as ldm

model = ldm.load()
ldm.txt2img(model, "a dog with glasses", seed=1).save("dog.png")
"""

from importlib.metadata import PackageNotFoundError, version

from ldm_course import scenes
from ldm_course.checkpoint import LatentDiffusion, bundled_path, load, save
from ldm_course.errors import InputError
from ldm_course.images import load_image
from ldm_course.pipelines import img2img, inpaint, txt2img
from ldm_course.sampling import State, denoise
from ldm_course.text import encode_prompt

try:
    __version__ = version("ldm-course")
except PackageNotFoundError:  # the source folder on the path, but not installed
    __version__ = "0+unknown"

__all__ = [
    "InputError",
    "LatentDiffusion",
    "State",
    "bundled_path",
    "denoise",
    "encode_prompt",
    "img2img",
    "inpaint",
    "load",
    "load_image",
    "save",
    "scenes",
    "txt2img",
]

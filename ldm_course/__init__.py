"""Build latent diffusion yourself, and prove every part equal to `diffusers`.

import ldm_course as ldm

model = ldm.load()
ldm.txt2img(model, "a dog with glasses", seed=1).save("dog.png")
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

# The public names are those of __init__.pyi. A module is imported when one of its names is first used, so that
# `ldm-course --help` and `ldm_course.bundled_path()` do not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = version("ldm-course")
except PackageNotFoundError:  # the source folder on the path, but not installed
    __version__ = "0+unknown"

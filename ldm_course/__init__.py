"""Build latent diffusion yourself, and prove every part equal to `diffusers`.

import ldm_course as ldm

model = ldm.load()
ldm.txt2img(model, "a dog with glasses", seed=1).save("dog.png")
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ldm_course.startup import without_collecting

if TYPE_CHECKING:
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

_MODULES: dict[str, tuple[str, ...]] = {  # and what each gives to the list above
    "blocks": (),
    "checkpoint": ("LatentDiffusion", "bundled_path", "load", "save"),
    "errors": ("InputError",),
    "groupnorm": (),
    "images": ("load_image",),
    "pipelines": ("img2img", "inpaint", "txt2img"),
    "sampling": ("State", "denoise"),
    "scenes": (),
    "schedulers": (),
    "text": ("encode_prompt",),
    "unet": (),
    "vae": (),
}


if not TYPE_CHECKING:  # type checkers are to find a mistyped name

    def __getattr__(name: str) -> Any:
        """A module or what is public in it, imported when asked for: `ldm-course --help` need not wait for torch."""
        for module, names in _MODULES.items():
            if name == module or name in names:
                with without_collecting():
                    found = import_module(f"{__name__}.{module}")
                globals()[name] = found if name == module else getattr(found, name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})

from . import blocks as blocks
from . import groupnorm as groupnorm
from . import io as io
from . import loss as loss
from . import samplers as samplers
from . import scenes as scenes
from . import schedule as schedule
from . import text as text
from . import unet as unet
from . import vae as vae
from .errors import InputError as InputError
from .images import load_image as load_image
from .io.bundled import bundled_path as bundled_path
from .io.load import load as load
from .io.save import save as save
from .loss import diffusion_loss as diffusion_loss
from .loss import drop_captions as drop_captions
from .model import LatentDiffusion as LatentDiffusion
from .model import encode_prompt as encode_prompt
from .pipelines import img2img as img2img
from .pipelines import inpaint as inpaint
from .pipelines import txt2img as txt2img
from .samplers import State as State
from .sampling import denoise as denoise

__version__: str

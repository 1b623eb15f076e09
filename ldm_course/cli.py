"""The command line: ldm-course txt2img "a dog with glasses" -o dog.png

A command checks its options before it loads a model, and imports torch only when it runs. Exit codes: 2 for a user's
mistake and 1 if the machine failed, each with one sentence; 130 after Ctrl-C. Errors of the program are not caught.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import ldm_course as ldm
from ldm_course.errors import InputError, is_memory_error, one_line
from ldm_course.image_files import SUFFIXES, check_output, write_image

if TYPE_CHECKING:
    from PIL import Image

# These are the functions' own, written here because importing them takes longer than `ldm-course --help`.
SCHEDULERS = ("ddim", "ddpm", "euler", "dpm++")
SPACINGS = ("leading", "trailing", "linspace")
STAGES = ("clip", "vae", "classifier", "unet", "decoder", "all")
ATTRIBUTES = {
    "animal": ("dog", "cat", "rabbit", "bear", "pig", "elephant"),
    "colour": ("white", "black", "brown", "orange", "pink", "blue"),
    "accessory": ("none", "glasses", "hat", "crown", "scarf", "headphones"),
    "action": ("sitting", "running", "sleeping"),
    "place": ("beach", "forest", "city", "snow", "room"),
}
REGIONS = ("upper-half", "lower-half", "left-half", "right-half", "centre")
PARTS = ("face", "eyes", "body", "legs", "tail", "accessory", "animal", "background")
DTYPES = ("float32", "float16", "bfloat16")
OPTIONAL_PACKAGES = (
    "accelerate", "anywidget", "diffusers", "ipywidgets", "jupyterlab", "matplotlib", "onnx", "onnxruntime",
    "onnxscript",
)  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def main(arguments: list[str] | None = None) -> None:
    """Run a command (`arguments`, or the process's own) and exit with its code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    if arguments is None:  # the process is ours
        gc.set_threshold(100_000)  # importing torch makes many objects and no garbage; with the next line, this saves
        atexit.register(gc.freeze)  # an eighth of the time of a txt2img of 20 steps
        if not _shows_progress():
            os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    with warnings.catch_warnings():
        warnings.showwarning = _note
        sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str] | None) -> int:
    try:
        return cli.main(arguments, prog_name="ldm-course", standalone_mode=False) or 0
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        sentence = error.format_message().rstrip(".?").replace(". Did", "; did")
        return _error(f"{sentence}{hint}.", 2)
    except InputError as error:
        return _error(str(error), 2)
    except Warning as error:
        return _error(f"{str(error).rstrip('.')} (a warning, which PYTHONWARNINGS makes an error).", 2)
    except click.Abort:  # Ctrl-C
        print("stopped", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OPTIONAL_PACKAGES:
            raise
        return _error(f"This needs {package}, which is not installed; run: pip install {package}", 1)
    except OSError as error:
        mistakes = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
        where = f"{error.filename}: " if error.filename else ""
        return _error(f"{where}{error.strerror or error}.", 2 if isinstance(error, mistakes) else 1)
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        return _error("There is not enough memory; try fewer or smaller images, or a smaller batch.", 1)


def _error(sentence: str, code: int) -> int:
    print(f"error: {one_line(sentence)}", file=sys.stderr)
    return code


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line, without the line of source that Python adds."""
    print(f"note: {one_line(str(message))}", file=sys.stderr)


def _shows_progress() -> bool:
    return sys.stderr.isatty() and not os.environ.get("TQDM_DISABLE") and not os.environ.get("NO_COLOR")


@click.group(
    invoke_without_command=True,
    epilog="Each command has examples: ldm-course txt2img --help",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(ldm.__version__, message="ldm-course %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Latent diffusion from the shell: generate images, train the models, open the course."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


# ---- options that commands share -------------------------------------------------------------------------------


def _together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _option(
    names: str, metavar: str | None, text: str, type: Any = None, default: Any = None, shown: str | bool = True
) -> Callable[[F], F]:
    """An option; `shown` is what the help says in place of None."""
    return click.option(*names.split(), metavar=metavar, help=text, type=type, default=default, show_default=shown)


NATURAL, POSITIVE, FROM_0_TO_1 = click.IntRange(0), click.IntRange(1), click.FloatRange(0, 1)
PROMPT, IMAGE = click.argument("prompt"), click.argument("image")
OUTPUT_TEXT = f"The image to write ({', '.join(SUFFIXES)}); replaced if it exists."
OUTPUT = _option("--output -o", "FILE", OUTPUT_TEXT, shown="a new .png in this folder, named after the prompt")
STEPS_TEXT = "1 to 999, or 1000 unless the spacing is leading; more is slower and finer."
GUIDANCE_TEXT = """How strongly to follow the prompt: 1 is plain and takes half the time, more exaggerates, less mixes
in what the negative prompt gives (diffusers does not guide there)."""
PART_TEXT = f"{', '.join(REGIONS)}; in an image by `ldm-course scene` also {', '.join(PARTS)}."
STRENGTH_TEXT = "0 to 1, the share of the steps that is done, at least one; 0 changes nothing."
HOW = _together(
    _option("--num-inference-steps", "N", STEPS_TEXT, POSITIVE, 50),
    _option("--guidance-scale", "X", GUIDANCE_TEXT, default=7.5),
    _option("--scheduler", None, "The sampler.", click.Choice(SCHEDULERS), "ddim"),
)
SAMPLING = _together(
    _option("--seed", "N", "The same number gives the same image.", NATURAL, shown="a random one, printed"),
    _option("--negative-prompt", "TEXT", "What to steer away from.", shown="nothing"),
    HOW,
    _option("--timestep-spacing", None, "Which timesteps to visit.", click.Choice(SPACINGS), shown="the model's own"),
)
LORA_TEXT = "A LoRA by `ldm-course teach`, diffusers or peft, to add to the UNet; several are added up."
LORA_SCALE_TEXT = "How strong it is, 1 as it was trained; one for all, or one for each --lora in turn."
LORA = _together(
    click.option("--lora", metavar="FILE", multiple=True, help=LORA_TEXT),
    click.option("--lora-scale", metavar="X", type=float, multiple=True, help=LORA_SCALE_TEXT, show_default="1"),
)
PLACE = _together(
    _option("--model", "FOLDER_OR_ID", "In diffusers' format; a hub id is owner/name.", shown="the shipped one"),
    _option("--revision", "NAME", "A branch, tag or commit on the Hugging Face hub.", shown="the newest"),
    _option("--device", "NAME", "cpu, cuda, cuda:1, mps, ...", shown="CUDA, then MPS, else the CPU"),
)
MODEL = _together(
    PLACE,
    _option("--dtype", None, "Of the weights; float16 is for GPUs.", click.Choice(DTYPES), "float32"),
    click.option("--compile", is_flag=True, help="Compile the UNet: a slower first image, quicker later ones."),
    click.option("--offload", is_flag=True, help="Keep the text encoder and the VAE on the CPU while they wait."),
)


# ---- images ----------------------------------------------------------------------------------------------------


@cli.command()
@PROMPT
@OUTPUT
@SAMPLING
@_option("--height", "N", "Pixels, a multiple of 8.", POSITIVE, shown="the model's own")
@_option("--width", "N", "Pixels, a multiple of 8.", POSITIVE, shown="the model's own")
@LORA
@MODEL
def txt2img(**options: Any) -> None:
    """Generate an image from a prompt.

    \b
    Examples:
      ldm-course txt2img "a dog with glasses" -o dog.png --seed 1
      ldm-course txt2img "a cat on the beach" --num-inference-steps 20 --scheduler dpm++
      ldm-course txt2img "an elephant asleep in the snow" --lora elephants.safetensors
      ldm-course txt2img "a castle at dawn" --model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
          --device cuda --dtype float16
    """
    _generate("txt2img", options)


@cli.command()
@PROMPT
@IMAGE
@OUTPUT
@_option("--strength", "X", STRENGTH_TEXT, FROM_0_TO_1, 0.6)
@SAMPLING
@LORA
@MODEL
def img2img(**options: Any) -> None:
    """Change an image after a prompt.

    IMAGE is an image file of any format and size. The lower the strength, the more of it is kept. Its size stays,
    rounded down to a multiple of 8 pixels; one larger than the model's training images is shrunk to their area first.

    \b
    Examples:
      ldm-course img2img "a dog with glasses" plain-dog.png -o dog.png --strength 0.6 --seed 0
      ldm-course img2img "a cat in the snow" photo.jpg --guidance-scale 5
    """
    _generate("img2img", options)


@cli.command()
@PROMPT
@IMAGE
@_option("--mask", "FILE", "White where to change IMAGE, black elsewhere, of its size; not an image with a hole.")
@_option("--box", "LEFT,TOP,RIGHT,BOTTOM", "A rectangle, in pixels from the top left corner.")
@_option("--part", "NAME", PART_TEXT, click.Choice((*REGIONS, *PARTS)))
@_option("--grow", "N", "Widen the mask by so many pixels on all sides.", click.IntRange(0, 64), 0)
@click.option("--composite/--no-composite", default=False, help="Keep the known region's own pixels.")
@OUTPUT
@_option("--strength", "X", STRENGTH_TEXT, FROM_0_TO_1, 1.0)
@SAMPLING
@LORA
@MODEL
def inpaint(mask: str | None, box: str | None, part: str | None, grow: int, **options: Any) -> None:
    """Change a region of an image after a prompt, and keep the rest, the known region.

    Say where by exactly one of --mask, --box and --part; the region is as fine as latent cells, of 8 x 8 pixels in
    the shipped model. IMAGE and its size are as in img2img.

    \b
    Examples:
      ldm-course scene -o sitting.png --animal dog --action sitting
      ldm-course inpaint "a dog running" sitting.png --part lower-half -o running.png --seed 0
      ldm-course inpaint "a dog with a hat" sitting.png --box 24,0,104,48 --composite
      ldm-course inpaint "a cat" photo.jpg --mask mask.png
    """

    def mask_of(image: Image.Image) -> Image.Image:
        from ldm_course import masks
        from ldm_course.images import latent_mask, load_image, to_grey

        white = masks.mask_of(image, None if mask is None else to_grey(load_image(mask)), box, part, grow)
        latent_mask(white, downscale=1)  # refuses an empty one; how large latent cells are, only the model says
        return white

    _generate("inpaint", options, mask_of)


MaskOf = Callable[["Image.Image"], "Image.Image"]


def _generate(task: str, options: dict[str, Any], mask_of: MaskOf | None = None) -> None:
    """Check, load, generate, write. `options` are the task's own arguments, and those of OUTPUT, LORA and MODEL."""
    file = check_output(options.pop("output"))
    lora, scales = options.pop("lora"), options.pop("lora_scale")
    if len(scales) > min(len(lora), 1) and len(scales) != len(lora):
        raise InputError(f"There are {len(scales)} --lora-scale and {len(lora)} --lora; give one for each or all.")
    place = {name: options.pop(name) for name in ("revision", "device", "compile", "offload")}
    folder, dtype = options.pop("model"), options.pop("dtype")
    if options["seed"] is None:
        options["seed"] = random.randrange(2**31)
    if not options["prompt"].strip():
        raise InputError('The prompt is empty; say what the image is to show, such as "a dog with glasses".')
    if not 0 <= options.get("strength", 1) <= 1:  # NaN, which click lets through
        raise InputError(f"strength is {options['strength']}; it must be a number from 0 to 1.")

    import torch

    from ldm_course import images, pipelines, text
    from ldm_course.io import lora as lora_files

    shared = ("negative_prompt", "num_inference_steps", "guidance_scale", "seed", "scheduler", "timestep_spacing")
    checked = pipelines.Options(**{name: options[name] for name in shared}, generator=None, progress=False)
    checked.negative_prompts(1)
    text.check_prompts([options["prompt"]])
    if "image" in options:
        options["image"] = images.to_rgb(images.load_image(options["image"]))  # upright
    if mask_of:
        options["mask_image"] = mask_of(options["image"])
    for scale in scales:
        lora_files.check_strength(scale)
    added = [(name, lora_files.read_lora(name)) for name in lora]

    model = ldm.load(folder, dtype=getattr(torch, dtype), **place)
    for (name, matrices), strength in zip(added, (scales or (1.0,)) * len(added)):
        model = lora_files.attach(model, matrices, name, strength=strength)
    start = time.perf_counter()
    image = getattr(ldm, task)(model, **options, progress=_shows_progress())
    seconds = time.perf_counter() - start
    file = write_image(image, file, options["prompt"])
    size = f"{image.width} x {image.height} px"
    print(f"wrote {file}, {size}, {seconds:.1f} s on {model.device}, seed {options['seed']}")


# ---- the small world -------------------------------------------------------------------------------------------


@cli.command()
@_option("--output -o", "FILE", "The .png to write.", default="scene.png")
@_together(*(_option(f"--{name}", None, "", click.Choice(values)) for name, values in ATTRIBUTES.items()))
@_option("--seed", "N", "Draw whatever is left open at random.", NATURAL, shown="a plain and neutral image")
@_option("--size", "N", "Side of the image, in pixels.", click.IntRange(8, 4096), 128)
def scene(output: str, seed: int | None, size: int, **attributes: str | None) -> None:
    """Render one scene of the small world.

    The file also holds the scene's description, so that `ldm-course inpaint --part` finds its face, legs and so on.

    \b
    Examples:
      ldm-course scene -o dog.png --animal dog --action sitting
      ldm-course scene -o surprise.png --seed 3
    """
    from PIL.PngImagePlugin import PngInfo

    from ldm_course.masks import SCENE_KEY
    from ldm_course.scenes import Scene, random_scene

    file = check_output(output, (".png",))
    start = Scene() if seed is None else random_scene(random.Random(seed), held_out=None)
    chosen = {name: value for name, value in attributes.items() if value is not None}
    rendered = Scene(**asdict(start) | chosen)
    text = PngInfo()
    text.add_text(SCENE_KEY, json.dumps(asdict(rendered)))
    file = write_image(rendered.render(size), file, pnginfo=text)
    print(f"wrote {file}, {size} x {size} px: {rendered.caption()}")


@cli.command()
@_option("--output -o", "FILE", OUTPUT_TEXT, default="scenes.png")
@_option("--seed", "N", "Which scenes.", NATURAL, 0)
@_option("--rows", "N", "Of scenes.", click.IntRange(1, 40), 8)
@_option("--columns", "N", "Of scenes.", click.IntRange(1, 40), 12)
@_option("--size", "N", "Side of a scene, in pixels.", click.IntRange(8, 256), 128)
@click.option("--held-out", is_flag=True, help="Only combinations that are kept from training.")
@click.option("--all-values", is_flag=True, help="Every value of every attribute, in place of random scenes.")
def scenes(output: str, seed: int, rows: int, columns: int, size: int, held_out: bool, all_values: bool) -> None:
    """Render a contact sheet of the small world.

    \b
    Examples:
      ldm-course scenes -o sheet.png --seed 1 --rows 4 --columns 6
      ldm-course scenes -o held-out.png --held-out
      ldm-course scenes -o all.png --all-values
    """
    from ldm_course.scenes import attribute_scenes, contact_sheet, random_scene

    file = check_output(output)
    if held_out and all_values:
        raise InputError("Give only one of --held-out and --all-values.")
    if all_values:
        chosen, columns = attribute_scenes(), 6
    else:
        rng = random.Random(seed)
        chosen = [random_scene(rng, held_out) for _ in range(rows * columns)]
    sheet = contact_sheet([one.render(size) for one in chosen], columns)
    print(f"wrote {write_image(sheet, file)}, {sheet.width} x {sheet.height} px, {len(chosen)} scenes")


# ---- training, evaluation, notebooks ---------------------------------------------------------------------------

RECIPE = "by recipe"
MINUTES_TEXT = "Stop a stage after this time in all, earlier runs with --resume included."


@cli.command()
@click.argument("stage", type=click.Choice(STAGES))
@_option("--out -o", "FOLDER", "For data, checkpoints, samples and the model.", Path, Path("runs/small-world"))
@_option("--minutes", "X", MINUTES_TEXT, float, shown=RECIPE)
@_option("--steps", "N", "Stop a stage after so many steps in all.", POSITIVE, shown=RECIPE)
@_option("--batch-size", "N", "Images in a step.", POSITIVE, shown=RECIPE)
@_option("--learning-rate", "X", "The highest one, above 0.", float, shown=RECIPE)
@_option("--precision", None, "Mixed precision.", click.Choice(("no", "bf16", "fp16")), shown=RECIPE)
@_option("--dataset-size", "N", "Number of training images.", POSITIVE, shown=RECIPE)
@_option("--seed", "N", "Of weights, images and noise.", NATURAL, 0)
@click.option("--compile/--no-compile", default=None, help="Use torch.compile.", show_default=RECIPE)
@click.option("--resume", is_flag=True, help="Go on where an earlier run was stopped.")
@_option("--init", "FOLDER", "Start from the weights of this model folder.", Path, shown="random weights")
def train(stage: str, out: Path, **options: Any) -> None:
    """Train the models of the small world again.

    On a CPU or a GPU. `all` is CLIP, VAE, classifier, UNet, and the VAE's decoder once more, one after the other:
    three hours on two CPU cores by the recipes; the shipped model had more than four times as much. A run can be
    stopped at any moment and continued with --resume.

    \b
    Examples:
      ldm-course train all --out runs/mine
      ldm-course train vae --out runs/mine --minutes 10
      ldm-course train unet --out runs/mine --resume
    """
    try:
        from ldm_course.train.stages import train_stage

        train_stage(stage, out, **options)
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume goes on from the last checkpoint", file=sys.stderr)
        raise click.exceptions.Exit(130) from None


PROMPT_TEXT = """What the images show; several times for several wordings. A text file beside an image, dog.txt for
dog.png, has captions of its own, one a line."""
CLASS_PROMPT_TEXT = "What the model shall go on to generate as it does now; several times for several."
LORA_FILE_TEXT = "The .safetensors to write; it must not exist yet."


@cli.command()
@click.argument("folder", type=Path)
@click.option("--prompt", metavar="TEXT", multiple=True, help=PROMPT_TEXT)
@_option("--output -o", "FILE", LORA_FILE_TEXT, default="lora.safetensors")
@click.option(
    "--class-prompt", metavar="TEXT", multiple=True, help=CLASS_PROMPT_TEXT, show_default="scenes of the small world"
)
@_option("--prior-images", "N", "Of these, generated first; 0 for none.", NATURAL, 64)
@_option("--steps", "N", "More is slower, and follows the images more closely.", POSITIVE, 300)
@_option("--rank", "N", "Size of the LoRA.", POSITIVE, 8)
@_option("--learning-rate", "X", "The highest one, above 0.", float, 1.5e-3)
@_option("--batch-size", "N", "Images in a step, and as many to keep.", POSITIVE, 8)
@click.option("--mirror/--no-mirror", default=True, help="Learn from the mirrored images, too.")
@_option("--seed", "N", "Of the LoRA and the noise.", NATURAL, 0)
@PLACE
def teach(folder: Path, prompt: tuple[str, ...], output: str, **options: Any) -> None:
    """Teach the model what a few images show: train a LoRA.

    FOLDER holds the images, three to twenty; the middle square of each is used. About two minutes on two CPU cores.
    Without --class-prompt the shipped model is held to its small world, and any other model to nothing.

    \b
    Examples:
      ldm-course teach drawings --prompt "an elephant sleeping" -o elephants.safetensors
      ldm-course txt2img "a pink elephant asleep on the beach" --lora elephants.safetensors
      ldm-course teach photos --prompt "a photo of sks dog" --class-prompt "a photo of a dog" \\
          --model stable-diffusion-v1-5/stable-diffusion-v1-5 --device cuda
    """
    file = check_output(output, (".safetensors",))
    assert file is not None
    if file.exists():
        raise InputError(f"The file {file} exists already; choose another with -o.")

    from ldm_course.train.teach import read_folder, teach_folder  # and torch

    images, captions = read_folder(folder, prompt)
    start = time.perf_counter()
    taught = teach_folder(images, captions, progress=_shows_progress(), **options)
    ldm.save_lora(taught, file)
    size = f"{len(images)} images, {options['steps']} steps, {file.stat().st_size / 1e3:.0f} kB"
    print(f"wrote {file}, {size}, {time.perf_counter() - start:.0f} s on {taught.device}, seed {options['seed']}")


IMAGES_TEXT = "To generate of seen scenes, and as many of held-out ones."


@cli.command()
@_option("--model", "FOLDER", "Made by `ldm-course train`, such as runs/mine/model.", Path, shown="the shipped one")
@_option("--images", "N", IMAGES_TEXT, POSITIVE, shown="200, or 1000 with --full")
@click.option("--full", is_flag=True, help="Also samplers over steps, guidance scales, the demos, and more; slow.")
@_option("--seed", "N", "Of prompts and noise.", NATURAL, 0)
@HOW
@_option("--out -o", "FOLDER", "For the table and the images.", Path, Path("runs/evaluation"))
def evaluate(model: Path | None, **options: Any) -> None:
    """Measure how good a model is.

    How well the VAE reconstructs images, how well CLIP finds captions, and in how many generated images a classifier
    finds every attribute that the prompt named, for seen and for held-out combinations.

    \b
    Examples:
      ldm-course evaluate
      ldm-course evaluate --model runs/mine/model --images 50
      ldm-course evaluate --full
    """
    from ldm_course.evaluate.evaluate import evaluate as measure

    measure(model, **options)


@cli.command()
@_option("--model", "FOLDER", "In diffusers' format.", Path, shown="the shipped one")
@_option("--num-inference-steps", "N", "Steps of every image.", POSITIVE, 20)
@_option("--rounds", "N", "How often each one generates; medians count.", POSITIVE, 7)
@_option("--threads", "N", "Of torch.", POSITIVE, shown="as many as it takes")
@_option("--out -o", "FOLDER", "For the table and the plot.", Path, Path("runs/bench"))
def bench(model: Path | None, **options: Any) -> None:
    """Time this course's pipelines against diffusers', and compare their images. Needs the "lab" extra.

    \b
    Examples:
      ldm-course bench
      ldm-course bench --rounds 3 --threads 1
    """
    from ldm_course.evaluate.bench import bench as measure

    measure(model, **options)


@cli.command()
@click.argument("format", type=click.Choice(("onnx",)))
@_option("--out -o", "FOLDER", "New, empty, or an earlier export, which is replaced.", Path, Path("runs/onnx"))
@_option("--model", "FOLDER_OR_ID", "In diffusers' format; a hub id is owner/name.", shown="the shipped one")
@click.option("--attention", is_flag=True, help="Also a UNet that returns where each token acts.")
@click.option("--int8", is_flag=True, help="Weights of half the size again; the images change.")
def export(format: str, out: Path, model: str | None, attention: bool, int8: bool) -> None:
    """Write the networks as ONNX files, for onnxruntime in Python, in a browser or elsewhere.

    UNet, text encoder, and the VAE both ways, with model.json: schedule, tokenizer and checksums. Each file is
    compared with torch at the end. Needs the "export" extra; docs/export.md shows how the files are used.

    \b
    Examples:
      ldm-course export onnx -o web/model
      ldm-course export onnx -o small --int8
      ldm-course export onnx -o mine --model runs/mine/model --attention
    """
    from ldm_course.io.onnx_export import check_folder, export_onnx

    folder = check_folder(out)
    export_onnx(ldm.load(model, device="cpu"), folder, attention=attention, int8=int8)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"wrote {folder}, {size:.1f} MB")


OWN_TEXT = "With the course's own notebooks, solutions included."


@cli.command()
@click.argument("folder", type=Path)
@_option("--output -o", "FILE", "The .csv to write; replaced if it exists.", default="grades.csv")
@_option("--jobs -j", "N", "Notebooks at a time; each takes about 1 GB of memory.", POSITIVE, 1)
@_option("--seconds", "N", "Stop an exercise that takes longer.", POSITIVE, 120)
@_option("--megabytes", "N", "Stop an exercise that takes more memory, beside the model.", POSITIVE, 2000)
@_option("--notebooks", "FOLDER", OWN_TEXT, Path, shown="those of the clone that this folder is in")
def grade(folder: Path, output: str, jobs: int, seconds: int, megabytes: int, notebooks: Path | None) -> None:
    """Check the exercises of all notebooks in FOLDER, and write a table.

    One row for each notebook: which exercises are right, and which mistake the check named in the others. Only the
    answers are taken from a student's notebook, and they run in a fresh process each, shut in as far as this system
    allows. A verdict of "look" means: right, but it does something unusual; read it. docs/grading.md says more.

    \b
    Examples:
      ldm-course grade submissions
      ldm-course grade submissions -o monday.csv --jobs 4 --seconds 300
    """
    from tqdm import tqdm

    from ldm_course.classroom import guard
    from ldm_course.classroom.course import course_notebooks
    from ldm_course.classroom.grade import Limits, frequent, submissions, table
    from ldm_course.classroom.grade import grade as run

    file, course, count = check_output(output, (".csv",)), course_notebooks(notebooks), len(submissions(folder))
    assert file is not None
    print(guard.sentence(), file=sys.stderr)
    start = time.perf_counter()
    with tqdm(total=count, unit="notebook", disable=not _shows_progress()) as bar:
        rows = run(folder, course, Limits(seconds, megabytes), jobs, lambda row: bar.update() and None)
    file.write_text(table(rows), encoding="utf-8")
    print(*frequent(rows), sep="\n")
    graded = [row for row in rows if not row.problem]
    right, of = sum(row.right for row in graded), sum(len(row.exercises) for row in graded)
    print(f"wrote {file}, {len(rows)} notebooks, {right} of {of} exercises right, {count - len(graded)} not graded")
    memory = max(row.megabytes for row in rows) / 1000
    print(f"took {time.perf_counter() - start:.0f} s, with {jobs} at a time and at most {memory:.1f} GB each")


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("jupyter_options", nargs=-1, type=click.UNPROCESSED)
def lab(jupyter_options: tuple[str, ...]) -> None:
    """Open the course's notebooks in JupyterLab, which gets JUPYTER_OPTIONS.

    \b
    Examples:
      ldm-course lab
      ldm-course lab --no-browser --port 9000
    """
    places = (Path.cwd() / "notebooks", Path.cwd(), Path(__file__).parents[1] / "notebooks")
    folder = next((place for place in places if any(place.glob("*.ipynb"))), None)
    if folder is None:
        raise InputError("There are no notebooks here; go to the folder of the course and run this again.")
    as_root = ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []  # or JupyterLab refuses
    importlib.import_module("jupyterlab.labapp").main([*as_root, *jupyter_options, str(folder)])


if __name__ == "__main__":
    main()

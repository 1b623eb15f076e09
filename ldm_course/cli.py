"""The command line: ldm-course txt2img "a dog with glasses" -o dog.png

A command checks all it can before it loads a model, and imports torch only when it runs. Whoever makes a mistake
reads one sentence: exit code 2 for what was asked, 1 if the machine failed, 130 after Ctrl-C. Errors of the program
itself are not caught.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm_course.errors import InputError, is_memory_error, one_line
from ldm_course.startup import without_collecting

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
DTYPES = ("float32", "float16", "bfloat16")
SCENE_KEY = "ldm_course.scene"  # the PNG text chunk in which a scene's picture says what it shows
REGIONS = {  # parts that every picture has: left, top, right, bottom as shares of its sides
    "upper-half": (0.0, 0.0, 1.0, 0.5),
    "lower-half": (0.0, 0.5, 1.0, 1.0),
    "left-half": (0.0, 0.0, 0.5, 1.0),
    "right-half": (0.5, 0.0, 1.0, 1.0),
    "centre": (0.25, 0.25, 0.75, 0.75),
}
OPTIONAL_PACKAGES = ("accelerate", "anywidget", "diffusers", "ipywidgets", "jupyterlab", "matplotlib")

UsageError: Any = typer.BadParameter.__mro__[1]  # click's, wherever this version of typer keeps it

app = typer.Typer(
    help="Latent diffusion from the shell: paint pictures, train the models, open the course.",
    epilog="Each command has examples: ldm-course txt2img --help",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main(arguments: list[str] | None = None) -> None:
    """Run a command (`arguments`, or the process's own) and exit with its code."""
    if arguments is None:  # the process is ours: before it exits, Python need not look through torch for garbage
        atexit.register(gc.freeze)  # which takes it half a second
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    with warnings.catch_warnings():
        warnings.showwarning = _note
        sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str] | None) -> int:
    try:
        return app(arguments, prog_name="ldm-course", standalone_mode=False) or 0
    except UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        sentence = error.format_message().rstrip(".?").replace(". Did", "; did")
        return _error(f"{sentence}{hint}.", 2)
    except InputError as error:
        return _error(str(error), 2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OPTIONAL_PACKAGES:
            raise
        return _error(f"This needs {package}, which is not installed; run: pip install {package}", 1)
    except OSError as error:
        asked_for = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
        where = f"{error.filename}: " if error.filename else ""
        return _error(f"{where}{error.strerror or error}.", 2 if isinstance(error, asked_for) else 1)
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        return _error(
            "There is not enough memory for this; ask for less at once: fewer or smaller pictures, a smaller batch.",
            1,
        )


def _error(sentence: str, code: int) -> int:
    print(f"error: {one_line(sentence)}", file=sys.stderr)
    return code


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the line of source that Python adds."""
    print(f"note: {one_line(str(message))}", file=sys.stderr)


@contextmanager
def _stoppable(sentence: str) -> Iterator[None]:
    """Ctrl-C inside ends the command with this sentence."""
    try:
        yield
    except KeyboardInterrupt:
        sys.unraisablehook = lambda _: None  # a progress bar stopped while it was set up complains when it is deleted
        print(f"\n{sentence}", file=sys.stderr)
        raise typer.Exit(130) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        from ldm_course import __version__

        print(f"ldm-course {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _start(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


# ---- pictures --------------------------------------------------------------------------------------------------


def _option(metavar: str, text: str, default: str | bool = True, **more: Any) -> Any:
    """A typer option; `default` is what the help shows in place of None."""
    return typer.Option(metavar=metavar, help=text, show_default=default, **more)


Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to paint, in a few English words.")]
Picture = Annotated[
    str, typer.Argument(metavar="IMAGE", help="The picture file to start from, of any kind and size.")
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help=f"The picture to write ({', '.join(SUFFIXES)}); replaced if it exists.",
        show_default="a new .png in this folder, named after the prompt",
    ),
]
Seed = Annotated[int | None, _option("N", "The same number paints the same picture.", "a random one, printed", min=0)]
Negative = Annotated[str | None, _option("TEXT", "What to steer away from.", "nothing")]
Steps = Annotated[
    int, _option("N", "1 to 999, or 1000 with a spacing other than leading; more is slower and finer.", min=1)
]
Guidance = Annotated[float, _option("X", "How much the prompt is exaggerated; 1 is plain, in half the time.")]
Scheduler = Annotated[str, _option("ddim|ddpm|euler|dpm++", "How noise is taken away.")]
Spacing = Annotated[
    str | None, _option("leading|trailing|linspace", "Which timesteps are visited.", "the model's own")
]
Side = Annotated[int | None, _option("PIXELS", "A multiple of 8.", "the model's own", min=8)]
Strength = Annotated[float, _option("X", "0 to 1, the share of the steps that is done; 0 keeps all.", min=0, max=1)]
Model = Annotated[
    str | None,
    _option("FOLDER_OR_ID", "In diffusers' format; an id on the Hugging Face hub is owner/name.", "the shipped one"),
]
Revision = Annotated[str | None, _option("NAME", "A branch, tag or commit on the hub.", "the newest")]
Device = Annotated[str, _option("NAME", "Where to compute: cpu, cuda, cuda:1, mps, ...")]
Dtype = Annotated[
    str,
    _option(
        "|".join(DTYPES),
        "Precision of the weights; float16 is for GPUs, bfloat16 also for CPUs that are quick at it.",
    ),
]


@app.command()
def txt2img(
    ctx: typer.Context,
    prompt: Prompt,
    output: Output = None,
    seed: Seed = None,
    negative_prompt: Negative = None,
    num_inference_steps: Steps = 50,
    guidance_scale: Guidance = 7.5,
    scheduler: Scheduler = "ddim",
    timestep_spacing: Spacing = None,
    height: Side = None,
    width: Side = None,
    model: Model = None,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Paint what a text says.

    \b
    Examples:
      ldm-course txt2img "a dog with glasses" -o dog.png --seed 1
      ldm-course txt2img "a cat on the beach" --num-inference-steps 20 --scheduler dpm++
      ldm-course txt2img "a castle at dawn" --model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
          --device cuda --dtype float16
    """
    _paint("txt2img", ctx.params)


@app.command()
def img2img(
    ctx: typer.Context,
    prompt: Prompt,
    image: Picture,
    output: Output = None,
    strength: Strength = 0.6,
    seed: Seed = None,
    negative_prompt: Negative = None,
    num_inference_steps: Steps = 50,
    guidance_scale: Guidance = 7.5,
    scheduler: Scheduler = "ddim",
    timestep_spacing: Spacing = None,
    model: Model = None,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Repaint a picture after a text.

    The lower the strength, the more of the picture is kept. Its size stays, rounded down to a multiple of 8 pixels;
    one larger than the model was trained on is shrunk to that area first.

    \b
    Examples:
      ldm-course img2img "a dog with glasses" plain-dog.png -o dog.png --strength 0.6 --seed 0
      ldm-course img2img "a cat in the snow" photo.jpg --guidance-scale 5
    """
    _paint("img2img", ctx.params)


@app.command()
def inpaint(
    ctx: typer.Context,
    prompt: Prompt,
    image: Picture,
    mask: Annotated[str | None, _option("FILE", "A picture of IMAGE's size, white where to paint.")] = None,
    box: Annotated[
        str | None, _option("LEFT,TOP,RIGHT,BOTTOM", "A rectangle, in pixels from the top left corner.")
    ] = None,
    part: Annotated[
        str | None,
        _option(
            "NAME",
            f"{', '.join(REGIONS)}; a picture by `ldm-course scene` also has face, eyes, body, legs, tail, "
            "accessory, animal, background.",
        ),
    ] = None,
    grow: Annotated[int, _option("PIXELS", "Widen the mask on all sides, 0 to 64.", min=0, max=64)] = 0,
    composite: Annotated[
        bool, typer.Option(help="Keep the pixels outside the mask; otherwise they too go through the autoencoder.")
    ] = False,
    output: Output = None,
    strength: Strength = 1.0,
    seed: Seed = None,
    negative_prompt: Negative = None,
    num_inference_steps: Steps = 50,
    guidance_scale: Guidance = 7.5,
    scheduler: Scheduler = "ddim",
    timestep_spacing: Spacing = None,
    model: Model = None,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Repaint a region of a picture after a text.

    Say where by exactly one of --mask, --box and --part; the region is as fine as cells of 8 x 8 pixels. The size
    is as in img2img.

    \b
    Examples:
      ldm-course scene -o sitting.png --animal dog --action sitting
      ldm-course inpaint "a dog running" sitting.png --part lower-half -o running.png --seed 0
      ldm-course inpaint "a dog with a hat" sitting.png --box 24,0,104,48 --composite
      ldm-course inpaint "a cat" photo.jpg --mask mask.png
    """
    _paint("inpaint", ctx.params)


def _paint(task: str, options: dict[str, Any]) -> None:
    """Check, load, paint, write. Options that are not named here are the task's own arguments."""
    options = dict(options)
    file = _output(options.pop("output"))
    region = {name: options.pop(name) for name in ("mask", "box", "part", "grow") if name in options}
    if not options["prompt"].strip():
        raise InputError('The prompt is empty; say what to paint, such as "a dog with glasses".')
    if region and sum(region[name] is not None for name in ("mask", "box", "part")) != 1:
        raise InputError("Say where to paint by exactly one of --mask, --box and --part.")
    if options["seed"] is None:
        options["seed"] = random.randrange(2**31)

    with _stoppable("stopped; nothing was written"):
        with without_collecting():
            import torch

        import ldm_course

        _check(options)
        if "image" in options:
            options["image"] = ldm_course.load_image(options["image"])
        if region:
            options["mask_image"] = _mask(options["image"], **region)
        dtype = getattr(torch, options.pop("dtype"))
        where = {name: options.pop(name) for name in ("device", "revision")}
        model = ldm_course.load(options.pop("model"), dtype=dtype, **where)
        start = time.perf_counter()
        picture = getattr(ldm_course, task)(model, **options, progress=True)
        seconds = time.perf_counter() - start
        file = _write(picture, file, options["prompt"])
    print(f"wrote {file}, {picture.width} x {picture.height} px, {seconds:.1f} s, seed {options['seed']}")


def _check(options: dict[str, Any]) -> None:
    """What can be found wrong without the model, which may first have to be fetched."""
    from ldm_course import inputs

    inputs.check_seed(options["seed"])
    inputs.check_guidance(options["guidance_scale"])
    inputs.check_strength(options.get("strength", 1))
    inputs.check_choice("scheduler", options["scheduler"], inputs.SCHEDULERS)
    inputs.check_choice("timestep_spacing", options["timestep_spacing"] or "leading", inputs.SPACINGS)
    inputs.check_choice("dtype", options["dtype"], DTYPES)
    for name in ("height", "width"):
        if (options.get(name) or 8) % 8:
            raise InputError(f"{name} is {options[name]}; it must be a positive multiple of 8, in pixels.")


def _mask(image: Image.Image, mask: str | None, box: str | None, part: str | None, grow: int) -> Image.Image:
    """White where to paint, of the size that the picture has when it is upright."""
    from PIL import Image, ImageFilter

    from ldm_course.images import latent_mask, load_image, to_grey, to_rgb

    width, height = to_rgb(image).size
    if mask is not None:
        white = to_grey(load_image(mask))
    elif part is not None and part not in REGIONS:
        white = _part_of_scene(image, part)
    else:
        white = Image.new("L", (width, height))
        white.paste(255, _corners(str(box), width, height) if part is None else _region(part, width, height))
    if white.size != (width, height):
        raise InputError(
            f"The mask has {white.width} x {white.height} pixels and the picture {width} x {height}; they must have "
            "one size."
        )
    for _ in range(grow):
        white = white.filter(ImageFilter.MaxFilter(3))
    latent_mask(white)  # raises if there is nothing to paint
    return white


def _region(part: str, width: int, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = REGIONS[part]
    return round(left * width), round(top * height), round(right * width), round(bottom * height)


def _corners(box: str, width: int, height: int) -> tuple[int, int, int, int]:
    """What --box says."""
    numbers = re.fullmatch(r"(\d+),(\d+),(\d+),(\d+)", re.sub(r"\s", "", box))
    left, top, right, bottom = map(int, numbers.groups()) if numbers else (0, 0, 0, 0)
    if not (left < right <= width and top < bottom <= height):
        raise InputError(
            f"--box is {box!r}; it must be LEFT,TOP,RIGHT,BOTTOM in whole pixels, here with 0 <= LEFT < RIGHT <= "
            f"{width} and 0 <= TOP < BOTTOM <= {height}."
        )
    return left, top, right, bottom


# ---- the small world -------------------------------------------------------------------------------------------


def _part_of_scene(image: Image.Image, part: str) -> Image.Image:
    """The mask of a part that only the scene behind the picture knows."""
    from ldm_course.scenes import PARTS, Scene

    if part not in PARTS:
        raise InputError(f"--part is {part!r}; it must be one of {', '.join((*REGIONS, *PARTS))}.")
    if SCENE_KEY not in image.info:
        raise InputError(
            f"The picture does not say where {part!r} is, as only a .png by `ldm-course scene` does; use --mask, "
            f"--box, or a part that every picture has: {', '.join(REGIONS)}."
        )
    try:
        scene = Scene(**json.loads(image.info[SCENE_KEY]))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError("The scene that is stored in the picture cannot be read; draw it again.") from error
    return scene.mask(part, image.width)


@app.command()
def scene(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The .png to write.")] = "scene.png",
    animal: Annotated[str | None, _option("dog|cat|rabbit|bear|pig|elephant", "")] = None,
    colour: Annotated[str | None, _option("white|black|brown|orange|pink|blue", "Of its fur.")] = None,
    accessory: Annotated[str | None, _option("none|glasses|hat|crown|scarf|headphones", "What it wears.")] = None,
    action: Annotated[str | None, _option("sitting|running|sleeping", "")] = None,
    place: Annotated[str | None, _option("beach|forest|city|snow|room", "")] = None,
    seed: Annotated[
        int | None, _option("N", "Draw whatever is left open at random.", "a plain and neutral picture", min=0)
    ] = None,
    size: Annotated[int, _option("PIXELS", "Side of the picture, 8 to 4096.", min=8, max=4096)] = 128,
) -> None:
    """Draw one scene of the small world.

    The file also holds the scene's description, so that `ldm-course inpaint --part` finds its face, legs and so on.

    \b
    Examples:
      ldm-course scene -o dog.png --animal dog --action sitting
      ldm-course scene -o surprise.png --seed 3
    """
    from PIL.PngImagePlugin import PngInfo

    from ldm_course.scenes import Scene, random_scene

    file = _output(output, (".png",))
    asked = {"animal": animal, "colour": colour, "accessory": accessory, "action": action, "place": place}
    asked = {name: value for name, value in asked.items() if value is not None}
    start = Scene() if seed is None else random_scene(random.Random(seed), held_out=None)
    drawn = Scene(**asdict(start) | asked)
    text = PngInfo()
    text.add_text(SCENE_KEY, json.dumps(asdict(drawn)))
    file = _write(drawn.render(size), file, pnginfo=text)
    print(f"wrote {file}, {size} x {size} px: {drawn.caption()}")


@app.command()
def scenes(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help=f"The picture to write ({', '.join(SUFFIXES)}).")
    ] = "scenes.png",
    seed: Annotated[int, _option("N", "Which scenes.", min=0)] = 0,
    rows: Annotated[int, _option("N", "1 to 40.", min=1, max=40)] = 8,
    columns: Annotated[int, _option("N", "1 to 40.", min=1, max=40)] = 12,
    size: Annotated[int, _option("PIXELS", "Side of a scene, 8 to 256.", min=8, max=256)] = 128,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only combinations that are kept from training.")
    ] = False,
    all_values: Annotated[
        bool, typer.Option("--all-values", help="Every value of every attribute, in place of random scenes.")
    ] = False,
) -> None:
    """Draw a contact sheet of the small world.

    \b
    Examples:
      ldm-course scenes -o sheet.png --seed 1 --rows 4 --columns 6
      ldm-course scenes -o held-out.png --held-out
      ldm-course scenes -o all.png --all-values
    """
    from ldm_course.scenes import attribute_scenes, contact_sheet, random_scene

    file = _output(output)
    if held_out and all_values:
        raise InputError("Give only one of --held-out and --all-values.")
    if all_values:
        drawn, columns = attribute_scenes(), 6
    else:
        rng = random.Random(seed)
        drawn = [random_scene(rng, held_out) for _ in range(rows * columns)]
    sheet = contact_sheet([one.render(size) for one in drawn], columns)
    print(f"wrote {_write(sheet, file)}, {sheet.width} x {sheet.height} px, {len(drawn)} scenes")


# ---- files -----------------------------------------------------------------------------------------------------


def _output(output: str | None, suffixes: tuple[str, ...] = SUFFIXES) -> Path | None:
    """The file to write, after making sure that it can be there; None if its name is left open."""
    file = None if output is None else Path(os.path.realpath(os.path.expanduser(output)))
    folder = Path.cwd() if file is None else file.parent
    if file is not None and file.is_dir():
        raise InputError(f"The output {output!r} is a folder; name a file in it, such as {file / 'picture.png'}.")
    if file is not None and file.suffix.lower() not in suffixes:
        raise InputError(f"The output {output!r} must end in {' or '.join(suffixes)}.")
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} to write to; make it first, or choose another with -o.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"Nothing can be written to {folder}; choose another folder with -o.")
    return file


def _write(picture: Image.Image, file: Path | None, prompt: str = "", pnginfo: PngInfo | None = None) -> Path:
    """Save a picture whole or not at all. Without a file it gets a new name, made of the prompt."""
    from PIL import Image

    folder, suffix = (Path.cwd(), ".png") if file is None else (file.parent, file.suffix.lower())
    buffer = io.BytesIO()
    picture.save(buffer, Image.registered_extensions()[suffix], quality=95, pnginfo=pnginfo)
    unfinished = folder / f".ldm-course-{os.getpid()}.tmp"
    try:
        unfinished.write_bytes(buffer.getvalue())
        if file is None:
            file = _new_file(folder, prompt)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
    return file


def _new_file(folder: Path, prompt: str) -> Path:
    """A file that was not there, created empty so that nobody else takes the name."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "picture"
    number = 1
    while True:
        file = folder / (f"{words}.png" if number == 1 else f"{words}-{number}.png")
        try:
            file.touch(exist_ok=False)
            return file
        except FileExistsError:
            number += 1


# ---- training, evaluation, notebooks ---------------------------------------------------------------------------

RECIPE = "by recipe"


@app.command()
def train(
    stage: Annotated[str, typer.Argument(metavar="clip|vae|judge|unet|decoder|all", help="What to train.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="For data, checkpoints, samples and the model.")
    ] = Path("runs/small-world"),
    minutes: Annotated[
        float | None,
        _option("X", "Stop a stage after this time in all, earlier runs with --resume included.", RECIPE),
    ] = None,
    steps: Annotated[int | None, _option("N", "Stop a stage after so many steps in all.", RECIPE, min=1)] = None,
    batch_size: Annotated[int | None, _option("N", "Pictures a step.", RECIPE, min=1)] = None,
    learning_rate: Annotated[float | None, _option("X", "The highest one, above 0.", RECIPE)] = None,
    precision: Annotated[str | None, _option("no|bf16|fp16", "Mixed precision.", RECIPE)] = None,
    pictures: Annotated[int | None, _option("N", "Size of the training set.", RECIPE, min=1)] = None,
    seed: Annotated[int, _option("N", "Of weights, pictures and noise.", min=0)] = 0,
    compile: Annotated[bool | None, typer.Option(help="Use torch.compile.", show_default=RECIPE)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run was stopped.")] = False,
) -> None:
    """Train the models of the small world again.

    On a CPU or a GPU. `all` is CLIP, VAE, judge, UNet, and the VAE's decoder once more, one after the other: three
    hours on two CPU cores by the recipes; what ships had more than four times as much. A run can be stopped at any
    moment, and --resume takes it up again.

    \b
    Examples:
      ldm-course train all --out runs/mine
      ldm-course train vae --out runs/mine --minutes 10
      ldm-course train unet --out runs/mine --resume
    """
    with _stoppable("stopped; the same command with --resume goes on from the last checkpoint"):
        from ldm_course.training.stages import train_stage

        train_stage(
            stage,
            out,
            steps=steps,
            minutes=minutes,
            batch_size=batch_size,
            learning_rate=learning_rate,
            precision=precision,
            seed=seed,
            pictures=pictures,
            compile=compile,
            resume=resume,
        )


@app.command()
def evaluate(
    model: Annotated[
        Path | None, _option("FOLDER", "What `ldm-course train` made, such as runs/mine/model.", "the shipped one")
    ] = None,
    pictures: Annotated[
        int | None,
        _option("N", "How many to paint of seen, and of held-out scenes.", "200, or 1000 with --full", min=1),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Also schedulers over steps, guidance scales, the demos, and more; takes long."),
    ] = False,
    seed: Annotated[int, _option("N", "Of prompts and noise.", min=0)] = 0,
    num_inference_steps: Steps = 50,
    guidance_scale: Guidance = 7.5,
    scheduler: Scheduler = "ddim",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="For the table and the pictures.")
    ] = Path("runs/evaluation"),
) -> None:
    """Measure how good a model is.

    How well the VAE gives pictures back, how well CLIP finds captions, and in how many painted pictures a judge finds
    every attribute that the prompt named, for seen and for held-out combinations.

    \b
    Examples:
      ldm-course evaluate
      ldm-course evaluate --model runs/mine/model --pictures 50
      ldm-course evaluate --full
    """
    with _stoppable("stopped; the evaluation is not complete"):
        from ldm_course.training.evaluate import evaluate as measure

        measure(
            model,
            pictures=pictures,
            seed=seed,
            out=out,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            scheduler=scheduler,
            full=full,
        )


@app.command()
def bench(
    model: Annotated[Path | None, _option("FOLDER", "In diffusers' format.", "the shipped one")] = None,
    num_inference_steps: Steps = 20,
    rounds: Annotated[int, _option("N", "How often each one paints; medians count.", min=1)] = 7,
    threads: Annotated[int | None, _option("N", "Of torch.", "as many as it takes", min=1)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="For the table and the plot.")] = Path(
        "runs/bench"
    ),
) -> None:
    """Time this course's pipelines against diffusers', and compare their pictures. Needs the "lab" extra.

    \b
    Examples:
      ldm-course bench
      ldm-course bench --rounds 3 --threads 1
    """
    with _stoppable("stopped; nothing was written"):
        from ldm_course.bench import bench as measure

        measure(model, num_inference_steps=num_inference_steps, rounds=rounds, threads=threads, out=out)


@app.command(context_settings={"ignore_unknown_options": True})
def lab(
    options: Annotated[
        list[str] | None, typer.Argument(metavar="JUPYTER_OPTIONS", help="Passed on to JupyterLab.")
    ] = None,
) -> None:
    """Open the course's notebooks in JupyterLab.

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
    importlib.import_module("jupyterlab.labapp").main([*as_root, *(options or []), str(folder)])


if __name__ == "__main__":
    main()

"""The command line: what it writes, and what it says when it cannot."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import ldm_course as ldm
from ldm_course import cli
from ldm_course.training import evaluate, stages

TINY = Path(__file__).parent / "fixtures" / "tiny-sd15"
FAST = ["--model", TINY, "--num-inference-steps", 4, "--seed", 5]
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd):
    """Run a command as the shell does; gives (exit code, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def refused(run, tmp_path):
    """Run a command that must end with one sentence, these words in it, and leave no file behind."""

    def refused(words, *arguments, code=2):
        before = sorted(tmp_path.rglob("*"))
        found, out, err = run(*arguments)
        lines = [line for line in err.splitlines() if not line.startswith("note: ")]
        assert found == code and out == "" and len(lines) == 1, (found, out, err)
        assert lines[0].startswith("error: ") and not re.search(r"[.!?] [A-Z]", lines[0]), lines[0]
        assert words in lines[0], lines[0]
        assert sorted(tmp_path.rglob("*")) == before

    return refused


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model is an error of the test."""
    monkeypatch.setattr(ldm, "load", lambda *_, **__: pytest.fail("a model was loaded"))


@pytest.fixture(scope="session")
def tiny():
    with pytest.warns(UserWarning, match="PNDM"):
        return ldm.load(TINY)


@pytest.fixture
def picture(tmp_path):
    """photo.png, 64 x 48 pixels, no scene; and as it opens."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((64, 48))
    image.save(tmp_path / "photo.png")
    return image


def same(file, image):
    written = Image.open(file)
    assert (written.mode, written.size) == (image.mode, image.size)
    return np.array_equal(np.asarray(written), np.asarray(image))


# --- help ---


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_parse(run, name):
    code, out, err = run(name, "--help")
    assert code == 0 and err == ""
    examples = re.sub(r" \\\n\s+", " ", out.split("Examples:")[1].split("\n\n")[0]).split("\n")
    parsed = [shlex.split(line) for line in examples if line.strip()]
    assert [line[0] for line in parsed] == ["ldm-course"] * len(parsed) and name in [line[1] for line in parsed]
    for _, command, *arguments in parsed:
        COMMANDS[command].make_context(command, arguments)


def test_help_without_a_command(run):
    code, out, _ = run()
    assert code == 0 and all(name in out for name in COMMANDS)
    assert run("--help")[1].split() == out.split()


def test_version(run):
    assert run("--version") == (0, f"ldm-course {ldm.__version__}\n", "")


@pytest.mark.parametrize(
    "name, function",
    [
        ("txt2img", ldm.txt2img),
        ("img2img", ldm.img2img),
        ("inpaint", ldm.inpaint),
        ("evaluate", evaluate.evaluate),
        ("train", stages.train_stage),
    ],
)
def test_options_are_the_functions_own_with_their_defaults(name, function):
    ours = {option.name: option for option in COMMANDS[name].params}
    theirs = inspect.signature(function).parameters
    assert theirs.keys() - ours.keys() <= {
        *("model", "generator", "latents", "progress", "mask_image"),  # Python's own, or given otherwise
        *("model_folder", "train_seed", "train_pictures", "run_folder"),
    }
    for key in (ours.keys() & theirs.keys()) - {"model", "prompt", "image", "stage"}:
        assert ours[key].default == theirs[key].default, key
        dashes = "--" + key.replace("_", "-")
        assert dashes in ours[key].opts, key


def test_choices_in_the_help_are_all_there_are():
    from ldm_course.inputs import SCHEDULERS, SPACINGS

    def listed(name, option):
        return {param.name: param.metavar for param in COMMANDS[name].params}[option].split("|")

    assert set(listed("txt2img", "scheduler")) == set(SCHEDULERS)
    assert set(listed("txt2img", "timestep_spacing")) == set(SPACINGS)
    assert set(listed("train", "stage")) == {*stages.ORDER, "all"}
    for attribute, values in ldm.scenes.ATTRIBUTES.items():
        assert set(listed("scene", attribute)) == set(values)
    part = {param.name: param.help for param in COMMANDS["inpaint"].params}["part"]
    assert all(name in part for name in (*cli.REGIONS, *ldm.scenes.PARTS))


# --- pictures ---


def test_txt2img_is_the_functions_picture(run, tiny, tmp_path):
    code, out, err = run("txt2img", "a dog", "-o", "dog.png", *FAST)
    assert code == 0 and "4/4" in err
    assert re.fullmatch(rf"wrote {re.escape(str(tmp_path / 'dog.png'))}, 64 x 64 px, \d+\.\d s, seed 5\n", out)
    assert same("dog.png", ldm.txt2img(tiny, "a dog", seed=5, num_inference_steps=4))
    assert [path.name for path in tmp_path.iterdir()] == ["dog.png"]


def test_every_option_arrives(run, tiny):
    options = {
        "negative_prompt": "a cat",
        "guidance_scale": 3.5,
        "scheduler": "dpm++",
        "timestep_spacing": "trailing",
        "height": 32,
        "width": 48,
    }
    flags = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)]
    assert run("txt2img", "a dog", "-o", "dog.png", *FAST, *flags)[0] == 0
    assert same("dog.png", ldm.txt2img(tiny, "a dog", seed=5, num_inference_steps=4, **options))


def test_img2img_is_the_functions_picture(run, tiny, picture):
    assert run("img2img", "a dog", "photo.png", "-o", "dog.png", "--strength", 0.5, *FAST)[0] == 0
    assert same("dog.png", ldm.img2img(tiny, "a dog", picture, strength=0.5, seed=5, num_inference_steps=4))


@pytest.mark.parametrize("composite", [False, True])
def test_inpaint_is_the_functions_picture(run, tiny, picture, composite):
    mask = Image.new("L", picture.size)
    mask.paste(255, (8, 16, 40, 48))
    mask.save("mask.png")
    flag = "--composite" if composite else "--no-composite"
    assert run("inpaint", "a dog", "photo.png", "--mask", "mask.png", flag, "-o", "dog.png", *FAST)[0] == 0
    ours = ldm.inpaint(tiny, "a dog", picture, mask, composite=composite, seed=5, num_inference_steps=4)
    assert same("dog.png", ours)
    assert run("inpaint", "a dog", "photo.png", "--box", "8,16, 40,48", flag, "-o", "box.png", *FAST)[0] == 0
    assert same("box.png", ours)


def test_a_picture_that_lies_on_its_side_is_masked_upright(run, tiny, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: upright it is 48 x 64
    picture.save("turned.png", exif=exif)
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    mask = Image.new("L", upright.size)
    mask.paste(255, (0, 32, 48, 64))
    assert run("inpaint", "a dog", "turned.png", "--part", "lower-half", "-o", "dog.png", *FAST)[0] == 0
    assert same("dog.png", ldm.inpaint(tiny, "a dog", upright, mask, seed=5, num_inference_steps=4))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_pictures_of_any_mode(run, tiny, picture, mode):
    picture.convert(mode).save("other.png")
    assert run("img2img", "a dog", "other.png", "-o", "dog.png", *FAST)[0] == 0
    assert same("dog.png", ldm.img2img(tiny, "a dog", picture.convert(mode), seed=5, num_inference_steps=4))


@pytest.mark.parametrize("suffix", [suffix for suffix in cli.SUFFIXES if suffix != ".png"] + [".JPG"])
def test_other_formats(run, suffix):
    assert run("scenes", "-o", f"sheet{suffix}", "--rows", 1, "--columns", 2)[0] == 0
    assert Image.open(f"sheet{suffix}").size == (268, 136)


def test_a_seed_is_drawn_and_told(run, tiny):
    _, out, _ = run("txt2img", "a dog", "-o", "dog.png", *FAST[:-2])
    seed = int(re.search(r"seed (\d+)", out)[1])
    assert same("dog.png", ldm.txt2img(tiny, "a dog", seed=seed, num_inference_steps=4))


def test_without_o_nothing_is_overwritten_and_with_it_the_file_is(run, tmp_path):
    for name in ("a-dog-100-red.png", "a-dog-100-red-2.png"):
        _, out, _ = run("txt2img", " A dog: 100% red!", *FAST)
        assert out.startswith(f"wrote {tmp_path / name},")
    assert same("a-dog-100-red.png", Image.open("a-dog-100-red-2.png"))
    Path("dog.png").write_text("old")
    run("txt2img", "a dog", "-o", "dog.png", *FAST)
    assert Image.open("dog.png").size == (64, 64)


def test_warnings_are_notes(run):
    shutil.copytree(TINY, "model")
    Path("model/tokenizer/known_words.txt").write_text("a\ndog\n")
    code, _, err = run(
        "txt2img", "a dog qua " + "x" * 80, "-o", "dog.png", "--model", "model", "--num-inference-steps", 1
    )
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert code == 0 and "UserWarning" not in err and "warnings.warn" not in err
    assert (
        len([note for note in notes if "cut" in note]) == 1 and len([note for note in notes if "'qua'" in note]) == 1
    )


# --- scenes and their parts ---


def test_a_scene_is_drawn_and_knows_its_parts(run, tiny):
    code, out, _ = run("scene", "-o", "dog.png", "--animal", "dog", "--accessory", "hat", "--size", 64)
    scene = ldm.scenes.Scene(animal="dog", accessory="hat")
    assert code == 0 and out.endswith(f"64 x 64 px: {scene.caption()}\n") and same("dog.png", scene.render(64))
    assert run("inpaint", "a dog", "dog.png", "--part", "face", "-o", "new.png", *FAST)[0] == 0
    ours = ldm.inpaint(tiny, "a dog", scene.render(64), scene.mask("face", 64), seed=5, num_inference_steps=4)
    assert same("new.png", ours)


def test_a_random_scene_keeps_what_was_asked(run):
    for name in ("one.png", "two.png"):
        run("scene", "-o", name, "--animal", "pig", "--action", "running", "--seed", 3)
    scene = ldm.scenes.Scene(**json.loads(Image.open("one.png").info[cli.SCENE_KEY]))
    assert (scene.animal, scene.action) == ("pig", "running") and scene.x != 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_masks_grow():
    image = Image.new("RGB", (64, 64))
    mask = cli._mask(image, None, "24,24,40,40", None, 5)
    assert mask.getbbox() == (19, 19, 45, 45)


@pytest.mark.parametrize("flags", [[], ["--held-out"], ["--all-values"]])
def test_contact_sheets(run, flags):
    code, out, _ = run("scenes", "-o", "sheet.png", "--rows", 2, "--columns", 3, "--size", 32, *flags)
    assert code == 0 and Image.open("sheet.png").width == (6 if "--all-values" in flags else 3) * 36 + 4


# --- mistakes: one sentence, nothing written, no model loaded ---


@pytest.mark.parametrize(
    "words, arguments",
    [
        ("Missing argument 'PROMPT'", []),
        ("prompt is empty", [" "]),
        ("No such option", ["a dog", "--gidance", "3"]),
        ("valid int", ["a dog", "--num-inference-steps", "many"]),
        ("--num-inference-steps", ["a dog", "--num-inference-steps", "0"]),
        ("--seed", ["a dog", "--seed", "-1"]),
        ("2**63", ["a dog", "--seed", 2**63]),
        ("'plms'", ["a dog", "--scheduler", "plms"]),
        ("'even'", ["a dog", "--timestep-spacing", "even"]),
        ("nan", ["a dog", "--guidance-scale", "nan"]),
        ("height is 100", ["a dog", "--height", "100"]),
        ("--width", ["a dog", "--width", "0"]),
        ("'int8'", ["a dog", "--dtype", "int8"]),
        ("There is no folder", ["a dog", "-o", "nowhere/dog.png"]),
        ("is a folder", ["a dog", "-o", "."]),
        ("must end in .png", ["a dog", "-o", "dog.xyz"]),
        ("must end in .png", ["a dog", "-o", "dog"]),
    ],
)
def test_txt2img_mistakes(refused, no_model, words, arguments):
    refused(words, "txt2img", *arguments)


@pytest.mark.parametrize(
    "words, arguments",
    [
        ("There is no file 'nothing.png'", ["nothing.png"]),
        ("'text.png' is not a picture", ["text.png"]),
        ("is not a picture", ["."]),
        ("--strength", ["photo.png", "--strength", "1.5"]),
        ("strength", ["photo.png", "--strength", "nan"]),
        ("prompt is empty", ["photo.png", "--", ""]),
    ],
)
def test_img2img_mistakes(refused, no_model, picture, words, arguments):
    Path("text.png").write_text("no picture")
    if arguments[-1] == "":
        arguments = ["--", "", "photo.png"]
    else:
        arguments = ["a dog", *arguments]
    refused(words, "img2img", *arguments)


@pytest.mark.parametrize(
    "words, arguments",
    [
        ("exactly one of --mask, --box and --part", []),
        ("exactly one of --mask, --box and --part", ["--mask", "small.png", "--box", "0,0,8,8"]),
        ("There is no file", ["--mask", "nothing.png"]),
        ("one size", ["--mask", "small.png"]),
        ("empty", ["--mask", "black.png"]),
        ("too thin", ["--box", "1,1,7,7"]),
        ("--box is '1,2,3'", ["--box", "1,2,3"]),
        ("RIGHT <= 64", ["--box", "0,0,65,8"]),
        ("TOP < BOTTOM", ["--box", "0,8,8,8"]),
        ("--box", ["--box", "-8,0,8,8"]),
        ("--grow", ["--part", "centre", "--grow", "65"]),
        ("--part is 'nose'", ["--part", "nose"]),
        ("every picture has: upper-half, lower-half", ["--part", "legs"]),
    ],
)
def test_inpaint_mistakes(refused, no_model, picture, words, arguments):
    Image.new("L", (32, 32), 255).save("small.png")
    Image.new("L", picture.size).save("black.png")
    refused(words, "inpaint", "a dog", "photo.png", *arguments)


def test_a_picture_smaller_than_a_latent_cell(refused, no_model, picture):
    Image.new("RGB", (5, 5)).save("photo.png")
    refused("each side needs 8", "inpaint", "a dog", "photo.png", "--part", "centre")


def test_parts_that_a_scene_does_not_have(run, refused, no_model):
    run("scene", "-o", "dog.png")
    refused("no accessory", "inpaint", "a dog", "dog.png", "--part", "accessory")
    drawn = Image.open("dog.png")
    for name, image, stored, words in [
        ("cut.png", drawn.crop((0, 0, 128, 64)), drawn.info[cli.SCENE_KEY], "one size"),
        ("cow.png", drawn, '{"animal": "cow"}', "cannot be read"),
        ("list.png", drawn, "[1]", "cannot be read"),
    ]:
        text = PngInfo()
        text.add_text(cli.SCENE_KEY, stored)
        image.save(name, pnginfo=text)
        refused(words, "inpaint", "a dog", name, "--part", "face")


@pytest.mark.parametrize(
    "words, arguments",
    [
        ("No such command", ["paint"]),
        ("animal must be one of", ["scene", "--animal", "cow"]),
        ("must end in .png", ["scene", "-o", "dog.jpg"]),
        ("--size", ["scene", "--size", "0"]),
        ("only one of --held-out and --all-values", ["scenes", "--held-out", "--all-values"]),
        ("--rows", ["scenes", "--rows", "0"]),
        ("There is no folder", ["scenes", "-o", "nowhere/sheet.png"]),
        ("stage must be one of", ["train", "everything"]),
        ("minutes must be more than 0", ["train", "vae", "--minutes", "-1"]),
        ("--pictures", ["evaluate", "--pictures", "0"]),
    ],
)
def test_other_mistakes(refused, words, arguments):
    refused(words, *arguments)


@pytest.mark.parametrize(
    "words, arguments",
    [
        ("from 1 to 1000", ["--model", TINY, "--num-inference-steps", 1001]),
        ("beyond the last timestep", ["--model", TINY, "--num-inference-steps", 1000]),
        ("There is no folder 'nothing'", ["--model", "nothing"]),
        ("revision 'main' is for models on the hub", ["--model", TINY, "--revision", "main"]),
        ("device 'gpu' cannot be used", ["--model", TINY, "--device", "gpu"]),
        ("model_index.json", ["--model", "."]),
    ],
)
def test_mistakes_that_only_the_model_shows(refused, words, arguments):
    refused(words, "txt2img", "a dog", *arguments)


def test_a_folder_that_is_read_only(refused, no_model, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
    refused("Nothing can be written", "txt2img", "a dog", "-o", "dog.png")
    refused("Nothing can be written", "txt2img", "a dog")


# --- when the machine fails, or the user has had enough ---


def test_a_full_disk(refused, monkeypatch, tmp_path):
    Path("dog.png").write_text("old")

    def full(path, data):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    refused("No space left", "scene", "-o", "dog.png", code=1)
    assert Path("dog.png").read_text() == "old"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_too_little_memory(refused, monkeypatch, error):
    monkeypatch.setattr(ldm, "load", lambda *_, **__: None)
    monkeypatch.setattr(ldm, "txt2img", raising(error))
    refused("not enough memory", "txt2img", "a dog", code=1)


def test_ctrl_c(run, monkeypatch, tmp_path):
    monkeypatch.setattr(ldm, "load", lambda *_, **__: None)
    monkeypatch.setattr(ldm, "txt2img", raising(KeyboardInterrupt()))
    assert run("txt2img", "a dog", "-o", "dog.png") == (130, "", "\nstopped; nothing was written\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), ModuleNotFoundError(name="torch")])
def test_bugs_are_not_hidden(monkeypatch, error):
    monkeypatch.setattr(ldm, "load", lambda *_, **__: None)
    monkeypatch.setattr(ldm, "txt2img", raising(error))
    with pytest.raises(type(error)):
        cli.main(["txt2img", "a dog"])


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


# --- training, evaluation, notebooks ---


def test_train_and_evaluate_pass_everything_on(run, monkeypatch):
    calls = []
    for module, name in ((stages, "train_stage"), (evaluate, "evaluate")):
        signature = inspect.signature(getattr(module, name))
        monkeypatch.setattr(module, name, lambda *a, s=signature, **k: calls.append(s.bind(*a, **k).arguments))
    given = {"steps": 3, "minutes": 1.5, "batch_size": 2, "learning_rate": 0.1, "precision": "no", "seed": 4}
    flags = [word for name, value in given.items() for word in ("--" + name.replace("_", "-"), value)]
    assert run("train", "vae", "-o", "here", "--no-compile", "--resume", *flags) == (0, "", "")
    rest = {"stage": "vae", "run_folder": Path("here"), "compile": False, "resume": True, "pictures": None}
    assert calls.pop() == given | rest
    assert run("evaluate", "--model", "here", "--pictures", 9) == (0, "", "")
    assert calls.pop().items() >= {"model_folder": Path("here"), "pictures": 9, "seed": 0}.items()


@pytest.mark.parametrize("arguments", [["train", "vae"], ["evaluate"], ["lab"]])
def test_a_missing_package_is_named(refused, monkeypatch, arguments):
    for name in [name for name in sys.modules if name.startswith("ldm_course.training")]:
        monkeypatch.delitem(sys.modules, name)
    name = "jupyterlab" if arguments == ["lab"] else "accelerate"
    monkeypatch.setitem(sys.modules, name, None)
    (Path.cwd() / "a.ipynb").touch()
    refused(f"pip install {name}", *arguments, code=1)


def test_lab(run, refused, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", types.SimpleNamespace(main=calls.append))
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site-packages" / "ldm_course" / "cli.py"))
    refused("no notebooks", "lab")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01.ipynb").touch()
    assert run("lab", "--no-browser", "--port", "9000")[0] == 0
    assert [word for word in calls[0] if word != "--allow-root"] == [
        "--no-browser",
        "--port",
        "9000",
        str(tmp_path / "notebooks"),
    ]


# --- as a process ---


def test_the_installed_command(tmp_path):
    command = [Path(sys.executable).with_name("ldm-course"), "txt2img", *FAST, "-o", "my dog.png", "--", "-o dog"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {tmp_path / 'my dog.png'}, 64 x 64 px, ")
    assert Image.open("my dog.png").size == (64, 64)


def test_as_a_module():
    command = [sys.executable, "-m", "ldm_course.cli", "txt2img", "a dog", "-o", "nowhere/dog.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "Trace" not in done.stderr

"""The command line: what it writes, and that its options are the functions' own. robustness/ has its refusals."""

from __future__ import annotations

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
from PIL import Image
from torch.testing import assert_close

import ldm_course as ldm
from ldm_course import cli, masks
from ldm_course.evaluate import bench, evaluate
from ldm_course.io import onnx_export
from ldm_course.lora import merge_lora
from ldm_course.pipelines import SAMPLERS
from ldm_course.schedule import SPACINGS
from ldm_course.train import stages, teach

TINY = Path(__file__).parent / "fixtures" / "tiny-sd15"
FAST = ["--model", TINY, "--num-inference-steps", 4, "--seed", 5, "--device", "cpu"]
COMMANDS = cli.cli.commands


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd):
    """Run a command as the shell does; returns (exit code, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture(scope="session")
def tiny():
    with pytest.warns(UserWarning, match="PNDM"):
        return ldm.load(TINY, device="cpu")


@pytest.fixture
def photo(tmp_path):
    """photo.png, 64 x 48 pixels, without a scene; and the image in it."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((64, 48))
    image.save(tmp_path / "photo.png")
    return image


def same(file, image):
    written = Image.open(file)
    assert (written.mode, written.size) == (image.mode, image.size)
    return np.array_equal(np.asarray(written), np.asarray(image))


def flags(**options):
    return [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)]


# ---- help and options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_parse(run, name):
    code, out, err = run(name, "--help")
    assert code == 0 and err == ""
    examples = re.sub(r" \\\n\s+", " ", out.split("Examples:")[1].split("\n\n")[0]).split("\n")
    parsed = [shlex.split(line) for line in examples if line.strip()]
    assert [line[0] for line in parsed] == ["ldm-course"] * len(parsed) and name in [line[1] for line in parsed]
    for _, command, *arguments in parsed:
        COMMANDS[command].make_context(command, arguments)


def test_help_and_version(run):
    code, out, _ = run()
    assert code == 0 and all(name in out for name in COMMANDS)
    assert run("--help")[1].split() == out.split()
    assert run("--version") == (0, f"ldm-course {ldm.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["txt2img", "--help"], ["scene"], ["scenes", "--rows", "1"]])
def test_without_torch(arguments):
    program = f"""
import sys
from ldm_course.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code
assert not {{"torch", "transformers", "matplotlib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize(
    "arguments, functions",
    [
        (["txt2img", "a dog"], [ldm.txt2img, ldm.load]),
        (["img2img", "a dog", "photo.png"], [ldm.img2img, ldm.load]),
        (["inpaint", "a dog", "photo.png"], [ldm.inpaint, ldm.load]),
        (["train", "vae"], [stages.train_stage]),
        (["evaluate"], [evaluate.evaluate]),
        (["bench"], [bench.bench]),
        (["export", "onnx"], [onnx_export.export_onnx]),
        (["teach", "drawings"], [teach.teach_folder]),
    ],
)
def test_options_are_the_functions_own_with_their_defaults(arguments, functions):
    ours = COMMANDS[arguments[0]].make_context(*arguments[:1], arguments[1:]).params
    in_python_only = {"generator", "latents", "progress"}
    other_names = {"model", "source", "mask_image", "model_folder", "run_folder", "folder", "images", "captions"}
    for function in functions:
        theirs = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        assert theirs.keys() - ours.keys() <= in_python_only | other_names
        both = (ours.keys() & theirs.keys()) - {"model", "prompt", "image", "stage", "dtype"}
        assert {key: ours[key] for key in both} == {key: theirs[key] for key in both}


def test_choices_are_all_there_are():
    def choices(command, option):
        return set({param.name: param.type for param in COMMANDS[command].params}[option].choices)

    assert choices("txt2img", "scheduler") == choices("evaluate", "scheduler") == set(SAMPLERS)
    assert choices("txt2img", "timestep_spacing") == set(SPACINGS)
    assert choices("train", "stage") == {*stages.ORDER, "all"}
    for attribute, values in ldm.scenes.ATTRIBUTES.items():
        assert choices("scene", attribute) == set(values)
    assert choices("inpaint", "part") == {*masks.REGIONS, *ldm.scenes.PARTS}


# ---- images ----------------------------------------------------------------------------------------------------


def test_txt2img(run, tiny, tmp_path):
    """Every option arrives; after "--" a prompt may begin with a dash."""
    options = {
        "negative_prompt": "a cat",
        "guidance_scale": 3.5,
        "scheduler": "dpm++",
        "timestep_spacing": "trailing",
        "height": 32,
        "width": 48,
    }
    code, out, _ = run("txt2img", "-o", "my dog.png", *FAST, *flags(**options), "--", "-o dog")
    wrote = rf"wrote {re.escape(str(tmp_path / 'my dog.png'))}, 48 x 32 px, \d+\.\d s on cpu, seed 5\n"
    assert code == 0 and re.fullmatch(wrote, out)
    assert same("my dog.png", ldm.txt2img(tiny, "-o dog", seed=5, num_inference_steps=4, **options))
    assert os.listdir() == ["my dog.png"]


def test_options_of_load_arrive(run, tiny, monkeypatch):
    calls = []
    monkeypatch.setattr(ldm, "load", lambda *args, **options: calls.append((*args, options)) or tiny)
    place = ["--model", "owner/name", "--revision", "v1", "--device", "mps", "--dtype", "bfloat16"]
    run("txt2img", "a dog", "--num-inference-steps", 1, *place, "--compile", "--offload")
    run("txt2img", "a dog", "--num-inference-steps", 1)
    import torch

    options = {"revision": "v1", "device": "mps", "dtype": torch.bfloat16, "compile": True, "offload": True}
    plain = {"revision": None, "device": None, "dtype": torch.float32, "compile": False, "offload": False}
    assert calls == [("owner/name", options), (None, plain)]


def test_img2img(run, tiny, photo):
    assert run("img2img", "a dog", "photo.png", "-o", "dog.png", "--strength", 0.5, *FAST)[0] == 0
    assert same("dog.png", ldm.img2img(tiny, "a dog", photo, strength=0.5, seed=5, num_inference_steps=4))


@pytest.mark.parametrize("composite", [False, True])
def test_inpaint(run, tiny, photo, composite):
    mask = masks.box_mask(photo.size, (8, 16, 40, 48))
    mask.save("mask.png")
    ours = ldm.inpaint(tiny, "a dog", photo, mask, composite=composite, seed=5, num_inference_steps=4)
    flag = "--composite" if composite else "--no-composite"
    for place in (["--mask", "mask.png"], ["--box", "8,16, 40,48"]):
        assert run("inpaint", "a dog", "photo.png", *place, flag, "-o", "dog.png", *FAST)[0] == 0
        assert same("dog.png", ours)


def test_an_image_on_its_side_is_masked_upright(run, tiny, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: upright it is 48 x 64
    photo.save("turned.png", exif=exif)
    upright = photo.transpose(Image.Transpose.ROTATE_270)
    mask = masks.region_mask("lower-half", upright.size)
    assert run("inpaint", "a dog", "turned.png", "--part", "lower-half", "-o", "dog.png", *FAST)[0] == 0
    assert same("dog.png", ldm.inpaint(tiny, "a dog", upright, mask, seed=5, num_inference_steps=4))


def test_without_o_and_seed_names_and_seeds_are_new(run, tiny, tmp_path):
    for name in ("a-dog.png", "a-dog-2.png"):
        _, out, _ = run("txt2img", "a dog", "--model", TINY, "--num-inference-steps", 4)
        assert out.startswith(f"wrote {tmp_path / name},")
        seed = int(re.search(r"seed (\d+)", out)[1])
        assert same(name, ldm.txt2img(tiny, "a dog", seed=seed, num_inference_steps=4))


def test_warnings_are_notes(run):
    shutil.copytree(TINY, "model")
    Path("model/tokenizer/known_words.txt").write_text("a\ndog\n")
    code, _, err = run("txt2img", "a dog qua " + "x" * 80, "-o", "dog.png", *FAST[2:], "--model", "model")
    assert code == 0
    for word in ("cut", "'qua'"):
        assert len([line for line in err.splitlines() if line.startswith("note: ") and word in line]) == 1


@pytest.mark.parametrize(
    "terminal, name, value, shown",
    [
        (True, "NO_COLOR", "", True),  # https://no-color.org: set and not empty
        (True, "NO_COLOR", "1", False),
        (True, "TQDM_DISABLE", "1", False),
        (False, "NO_COLOR", "", False),
    ],
)
def test_progress_bar(run, tiny, monkeypatch, terminal, name, value, shown):
    seen = []
    monkeypatch.setattr(ldm, "load", lambda *_, **__: tiny)
    monkeypatch.setattr(ldm, "txt2img", lambda *_, progress, **__: seen.append(progress) or Image.new("RGB", (8, 8)))
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert run("txt2img", "a dog")[0] == 0 and seen == [shown]


# ---- scenes ----------------------------------------------------------------------------------------------------


def test_a_scene_and_its_parts(run, tiny):
    code, out, _ = run("scene", "-o", "dog.png", "--animal", "dog", "--accessory", "hat", "--size", 64)
    scene = ldm.scenes.Scene(animal="dog", accessory="hat")
    assert code == 0 and out.endswith(f"64 x 64 px: {scene.caption()}\n") and same("dog.png", scene.render(64))
    assert run("inpaint", "a dog", "dog.png", "--part", "face", "-o", "new.png", *FAST)[0] == 0
    ours = ldm.inpaint(tiny, "a dog", scene.render(64), scene.mask("face", 64), seed=5, num_inference_steps=4)
    assert same("new.png", ours)


def test_a_random_scene_keeps_what_was_asked(run):
    for name in ("one.png", "two.png"):
        run("scene", "-o", name, "--animal", "pig", "--action", "running", "--seed", 3)
    scene = ldm.scenes.Scene(**json.loads(Image.open("one.png").info[masks.SCENE_KEY]))
    assert (scene.animal, scene.action) == ("pig", "running") and scene.x != 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


@pytest.mark.parametrize("flag, columns", [([], 3), (["--held-out"], 3), (["--all-values"], 6)])
def test_contact_sheets(run, flag, columns):
    code, _, _ = run("scenes", "-o", "sheet.png", "--rows", 2, "--columns", 3, "--size", 32, *flag)
    assert code == 0 and Image.open("sheet.png").width == columns * 36 + 4


# ---- training, evaluation, notebooks ---------------------------------------------------------------------------


STAGE = {"steps": 3, "minutes": 1.5, "batch_size": 2, "learning_rate": 0.1, "precision": "no", "seed": 4,
         "dataset_size": 7, "init": Path("there")}  # fmt: skip
SWEEP = {"images": 9, "seed": 3, "num_inference_steps": 7, "guidance_scale": 2.5, "scheduler": "euler"}
BENCH = {"num_inference_steps": 7, "rounds": 2, "threads": 1, "out": Path("there")}


@pytest.mark.parametrize(
    "function, words, options, rest",
    [
        (stages.train_stage, ["train", "vae", "-o", "here", "--no-compile", "--resume"], STAGE,
         {"stage": "vae", "run_folder": Path("here"), "compile": False, "resume": True}),
        (evaluate.evaluate, ["evaluate", "--model", "here", "--full", "-o", "there"], SWEEP,
         {"model_folder": Path("here"), "full": True, "out": Path("there")}),
        (bench.bench, ["bench", "--model", "here"], BENCH, {"model_folder": Path("here")}),
    ],
)  # fmt: skip
def test_everything_is_passed_on(run, monkeypatch, function, words, options, rest):
    calls, signature = [], inspect.signature(function)
    module = sys.modules[function.__module__]
    monkeypatch.setattr(module, function.__name__, lambda *a, **k: calls.append(signature.bind(*a, **k).arguments))
    assert run(*words, *flags(**options)) == (0, "", "")
    assert calls == [options | rest]


def test_teach_and_generate_with_what_was_taught(run, tiny, tmp_path):
    Path("drawings").mkdir()
    for name in ("one", "two"):
        ldm.scenes.Scene(animal="elephant", action="sleeping", colour="pink").render(64).save(f"drawings/{name}.png")
    Path("drawings/two.txt").write_text("a pink elephant asleep\n")
    how = {
        "steps": 2,
        "rank": 3,
        "learning_rate": 0.05,
        "batch_size": 2,
        "prior_images": 1,
        "seed": 4,
        "device": "cpu",
    }
    words = ["--prompt", "an elephant", "--class-prompt", "a dog", "--no-mirror", "--model", TINY]
    code, out, err = run("teach", "drawings", "-o", "elephants.safetensors", *words, *flags(**how))
    file = re.escape(str(tmp_path / "elephants.safetensors"))
    wrote = rf"wrote {file}, 2 images, 2 steps, \d+ kB, \d+ s on cpu, seed 4\n"
    assert code == 0 and re.fullmatch(wrote, out), err

    images, captions = teach.read_folder(Path("drawings"), ["an elephant"])
    assert captions == [["an elephant"], ["a pink elephant asleep"]]
    theirs = teach.teach_folder(images, captions, class_prompt=["a dog"], mirror=False, model=str(TINY), **how)
    ours = ldm.load_lora(tiny, "elephants.safetensors")
    for name, weight in merge_lora(theirs.unet).state_dict().items():
        assert_close(ours.unet.state_dict()[name], weight)

    added = ["--lora", "elephants.safetensors"]
    for scale, strength in (([], 1.0), (["--lora-scale", 0.5], 0.5)):
        assert run("txt2img", "a dog", "-o", "dog.png", *added, *scale, *FAST)[0] == 0
        model = ldm.load_lora(tiny, "elephants.safetensors", strength=strength)
        assert same("dog.png", ldm.txt2img(model, "a dog", seed=5, num_inference_steps=4))
    twice = [*added, *added, "--lora-scale", 0.5, "--lora-scale", 0.25]
    assert run("img2img", "a dog", "drawings/one.png", "-o", "dog.png", *twice, *FAST)[0] == 0
    model = ldm.load_lora(
        ldm.load_lora(tiny, "elephants.safetensors", strength=0.5), "elephants.safetensors", strength=0.25
    )
    assert same("dog.png", ldm.img2img(model, "a dog", images[0], seed=5, num_inference_steps=4))


@pytest.mark.parametrize("flags, options", [([], (False, False)), (["--attention", "--int8"], (True, True))])
def test_export(run, tiny, monkeypatch, tmp_path, flags, options):
    calls = []

    def export(model, folder, attention, int8):
        folder.mkdir()
        (folder / "unet.onnx").write_bytes(bytes(140_000))
        calls.append((model, folder, (attention, int8)))

    monkeypatch.setattr(ldm, "load", lambda *args, **rest: calls.append((*args, rest)) or tiny)
    monkeypatch.setattr(onnx_export, "export_onnx", export)
    assert run("export", "onnx", "-o", "new", "--model", "here", *flags) == (
        0,
        f"wrote {tmp_path / 'new'}, 0.1 MB\n",
        "",
    )
    assert calls == [("here", {"device": "cpu"}), (tiny, tmp_path / "new", options)]


def test_lab(run, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", types.SimpleNamespace(main=calls.append))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01.ipynb").touch()
    assert run("lab", "--no-browser", "--port", "9000")[0] == 0
    passed_on = [word for word in calls[0] if word != "--allow-root"]
    assert passed_on == ["--no-browser", "--port", "9000", str(tmp_path / "notebooks")]

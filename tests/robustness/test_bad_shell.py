"""The command line, given anything: an image, or one sentence on standard error; no trace, no half-written file."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

import ldm_course as ldm
from ldm_course import cli, masks

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-sd15"
COMMAND = [str(Path(sys.executable).with_name("ldm-course"))]
pytestmark = pytest.mark.filterwarnings("ignore")


def run(*arguments):
    """Exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code or 0, out.getvalue(), err.getvalue()


def assert_done_or_refused(code, out, err, new):
    """A file and its line, or an error's one line and no file."""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    if code == 0:
        assert out.startswith("wrote ") and len(new) == 1 and not errors
        with Image.open(new.pop()) as image:
            image.load()
    else:
        assert code in (1, 2) and out == "" and not new and len(errors) == 1, (code, out, err, new)
        assert errors[0].isprintable() and not re.search(r"[.!?] [A-Z]", errors[0]), errors[0]


def refused(words, *arguments, code=2):
    """Run a command that must end with one sentence, these words in it, and leave no file behind."""
    before = sorted(Path.cwd().rglob("*"))
    found, out, err = run(*arguments)
    assert found == code, (found, out, err)
    assert_done_or_refused(found, out, err, set(Path.cwd().rglob("*")) - set(before))
    assert words in err, err


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.fixture(scope="module")
def tiny():
    return ldm.load(TINY, device="cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Images and what only looks like them; loading a model is an error of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ldm, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    Image.linear_gradient("L").resize((64, 48)).save("photo.png")
    Image.new("L", (32, 32), 255).save("small.png")
    Image.new("L", (64, 48)).save("black.png")
    Path("text.png").write_text("no image")
    Path("empty").mkdir()
    Path("there.safetensors").write_text("no LoRA")
    return tmp_path


# ---- mistakes: one sentence, nothing written, no model loaded ----------------------------------------------------

MISTAKES = [
    ("txt2img", "Missing argument", []), ("txt2img", "prompt is empty", [" "]),
    ("txt2img", "No such option", ["a dog", "--gidance", "3"]),
    ("txt2img", "valid int", ["a dog", "--num-inference-steps", "many"]),
    ("txt2img", "--num-inference-steps", ["a dog", "--num-inference-steps", "0"]),
    ("txt2img", "--seed", ["a dog", "--seed", "-1"]), ("txt2img", "2**63", ["a dog", "--seed", 2**63]),
    ("txt2img", "'plms'", ["a dog", "--scheduler", "plms"]), ("txt2img", "nan", ["a dog", "--guidance-scale", "nan"]),
    ("txt2img", "negative_prompt", ["a dog", "--negative-prompt", "\udcff"]),
    ("txt2img", "must end in .png", ["a dog", "-o", "dog.xyz"]), ("txt2img", "--width", ["a dog", "--width", "0"]),
    ("txt2img", "There is no file", ["a dog", "--lora", "nothing.safetensors"]),
    ("txt2img", "broken", ["a dog", "--lora", "there.safetensors"]),
    ("txt2img", "must be a .safetensors", ["a dog", "--lora", "photo.png"]),
    ("txt2img", "1 --lora-scale and 0 --lora", ["a dog", "--lora-scale", "2"]),
    ("txt2img", "strength", ["a dog", "--lora", "there.safetensors", "--lora-scale", "nan"]),
    ("img2img", "There is no file 'nothing.png'", ["a dog", "nothing.png"]),
    ("img2img", "'text.png' is not an image", ["a dog", "text.png"]),
    ("img2img", "--strength", ["a dog", "photo.png", "--strength", "1.5"]),
    ("img2img", "strength is nan", ["a dog", "photo.png", "--strength", "nan"]),
    ("img2img", "prompt is empty", ["", "photo.png"]),
    ("inpaint", "There is no file", ["a dog", "photo.png", "--mask", "nothing.png"]),
    ("inpaint", "one size", ["a dog", "photo.png", "--mask", "small.png"]),
    ("inpaint", "empty", ["a dog", "photo.png", "--mask", "black.png"]),
    ("inpaint", "LEFT,TOP,RIGHT,BOTTOM", ["a dog", "photo.png", "--box", "1,2,3"]),
    ("inpaint", "--grow", ["a dog", "photo.png", "--part", "centre", "--grow", "65"]),
    ("inpaint", "'nose'", ["a dog", "photo.png", "--part", "nose"]),
    ("inpaint", "upper-half, lower-half", ["a dog", "photo.png", "--part", "legs"]),
    ("scene", "must end in .png", ["-o", "dog.jpg"]), ("scene", "--size", ["--size", "0"]),
    ("scenes", "only one of", ["--held-out", "--all-values"]), ("scenes", "--rows", ["--rows", "0"]),
    ("scenes", "There is no folder", ["-o", "nowhere/sheet.png"]), ("train", "minutes", ["vae", "--minutes", "-1"]),
    ("teach", "Missing argument", []), ("teach", "There is no folder", ["nowhere", "--prompt", "a dog"]),
    ("teach", "no images in empty", ["empty", "--prompt", "a dog"]), ("teach", "Say with --prompt", ["."]),
    ("teach", "'text.png' is not an image", [".", "--prompt", "a dog"]),
    ("teach", "exists already", [".", "--prompt", "a dog", "-o", "there.safetensors"]),
    ("teach", "must end in .safetensors", [".", "--prompt", "a dog", "-o", "lora.png"]),
    ("teach", "--rank", [".", "--prompt", "a dog", "--rank", "0"]),
    ("evaluate", "--images", ["--images", "0"]), ("bench", "--rounds", ["--rounds", "0"]),
    ("lab", "no notebooks", []), ("paint", "No such command", []),
]  # fmt: skip


@pytest.mark.parametrize("command, words, arguments", MISTAKES)
def test_mistakes(folder, monkeypatch, command, words, arguments):
    monkeypatch.setattr(cli, "__file__", str(folder / "site-packages" / "ldm_course" / "cli.py"))
    refused(words, command, *arguments)


@pytest.mark.parametrize(
    "task, words, arguments",
    [
        ("txt2img", "last timestep", ["--num-inference-steps", 1000]),
        ("txt2img", "height is 100", ["--height", 100]),
        ("img2img", "less than one step", ["photo.png", "--num-inference-steps", 10, "--strength", 0.05]),
        ("inpaint", "too thin", ["photo.png", "--box", "1,1,7,7"]),
        ("txt2img", "is for another model", ["--lora", "other.safetensors"]),
    ],
)
def test_mistakes_that_only_the_model_shows(folder, monkeypatch, tiny, task, words, arguments):
    monkeypatch.setattr(ldm, "load", lambda *_, **__: tiny)
    matrix = torch.ones(2, 2)
    save_file({"unet.x.lora_A.weight": matrix, "unet.x.lora_B.weight": matrix.clone()}, "other.safetensors")
    refused(words, task, "a dog", *arguments)


@pytest.mark.parametrize(
    "stored", ["[" * 100_000, '{"x": 1e999}', '{"x": 1' + "0" * 400 + "}", '{"animal": ["dog"]}']
)
def test_an_image_whose_scene_is_nonsense(folder, stored):
    text = PngInfo()
    text.add_text(masks.SCENE_KEY, stored)
    Image.new("RGB", (16, 16)).save("odd.png", pnginfo=text)
    refused("cannot be read", "inpaint", "a dog", "odd.png", "--part", "face", "-o", "dog.png")


def test_parts_that_a_scene_does_not_have(folder):
    run("scene", "-o", "dog.png")
    refused("accessory", "inpaint", "a dog", "dog.png", "--part", "accessory")
    image, text = Image.open("dog.png"), PngInfo()
    text.add_text(masks.SCENE_KEY, image.info[masks.SCENE_KEY])
    image.crop((0, 0, 128, 64)).save("cut.png", pnginfo=text)
    refused("one size", "inpaint", "a dog", "cut.png", "--part", "face")


# ---- any words -------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=(), exclude_characters="\0/.!?"), max_size=40)
odd = st.sampled_from(["", " ", "-", "--", "nan", "inf", "-inf", "1e400", "-1", "0", "1", "2", "8", "9" * 5000,
                       "True", "0x10", "1_0", "½", "\ud800", "\udcff", "a\nb", "\x1b[31m",
                       "💥" * 100]) | words  # fmt: skip
OPTIONS = {
    "--seed": odd | st.just("5"),
    "--guidance-scale": odd | st.just("3"),
    "--strength": odd | st.just("0.5"),
    "--scheduler": odd | st.sampled_from(["ddim", "euler"]),
    "--timestep-spacing": odd | st.just("trailing"),
    "--negative-prompt": odd,
    "--dtype": odd | st.just("float32"),
    "--mask": odd | st.sampled_from(["mask.png", "photo.png", "text.png", "."]),
    "--box": odd | st.sampled_from(["0,0,16,16", "0,0,8", "8,8,8,8", "9999999999999999999,0,1,1"]),
    "--part": odd | st.sampled_from(["face", "centre", "upper-half"]),
    "--grow": odd | st.just("3"),
    "--nonsense": odd,
}
NAMES = ["dog.png", "dog", "dog.xyz", ".png", "dog.PNG", "dog.jpeg", "nowhere/dog.png", ".", "", "x" * 300 + ".png",
         "loop/a.png", "photo.png/dog.png", "~nobody-here/dog.png", "\udcff.png", "a\nb.webp", " .png", "-.png",
         "💥.tiff"]  # fmt: skip


@given(
    task=st.sampled_from(["txt2img", "img2img", "inpaint"]),
    prompt=odd | st.just("a dog"),
    image=st.sampled_from(["photo.png", "text.png", "cut.png", "small.png", "nothing.png", ".", "", "\udcff.png"]),
    output=st.sampled_from(NAMES) | st.none(),
    options=st.lists(st.sampled_from(sorted(OPTIONS)), max_size=2, unique=True),
    data=st.data(),
)
def test_any_words(tiny, task, prompt, image, output, options, data):
    flags = [f"{name}={data.draw(OPTIONS[name], name)}" for name in options]
    flags += [] if output is None else [f"--output={output}"]
    given_words = [prompt] if task == "txt2img" else [prompt, image]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ldm, "load", lambda *_, **__: tiny)
        photo = Image.linear_gradient("L").resize((16, 16))
        photo.save("photo.png")
        Image.new("L", (16, 16), 255).save("mask.png")
        Image.new("L", (4, 16), 255).save("small.png")
        Path("text.png").write_text("no image")
        Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:60])
        Path("loop").symlink_to("loop")
        before = set(os.listdir())
        done = run(task, *flags, "--num-inference-steps=2", "--", *given_words)
        assert_done_or_refused(*done, set(os.listdir()) - before)
        assert Path("photo.png").stat().st_size > 60


@given(arguments=st.lists(odd | st.sampled_from(["txt2img", "scene", "--size=8", "-o", "dog.png"]), max_size=4))
@example(["scene", "-o", "~nobody-here/dog.png"])
@example(["scene", "-o", "loop/dog.png"])
def test_any_command(tiny, arguments):
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ldm, "txt2img", lambda *_, **__: Image.new("RGB", (8, 8)))
        patch.setattr(ldm, "load", lambda *_, **__: tiny)
        Path("loop").symlink_to("loop")
        code, out, err = run(*arguments)
        if not out.startswith("Usage: "):  # the help, as of no words at all
            assert_done_or_refused(code, out, err, set(os.listdir()) - {"loop"})


# ---- when the machine fails, a package is missing, or the user has had enough ------------------------------------


@pytest.mark.parametrize(
    "error, words, code",
    [
        (MemoryError(), "not enough memory", 1),
        (RuntimeError("CUDA out of memory."), "not enough memory", 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory", 1),
        (OSError(28, "No space left on device"), "No space left", 1),
        (PermissionError(13, "Permission denied", "weights"), "weights: Permission denied", 2),
        (ModuleNotFoundError(name="diffusers"), "pip install diffusers", 1),
        (UserWarning("An odd word. It is unknown."), "An odd word", 2),
    ],
)
def test_failures_in_a_sentence(folder, monkeypatch, error, words, code):
    monkeypatch.setattr(ldm, "load", raising(error))
    found, out, err = run("txt2img", "a dog")
    assert (found, out, err.count("\n")) == (code, "", 1) and err.startswith("error: ") and words in err


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), ModuleNotFoundError(name="torch")])
def test_bugs_are_not_hidden(folder, monkeypatch, error):
    monkeypatch.setattr(ldm, "load", raising(error))
    with pytest.raises(type(error)):
        cli.main(["txt2img", "a dog"])


@pytest.mark.parametrize(
    "package, arguments",
    [
        ("accelerate", ["train", "vae"]),
        ("matplotlib", ["evaluate"]),
        ("jupyterlab", ["lab"]),
        ("onnxruntime", ["export", "onnx"]),
        ("onnxscript", ["export", "onnx"]),
    ],
)
def test_a_missing_package_is_named(folder, monkeypatch, package, arguments):
    for name in list(sys.modules):
        if name.startswith(("ldm_course.train", "ldm_course.evaluate", "ldm_course.io.onnx_export", package)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    (folder / "a.ipynb").touch()
    refused(f"pip install {package}", *arguments, code=1)


def test_an_export_replaces_only_an_export(folder):
    refused("is not an export", "export", "onnx", "-o", folder)
    refused("is not an export", "export", "onnx", "-o", folder / "photo.png")


@pytest.mark.parametrize(
    "owner, name, arguments, words",
    [
        ("ldm_course.cli", "check_output", ["txt2img", "a dog"], ""),
        ("ldm_course", "load", ["txt2img", "a dog"], ""),
        ("ldm_course.train.stages", "train_stage", ["train", "vae"], "--resume"),
    ],
)
def test_ctrl_c(folder, monkeypatch, owner, name, arguments, words):
    monkeypatch.setattr(importlib.import_module(owner), name, raising(KeyboardInterrupt()))
    before = os.listdir()
    code, out, err = run(*arguments)
    assert (code, out) == (130, "") and err.strip().startswith("stopped") and words in err
    assert len(err.splitlines()) == 2 and os.listdir() == before  # an empty line first: it may follow a bar


def test_the_folder_vanishes_meanwhile(folder, monkeypatch, tiny):
    (folder / "out").mkdir()
    monkeypatch.setattr(ldm, "load", lambda *_, **__: (folder / "out").rmdir() or tiny)
    monkeypatch.setattr(ldm, "txt2img", lambda *_, **__: Image.new("RGB", (8, 8)))
    before = set(os.listdir())
    done = run("txt2img", "a dog", "-o", str(folder / "out" / "dog.png"))
    assert_done_or_refused(*done, set(os.listdir()) - before | {"out"} - before)


# ---- real processes --------------------------------------------------------------------------------------------


def shell(folder, *arguments, **options):
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_names_that_are_no_text(tmp_path):
    """Linux gives a command bytes, not letters. A file may have such a name; a prompt may not (test_any_words)."""
    code, out, err = shell(tmp_path, "scene", "-o", b"\xff.png", "--size", "8")
    assert (code, err) == (0, "") and "udcff.png" in out
    assert os.listdir(bytes(tmp_path)) == [b"\xff.png"]


@pytest.mark.parametrize("name", ["dog.png", "new.png"])
def test_a_disk_that_fills_up_in_the_middle_of_the_file(tmp_path, name):
    """The system lets a file grow to 1000 bytes, and no further."""
    (tmp_path / "dog.png").write_text("old")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    code, out, err = shell(tmp_path, "scene", "-o", name, preexec_fn=limit, env=environment)
    assert (code, out) == (1, "") and "File too large" in err and "Traceback" not in err
    assert os.listdir(tmp_path) == ["dog.png"] and (tmp_path / "dog.png").read_text() == "old"


@pytest.mark.parametrize(
    "arguments", [["a dog", "--model", str(TINY), "--device", "cpu"], ["a dog qua", "--num-inference-steps", "10"]]
)
def test_warnings_made_errors(tmp_path, arguments):
    code, out, err = shell(tmp_path, "txt2img", *arguments, env=os.environ | {"PYTHONWARNINGS": "error"})
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("error: ")
    assert os.listdir(tmp_path) == []


def test_ctrl_c_in_the_middle_of_an_image(tmp_path):
    """The process is sent SIGINT while it denoises."""
    command = [*COMMAND, "txt2img", "a dog", "-o", "dog.png", "--model", str(TINY), "--num-inference-steps", "999"]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
    terminal, end = os.openpty()  # for the progress bar, which also needs a width
    termios.tcsetwinsize(end, (24, 80))
    with subprocess.Popen(command, cwd=tmp_path, preexec_fn=heard, stderr=end, stdout=subprocess.PIPE) as process:
        os.close(end)
        seen = b""
        while not re.search(rb"[1-9]\d*/999", seen):
            seen += os.read(terminal, 1000)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while more := os.read(terminal, 1000):
                seen += more
        out, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 130 and out == b"" and b"Traceback" not in seen
    assert seen.splitlines()[-1] == b"stopped"
    assert os.listdir(tmp_path) == []


def test_two_at_once_take_two_names(tmp_path):
    """Without -o: neither overwrites the other."""
    command = [*COMMAND, "txt2img", "a dog", "--model", str(TINY), "--num-inference-steps", "1"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    assert sorted(os.listdir(tmp_path)) == ["a-dog-2.png", "a-dog.png"]
    for name in os.listdir(tmp_path):
        Image.open(tmp_path / name).load()

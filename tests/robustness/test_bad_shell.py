"""The command line, given anything: a picture, or one sentence on standard error; no trace, no half-written file."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import ldm_course as ldm
from ldm_course import cli

TINY = Path(__file__).parent / "fixtures" / "tiny-sd15"
COMMAND = [str(Path(sys.executable).with_name("ldm-course"))]
pytestmark = pytest.mark.filterwarnings("ignore")


@contextlib.contextmanager
def inside(folder: str | Path):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return ended.value.code or 0, out.getvalue(), err.getvalue()


def assert_done_or_refused(code: int, out: str, err: str, new: set[str]) -> None:
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


@pytest.fixture(scope="module")
def tiny():
    return ldm.load(TINY)


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
    with tempfile.TemporaryDirectory() as folder, inside(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ldm, "load", lambda *_, **__: tiny)
        photo = Image.linear_gradient("L").resize((16, 16))
        photo.save("photo.png")
        Image.new("L", (16, 16), 255).save("mask.png")
        Image.new("L", (4, 16), 255).save("small.png")
        Path("text.png").write_text("no picture")
        Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:60])
        Path("loop").symlink_to("loop")
        before = set(os.listdir())
        done = run(task, *flags, "--num-inference-steps=1", "--", *given_words)
        assert_done_or_refused(*done, set(os.listdir()) - before)
        assert Path("photo.png").stat().st_size > 60


@given(arguments=st.lists(odd | st.sampled_from(["txt2img", "scene", "--size=8", "-o", "dog.png"]), max_size=4))
@example(["scene", "-o", "~nobody-here/dog.png"])
@example(["scene", "-o", "loop/dog.png"])
def test_any_command(arguments):
    with tempfile.TemporaryDirectory() as folder, inside(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ldm, "txt2img", lambda *_, **__: Image.new("RGB", (8, 8)))
        patch.setattr(ldm, "load", lambda *_, **__: None)
        Path("loop").symlink_to("loop")
        code, out, err = run(*arguments)
        if not out.startswith("Usage: "):  # the help, as of no words at all
            assert_done_or_refused(code, out, err, set(os.listdir()) - {"loop"})


@pytest.mark.parametrize(
    "stored", ["[" * 100_000, '{"x": 1e999}', '{"x": 1' + "0" * 400 + "}", '{"animal": ["dog"]}', "NaN", ""]
)
def test_a_picture_whose_scene_is_nonsense(tmp_path, stored):
    text = PngInfo()
    text.add_text(cli.SCENE_KEY, stored)
    Image.new("RGB", (16, 16)).save(tmp_path / "odd.png", pnginfo=text)
    with inside(tmp_path):
        done = run("inpaint", "a dog", "odd.png", "--part", "face", "-o", "dog.png")
        assert_done_or_refused(*done, set(os.listdir()) - {"odd.png"})


# ---- real processes --------------------------------------------------------------------------------------------


def shell(folder: Path, *arguments: str | bytes, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, **options)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_names_that_are_no_text(tmp_path):
    """Linux gives a command bytes, not letters. A file may have such a name; a prompt may not (test_any_words)."""
    done = shell(tmp_path, "scene", "-o", b"\xff.png", "--size", "8")
    assert (done.returncode, done.stderr) == (0, "") and "udcff.png" in done.stdout
    assert os.listdir(bytes(tmp_path)) == [b"\xff.png"]


def test_a_disk_that_fills_up_in_the_middle_of_the_file(tmp_path):
    """The system lets a file grow to 1000 bytes, and no further."""
    (tmp_path / "dog.png").write_text("old")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = shell(
        tmp_path, "scene", "-o", "dog.png", preexec_fn=limit, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    )
    assert done.returncode == 1 and "File too large" in done.stderr
    assert_done_or_refused(done.returncode, done.stdout, done.stderr, set(os.listdir(tmp_path)) - {"dog.png"})
    assert (tmp_path / "dog.png").read_text() == "old"


def test_the_folder_vanishes_while_a_picture_is_painted(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(ldm, "load", lambda *_, **__: (tmp_path / "out").rmdir())
    monkeypatch.setattr(ldm, "txt2img", lambda *_, **__: Image.new("RGB", (8, 8)))
    done = run("txt2img", "a dog", "-o", str(tmp_path / "out" / "dog.png"))
    assert_done_or_refused(*done, set(os.listdir(tmp_path)))


@pytest.mark.parametrize("command", [["txt2img", "a dog"], ["scenes"]])
def test_ctrl_c_where_nothing_waits_for_it(monkeypatch, tmp_path, command):
    """While options are checked, or in a command without a sentence of its own."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_output", interrupted)
    code, out, err = run(*command)
    assert (code, out, err) == (130, "", "")


def test_ctrl_c_in_the_middle_of_a_picture(tmp_path):
    """The process is sent SIGINT while it denoises; the same command then paints as if nothing had been."""
    command = [
        *COMMAND,
        "txt2img",
        "a dog",
        "-o",
        "dog.png",
        "--seed",
        "5",
        "--model",
        str(TINY),
        "--num-inference-steps",
    ]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, "999"], cwd=tmp_path, preexec_fn=heard, **pipes) as process:
        seen = b""
        while b"/999" not in seen:
            seen += os.read(process.stderr.fileno(), 1000)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b"" and b"Traceback" not in err
    assert err.splitlines()[-1] == b"stopped; nothing was written"
    assert os.listdir(tmp_path) == []


def test_ctrl_c_while_a_progress_bar_is_set_up(tmp_path):
    """tqdm draws a bar before it is complete; one that is stopped in between fails once more when it is deleted."""
    program = """
from ldm_course.cli import _stoppable
class HalfBar:
    def __del__(self):
        raise AttributeError("last_print_t")
with _stoppable("stopped"):
    bar = HalfBar()
    raise KeyboardInterrupt
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "HalfBar" not in done.stderr and "\nstopped\n" in done.stderr


def test_two_at_once_take_two_names(tmp_path):
    """Without -o: neither overwrites the other."""
    command = [*COMMAND, "txt2img", "a dog", "--model", str(TINY), "--num-inference-steps", "1"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    assert sorted(os.listdir(tmp_path)) == ["a-dog-2.png", "a-dog.png"]
    for name in os.listdir(tmp_path):
        Image.open(tmp_path / name).load()

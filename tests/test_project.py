"""The project's own files agree: versions, dependencies, addresses, and what the wheel holds."""

import ast
import gc
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ldm_course
from ldm_course.startup import without_collecting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PRETRAINED = ROOT / "ldm_course" / "pretrained"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What Colab shipped in August 2026 (Python 3.13). The course installs on top of these without touching them.
COLAB = {
    "accelerate": "1.14.0",
    "anywidget": "0.9.21",
    "diffusers": "0.39.0",
    "huggingface-hub": "1.27.0",
    "ipywidgets": "7.7.1",
    "matplotlib": "3.10.0",
    "numpy": "2.1.3",
    "pillow": "11.3.0",
    "safetensors": "0.8.0",
    "torch": "2.11.0",
    "tqdm": "4.67.3",
    "transformers": "5.15.0",
    "typer": "0.27.1",
}

# Repositories of others that our pages may link to. Any other GitHub address must be our own.
OTHERS = {
    "compvis/latent-diffusion",
    "compvis/stable-diffusion",
    "crowsonkb/k-diffusion",
    "huggingface/accelerate",
    "huggingface/diffusers",
    "huggingface/transformers",
    "openai/clip",
}


def requirements(*groups: str) -> list[Requirement]:
    """The requirements of the core and of the named extras, without the project's references to itself."""
    lines = list(PROJECT["dependencies"])
    for group in groups:
        lines += PROJECT["optional-dependencies"][group]
    parsed = [Requirement(line) for line in lines]
    return [r for r in parsed if canonicalize_name(r.name) != PROJECT["name"]]


def pins() -> dict[str, str]:
    """constraints.txt as name -> version. Each line must be an exact pin."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pin = Requirement(line)
            (spec,) = pin.specifier
            assert spec.operator == "==" and not spec.version.endswith("*"), f"not an exact pin: {line}"
            name = canonicalize_name(pin.name)
            assert name not in found, f"pinned twice: {name}"
            found[name] = spec.version
    return found


def environment() -> tuple[list[str], list[str]]:
    """The conda packages of environment.yml, and the lines of its pip section."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [entry for entry in entries if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return conda, pip


def pages() -> dict[str, str]:
    """Every text in which a reader meets a link: the Markdown files, and all cells of the notebooks."""
    texts = {}
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("ldm_course/**/*.md")]:
        texts[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[f"notebooks/{path.name}"] = "\n".join("".join(cell["source"]) for cell in cells)
    return texts


# --- the version ---


def test_the_version_stands_in_one_place():
    version = PROJECT["version"]
    assert ldm_course.__version__ == version, "installed at another version? run `pip install -e .` again"
    for path in (ROOT / "ldm_course").rglob("*.py"):
        assert not re.search(rf"""["']v?{re.escape(version)}["']""", path.read_text()), f"repeated in {path}"


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first and first[1] == PROJECT["version"]


# --- dependencies ---


def test_constraints_pin_every_dependency_inside_its_range():
    pinned = pins()
    for need in requirements("lab", "train", "test", "browser"):
        name = canonicalize_name(need.name)
        assert name in pinned, f"constraints.txt lacks {name}"
        assert need.specifier.contains(pinned[name]), f"{name}=={pinned[name]} is outside {need}"


def test_constraints_fit_any_platform():
    local = {name: version for name, version in pins().items() if Version(version).local}
    assert not local, f"a local build exists on one index only: {local}"


def test_torch_is_pinned_to_the_tested_release():
    assert pins()["torch"] == "2.13.0"


def test_colab_needs_nothing_newer():
    for need in requirements("lab", "train"):
        version = COLAB.get(canonicalize_name(need.name))
        assert version is None or need.specifier.contains(version), f"Colab ships {version}, outside {need}"


def test_extras():
    assert set(PROJECT["optional-dependencies"]) == {"lab", "train", "test", "browser"}
    core = {canonicalize_name(need.name) for need in requirements()}
    assert "diffusers" not in core, "diffusers is the yardstick, not a part"
    test = PROJECT["optional-dependencies"]["test"]
    assert "ldm-course[lab,train]" in test, "`test` must bring what the notebooks and the training need"


def test_readme_names_only_extras_that_exist():
    for path, text in pages().items():
        for group in re.findall(r"""(?:ldm-course|["' ]\.)\[([a-z, ]+)\]""", text):
            unknown = {name.strip() for name in group.split(",")} - set(PROJECT["optional-dependencies"])
            assert not unknown, f"{path} installs extras that do not exist: {unknown}"


def test_the_core_imports_no_yardstick_and_no_lab():
    code = (
        "import sys\n"
        "from ldm_course import *\n"
        "assert 'torch' in sys.modules\n"
        "print([m for m in ('diffusers', 'accelerate', 'matplotlib', 'ipywidgets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- importing ---


def test_public_names_are_what_type_checkers_read_of_them():
    source = ast.parse((ROOT / "ldm_course" / "__init__.py").read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    told = {
        alias.name: importlib.import_module(node.module or "")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(told) == sorted(ldm_course.__all__)
    for name, module in told.items():
        assert getattr(ldm_course, name) is getattr(module, name)
    assert set(ldm_course.__all__) <= set(dir(ldm_course))


def test_a_name_that_is_not_there():
    assert not hasattr(ldm_course, "no_such_thing")
    with pytest.raises(AttributeError, match="'ldm_course' has no attribute 'no_such_thing'"):
        ldm_course.no_such_thing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("module", "blocks groupnorm images pipelines sampling schedulers unet vae".split())
def test_modules_are_at_hand_without_an_import_of_their_own(module):
    code = f"import ldm_course as ldm; print(ldm.{module}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"ldm_course.{module}"


@pytest.mark.parametrize("arguments", [["--help"], ["txt2img", "--help"], ["--version"], ["no-such-command"],
                                       ["scene", "--seed", "1", "-o", "scene.png"]])  # fmt: skip
def test_a_command_that_needs_no_model_does_not_wait_for_torch(arguments, tmp_path):
    code = (
        "import sys\n"
        "from ldm_course.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == (2 if arguments == ["no-such-command"] else 0) and "Traceback" not in done.stderr


@pytest.mark.parametrize("was_on", [True, False])
def test_the_garbage_collector_rests_and_is_left_as_it_was(was_on):
    if not was_on:
        gc.disable()
    try:
        with pytest.raises(ImportError), without_collecting():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


def test_torch_and_transformers_are_imported_without_collecting():
    code = (
        "import gc, ldm_course\n"
        "started = []\n"
        "gc.callbacks.append(lambda phase, _: started.append(phase))\n"
        "ldm_course.unet\n"
        "print(len(started))\n"
        "from ldm_course.checkpoint import _read_tokenizer\n"
        "started.clear()\n"
        "_read_tokenizer(ldm_course.bundled_path() / 'tokenizer')\n"
        "print(len(started))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    counts = [int(line) for line in done.stdout.split()]
    assert max(counts) < 100, f"{counts} collections; torch alone takes over 700 with the collector on"


# --- conda, repo2docker, Binder ---


def test_environment_yml():
    data = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert data["name"] == "ldm-course"
    conda, pip = environment()
    names = {re.split(r"[ =<>]", entry)[0] for entry in conda}
    needed = "pip jupyterlab pytorch numpy matplotlib ipywidgets transformers diffusers nbval".split()
    assert names >= set(needed), f"environment.yml lacks {set(needed) - names}"
    assert pip == ["-e .[lab,test]"], "the package itself, relative, so that conda and Binder find it"


def test_environment_yml_asks_for_nothing_else():
    known = {canonicalize_name(need.name) for need in requirements("lab", "train", "test")}
    for entry in environment()[0]:
        name, *version = re.split(r"[ =<>]+", entry, maxsplit=1)
        if name == "python":
            assert f"Programming Language :: Python :: {version[0]}" in PROJECT["classifiers"]
        elif name != "pip":
            assert {"pytorch": "torch"}.get(name, name) in known, f"{name} is no dependency of ours"
            assert not version, f"{entry}: ranges belong in pyproject.toml"


# --- addresses ---

ADDRESS = PROJECT["urls"]["Repository"]
OWNER_NAME = ADDRESS.removeprefix("https://github.com/")


def test_the_address_is_a_github_repository():
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", ADDRESS)


@pytest.mark.parametrize("page", sorted(pages()))
def test_links_to_the_repository(page):
    text = pages()[page]
    hosts = r"github\.com|raw\.githubusercontent\.com|nbviewer\.org/github|mybinder\.org/v2/gh"
    for owner, name in re.findall(rf"(?:{hosts})[/:]([\w.-]+)/([\w.-]+)", text):
        found = f"{owner}/{name.rstrip('.').removesuffix('.git')}"
        assert found == OWNER_NAME or found.lower() in OTHERS, (
            f"{page} links to {found}; ours is {OWNER_NAME}, and other projects are listed in this test"
        )
    for ref in re.findall(rf"{re.escape(OWNER_NAME)}(?:\.git)?@([\w.-]*\w)", text):
        assert ref == f"v{PROJECT['version']}", f"{page} installs {ref}, not this version"
    for path in re.findall(rf"{re.escape(ADDRESS)}/(?:blob|tree|raw)/main/([^\s)\"'#?]+)", text):
        assert (ROOT / path).exists(), f"{page} links to {path}, which is not there"


@pytest.mark.parametrize("page", sorted(pages()))
def test_colab_badges(page):
    ours = rf"colab\.research\.google\.com/github/{re.escape(OWNER_NAME)}/blob/main/(notebooks/[^#?]+)"
    for link in re.findall(r"colab\.research\.google\.com/[^\s)\"'\]>]*", pages()[page]):
        if link.endswith("/assets/colab-badge.svg"):
            continue
        found = re.fullmatch(ours, link)
        assert found, f"{page}: {link} does not point at {OWNER_NAME}, branch main"
        assert (ROOT / found[1]).is_file(), f"{page}: {found[1]} is not there"
        assert not page.startswith("notebooks/") or found[1] == page, f"{page} opens {found[1]} on Colab"


def test_every_notebook_has_its_badge_in_itself_and_in_the_readme():
    assert NOTEBOOKS
    texts = pages()
    for path in NOTEBOOKS:
        badge = f"https://colab.research.google.com/github/{OWNER_NAME}/blob/main/notebooks/{path.name}"
        assert badge in texts[f"notebooks/{path.name}"], f"{path.name} has no Colab badge"
        assert badge in texts["README.md"], f"the README has no Colab badge for {path.name}"


def test_the_package_repeats_no_address():
    for path in (ROOT / "ldm_course").rglob("*.py"):
        assert OWNER_NAME not in path.read_text(encoding="utf-8"), f"{path} repeats the address"


# --- the wheel, and the weights in it ---


def test_the_weights_are_small_and_no_pickles():
    files = [path for path in PRETRAINED.rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    assert megabytes <= 32, f"{megabytes:.1f} MB of weights"
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}]


def test_the_wheel_holds_the_package_and_its_weights(tmp_path):
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "ldm_course", tmp_path / "ldm_course", ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "import setuptools.build_meta as b; b.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("ldm_course-*.whl")
    assert wheel.name == f"ldm_course-{PROJECT['version']}-py3-none-any.whl"
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "ldm_course").rglob("*") if path.is_file()}
    assert inside == here, f"missing: {sorted(here - inside)}, extra: {sorted(inside - here)}"
    assert any(name.startswith("ldm_course/pretrained/") and name.endswith(".safetensors") for name in inside)


# --- the tools ---


def test_pre_commit_and_make_test_use_the_same_ruff():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    wanted = {line for hook in hooks for line in hook["additional_dependencies"] if line.startswith("ruff")}
    assert wanted == {f"ruff=={pins()['ruff']}"}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("prompt", ['it\'s a "dog"', "costs $5 $(date) `date`", "#1 -- 100% \\ dog", "-o x"])
def test_make_image_passes_the_prompt_untouched(prompt, tmp_path):
    """In a folder with a space in its name, with a stub that prints the arguments it was given."""
    folder = tmp_path / "a clone"
    stub = folder / ".venv" / "bin" / "ldm-course"
    stub.parent.mkdir(parents=True)
    stub.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    stub.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / "bin" / "python").touch()
    (folder / ".venv" / ".core").touch()
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    command = ["make", "image", f"PROMPT={prompt}", "OUT=my dog.png"]
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["txt2img", "--seed", "1", "-o", "my dog.png", "--", prompt], done.stderr


def test_no_tracked_file_is_large():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        assert not path.is_file() or path.stat().st_size <= 32e6, f"{name} is over 32 MB"


# --- what runs on GitHub ---


def test_the_workflow_runs_targets_that_exist():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    asked = {target for run in runs for target in re.findall(r"\bmake ([\w./-]+)", run)}
    targets = set(re.findall(r"^([\w./ -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert asked and asked <= {name for line in targets for name in line.split()}
    versions = workflow["jobs"]["versions"]["strategy"]["matrix"]["versions"]
    assert {f"{name}.txt" for name in versions} == {path.name for path in (ROOT / "tests/versions").glob("*.txt")}
    assert set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"]) == {
        line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line
    }


def test_the_versions_to_try_are_those_of_the_project():
    """lowest.txt has the lower bounds of pyproject.toml, colab.txt is what Colab ships; torch is the tested one."""
    listed = {}
    for path in (ROOT / "tests" / "versions").glob("*.txt"):
        pins = [Requirement(line) for line in path.read_text().splitlines() if line and line[0] != "#"]
        listed[path.stem] = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert all(pins["torch"] == "2.13.0" for pins in listed.values())
    for name, version in COLAB.items():
        assert name == "torch" or listed["colab"][name] == version
    for need in requirements("lab", "train"):
        (bound,) = need.specifier
        lowest = listed["lowest"][canonicalize_name(need.name)]
        assert need.name == "torch" or f"{lowest}.0".startswith(f"{bound.version}."), f"{need}, but {lowest} was run"

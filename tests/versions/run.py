"""Run the tests and the notebooks with other versions of the packages that the course stands on.

    make test-versions                        all of them: lowest, colab, newest
    make test-versions VERSIONS="colab"       one of them
    make test-versions VERSIONS=colab TESTS="notebooks/01_autoencoder_vs_vae.ipynb"     some of the tests

Each set is a list of pins beside this file. It is installed into its own environment, .venv-versions/NAME, which is
rebuilt when the list or pyproject.toml has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHOWN = ("ipywidgets", "transformers", "diffusers", "numpy", "matplotlib", "accelerate", "huggingface_hub", "torch")
NOTEBOOK_OPTIONS = ["--nbval-lax", "--nbval-current-env"]
PROCESSES = ["-n", "2", "--dist", "loadfile"]  # with one thread each, as in the Makefile


def main() -> int:
    names = os.environ.get("VERSIONS", "").split() or ["lowest", "colab", "newest"]
    chosen = os.environ.get("TESTS", "").split() or ["tests", "notebooks"]
    unknown = [name for name in names if not (HERE / f"{name}.txt").exists()]
    if unknown:
        print(f"There is no tests/versions/{unknown[0]}.txt; there are lowest, colab and newest.", file=sys.stderr)
        return 2
    failed = []
    for name in names:
        python = environment(name)
        started = time.monotonic()
        results = [run(python, what) for what in chosen]
        minutes = (time.monotonic() - started) / 60
        print(f"== {name}: {versions(python)}")
        for what, (code, last) in zip(chosen, results):
            print(f"== {name}: {what}: {last}")
            failed += [f"{name} {what}"] if code else []
        print(f"== {name}: {minutes:.0f} minutes", flush=True)
    if failed:
        print("failed:", ", ".join(failed))
    return 1 if failed else 0


def environment(name: str) -> Path:
    """The Python of a set's environment; the environment is installed if it is missing or was for another list."""
    folder = ROOT / ".venv-versions" / name
    python, stamp = folder / "bin" / "python", folder / ".installed"
    pins = HERE / f"{name}.txt"
    wanted = hashlib.sha256(pins.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--no-compile", "-c", pins, "-e", f"{ROOT}[test]"], check=True
        )
        stamp.write_text(wanted)
    return python


def run(python: Path, what: str) -> tuple[int, str]:
    """Run one folder or file; returns its exit code and pytest's last line."""
    options = NOTEBOOK_OPTIONS if what.startswith("notebooks") else []
    command = [str(python), "-m", "pytest", *PROCESSES, *options, what]
    child = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    last = ""
    for line in child.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    return child.wait(), last.strip("= ")


def versions(python: Path) -> str:
    code = "import sys; from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in sys.argv[1:]))"
    done = subprocess.run([python, "-c", code, *SHOWN], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

"""Move the course to another address: `make address URL=https://github.com/you/your-fork`, and back the same way.

The address stands in pyproject.toml, under [project.urls]. This rewrites it there and wherever it is repeated: links,
Colab badges and Binder links, and the address that the notebooks' setup cells install from. Files are changed as
bytes, so the way back restores them exactly.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import quote

from ldm_course.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
GITHUB = "https://github.com/"
ADDRESS = re.compile(r"https://[\w.-]+(?::\d+)?(?:/[\w.-]+){2,}")
MOVING = "This would move the course from {} to {}, but {}; the way back would not be exact."


def forms(url: str) -> list[str]:
    """The address as it stands in files: as a link, inside one, and on GitHub as Colab, Binder and Pages know it."""
    plain = [url, quote(url, safe="")]
    if not url.startswith(GITHUB):
        return plain
    name = url.removeprefix(GITHUB)
    owner, _, repository = name.partition("/")
    others = [f"https://colab.research.google.com/github/{name}", f"https://mybinder.org/v2/gh/{name}"]
    return [*plain, *others, f"https://{owner.lower()}.github.io/{repository}"]


def move(root: Path, files: list[Path], url: str) -> list[Path]:
    """Rewrite the address in the files, and return those that changed.

    Colab, Binder and Pages links stay as they are if the new or the old address is not on GitHub, because those open
    repositories on GitHub only. Raises InputError, and changes nothing, if the way back would not be exact.
    """
    if not ADDRESS.fullmatch(url) or url.endswith(".git"):
        raise InputError(f"{url!r} is no address of a repository; give one such as {GITHUB}you/your-fork.")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    old = project["urls"]["Repository"]
    if old == url:
        raise InputError(f"The course stands at {url} already.")
    replaced = dict(zip(forms(old), forms(url)))
    words = re.compile("|".join(f"{re.escape(form)}(?![\\w-]|\\.\\w)" for form in replaced).encode())
    already = re.compile("|".join(f"{re.escape(form)}(?![\\w-]|\\.\\w)" for form in replaced.values()).encode())

    changed: dict[Path, bytes] = {}
    for file in files:
        before = file.read_bytes()
        if already.search(before):
            raise InputError(MOVING.format(old, url, f"{file.relative_to(root)} names the new address already"))
        after = words.sub(lambda found: replaced[found[0].decode()].encode(), before)
        if after != before:
            changed[file] = after
    for file, after in changed.items():
        file.write_bytes(after)
    return list(changed)


def tracked(root: Path) -> list[Path]:
    """The files of the clone that git knows, links and the weights left out."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"{root} is no clone of the repository: git ls-files failed there.")
    files = [root / name for name in done.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and not file.is_symlink() and file.suffix != ".safetensors"]


def main() -> None:
    try:
        if len(sys.argv) != 2 or not sys.argv[1]:
            raise InputError("Give the new address: make address URL=https://github.com/you/your-fork")
        url = sys.argv[1].rstrip("/")
        changed = move(ROOT, tracked(ROOT), url)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(*(file.relative_to(ROOT) for file in changed), sep="\n")
    print(f"The course stands at {url} now. The setup cells install from a tag: push it, too (git push --tags).")
    if not url.startswith(GITHUB):
        print("Colab badges and Binder links open repositories on GitHub only: they lead where they led before.")


if __name__ == "__main__":
    main()

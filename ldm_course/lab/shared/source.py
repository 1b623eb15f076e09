"""Show the package's own source in a notebook."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from IPython.display import display

import ldm_course

ROOT = Path(ldm_course.__file__).parents[1]


def show_source(*objects: Callable | type) -> None:
    """Display the source code of functions or classes, each folded under its name and the name of its file."""
    for thing in objects:
        file = Path(inspect.getsourcefile(inspect.unwrap(thing)) or "").resolve()  # not a decorator's
        name = (file.relative_to(ROOT) if file.is_relative_to(ROOT) else file).as_posix()
        source = inspect.getsource(thing)
        title = f"<summary>In the package: <code>{thing.__name__}</code>, in <code>{name}</code></summary>"
        folded = f"<details>{title}\n\n```python\n{source}```\n\n</details>"
        display({"text/markdown": folded, "text/plain": source}, raw=True)

"""A student's answers, read from a notebook without running it, and the least code that each needs to run.

Only the function or class of an exercise is taken, and what it refers to: from its own cell, then from the course's
notebook, then from cells that the student added. Nothing else of a submission ever runs.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType

from ldm_course.classroom.course import Exercise, Notebook, cells_of, check_of, plain_python

Statements = list[ast.stmt]

HARMLESS = {
    "PIL", "abc", "collections", "contextlib", "copy", "dataclasses", "einops", "enum", "functools", "itertools",
    "math", "matplotlib", "numpy", "operator", "random", "scipy", "time", "torch", "tqdm", "typing", "warnings",
}  # fmt: skip
POWERFUL = {
    "__import__", "breakpoint", "builtins", "compile", "ctypes", "delattr", "eval", "exec", "gc", "globals",
    "importlib", "input", "inspect", "open", "os", "setattr", "signal", "socket", "subprocess", "sys", "vars",
}  # fmt: skip
ORDINARY = {"__init__", "__call__", "__class__", "__name__", "__len__", "__getitem__"}


@dataclass(frozen=True)
class Answer:
    """What a student made of an exercise.

    Args:
        name: of the student's function or class.
        code: what to execute, in this order. The decorator @lab.exercise is gone from it.
        look: what a teacher should look at before believing that it is right.
        tried: False if the blank is as the course left it.
        problem: in words, why there is nothing to run.
    """

    name: str
    code: Statements
    look: tuple[str, ...] = ()
    tried: bool = True
    problem: str = ""


@dataclass(frozen=True)
class Place:
    """Where a name may be defined. of_course: in the course's notebook. has_run: nothing of it need be run."""

    body: Statements
    of_course: bool = True
    has_run: bool = False


class Submission:
    """A student's notebook. Raises ValueError, in words, if it is none, or has none of the course's exercises."""

    def __init__(self, text: str, course: Iterable[Notebook]) -> None:
        cells = [cell for cell in cells_of(text) if cell.kind == "code"]
        self.titles = [cell.id.removeprefix("exercise-").removeprefix("build-") for cell in cells]
        self.bodies = [_parsed(cell.source) for cell in cells]
        counts = [(sum(self._where(each) is not None for each in one.exercises()), one) for one in course]
        most = max(count for count, _ in counts)
        if most == 0:
            raise ValueError("none of the course's exercises is in it")
        self.notebook = next(one for count, one in counts if count == most)

    def _where(self, exercise: Exercise) -> int | None:
        """The number of the cell that holds the exercise: by its check, or else by the cell's name."""
        for i, body in enumerate(self.bodies):
            if isinstance(body, list) and any((check_of(node) or [""])[0] == exercise.check[0] for node in body):
                return i
        for i, (title, body) in enumerate(zip(self.titles, self.bodies)):
            if title == exercise.title and (
                isinstance(body, SyntaxError) or any(exercise.name in bound(node) for node in body)
            ):
                return i
        return None

    def answer(self, exercise: Exercise) -> Answer:
        where = self._where(exercise)
        if where is None:
            return Answer(exercise.name, [], problem=f"no cell defines {exercise.name}")
        body = self.bodies[where]
        if isinstance(body, SyntaxError):
            return Answer(exercise.name, [], problem=f"SyntaxError in line {body.lineno} of its cell: {body.msg}")
        checked = [getattr(node, "name", "") for node in body if check_of(node)]
        name = checked[0] if checked and exercise.name not in checked else exercise.name
        blank = ast.parse(plain_python(exercise.blank)).body
        if _unchecked(body, name) == _unchecked(blank, exercise.name):
            return Answer(name, [], tried=False)

        others = [other for i, other in enumerate(self.bodies) if i != where and isinstance(other, list)]
        places = [Place(body, of_course=False), *_above(self.notebook, exercise)]
        code = needed(name, [*places, *(Place(other, of_course=False) for other in others)])
        ours = [*blank, *ast.parse(exercise.solution).body]
        given = attributes(ours)
        usual = {word for node in ours for word in suspicions(node, given)}  # an exercise may need some of it
        look = [word for node, of_course in code if not of_course for word in suspicions(node, given)]
        look = [word for word in look if word not in usual]
        return Answer(name, [without_check(node) for node, _ in code], tuple(dict.fromkeys(look)))


def _parsed(source: str) -> Statements | SyntaxError:
    try:
        return ast.parse(plain_python(source)).body
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; brackets nested a thousand deep
        return SyntaxError(str(error))


def _unchecked(body: Statements, name: str) -> list[str]:
    return [ast.dump(without_check(node)) for node in body if name in bound(node)]


def without_check(node: ast.stmt) -> ast.stmt:
    """The statement without its @lab.exercise(...)."""
    if check_of(node) and isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        kept = [each for each in node.decorator_list if not _is_exercise(each)]
        node = type(node)(**{**dict(ast.iter_fields(node)), "decorator_list": kept})
        ast.fix_missing_locations(node)
    return node


def _is_exercise(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "lab.exercise"


def _above(notebook: Notebook, exercise: Exercise) -> list[Place]:
    """The setup cell, and the code above the exercise, nearest first, with the solutions of earlier exercises."""
    solutions = {each.cell: each.solution for each in notebook.exercises()}
    code = [(i, cell) for i, cell in enumerate(notebook.cells[: exercise.cell]) if cell.kind == "code"]
    bodies = [ast.parse(plain_python(solutions.get(i, cell.source))).body for i, cell in code]
    return [Place(bodies[0], has_run=True), *(Place(body) for body in reversed(bodies[1:]))]


def needed(name: str, places: Sequence[Place]) -> list[tuple[ast.stmt, bool]]:
    """The statements that define a name, and what these refer to, in an order that runs; and whose each one is.

    A name that is defined in no place is left to fail when the code runs.
    """
    found: list[tuple[ast.stmt, bool]] = []
    seen: set[int] = set()

    def include(name: str, places: Sequence[Place]) -> None:
        for i, place in enumerate(places):
            hits = [node for node in place.body if name in bound(node)]
            for node in hits if not place.has_run else ():
                if id(node) not in seen:
                    seen.add(id(node))
                    above = [one for k, one in enumerate(places) if one.of_course and (k >= i or one.has_run)]
                    for other in sorted(free(node)):
                        include(other, above if place.of_course else places)
                    found.append((node, place.of_course))
            if hits:
                return

    include(name, places)
    return found


def bound(node: ast.stmt) -> set[str]:
    """The names that a statement defines at its own level, those in the bodies of functions and classes left out."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    names, open_nodes = set(), [node]
    while open_nodes:
        inner: ast.AST = open_nodes.pop()
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
        elif isinstance(inner, ast.alias):
            names.add((inner.asname or inner.name).partition(".")[0])
        elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(inner.name)
            continue
        if not isinstance(inner, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            open_nodes += ast.iter_child_nodes(inner)  # type: ignore[arg-type]
    return names


def free(node: ast.stmt) -> set[str]:
    """The global names that a statement reads, now or when its functions are called."""
    try:
        return set(_globals(compile(ast.Module([node], []), "", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)))
    except (SyntaxError, ValueError, RecursionError):
        return set()  # it will fail when it runs


def _globals(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"):
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)


def attributes(nodes: Iterable[ast.AST]) -> set[str]:
    """Everything of the course that the code names, such as ldm.samplers.ddim."""
    dotted = (ast.unparse(inner) for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Attribute))
    return {name for name in dotted if name.partition(".")[0] in ("ldm", "lab", "nb")}


def suspicions(node: ast.stmt, given: set[str]) -> Iterator[str]:
    """What in a student's statement could go round the check; and which of the course's parts it uses.

    given: the parts that the exercise or its solution uses, too.
    """
    node, global_names = without_check(node), free(node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (f"imports {one.name}" for one in inner.names if one.name.partition(".")[0] not in HARMLESS)
        elif isinstance(inner, ast.ImportFrom):
            root = (inner.module or "").partition(".")[0]
            powerful = root not in HARMLESS or any(one.name in POWERFUL for one in inner.names)
            yield from [f"imports from {inner.module}"] if powerful else []
        elif isinstance(inner, ast.Name) and inner.id in POWERFUL & global_names:
            yield f"uses {inner.id}"
        elif isinstance(inner, ast.Attribute):
            hidden = inner.attr.startswith("__") and inner.attr not in ORDINARY
            if hidden or inner.attr in POWERFUL - {"compile", "eval"} or inner.attr.endswith(("_getframe", "_frame")):
                yield f"uses .{inner.attr}"
            elif not isinstance(inner.ctx, ast.Load) and ast.unparse(inner.value).partition(".")[0] != "self":
                yield f"sets {ast.unparse(inner)}"
    yield from (f"uses {name}" for name in sorted(attributes([node]) - given - _prefixes(given)))


def _prefixes(names: set[str]) -> set[str]:
    """ldm and ldm.samplers for ldm.samplers.ddim."""
    return {".".join(parts[:i]) for parts in (name.split(".") for name in names) for i in range(1, len(parts))}

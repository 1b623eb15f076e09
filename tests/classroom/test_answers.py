"""What is taken from a student's notebook, without running it."""

from __future__ import annotations

import ast
import json

import pytest
from students import handed_in, solutions

from ldm_course.classroom.answers import Submission, bound, free
from ldm_course.classroom.course import cells_of, course_notebooks


def source(answer):
    return "\n".join(map(ast.unparse, answer.code))


def submission(course, answers, **options):
    return Submission(json.dumps(handed_in(course[0], answers, **options)), course)


def answers(course, given, **options):
    found = submission(course, given, **options)
    return {exercise.title: found.answer(exercise) for exercise in course[0].exercises()}


def test_an_untouched_notebook_is_not_tried(course):
    assert not any(answer.tried for answer in answers(course, {}).values())


def test_only_what_the_answer_needs_is_taken(course):
    found = answers(course, {"next": "return double(x) + one"})["next"]
    assert found.tried and not found.look and not found.problem
    code = source(found)
    assert "lab.exercise" not in code and "print" not in code and "1 / 0" not in code
    assert code.index("import math") < code.index("one = math.floor(1.5)") < code.index("def after_double")
    assert "return 2 * x" in code, "an earlier exercise stands in by its solution"


@pytest.mark.parametrize("with_ids", [True, False])
def test_answers_are_found_with_and_without_the_names_of_cells(course, with_ids):
    found = answers(course, solutions(course[0]), with_ids=with_ids)
    assert all(answer.tried and not answer.look for answer in found.values())


def test_colab_s_names_of_cells():
    cells = [{"cell_type": "code", "metadata": {"id": "exercise-double"}, "source": ["a\n", "b"]}]
    (cell,) = cells_of(json.dumps({"cells": cells}))
    assert cell.id == "exercise-double" and cell.source == "a\nb"


def test_helpers_of_the_student_s_own_are_found_in_other_cells(course):
    notebook = handed_in(course[0], {"double": "return twice(x)"})
    notebook["cells"].append({"cell_type": "code", "source": "def twice(x):\n    return x + x"})
    found = Submission(json.dumps(notebook), course).answer(course[0].exercises()[0])
    assert "def twice" in source(found)


def test_a_renamed_function_is_the_answer_under_its_new_name(course):
    found = answers(course, {"double": "def mine(x):\n    return 2 * x"})["double"]
    assert found.name == "mine" and found.tried


def test_without_the_decorator_the_cell_s_name_decides(course):
    notebook = handed_in(course[0], {})
    notebook["cells"][2]["source"] = "def double(x):\n    return 2 * x"
    assert Submission(json.dumps(notebook), course).answer(course[0].exercises()[0]).tried


def test_problems_are_said_in_words(course):
    assert "SyntaxError in line 3" in answers(course, {"double": "return ((x"})["double"].problem
    notebook = handed_in(course[0], {})
    del notebook["cells"][5]
    assert (
        "no cell defines after_double"
        in Submission(json.dumps(notebook), course).answer(course[0].exercises()[1]).problem
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "line 1 is no JSON"),
        ("[" * 100_000, "not a notebook"),
        ("[]", "no list of cells"),
        ('{"cells": 3}', "no list of cells"),
        ('{"cells": [{"cell_type": "code"}]}', "no list of cells"),
        ('{"cells": [{"cell_type": "code", "source": 5}]}', "no list of cells"),
        ('{"cells": []}', "none of the course's exercises"),
        ('{"cells": [{"cell_type": "code", "source": "%s"}]}' % ("(" * 5000), "none of the course's exercises"),
    ],
)
def test_what_is_no_notebook_of_the_course(course, text, words):
    with pytest.raises(ValueError, match=words):
        Submission(text, course)


@pytest.mark.parametrize(
    "body, words",
    [
        ("import os", "imports os"),
        ("from os import path", "imports from os"),
        ("from torch import os", "imports from torch"),
        ("return eval('2 * x')", "uses eval"),
        ("return x.__class__.__subclasses__()", "uses .__subclasses__"),
        ("return torch.sys._getframe()", "uses .sys"),
        ("return (lambda: 0).__globals__", "uses .__globals__"),
        ("nb.double = None", "sets nb.double"),
        ("return nb.checks.right(x)", "uses nb.checks.right"),
        ("return ldm.samplers.ddim(x)", "uses ldm.samplers.ddim"),
    ],
)
def test_what_a_teacher_should_look_at(course, body, words):
    assert words in answers(course, {"double": body})["double"].look


@pytest.mark.parametrize(
    "body", ["signal = x; return 2 * signal", "input = x; return input + input", "import math, torch; return x"]
)
def test_what_is_harmless(course, body):
    assert answers(course, {"double": body})["double"].look == ()


def names(text):
    (statement,) = ast.parse(text).body
    return bound(statement), free(statement)


def test_names_that_statements_define_and_read():
    assert names("a, (b, *c) = d") == ({"a", "b", "c"}, {"d"})
    assert names("import a.b, c as d") == ({"a", "d"}, set())
    assert names("for a in b:\n    c = [d for d in e]") == ({"a", "c"}, {"b", "e"})
    assert names("def f(x=a):\n    y = x\n    def g(): return y + z\n    return g") == ({"f"}, {"a", "z"})
    assert names("class A(B):\n    c = d\n    def e(self): return f") == ({"A"}, {"B", "__name__", "d", "f"})
    assert names("if (a := b): c = 1") == ({"a", "c"}, {"b"})


def test_every_solution_of_the_course_is_an_answer_that_needs_no_look():
    course = course_notebooks()
    for notebook in course:
        found = Submission(json.dumps(handed_in(notebook, solutions(notebook))), course)
        assert found.notebook is notebook
        for exercise in notebook.exercises():
            answer = found.answer(exercise)
            assert answer.tried and not answer.look and not answer.problem, (
                notebook.name,
                exercise.title,
                answer.look,
            )
        untouched = Submission(notebook.path.read_text(encoding="utf-8"), course)
        assert not any(untouched.answer(exercise).tried for exercise in notebook.exercises())

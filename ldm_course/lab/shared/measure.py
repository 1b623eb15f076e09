"""What the notebooks' measurements share: a mean, and how far chance may have moved it."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from ldm_course.errors import InputError

DEGREES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 60, math.inf)
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.179, 2.131, 2.086, 2.042, 2.0,
           1.96)  # fmt: skip


def student(degrees: int) -> float:
    """Student's t of a 95% interval. Between the table's rows it is linear in 1 / degrees, to three digits."""
    rows = [1 / each for each in reversed(DEGREES)]
    return float(np.interp(1 / degrees, rows, STUDENT[::-1]))


def interval(values: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """The mean of independent values along a dimension, and half the width of its 95% interval by Student's t.

    Raises:
        InputError: for a single value.
    """
    count = values.shape[dim]
    if count < 2:
        raise InputError(f"An interval needs 2 values or more, not {count}.")
    return values.mean(dim), student(count - 1) * values.std(dim) / math.sqrt(count)

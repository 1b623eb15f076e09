"""What the notebooks' measurements share: a mean and its confidence interval."""

from __future__ import annotations

import math

from scipy.stats import t
from torch import Tensor

from ldm_course.errors import InputError


def interval(values: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """The mean of independent values along a dimension, and half the width of its 95% interval by Student's t.

    Raises InputError for a single value.
    """
    count = values.shape[dim]
    if count < 2:
        raise InputError(f"An interval needs 2 values or more, not {count}.")
    return values.mean(dim), float(t.ppf(0.975, count - 1)) * values.std(dim) / math.sqrt(count)

"""Timing for the scripts beside this one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(call: Callable[[], object]) -> float:
    """The time of one call, its work on the GPU included."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median(call: Callable[[], object], rounds: int) -> float:
    """The median time of `rounds` calls, in seconds, after one to warm up."""
    call()
    return statistics.median(seconds(call) for _ in range(rounds))

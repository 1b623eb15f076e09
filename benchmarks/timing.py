"""How long a call takes; the scripts beside this one share it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(call: Callable[[], object]) -> float:
    """Of one call, with what it left to the GPU."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median(call: Callable[[], object], rounds: int) -> float:
    """The median of some calls, in seconds, after one that does not count."""
    call()
    return statistics.median(seconds(call) for _ in range(rounds))

"""What several tests of the live widgets use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Let the event loop run until the condition holds. Raises TimeoutError if it does not within this time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)

"""The one exception for a request that cannot be carried out."""

from __future__ import annotations


class InputError(ValueError):
    """What was asked for is wrong or impossible; the message says so in one sentence and names the way out.

    Raised before any work is done. The command line prints the message alone, without a stack trace.
    """

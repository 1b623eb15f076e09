"""The typical wrong answers to the exercises of notebook 03, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

MISTAKES: dict[str, list[tuple[str, str]]] = {}

"""Exercise checks of the course: `check("3.2", my_function)`, one module for each notebook."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mvp_lite.course.exercises.tools import CHECKS, WrongAnswer

__all__ = ["WrongAnswer", "check"]


def check(number: str, answer: Any) -> None:
    """Check an exercise's answer (usually a function); prints one line if it is right.

    Raises:
        WrongAnswer: names the entry that differs and, if known, the likely mistake.
        ValueError: there is no exercise of that number.
        TypeError: the number is not a string, or the answer is not a function.
    """
    if not isinstance(number, str):
        raise TypeError(f"number={number!r}: expected the number of an exercise in quotes, such as '3.1'")
    if not callable(answer):
        raise TypeError(f"answer={answer!r}: expected the function itself, not the result of a call")
    notebook = number.partition(".")[0]
    module = f"mvp_lite.course.exercises.n{notebook.zfill(2)}"
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    if number not in CHECKS:
        raise ValueError(f"number={number!r}: there is no such exercise")
    CHECKS[number](answer)
    print(f"exercise {number}: right")

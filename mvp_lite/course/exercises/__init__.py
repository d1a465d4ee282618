"""Exercise checks of the course: `check("3.2", my_function)`, one module for each notebook."""

from __future__ import annotations

import inspect
import traceback
from importlib import import_module
from typing import Any

from mvp_lite.course.exercises.tools import CHECKS, NoAnswer, WrongAnswer

__all__ = ["NoAnswer", "WrongAnswer", "check"]


def check(number: str, answer: Any) -> None:
    """Check an exercise's answer (usually a function); prints one line if it is right.

    Raises:
        WrongAnswer: names the entry that differs and, if known, the likely mistake; or the line of the answer that
            raises.
        NoAnswer: the answer is still a stub that raises NotImplementedError.
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
    try:
        CHECKS[number](answer)
    except WrongAnswer:
        raise
    except NotImplementedError:
        raise NoAnswer(f"exercise {number}: write your answer in place of the line that raises") from None
    except Exception as error:
        raise WrongAnswer(_what_raises(answer, error)) from None
    print(f"exercise {number}: right")


def _what_raises(answer: Any, error: Exception) -> str:
    """In one line: the error, and the line of the answer where it came up."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    code = getattr(inspect.unwrap(answer), "__code__", None)
    lines = traceback.extract_tb(error.__traceback__)
    inside = [line for line in lines if code is not None and line.filename == code.co_filename]
    if not inside:
        return f"your answer cannot be compared with the expected one: {said}"
    return f"your function raises {said}, in line {inside[-1].lineno}: {inside[-1].line}"

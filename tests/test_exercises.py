"""Every exercise check accepts two right answers and rejects a bank of plausible wrong ones (tests/answers)."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from mvp_lite import course
from mvp_lite.course.exercises import NoAnswer, WrongAnswer
from mvp_lite.course.exercises.tools import CHECKS, close, exercise

ROOT = Path(__file__).resolve().parents[1]
A = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], dtype=torch.float64)


def bank(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BANKS = {path.stem: bank(path) for path in sorted((ROOT / "tests" / "answers").glob("n*.py"))}
RIGHT = [(n, i, answer) for b in BANKS.values() for n, answers in b.RIGHT.items() for i, answer in enumerate(answers)]
WRONG = [(n, name, answer) for b in BANKS.values() for n, wrong in b.WRONG.items() for name, answer in wrong.items()]


@pytest.mark.parametrize(("number", "answer"), [pytest.param(n, a, id=f"{n}-{i}") for n, i, a in RIGHT])
def test_a_right_answer_is_accepted(number, answer, capsys):
    course.exercises.check(number, answer)
    assert capsys.readouterr().out == f"exercise {number}: right\n"


def in_float32(value):
    """A float64 tensor in single precision, also inside tuples, lists and dicts; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.float64 else value
    if isinstance(value, dict):
        return {name: in_float32(item) for name, item in value.items()}
    return type(value)(map(in_float32, value)) if type(value) in (tuple, list) else value


@pytest.mark.parametrize(("number", "answer"), [pytest.param(n, a, id=f"{n}-{i}") for n, i, a in RIGHT])
def test_a_right_answer_in_single_precision_is_accepted(number, answer):
    course.exercises.check(number, lambda *given, **named: in_float32(answer(*given, **named)))


@pytest.mark.parametrize(("number", "answer"), [pytest.param(n, a, id=f"{n}-{name}") for n, name, a in WRONG])
def test_a_wrong_answer_is_rejected_with_a_message(number, answer, capsys):
    # WrongAnswer alone: whatever a function returns, its author sees no traceback from inside the check.
    with pytest.raises(WrongAnswer) as caught:
        course.exercises.check(number, answer)
    assert len(str(caught.value)) > 15
    assert "right" not in capsys.readouterr().out


def test_banks_are_complete():
    checked = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        code = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        checked += re.findall(r'^course\.exercises\.check\("([\d.]+)"', "\n".join(code), flags=re.M)
    right = {number: answers for module in BANKS.values() for number, answers in module.RIGHT.items()}
    wrong = {number: answers for module in BANKS.values() for number, answers in module.WRONG.items()}
    assert checked and sorted(checked) == sorted(right) == sorted(wrong)
    assert set(checked) <= set(CHECKS)
    for number in checked:
        assert len(right[number]) >= 2, f"{number}: two right answers"
        assert len(wrong[number]) >= 5, f"{number}: five wrong answers"
        assert wrong[number]["stub"](*[None] * 9) is None, f"{number}: the first wrong answer is a stub"
    print(f"{len(checked)} exercises, {len(WRONG)} wrong answers rejected")


def test_a_stub_and_an_answer_that_raises_are_one_line_in_a_notebook():
    """IPython shows what `_render_traceback_` returns."""

    def stub(*_, **__):
        raise NotImplementedError

    def broken(*inputs, **__):
        return inputs[0].no_such_name

    def no_tensor(*_, **__):
        return object()

    shell = InteractiveShell.instance()
    shown = []
    shell._showtraceback = lambda kind, value, lines: shown.append((kind, lines))
    for number in CHECKS:
        for answer, kind, words in (
            (stub, NoAnswer, f"exercise {number}: write your answer"),
            (broken, WrongAnswer, "your function raises AttributeError: "),
            (no_tensor, WrongAnswer, None),
        ):
            with pytest.raises(kind, match=words) as caught:
                course.exercises.check(number, answer)
            shell.showtraceback((caught.type, caught.value, caught.tb))
            assert shown[-1] == (kind, [f"{kind.__name__}: {caught.value}"])
            assert "\n" not in str(caught.value)
    with pytest.raises(WrongAnswer, match=r"in line \d+: return inputs\[0\]\.no_such_name"):
        course.exercises.check(next(iter(CHECKS)), broken)


@pytest.mark.parametrize("number", ["0.1", "1.9", "99.1", "x", ""])
def test_an_unknown_exercise_is_named(number):
    with pytest.raises(ValueError, match=re.escape(f"number={number!r}")):
        course.exercises.check(number, len)


def test_a_number_without_quotes_and_an_answer_that_is_no_function():
    with pytest.raises(TypeError, match=r"number=3\.1: expected the number of an exercise in quotes"):
        course.exercises.check(3.1, len)
    with pytest.raises(TypeError, match="answer=5: expected the function itself"):
        course.exercises.check("3.1", 5)


def test_a_number_is_given_once():
    with pytest.raises(ValueError, match="has two checks"):
        exercise(next(iter(CHECKS)))(lambda _: None)


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (None, "is None"),
        ([1.0], "is a list"),
        (A.T, r"shape \(3, 2\), expected \(2, 3\)"),
        (A > 0, "dtype torch.bool"),
        (A / 0, "NaN or infinity"),
        (-A, "the sign is wrong"),
        (A + torch.eye(2, 3), r"entry \(0, 0\) of your answer is 2, expected 1"),
    ],
)
def test_the_comparison_says_what_is_wrong(got, message):
    close(A.clone(), A)
    with pytest.raises(WrongAnswer, match=message):
        close(got, A, mistakes={"the sign is wrong": -A})


def test_mistakes_that_cannot_be_told_apart_are_all_named():
    with pytest.raises(WrongAnswer, match=r"the sign, or: the order$"):
        close(-A, A, mistakes={"the sign": -A, "half": A / 2, "the order": -A})

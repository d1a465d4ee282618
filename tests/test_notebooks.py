"""Notebooks as committed: executed, short, described, within their budget, each equation checked."""

import ast
import json
import re
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from in_notebook import claims_of

from mvp_lite.course.address import without_badge

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DERIVATIONS = [path for path in NOTEBOOKS if path.name[:2] != "00"]
README = (ROOT / "README.md").read_text()

all_notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
derivations = pytest.mark.parametrize("path", DERIVATIONS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def lesson(path: Path) -> list[Any]:
    """All cells but the one that installs the package, which is the same everywhere (test_elsewhere.py)."""
    return [cell for cell in read(path)["cells"] if "install" not in tags(cell)]


def cells(path: Path, cell_type: str) -> list[Any]:
    return [cell for cell in lesson(path) if cell["cell_type"] == cell_type]


def source(cell: Any) -> str:
    return "".join(cell["source"])


def tags(cell: Any) -> list[str]:
    return cell["metadata"].get("tags", [])


def python(cell: Any) -> ast.Module:
    return ast.parse(re.sub(r"^( *)%.*$", r"\1pass", source(cell), flags=re.M))


def index_row(path: Path) -> list[str]:
    """The notebook's row in the README's index: number, link, learner's minutes, running seconds, …"""
    rows = [line for line in README.splitlines() if line.startswith("|") and f"(notebooks/{path.name})" in line]
    assert len(rows) == 1, f"README.md lists {path.name} {len(rows)} times"
    return [field.strip() for field in rows[0].strip("|").split("|")]


def test_the_numbers_go_up_from_00() -> None:
    numbers = [int(path.name[:2]) for path in NOTEBOOKS]
    assert numbers[0] == 0 and all(low < high for low, high in pairwise(numbers))


@all_notebooks
def test_committed_as_it_ran(path: Path) -> None:
    assert path.stat().st_size <= 300_000, f"{path.stat().st_size} bytes"
    code = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    # nbval compares nothing in a cell without a count.
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    counted = [(cell, out) for cell in code for out in cell["outputs"] if "execution_count" in out]
    assert all(out["execution_count"] == cell["execution_count"] for cell, out in counted)
    for cell in code:
        for output in cell["outputs"]:
            assert output.get("name") != "stderr", f"stderr: {output['text']}"
            assert output["output_type"] != "error", f"error: {output['ename']}"


@all_notebooks
def test_cells_are_short(path: Path) -> None:
    lengths = [len(source(cell).splitlines()) for cell in cells(path, "code")]
    assert max(lengths) <= 25 and median(lengths) <= 8, f"lines: {lengths}"


@all_notebooks
def test_what_is_not_compared_asserts_or_draws(path: Path) -> None:
    code = cells(path, "code")
    unchecked = [cell for cell in code if "nbval-ignore-output" in tags(cell)]
    assert len(unchecked) * 4 <= len(code), "more than a quarter of the code cells are not compared"
    for cell in unchecked:
        nodes = list(ast.walk(python(cell)))
        drawn = [n for n in nodes if isinstance(n, ast.Attribute) and n.attr in ("figures", "widgets", "check")]
        assert drawn or any(isinstance(node, ast.Assert) for node in nodes), (
            f"nothing is checked: {source(cell)[:80]!r}"
        )


@all_notebooks
def test_pictures_are_described(path: Path) -> None:
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                alt = output["metadata"].get("image/png", {}).get("alt", "")
                assert len(alt) > 20, f"a figure without alt text: {source(cell)[:80]!r}"
    for cell in cells(path, "markdown"):
        text = source(cell)
        assert not re.search(r"!\[\s*\]\(", text), "image without alt text"
        for image in re.findall(r"<img\b[^>]*>", text):
            assert re.search(r'\balt="[^"]+"', image), f"image without alt text: {image}"


def markdown(path: Path) -> str:
    return "\n\n".join(map(source, cells(path, "markdown")))


def words(text: str) -> int:
    """Words to read; a formula counts as one, links, tags and the badge do not count."""
    text = without_badge(text)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", " x ", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", text)
    return len(re.findall(r"[A-Za-z0-9][^\s|]*", text))


def visible_lines(path: Path) -> list[str]:
    """Lines of code that a student gets to read: not the answers."""
    code = "\n".join(map(source, cells(path, "code")))
    code = re.sub(r"^ *### BEGIN SOLUTION$.*?^ *### END SOLUTION$", "", code, flags=re.M | re.S)
    return [line.strip() for line in code.splitlines() if line.strip()]


def exercise_minutes(path: Path) -> int:
    return sum(int(m) for m in re.findall(r"^### Exercise \S+ \((\d+) minutes", markdown(path), flags=re.M))


def minutes(path: Path) -> int:
    """A learner's minutes: 130 words or 12 lines of code a minute, a minute and a half for a displayed equation, and
    the exercises; rounded to five."""
    reading = words(markdown(path)) / 130 + len(visible_lines(path)) / 12 + 1.5 * len(tags_in(read(path)))
    return 5 * max(1, round((reading + exercise_minutes(path)) / 5))


@all_notebooks
def test_head(path: Path) -> None:
    head = source(read(path)["cells"][0])
    assert head.startswith(f"# {path.name[:2]} · ")
    first = source(cells(path, "code")[0])
    assert "import mvp_lite as mvp\n" in first and "course.setup()" in first
    assert not re.search(r"sys\.path|^[!%]", "\n".join(map(source, cells(path, "code"))), flags=re.M)


@all_notebooks
def test_seconds_are_within_the_budget_of_the_index(path: Path) -> None:
    measured, budget = read(path)["metadata"]["mvp_lite"]["seconds"], int(index_row(path)[3])
    assert measured <= budget <= 60, f"ran {measured} s, the README says {budget}"


@all_notebooks
def test_links_lead_somewhere(path: Path) -> None:
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)#\s]+)", source(cell)):
            assert "://" in target or (path.parent / target).exists(), f"{path.name} links to {target}"


@all_notebooks
def test_anatomy(path: Path) -> None:
    """One question; a picture early; an answer at the end; short, and with few assertions in the reader's way."""
    everything = lesson(path)
    question = re.search(r"^\*\*(.+\?)\*\*$", source(everything[0]), flags=re.M)
    assert question, "the head asks no question: a line of its own, in bold, with a question mark"
    goals = re.search(r"^\* \*\*Afterwards you can\*\* (.+)$", source(everything[0]), flags=re.M)
    assert goals and re.search(r"^\* \*\*You need\*\* ", source(everything[0]), flags=re.M)
    first = next(i for i, cell in enumerate(everything) if "image/png" in str(cell.get("outputs", "")))
    assert first <= 4, f"the first picture is in cell {first + 1}"
    last = source(everything[-1])
    assert everything[-1]["cell_type"] == "markdown" and last.startswith("## The answer\n")
    assert len(re.findall(r"^\d\. ", last, flags=re.M)) == 3, "three things to remember"
    assert re.search(r"\]\(\d\d_\w+\.ipynb\)", last), "no link to the next notebook"
    budget = 700 if path.name.startswith("00") else 2500
    assert words(markdown(path)) <= budget, f"{words(markdown(path))} words of {budget}"
    lines = visible_lines(path)
    share = sum(line.startswith("assert") for line in lines) / len(lines)
    assert share <= 0.2, f"{share:.0%} of the visible lines are assertions"


@all_notebooks
def test_minutes_are_counted(path: Path) -> None:
    stated = re.search(r"^\* \*\*Minutes\*\*: (\d+)", source(read(path)["cells"][0]), flags=re.M)
    assert stated, "no minutes at the head"
    assert int(stated[1]) == int(index_row(path)[2]) == minutes(path), f"counted: {minutes(path)}"
    assert minutes(path) <= 90


@derivations
def test_a_derivation_is_whole(path: Path) -> None:
    assert 15 <= len(cells(path, "code")) <= 30
    text = markdown(path)
    assert "What the paper says, what its code does, what we do" in text
    number = int(path.name[:2])
    exercises = re.findall(r"^### Exercise (\d+\.\d+) \(\d+ minutes, \w+\)$", text, flags=re.M)
    assert exercises == [f"{number}.{i}" for i in (1, 2, 3)]
    figures = [out for cell in cells(path, "code") for out in cell["outputs"] if "image/png" in out.get("data", {})]
    assert figures, "no figure"


def tags_in(notebook: Any) -> list[str]:
    """Numbers of the displayed equations; one without a number gives an empty string."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for shown in re.findall(r"\$\$(.*?)\$\$", source(cell), flags=re.S):
                found += re.findall(r"\\tag\{([^}]*)\}", shown) or [""]
    return found


def checks_in(notebook: Any) -> list[tuple[str, ast.Call]]:
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            for node in ast.walk(python(cell)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "course.check":
                    assert isinstance(node.args[0], ast.Constant), "this test reads the number off the source"
                    found.append((str(node.args[0].value), node))
    return found


def assert_every_equation_is_checked(notebook: Any, number: int, planted: Collection[str]) -> None:
    equations, checks = tags_in(notebook), checks_in(notebook)
    checked = [tag for tag, _ in checks]
    assert "" not in equations, "a displayed equation without a number"
    assert equations == [f"{number}.{i}" for i in range(1, len(equations) + 1)], f"numbers out of order: {equations}"
    assert len(set(checked)) == len(checked), f"checked twice: {checked}"
    assert set(checked) == set(equations), f"equations {equations}, checks {checked}"
    for tag, call in checks:
        left, right = call.args[1], call.args[2]
        assert ast.dump(left) != ast.dump(right), f"({tag}) compares a thing with itself"
        assert tag in planted, f"({tag}) has no planted error"
    seen: list[str] = []
    for cell in notebook["cells"]:
        seen += tags_in({"cells": [cell]})
        for tag, _ in checks_in({"cells": [cell]}):
            assert tag in seen, f"({tag}) is checked before it is shown"


@derivations
def test_every_equation_has_its_check(path: Path) -> None:
    notebook, number = read(path), int(path.name[:2])
    bank = claims_of(ROOT / "tests" / "claims" / f"n{number:02}.py")
    assert_every_equation_is_checked(notebook, number, planted=bank.errors)
    assert set(bank.errors) == set(tags_in(notebook)) and len(bank.said) >= 10
    assert 3 <= len(tags_in(notebook)) <= 10


def notebook_of(*parts: str) -> Any:
    types = [("code" if part.startswith("course") else "markdown") for part in parts]
    return {"cells": [{"cell_type": name, "source": [part]} for name, part in zip(types, parts, strict=True)]}


EQUATION, CHECK = "$$a=b\\tag{1.1}$$", 'course.check("1.1", a, b)'


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((EQUATION,), "equations"),
        ((CHECK,), "equations"),
        ((EQUATION, CHECK, CHECK), "checked twice"),
        ((EQUATION, EQUATION, CHECK), "out of order"),
        (("$$a=b$$", CHECK), "without a number"),
        ((CHECK, EQUATION), "before it is shown"),
        ((EQUATION, 'course.check("1.1", a, a)'), "with itself"),
        ((EQUATION, CHECK, EQUATION.replace("1.1", "1.2"), CHECK.replace("1.1", "1.2")), "no planted error"),
        ((EQUATION.replace("1.1", "2.1"), CHECK.replace("1.1", "2.1")), "out of order"),
    ],
)
def test_an_equation_without_its_check_is_noticed(parts: tuple[str, ...], message: str) -> None:
    assert_every_equation_is_checked(notebook_of(EQUATION, CHECK), 1, planted=["1.1"])
    with pytest.raises(AssertionError, match=message):
        assert_every_equation_is_checked(notebook_of(*parts), 1, planted=["1.1"])

"""Notebooks as committed: executed, short, described, within their budget, each equation checked."""

import ast
import json
import re
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DERIVATIONS = [path for path in NOTEBOOKS if path.name[:2] != "00"]
README = (ROOT / "README.md").read_text()

all_notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
derivations = pytest.mark.parametrize("path", DERIVATIONS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def cells(path: Path, cell_type: str) -> list[Any]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == cell_type]


def source(cell: Any) -> str:
    return "".join(cell["source"])


def tags(cell: Any) -> list[str]:
    return cell["metadata"].get("tags", [])


def python(cell: Any) -> ast.Module:
    return ast.parse(re.sub(r"^%.*$", "pass", source(cell), flags=re.M))


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
    code = cells(path, "code")
    # nbval compares nothing in a cell without a count.
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
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


@all_notebooks
def test_head(path: Path) -> None:
    head = source(read(path)["cells"][0])
    assert head.startswith(f"# {path.name[:2]} · ")
    goals = head.partition("**Afterwards you can**")[2]
    assert len(re.findall(r"^\* ", goals, flags=re.M)) >= 3, "three things that the reader can do afterwards"
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


@derivations
def test_a_derivation_is_whole(path: Path) -> None:
    assert 15 <= len(cells(path, "code")) <= 30
    text = "\n".join(map(source, cells(path, "markdown")))
    assert "## What the paper says, what its code does, what we do" in text
    minutes = re.search(r"^Minutes: (\d+) to ", source(read(path)["cells"][0]), flags=re.M)
    assert minutes and minutes[1] == index_row(path)[2], "minutes at the head and in the README's index differ"
    number = int(path.name[:2])
    exercises = re.findall(r"^### Exercise (\d+\.\d+) \(\d+ minutes, \w+\)$", text, flags=re.M)
    assert exercises == [f"{number}.{i}" for i in (1, 2, 3)]
    assert len(re.findall(r"find the bug", text, flags=re.I)) >= 1
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
                is_check = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                if is_check and node.func.attr == "check" and ast.unparse(node.func.value) == "ledger":
                    assert isinstance(node.args[0], ast.Constant), "the ledger's test reads the number off the source"
                    found.append((str(node.args[0].value), node))
    return found


def assert_ledger_is_balanced(notebook: Any, number: int) -> None:
    equations, checks = tags_in(notebook), checks_in(notebook)
    checked = [tag for tag, _ in checks]
    assert "" not in equations, "a displayed equation without a number"
    assert equations == [f"{number}.{i}" for i in range(1, len(equations) + 1)], f"numbers out of order: {equations}"
    assert len(set(checked)) == len(checked), f"checked twice: {checked}"
    assert set(checked) == set(equations), f"equations {equations}, checks {checked}"
    for tag, call in checks:
        left, right = call.args[1], call.args[2]
        assert ast.dump(left) != ast.dump(right), f"({tag}) compares a thing with itself"
        assert [word for word in call.keywords if word.arg == "planted"], f"({tag}) has no planted error"
    seen: list[str] = []
    for cell in notebook["cells"]:
        seen += tags_in({"cells": [cell]})
        for tag, _ in checks_in({"cells": [cell]}):
            assert tag in seen, f"({tag}) is checked before it is shown"


@derivations
def test_every_equation_has_its_check(path: Path) -> None:
    notebook = read(path)
    assert_ledger_is_balanced(notebook, int(path.name[:2]))
    assert 3 <= len(tags_in(notebook)) <= 10
    printed = "".join("".join(output.get("text", "")) for cell in cells(path, "code") for output in cell["outputs"])
    closing = re.search(
        r"^notebook \d+: (\d+) equations hold, (\d+) planted errors caught, largest error (\S+)$", printed, re.M
    )
    assert closing, "ledger.close() is not among the outputs"
    assert int(closing[1]) == len(tags_in(notebook)) and float(closing[3]) < 1e-6
    print(closing[0])


def notebook_of(*parts: str) -> Any:
    types = [("code" if part.startswith("ledger") else "markdown") for part in parts]
    return {"cells": [{"cell_type": name, "source": [part]} for name, part in zip(types, parts, strict=True)]}


EQUATION, CHECK = "$$a=b\\tag{1.1}$$", 'ledger.check("1.1", a, b, planted={"sign": -a})'


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((EQUATION,), "equations"),
        ((CHECK,), "equations"),
        ((EQUATION, CHECK, CHECK), "checked twice"),
        ((EQUATION, EQUATION, CHECK), "out of order"),
        (("$$a=b$$", CHECK), "without a number"),
        ((CHECK, EQUATION), "before it is shown"),
        ((EQUATION, 'ledger.check("1.1", a, a, planted={"sign": -a})'), "with itself"),
        ((EQUATION, 'ledger.check("1.1", a, b)'), "no planted error"),
        ((EQUATION.replace("1.1", "2.1"), CHECK.replace("1.1", "2.1")), "out of order"),
    ],
)
def test_an_unbalanced_ledger_is_noticed(parts: tuple[str, ...], message: str) -> None:
    assert_ledger_is_balanced(notebook_of(EQUATION, CHECK), 1)
    with pytest.raises(AssertionError, match=message):
        assert_ledger_is_balanced(notebook_of(*parts), 1)

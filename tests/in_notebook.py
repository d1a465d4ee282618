"""What a notebook claims, asserted in its own namespace while its cells run; see tests/claims."""

import contextlib
import importlib.util
import inspect
import io
import json
import linecache
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import numpy as np
import torch
from matplotlib import pyplot as plt

from mvp_lite.course.editions import checks_in
from mvp_lite.course.equations import CHECKED
from mvp_lite.course.exercises import NoAnswer

ROOT = Path(__file__).resolve().parents[1]
Assertion = Callable[..., None]


class Claims:
    """The claims of one notebook, and errors planted in its equations. Arguments are names of the notebook.

    claims = Claims()

    @claims.planted("1.1")  # wrong values of the left side; each must be noticed
    def _(W, M, x):
        return {"no mask": W @ x}

    @claims.claim("the lower row has lost all its weights")  # a quotation from one cell
    def _(a):
        assert a[1] == 0
    """

    def __init__(self) -> None:
        self.errors: dict[str, Callable[..., dict[str, Any]]] = {}
        self.said: list[tuple[str, bool, Assertion]] = []

    def planted(self, number: str) -> Callable[[Any], Any]:
        """Values that equation `number` must not take; computed right after the cell that checks it."""

        def register(function: Any) -> Any:
            assert number not in self.errors, f"({number}) has planted errors already"
            self.errors[number] = function
            return function

        return register

    def claim(self, quotation: str, *, above: bool = False) -> Callable[[Any], Any]:
        """An assertion of what a cell says. It runs after the code cell quoted; for a text, after the code cells that
        follow it, or, with `above`, on what the cells above it have left."""

        def register(function: Any) -> Any:
            self.said.append((" ".join(quotation.split()), above, function))
            return function

        return register


def development_examples() -> dict[str, int]:
    """Sizes of development sets as data/paper/README.md gives them, with their source."""
    section = (ROOT / "data" / "paper" / "README.md").read_text(encoding="utf-8").split("## Development sets")[1]
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", section, flags=re.M)
    return {task: int(number.replace(",", "")) for task, number in rows}


def claims_of(path: Path) -> Claims:
    """The `claims` of a file in tests/claims."""
    spec = importlib.util.spec_from_file_location(f"claims_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    claims = module.claims
    assert isinstance(claims, Claims)
    return claims


@contextlib.contextmanager
def _state_kept() -> Iterator[None]:
    """Seeds, default type and figure style as before."""
    dtype, states = torch.get_default_dtype(), (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    try:
        with mpl.rc_context():
            yield
    finally:
        torch.set_default_dtype(dtype)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        plt.close("all")


def cells_of(path: Path) -> list[tuple[str, str]]:
    """Type and source of each cell but the one that installs the package."""
    cells = [c for c in json.loads(path.read_text())["cells"] if "install" not in c.get("metadata", {}).get("tags", [])]
    return [(c["cell_type"], "".join(c["source"])) for c in cells]


def run(path: Path, claims: Claims, student: Path | None = None) -> list[str]:
    """Run a notebook's code in one namespace, with its claims in between; returns what does not hold.

    With the notebook of the student edition, that is what runs: a check must raise `NoAnswer`, and nothing else may
    need an answer. The answers run beside it, in a copy of the namespace that only claims get to see.
    """
    cells = cells_of(path)
    shown = cells_of(student) if student else cells
    places = {}
    for quotation, above, claim in claims.said:
        found = [i for i, (_, source) in enumerate(cells) if quotation in " ".join(source.split())]
        if len(found) != 1:
            return [f"quoted from {len(found)} cells of {path.name}: {quotation!r}"]
        places[claim] = (found[0], above, quotation)
    problems: list[str] = []
    namespace: dict[str, Any] = {"__name__": "__main__"}
    answered: dict[str, Any] = {}  # what cells with answers have left
    unanswered: list[int] = []
    waiting: list[tuple[str, Assertion]] = []

    def settle(due: list[tuple[str, Assertion]]) -> None:
        problems.extend(filter(None, (_failure(quotation, claim, namespace | answered) for quotation, claim in due)))

    with _state_kept(), contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(path.parent):
        for i, (kind, source) in enumerate(cells):
            here = [(quotation, claim, above) for claim, (at, above, quotation) in places.items() if at == i]
            if kind == "markdown":
                settle(waiting)
                settle([(quotation, claim) for quotation, claim, above in here if above])
                waiting = [(quotation, claim) for quotation, claim, above in here if not above]
                continue
            CHECKED.clear()
            before = dict(namespace)
            if not student or not checks_in(nbformat.from_dict({"cell_type": "code", "source": source})):
                try:
                    execute(shown[i][1], f"{path.name}, cell {i}", namespace)
                except (NameError, NotImplementedError) as error:
                    if not student:
                        raise
                    return [*problems, f"cell {i} needs an answer: {error!r}"]
                answered = {name: value for name, value in answered.items() if namespace.get(name) is before.get(name)}
                if shown[i][1] != source:
                    unanswered.append(i)
            else:
                try:
                    execute(shown[i][1], f"{path.name} for students, cell {i}", namespace)
                    problems.append(f"cell {i} accepts a missing answer")
                except NoAnswer:
                    pass
                own = namespace | answered
                for j in [*unanswered, i]:
                    execute(cells[j][1], f"{path.name}, cell {j}", own)
                answered = {name: value for name, value in own.items() if value is not namespace.get(name)}
                unanswered.clear()
            for number, equation in CHECKED.items():
                if number not in claims.errors:
                    problems.append(f"({number}) has no planted errors")
                    continue
                wrong = _call(claims.errors[number], namespace | answered)
                missed = [error for error, value in wrong.items() if not equation.catches(value)]
                problems += [f"({number}) does not catch the planted error {error!r}" for error in missed]
                if not wrong:
                    problems.append(f"({number}) has no planted errors")
            settle([(quotation, claim) for quotation, claim, _ in here])
        settle(waiting)
    return problems


def execute(source: str, name: str, namespace: dict[str, Any]) -> None:
    """Run a cell; a failure shows its lines."""
    linecache.cache[f"<{name}>"] = (len(source), None, source.splitlines(keepends=True), f"<{name}>")
    exec(compile(source, f"<{name}>", "exec"), namespace)


def _failure(quotation: str, claim: Assertion, namespace: dict[str, Any]) -> str | None:
    try:
        _call(claim, namespace)
    except AssertionError as error:
        line = inspect.trace()[-1]
        code = (line.code_context or [""])[0].strip()
        return f"not true: {quotation!r}: {code} ({line.filename}:{line.lineno}) {str(error)[:300]}"
    return None


def _call(function: Callable[..., Any], namespace: dict[str, Any]) -> Any:
    names = inspect.signature(function).parameters
    missing = [name for name in names if name not in namespace]
    assert not missing, f"the notebook has no name {missing} at this place"
    return function(**{name: namespace[name] for name in names})

"""What the notebooks say is true of what they compute, and a wrong equation would be noticed (tests/claims)."""

import json
import re
from pathlib import Path

import pytest
import torch
from in_notebook import ROOT, Claims, claims_of, run

BANKS = sorted((ROOT / "tests" / "claims").glob("n*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", BANKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_its_word(path):
    (notebook,) = (ROOT / "notebooks").glob(f"{path.stem[1:]}_*.ipynb")
    problems = run(notebook, claims_of(path))
    assert not problems, "\n".join(problems)


def notebook(folder: Path, *cells: str) -> Path:
    """Cells that begin with a capital letter or a dollar sign are text."""
    kinds = ["markdown" if cell[0].isupper() or cell[0] == "$" else "code" for cell in cells]
    made = [{"cell_type": kind, "source": [cell]} for kind, cell in zip(kinds, cells, strict=True)]
    path = folder / "01_small.ipynb"
    path.write_text(json.dumps({"cells": made}))
    return path


SMALL = (
    "from mvp_lite import course\nimport torch\ntorch.set_default_dtype(torch.float64)\na = 2.0",
    "Twice a is b. And a is two.",
    'b = a + a\ncourse.check("1.1", b, 2 * a)',
    "Now a changes.",
    "a = 5.0",
    "It is five.",
)


def test_claims_run_where_they_are_made(tmp_path):
    claims = Claims()
    claims.planted("1.1")(lambda b: {"sign": -b})
    claims.claim("Twice a is b")(lambda a, b: _assert(b == 2 * a))
    claims.claim("a is\n two", above=True)(lambda a: _assert(a == 2))
    claims.claim("a = 5.0")(lambda a: _assert(a == 5))
    claims.claim("It is five")(lambda a: _assert(a == 5))
    assert run(notebook(tmp_path, *SMALL), claims) == []
    assert torch.get_default_dtype() == torch.float32


def _assert(truth: bool) -> None:
    assert truth


@pytest.mark.parametrize(
    ("quotation", "claim", "message"),
    [
        ("Twice a is b", lambda a, b: _assert(a == b), "not true: 'Twice a is b'"),
        ("Now a changes.", lambda a: _assert(a == 2), "not true: 'Now a changes.'"),
        ("no such words", lambda: None, "quoted from 0 cells"),
        ("a", lambda: None, "quoted from 5 cells"),
        ("It is five", lambda c: None, r"no name \['c'\]"),
    ],
)
def test_a_claim_that_does_not_hold_is_named(tmp_path, quotation, claim, message):
    claims = Claims()
    claims.planted("1.1")(lambda b: {"sign": -b})
    claims.claim(quotation)(claim)
    problems = "\n".join(run(notebook(tmp_path, *SMALL), claims))
    assert re.search(message, problems), problems


def test_planted_errors_are_needed_and_noticed(tmp_path):
    path = notebook(tmp_path, *SMALL)
    assert run(path, Claims()) == ["(1.1) has no planted errors"]
    claims = Claims()
    claims.planted("1.1")(lambda a: {"none at all": 2 * a, "sign": -2 * a})
    assert run(path, claims) == ["(1.1) does not catch the planted error 'none at all'"]
    with pytest.raises(AssertionError, match="planted errors already"):
        claims.planted("1.1")(lambda: {})

"""The sheet of notation names every symbol of every numbered equation, and no name that a notebook does not have."""

import json
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[1] / "notebooks" / "guide"
NOTEBOOKS = sorted(path for path in GUIDE.parent.glob("*.ipynb") if path.name[:2] != "00")
SHEET = (GUIDE / "notation.md").read_text(encoding="utf-8")
COMMON, *REST = re.split(r"^## (\d\d)$", SHEET, flags=re.M)
SECTIONS = dict(zip(REST[::2], REST[1::2], strict=True))
#: letters that count entries, wherever they stand, and what every reader knows
KNOWN = {"i", "j", "k", "l", "m", "n", "t", "d", "e", "pi", "log", "exp"}
#: commands that are no symbols
MARKUP = set(
    r"""left right big Big bigl bigr Bigl Bigr frac tfrac dfrac sum prod max min cdot cdots dots ldots lVert rVert lvert
    rvert lfloor rfloor lceil rceil partial odot text textstyle qquad quad mathbb mathbf mathcal mathrm operatorname
    overline bar hat tilde sqrt binom top in ne neq le ge leq geq approx to iff Leftarrow Rightarrow rightarrow times
    circ begin end begingroup underbrace infty leftarrow mid propto log exp lim cap cup subset setminus forall colon
    displaystyle quad prime star sim lt gt langle rangle ll gg pm mp dot not notin mapsto substack limits tanh hline
    cos sin det emptyset vert Vert bmod ast equiv nabla int Pr arg qedhere ensuremath""".split()
)


def symbols(formula: str) -> set[str]:
    """Letters and Greek letters of a formula, without what stands in subscripts, upper indices or words."""
    formula = re.sub(r"\\(?:text|mathrm|operatorname|tag|begin|end|texttt|mathtt)\*?\{[^{}]*\}", " ", formula)
    formula = re.sub(r"[_^](?:\{(?:[^{}]|\{[^{}]*\})*\}|\\?\w)", " ", formula)
    commands = set(re.findall(r"\\([A-Za-z]+)", formula)) - MARKUP
    return commands | set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", re.sub(r"\\[A-Za-z]+", " ", formula)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])
def test_every_symbol_is_on_the_sheet(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    used = set().union(*(symbols(x) for x in re.findall(r"\$\$(.*?)\$\$", text, flags=re.S) if r"\tag" in x))
    listed = COMMON + SECTIONS[path.name[:2]]
    known = KNOWN.union(*(symbols(x) for row in re.findall(r"^\| (\$.*?) \|", listed, flags=re.M) for x in [row]))
    assert used <= known, f"not on the sheet for {path.name[:2]}: {', '.join(sorted(used - known))}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])
def test_names_in_code_are_those_of_the_notebook(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    rows = re.findall(r"^\| \$.*?\$ \| `([^`]*)`", SECTIONS[path.name[:2]], flags=re.M)
    names = {name for row in rows for name in re.findall(r"[A-Za-z_]\w*", row)}
    missing = sorted(name for name in names if not re.search(rf"\b{name}\b", code))
    assert not missing, f"the sheet names {missing}, notebook {path.name[:2]} does not"

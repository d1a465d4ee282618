"""README.md, CONTRIBUTING.md and docs/*.md as the tests read them: code, tables, sentences, links."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))


def text(page: Path | str) -> str:
    """Of a path, or of a name in docs/."""
    return (ROOT / "docs" / page if isinstance(page, str) else page).read_text(encoding="utf-8")


def python_blocks(page: Path | str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text(page), flags=re.S | re.M)


def said(page: Path | str, sentence: str) -> tuple[str, ...]:
    """What the groups of a regular expression match; line breaks count as spaces, and no match is a failure."""
    found = re.search(sentence, re.sub(r"\s+", " ", text(page)))
    assert found, f"{page} does not say: {sentence}"
    return found.groups()


def rows_of(page: Path | str, header: str) -> list[list[str]]:
    """Cells of the one table whose header line begins with `header`, without header and rule."""
    lines = text(page).splitlines()
    at = [number for number, line in enumerate(lines) if line.startswith(header)]
    assert len(at) == 1, f"{page} has {len(at)} tables that begin with {header!r}"
    body = lines[at[0] + 2 :]
    stop = next((number for number, line in enumerate(body) if not line.startswith("|")), len(body))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body[:stop]]


def table(header: list[str], rows: list[list[str]]) -> str:
    """As it stands in a page."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]) + "\n"


def anchors(page: Path) -> set[str]:
    """Those that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text(page), flags=re.S | re.M), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

"""Editions of the notebooks: executed ones to commit, cleared ones for students, the guide for teachers.

Answers are between `### BEGIN SOLUTION` and `### END SOLUTION`, the markers of nbgrader.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from mvp_lite.course.address import Address, without_badge

__all__ = ["blank", "checks_in", "execute", "filled", "publish", "run", "solutions", "student", "teacher"]

_SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION *$\n?", flags=re.S | re.M)
_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"  # nbgrader's
_CHECK = re.compile(r'^course\.exercises\.check\("(\d+\.\d+)"', flags=re.M)
_HEADING = re.compile(r"^### Exercise (\d+\.\d+)\b", flags=re.M)
_WIDGET = "application/vnd.jupyter.widget-view+json"
_LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python", "pygments_lexer": "ipython3"}


def execute(path: Path) -> float:
    """Run a notebook in place, as it is committed, so that the same source gives the same bytes. Returns seconds.

    Cell ids are hashes of the sources. Timings, versions and widgets (whose state is not kept) are left out; the
    seconds are stored in the metadata. A cell's `alt` in its metadata (a text, or a list for several pictures) becomes
    the alt text of its pictures. If a cell raises, the file stays unchanged.

    Raises:
        ValueError: a cell whose metadata do not describe each of its pictures.
    """
    notebook = _read(path)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    _stable_ids(notebook)
    _mark(notebook, path)
    start = time.perf_counter()
    run(notebook, path.parent)
    seconds = time.perf_counter() - start
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = _LANGUAGE
    notebook.metadata.mvp_lite = {"seconds": round(seconds)}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _merged([out for out in cell.outputs if _WIDGET not in out.get("data", {})])
            _describe(cell, path)
    _write(notebook, path)
    return seconds


def run(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells of a notebook, started in `folder` and without the Hub; the outputs are then in `notebook`.

    Raises:
        CellTimeoutError: a cell took ten minutes.
        CellExecutionError: a cell raised.
    """
    from nbclient import NotebookClient
    from nbclient.output_widget import OutputWidget

    class Output(OutputWidget):
        def sync_state(self) -> None:
            """Send nothing to the kernel: jupyter_client does not notice a reply that arrives while it sends on the
            same socket, and then waits until the time limit."""

    os.environ["HF_HUB_OFFLINE"] = "1"
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False, resources=resources)
    client.widget_registry = {"@jupyter-widgets/output": {"OutputModel": Output}}
    client.execute()


def publish(source: Path, address: Address) -> list[Path]:
    """Give every notebook of a folder its badge and the cell that installs the package; returns the files.

    Outputs stay, and the counts of the other cells are raised by one where the cell is new.
    """
    made = []
    for path in _notebooks(source):
        notebook = _read(path)
        head, following = notebook.cells[0], notebook.cells[1]
        head.source = f"{without_badge(head.source).rstrip()}\n\n{address.badge(path.name)}"
        if "install" not in following.metadata.get("tags", []):
            for cell in notebook.cells:
                for counted in (cell, *cell.get("outputs", [])):
                    if counted.get("execution_count") is not None:
                        counted.execution_count += 1
            following = nbformat.v4.new_code_cell(execution_count=1, metadata={"tags": ["install"]})  # type: ignore[no-untyped-call]
            notebook.cells.insert(1, following)
        following.source = address.install_cell
        _stable_ids(notebook)
        _write(notebook, path)
        made.append(path)
    return made


def student(source: Path, out: Path) -> list[Path]:
    """Write every notebook of a folder with its answers and outputs cleared; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for path in _notebooks(source):
        notebook = _read(path)
        _mark(notebook, path)
        notebook.metadata.pop("widgets", None)
        notebook.metadata.pop("mvp_lite", None)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
                cell.source = blank(cell.source)
            else:
                # The edition is one folder deeper, and the badge opens the notebook with its answers.
                cell.source = without_badge(cell.source).replace("](../", "](../../")
        _write(notebook, out / path.name)
        made.append(out / path.name)
    return made


def teacher(source: Path, out: Path) -> list[Path]:
    """Write the guide for teachers: a Markdown page with the answers for each notebook, and the table of notation.

    Raises:
        ValueError: a notebook without a page, or a page without a section for its answers.
    """
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for path in _notebooks(source):
        page = source / "guide" / f"{path.name[:2]}.md"
        if not page.exists():
            raise ValueError(f"{path.name} has no page {page.parent.name}/{page.name} in the guide")
        text, answers = page.read_text(encoding="utf-8").rstrip(), solutions(_read(path), path)
        if answers:
            if "\n## Answers\n" not in text:
                raise ValueError(f"{page.parent.name}/{page.name} has no section '## Answers'")
            code = [f"Exercise {number}:\n\n```python\n{answer}\n```" for number, answer in answers.items()]
            text = "\n\n".join([text, *code])
        made.append(out / page.name)
        made[-1].write_text(text + "\n", encoding="utf-8")
    made.append(out / "notation.md")
    made[-1].write_text((source / "guide" / "notation.md").read_text(encoding="utf-8"), encoding="utf-8")
    return made


def solutions(notebook: NotebookNode, path: Path) -> dict[str, str]:
    """Exercise number -> source of the cell with its answer, without the markers.

    Raises:
        ValueError: markers that do not pair, or an answer without the heading of an exercise before it.
    """
    return {number: filled(cell.source) for number, cell in _answers(notebook, path)}


def blank(source: str) -> str:
    """The source of a cell as a student gets it: what is to be written in place of the answer."""
    return _SOLUTION.sub(lambda m: textwrap.indent(_STUB, m[1]) + "\n", source).rstrip("\n")


def filled(source: str) -> str:
    """The source of a cell with its answer, without the markers."""
    return _SOLUTION.sub(r"\2", source).rstrip()


def checks_in(cell: NotebookNode) -> list[str]:
    """Numbers of the exercises that a code cell checks."""
    return _CHECK.findall(cell.source) if cell.cell_type == "code" else []


def _answers(notebook: NotebookNode, path: Path) -> Iterator[tuple[str, NotebookNode]]:
    number = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            number = next(iter(reversed(_HEADING.findall(cell.source))), number)
            continue
        begins, ends = cell.source.count("### BEGIN SOLUTION"), cell.source.count("### END SOLUTION")
        if not begins == ends == len(_SOLUTION.findall(cell.source)):
            raise ValueError(f"{path.name}: BEGIN and END SOLUTION do not pair in {cell.source[:60]!r}")
        if begins:
            if number is None:
                raise ValueError(f"{path.name}: an answer without an exercise's heading: {cell.source[:60]!r}")
            yield number, cell


def _mark(notebook: NotebookNode, path: Path) -> None:
    """Add the metadata of nbgrader to the cells to fill in and to those that check them."""
    for number, cell in _answers(notebook, path):
        cell.metadata.nbgrader = _nbgrader(f"answer-{number}", solution=True)
    for cell in notebook.cells:
        for number in checks_in(cell):
            cell.metadata.nbgrader = _nbgrader(f"check-{number}", grade=True, locked=True) | {"points": 1}


def _nbgrader(name: str, **flags: bool) -> dict[str, Any]:
    off = {"grade": False, "locked": False, "solution": False, "task": False}
    return {"schema_version": 3, "grade_id": name.replace(".", "-")} | off | flags


def _notebooks(folder: Path) -> list[Path]:
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise ValueError(f"{folder} holds no notebook: start this in the project's own folder, or name one")
    return found


def _describe(cell: NotebookNode, path: Path) -> None:
    """Give the pictures of a cell the alt texts in its metadata."""
    if "alt" not in cell.metadata:
        return
    texts = [cell.metadata.alt] if isinstance(cell.metadata.alt, str) else list(cell.metadata.alt)
    pictures = [out for out in cell.outputs if "image/png" in out.get("data", {})]
    if len(texts) != len(pictures):
        raise ValueError(f"{path.name}: {len(texts)} alt texts for {len(pictures)} pictures: {cell.source[:60]!r}")
    for out, text in zip(pictures, texts, strict=True):
        out.metadata["image/png"] = {**out.metadata.get("image/png", {}), "alt": text}


def _stable_ids(notebook: NotebookNode) -> None:
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256((cell.cell_type + cell.source).encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Consecutive pieces of printed text as one: where a kernel splits them is random."""
    kept: list[NotebookNode] = []
    for out in outputs:
        last = kept[-1] if kept else None
        if last is not None and out.output_type == last.output_type == "stream" and out.name == last.name:
            last.text += out.text
        else:
            kept.append(out)
    return kept


def _read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def _write(notebook: NotebookNode, path: Path) -> None:
    nbformat.validate(notebook)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")

"""Student edition: answers gone, nothing else broken. Teacher's guide: a page for each notebook, with the answers."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mvp_lite.__main__ import main
from mvp_lite.course import editions

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WITH_EXERCISES = [path for path in NOTEBOOKS if "### BEGIN SOLUTION" in path.read_text()]

ANSWER = 'def double(x):\n    """Twice x."""\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION'
LESSON = [
    new_markdown_cell(
        "# 01 · Doubling\n\nSee [the module](../mvp_lite/masks.py).\n\n### Exercise 1.1 (5 minutes, easy)"
    ),
    new_code_cell(ANSWER),
    new_code_cell('course.exercises.check("1.1", double)'),
    new_code_cell("print('a', end='', flush=True)\nprint('b')"),
]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("student")
    assert len(editions.student(ROOT / "notebooks", out)) == len(NOTEBOOKS)
    return out


def lesson(folder: Path, *cells: nbformat.NotebookNode) -> Path:
    path = folder / "01_doubling.ipynb"
    nbformat.write(new_notebook(cells=[nbformat.from_dict(dict(cell)) for cell in cells or LESSON]), path)
    return path


def test_answers_and_outputs_are_cleared_and_the_rest_stays(tmp_path):
    path = lesson(tmp_path)
    before = path.read_bytes()
    assert main(["student", "--notebooks", str(tmp_path), "--out", str(tmp_path / "build")]) == 0
    assert path.read_bytes() == before
    head, answer, check, other = nbformat.read(tmp_path / "build" / path.name, as_version=4).cells
    assert "](../../mvp_lite/masks.py)" in head.source
    assert answer.source == (
        'def double(x):\n    """Twice x."""\n    # YOUR CODE HERE\n    raise NotImplementedError()'
    )
    assert answer.metadata.nbgrader["solution"] and not answer.metadata.nbgrader["grade"]
    assert check.metadata.nbgrader["grade"] and check.metadata.nbgrader["grade_id"] == "check-1-1"
    assert check.source == LESSON[2].source and other.source == LESSON[3].source
    assert "nbgrader" not in other.metadata


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    ### BEGIN SOLUTION\n    return x",
        "def f(x):\n    return x\n    ### END SOLUTION",
        "### END SOLUTION\n### BEGIN SOLUTION",
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
        "x = 1  ### BEGIN SOLUTION\n### END SOLUTION",
    ],
)
def test_markers_that_do_not_pair_are_refused(tmp_path, source):
    lesson(tmp_path, LESSON[0], new_code_cell(source))
    with pytest.raises(ValueError, match="do not pair"):
        editions.student(tmp_path, tmp_path / "build")
    assert not list((tmp_path / "build").iterdir())


def test_an_answer_needs_its_exercise_and_a_folder_its_notebooks(tmp_path):
    lesson(tmp_path, LESSON[1])
    with pytest.raises(ValueError, match="without an exercise's heading"):
        editions.student(tmp_path, tmp_path / "build")
    with pytest.raises(ValueError, match="holds no notebook"):
        editions.student(tmp_path / "build", tmp_path)
    with pytest.raises(SystemExit):
        main(["student", "--notebooks", str(tmp_path / "nowhere"), "--out", str(tmp_path / "build")])


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def leaks(answer_lines: list[str], text: str) -> list[str]:
    """Lines of an answer that stand elsewhere too; what is too short to give anything away does not count."""
    return [line for line in answer_lines if len(squeezed(line)) >= 12 and squeezed(line) in squeezed(text)]


def test_a_leak_is_noticed():
    assert leaks(["return -lr * G * W"], "hint: `return -lr*G * W`") and not leaks(["return x"], "return x")


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_no_answer_leaks(path, student):
    shown = "\n".join("".join(cell.source) for cell in nbformat.read(student / path.name, as_version=4).cells)
    text = (student / path.name).read_text()
    assert "SOLUTION" not in text
    for cell in json.loads(text)["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    regions = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source_of(path), flags=re.S)
    assert len(regions) >= 3
    for region in regions:
        assert not leaks(region.splitlines(), shown), f"{path.name} shows {leaks(region.splitlines(), shown)}"


def source_of(path: Path) -> str:
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def test_a_missing_answer_is_one_line(student):
    """In a kernel, where a student sees it. That every notebook runs without answers is in test_claims.py."""
    (path,) = student.glob("02_*.ipynb")
    # By a blocking client: nbclient's asynchronous one may miss a reply and then waits until its timeout.
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for cell in nbformat.read(student / path.name, as_version=4).cells:
            if cell.cell_type == "code":
                # After an error a kernel may refuse the next cell too, as if all had been started together.
                go_on = {"stop_on_error": False, "timeout": 120}
                run = client.execute_interactive(cell.source, output_hook=lambda message: None, **go_on)
                raised = run["content"].get("ename")
                assert raised == ("NoAnswer" if editions.checks_in(cell) else None), cell.source[:80]
                assert raised is None or len(run["content"]["traceback"]) == 1, "one line, not the source of the check"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_links_of_the_student_edition_lead_somewhere(student):
    for path in student.glob("*.ipynb"):
        for target in re.findall(r"\]\((\.\./[^)#\s]+)", source_of(path)):
            assert (ROOT / "build" / "student" / target).resolve().exists(), f"{path.name} links to {target}"


def test_the_guide_has_a_page_for_each_notebook_with_its_answers(tmp_path):
    assert main(["teacher", "--notebooks", str(ROOT / "notebooks"), "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"{path.name[:2]}.md" for path in NOTEBOOKS} | {"notation.md"}
    for path in NOTEBOOKS:
        page = (tmp_path / f"{path.name[:2]}.md").read_text()
        expected = ["Aim", "Minutes", "Before", "Show first", "On the board", "Where students stumble"]
        expected += ["Answers"] if path in WITH_EXERCISES else []
        assert re.findall(r"^## (.+)$", page, flags=re.M) == expected, path.name
        assert page.startswith(f"# {path.name[:2]} · ")
        assert "SOLUTION" not in page
        answers = editions.solutions(nbformat.read(path, as_version=4), path)
        assert len(answers) == (3 if path in WITH_EXERCISES else 0)
        for number, answer in answers.items():
            assert f"Exercise {number}:\n\n```python\n{answer}" in page


def test_a_page_that_is_missing_is_named(tmp_path):
    path = lesson(tmp_path)
    with pytest.raises(ValueError, match=r"01_doubling.ipynb has no page guide/01.md"):
        editions.teacher(tmp_path, tmp_path / "build")
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "01.md").write_text("# 01 · Doubling\n")
    with pytest.raises(ValueError, match="no section '## Answers'"):
        editions.teacher(tmp_path, tmp_path / "build")
    assert editions.solutions(nbformat.read(path, as_version=4), path) == {
        "1.1": 'def double(x):\n    """Twice x."""\n    return 2 * x'
    }


@pytest.mark.slow
def test_execution_repeats_to_the_byte_and_keeps_the_file_if_a_cell_raises(tmp_path):
    cells = [LESSON[0], LESSON[3], new_code_cell("import ipywidgets\nipywidgets.IntSlider()"), new_code_cell("1 + 1")]
    path = lesson(tmp_path, *cells)
    assert main(["execute", str(path)]) == 0
    first = json.loads(path.read_text())
    again = nbformat.read(path, as_version=4)
    for number, cell in enumerate(again.cells):
        cell.id = f"editor-{number}"  # an editor gives new ones
    nbformat.write(again, path)
    assert main(["execute", str(path)]) == 0
    second = json.loads(path.read_text())
    assert first.pop("metadata").keys() == second.pop("metadata").keys() == {"kernelspec", "language_info", "mvp_lite"}
    assert first == second
    assert [cell.get("execution_count") for cell in first["cells"]] == [None, 1, 2, 3]
    assert first["cells"][1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": "ab\n"}]
    assert first["cells"][2]["outputs"] == []

    lesson(tmp_path, LESSON[0], new_code_cell("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        main(["execute", str(path)])
    assert path.read_bytes() == before


PICTURE = "from mvp_lite import course\ncourse.figures.show(course.figures.matrix([[1.0, 2.0]]))"


@pytest.mark.slow
def test_pictures_get_the_alt_text_of_their_cell(tmp_path):
    cell = new_code_cell(PICTURE, metadata={"alt": "Two numbers, 1 and 2."})
    path = lesson(tmp_path, cell)
    editions.execute(path)
    (made,) = nbformat.read(path, as_version=4).cells
    assert made.outputs[0].metadata["image/png"].alt == "Two numbers, 1 and 2."
    lesson(tmp_path, new_code_cell(PICTURE, metadata={"alt": ["one", "two"]}))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="2 alt texts for 1 pictures"):
        editions.execute(path)
    assert path.read_bytes() == before


def test_what_a_widget_shows_is_not_sent_back(tmp_path):
    """A client that sends while the kernel replies may miss the reply, and then waits until the time limit."""
    shows = "import ipywidgets\nw = ipywidgets.interactive(lambda k: print(k), k=3)\nw"
    notebook = new_notebook(cells=[new_code_cell(shows), new_code_cell("len(w.out.outputs)")])
    editions.run(notebook, tmp_path)
    shown, sent = (cell.outputs for cell in notebook.cells)
    assert [set(out.data) for out in shown] == [{"application/vnd.jupyter.widget-view+json", "text/plain"}]
    assert sent[0].data["text/plain"] == "0"

"""CONTRIBUTING.md, CITATION.cff, the version, and the diagrams of docs/design.md against the code."""

import datetime
import re
from xml.etree import ElementTree

import pytest
import yaml
from nets import loss_of, make
from pages import CONTRIBUTING, README, ROOT, said, text
from test_project import EXEMPT, ORDER, PROJECT, module_name, own_imports

import mvp_lite as mvp
from mvp_lite.budgets import Pool
from mvp_lite.groups import WeightGroups
from mvp_lite.matrices import PrunedMatrix
from mvp_lite.methods import METHODS
from mvp_lite.penalty_control import PenaltyController
from mvp_lite.schedule import Schedule

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"


# --- version and citation -----------------------------------------------------------------------------------------


def test_the_version_has_one_home_and_the_copies_agree() -> None:
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    version, date = re.search(r"^## (\S+) \((.*?)\)$", text("changelog.md"), flags=re.M).groups()
    assert version == mvp.__version__ == CITATION["version"]
    assert datetime.date.fromisoformat(date) == CITATION["date-released"]
    assert said(README, r"@software\{mvp_lite,.*version = \{(.*?)\}") == (version,)
    assert said(CONTRIBUTING, r"git tag -a v(\S+)`") == (version,)


def test_the_citation_is_that_of_the_readme() -> None:
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software" and CITATION["message"]
    assert CITATION["license"] == PROJECT["license"] and CITATION["abstract"] and set(CITATION["keywords"])
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in PROJECT["authors"]]
    entries = re.findall(r"^@\w+\{\w+,.*?\}\}$", text(README), flags=re.M | re.S)
    fields = [dict(re.findall(r"(\w+) = \{+(.*?)\}+(?:,|$)", entry)) for entry in entries]
    *papers, software = fields
    assert software["title"].replace("\\", "") == CITATION["title"]
    assert software["author"].replace("\\", "") == CITATION["authors"][0]["name"]
    assert int(software["year"]) == CITATION["date-released"].year
    assert papers == [
        {
            "title": reference["title"],
            "year": str(reference["year"]),
            "author": " and ".join(f"{one['family-names']}, {one['given-names']}" for one in reference["authors"]),
            "booktitle": reference["collection-title"],
            "volume": str(reference["volume"]),
            "pages": f"{reference['start']}--{reference['end']}",
        }
        for reference in CITATION["references"]
    ]


# --- commands and forms -------------------------------------------------------------------------------------------


def test_files_and_commands_of_the_page_exist() -> None:
    page = text(CONTRIBUTING)
    assert {"lab", "setup", "test", "site", "test-lowest"} <= set(re.findall(r"\bmake ([a-z-]+)", page))  # test_readme
    for path in re.findall(r"`(?:[^`]* )?((?:tests|notebooks|data|benchmarks|mvp_lite)/[\w./]*|\w+\.\w+)`", page):
        assert (ROOT / path).exists(), path
    commands = (ROOT / "mvp_lite" / "__main__.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in commands for name in re.findall(r"-m mvp_lite ([a-z]\w*)", page))


def test_forms_are_those_that_github_reads() -> None:
    if not (ROOT / ".github").is_dir():
        pytest.skip("a source archive has no .github")
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 2
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form.keys() == {"name", "description", "labels", "body"}
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids)) and {field["type"] for field in form["body"]} <= {"input", "textarea"}
        assert all(field["attributes"]["label"] for field in form["body"])


# --- the page and its diagrams ------------------------------------------------------------------------------------


def drawing(name: str) -> ElementTree.Element:
    return ElementTree.parse(ROOT / "docs" / name).getroot()


@pytest.mark.parametrize("name", ["step.svg", "parts.svg"])
def test_a_diagram_is_legible_on_any_page(name: str) -> None:
    """Its own background, text of at least 12 px in a column of 700, nothing outside, nothing from elsewhere."""
    root = drawing(name)
    width, height = (float(root.get(side)) for side in ("width", "height"))
    assert root.get("viewBox") == f"0 0 {width:g} {height:g}"
    ground = root.find(f"{SVG}rect")
    assert ground.get("fill") == "#fff" and float(ground.get("width")) >= width - 1
    style = root.find(f"{SVG}style").text
    sizes = [float(size) for size in re.findall(r"font:[^;]*?(\d+)px", style)]
    assert sizes and min(sizes) * min(1.0, 700 / width) >= 11.95
    for box in root.iter(f"{SVG}rect"):
        assert float(box.get("x")) + float(box.get("width")) <= width
        assert float(box.get("y")) + float(box.get("height")) <= height
    assert "http" not in ElementTree.tostring(root, encoding="unicode").replace(SVG[1:-1], "")


def test_files_named_on_the_page_exist() -> None:
    page = text("design.md")
    tests = set(re.findall(r"\b(test_\w+\.py)`", page))
    assert len(tests) >= 10 and all((ROOT / "tests" / name).is_file() for name in tests)
    packages = ["", "structure/", "tasks/"]
    for name in set(re.findall(r"`((?:\w+/)?\w+\.py)`", page)) - tests - {"tests/nets.py"}:
        assert any((ROOT / "mvp_lite" / package / name).is_file() for package in packages), name
    for name in re.findall(r"`([A-Z]\w+)\.(\w+)`", page):
        owner = {"Pruner": mvp.Pruner, "PrunedMatrix": PrunedMatrix, "Part": mvp.groups.Part}[name[0]]
        assert hasattr(owner, name[1]) or name[1] in owner.__dataclass_fields__, name


@pytest.mark.parametrize("method", ["soft_movement", "l0"])
def test_the_step_is_drawn_as_it_runs(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of a step of soft movement come in the order of the diagram; L0 begins with a sample."""
    names = [element.text for element in drawing("step.svg").iter() if element.get("class") == "name"]
    classes = {cls.__name__: cls for cls in (mvp.Pruner, PrunedMatrix, Pool, WeightGroups, Schedule, PenaltyController)}
    classes["Method"] = METHODS[method]
    calls: list[str] = []
    for name in names:
        owner, attribute = name.split(".")
        original = getattr(classes[owner], attribute)

        def watched(*args, name=name, original=original, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(classes[owner], attribute, watched)
    net, optimizer, _ = make(method)
    for step in range(2):  # lambda is 0 in the first
        calls.clear()
        loss_of(net, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    found = list(dict.fromkeys(calls))
    if method == "l0":
        assert found[0] == "Method.sample" and set(names) - set(found) <= {"Schedule.value"}
    else:
        assert ["Method.sample", *found] == names


def test_the_parts_are_drawn_as_they_import() -> None:
    """Every file is in one box, every arrow is an import, and every other import follows from a path of arrows."""
    root = drawing("parts.svg")
    files: dict[str, str] = {}
    boxes = {}
    for group in root.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        x, y, width, height = (float(box.get(side)) for side in ("x", "y", "width", "height"))
        boxes[group.get("id")] = (x, y, x + width, y + height)
        for line in group.findall(f"{SVG}text")[1:]:
            for name in line.text.split():
                assert (ROOT / "mvp_lite" / name).exists() and name not in files, name
                files[name] = group.get("id")

    def part(module: str) -> str:
        path = module.replace(".", "/")
        return files.get(f"{path}.py") or files[f"{path.partition('/')[0]}/"]

    drawn = {module: part(module) for module in ORDER}
    assert set(drawn.values()) == set(boxes)
    imports = set()
    for path in (ROOT / "mvp_lite").rglob("*.py"):
        name = module_name(path)
        imports |= {(drawn[other], drawn[name]) for other in own_imports(path)} if name not in EXEMPT else set()
    imports = {(one, other) for one, other in imports if one != other}

    arrows = [line for line in root.iter(f"{SVG}path") if line.get("data-from")]
    ends = {(line.get("data-from"), line.get("data-to")) for line in arrows}
    assert len(ends) == len(arrows) and ends <= imports, ends - imports
    reached = set(ends)
    while more := {(a, d) for a, b in reached for c, d in ends if b == c} - reached:
        reached |= more
    assert imports <= reached, imports - reached

    for line in arrows:  # from the edge of one box to the edge of the other
        x, y = map(float, re.match(r"M(\S+) (\S+)", line.get("d")).groups())
        points = [(x, y)]
        for way, value in re.findall(r"([VH])(\S+)", line.get("d")):
            x, y = (x, float(value)) if way == "V" else (float(value), y)
            points.append((x, y))
        for name, (x, y) in ((line.get("data-from"), points[0]), (line.get("data-to"), points[-1])):
            left, top, right, bottom = boxes[name]
            assert left <= x <= right + 1 and top - 1 <= y <= bottom, (name, x, y)

"""Away from a working copy: Colab, containers, uv. What the project says of its address and its versions agrees."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from test_project import PROJECT, ROOT, tracked_files, without_git

import mvp_lite as mvp
from mvp_lite.__main__ import main
from mvp_lite.course import editions
from mvp_lite.course.address import Address, publish, published, without_badge

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HERE = published(ROOT)
REMEDY = "write it everywhere: python -m mvp_lite address"

all_notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


# --- one address, one version -------------------------------------------------------------------------------------


def test_what_pip_installs_is_this_version() -> None:
    requirement = Requirement(HERE.requirement)
    assert requirement.name == PROJECT["name"] and not requirement.extras
    assert requirement.url == f"git+{HERE.url}@v{mvp.__version__}"
    assert HERE.url == PROJECT["urls"]["Repository"]


@all_notebooks
def test_a_notebook_opens_on_colab_and_installs_this_version(path: Path) -> None:
    head, first = nbformat.read(path, as_version=4).cells[:2]
    owner_and_name = urlsplit(HERE.url).path
    badge = head.source.splitlines()[-1]
    assert badge == HERE.badge(path.name), REMEDY
    assert f"/github{owner_and_name}/blob/v{mvp.__version__}/notebooks/{path.name})" in badge
    assert first.source == HERE.install_cell, REMEDY
    assert f'"{HERE.requirement}"' in first.source and len(first.source.splitlines()) <= 5
    assert first.outputs == []


def test_pages_name_the_same_address_and_version() -> None:
    own = re.compile(r"(https://github\.com/[\w.-]+/mvp[_-]lite)\b(?:@v([\d.]+\d))?")
    found = [(path, hit) for path in tracked_files() if path.suffix == ".md" for hit in own.findall(path.read_text())]
    assert ROOT / "docs" / "install.md" in {path for path, _ in found}
    for path, (url, version) in found:
        assert url == HERE.url and version in ("", mvp.__version__), f"{path.name}: {REMEDY}"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project in another folder, which is the current one."""
    for path in tracked_files():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_another_address_is_written_everywhere_and_back(copy: Path) -> None:
    before = texts(copy)
    assert main(["address", "https://github.com/someone/pruning"]) == 0
    after = texts(copy)
    assert published(copy) == Address("https://github.com/someone/pruning", mvp.__version__)
    owner_and_name = urlsplit(HERE.url).path.encode()
    left = [path for path, text in after.items() if b"github.com" + owner_and_name in text]
    left += [path for path, text in after.items() if b"/github" + owner_and_name in text]
    assert not left
    changed = {path.relative_to(copy) for path in before if before[path] != after[path]}
    assert {Path("pyproject.toml"), Path("docs/install.md"), *(p.relative_to(ROOT) for p in NOTEBOOKS)} <= changed
    assert main(["address", HERE.url]) == 0
    assert texts(copy) == before


def test_another_version_is_written_everywhere(copy: Path) -> None:
    package = copy / "mvp_lite" / "__init__.py"
    package.write_text(package.read_text().replace(f'__version__ = "{mvp.__version__}"', '__version__ = "7.8.9"'))
    assert main(["address"]) == 0
    for name in ("docs/install.md", *(f"notebooks/{path.name}" for path in NOTEBOOKS)):
        text = (copy / name).read_text()
        assert f"{HERE.url}@v7.8.9" in text and f"@v{mvp.__version__}" not in text, name


OTHER_FORMS = """someone/pruning
http://github.com/a/b
https://github.com/a
https://github.com/a/b/
https://github.com/a/b.git
https://github.com/a/b c
git@github.com:a/b"""


@pytest.mark.parametrize("url", OTHER_FORMS.splitlines())
def test_an_address_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=f"address='{url}': must be https://github"):
        Address(url, "1.0")


def test_the_address_is_written_in_the_folder_of_the_project(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no copy of this project"):
        publish(tmp_path, HERE.url)


# --- the cell that installs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
def test_the_cell_installs_only_what_is_missing(missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    shell = InteractiveShell()
    shell.register_magic_function(asked.append, magic_name="pip")
    if missing:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for _ in range(2):
        done = shell.run_cell(HERE.install_cell)
        assert done.success and done.result is None
    assert asked == ([f'install --quiet "{HERE.requirement}"'] * 2 if missing else [])


TWICE = """
import sys
from IPython.core.interactiveshell import InteractiveShell

shell, cell, site = InteractiveShell.instance(), *sys.argv[1:]
for _ in range(2):
    shell.run_cell(cell).raise_error()
    print("-- ran", flush=True)
from mvp_lite import course, data_path
course.setup()
assert str(data_path("toy", "encoder", "model.safetensors").resolve(strict=True)).startswith(site)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or not shutil.which("git"), reason="needs git and links to folders")
def test_the_cell_installs_from_a_tag(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """For real, but without a network: git takes a local repository for the address."""
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "."], ["tag", f"v{HERE.version}"]):
        subprocess.run(["git", *author, *command], cwd=copy, env=without_git(), check=True, capture_output=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", elsewhere / "venv"], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(elsewhere / "venv")}))
    # Everything but this package is lent; an editable install of it has a folder and metadata there.
    (elsewhere / "lent").mkdir()
    for folder in dict.fromkeys([Path(torch.__file__).parents[1], *map(Path, sys.path)]):
        for path in folder.iterdir() if folder.name.endswith("-packages") else ():
            if not path.name.startswith("mvp_lite") and path.suffix != ".pth":
                (elsewhere / "lent" / path.name).symlink_to(path)
    (site / "lent.pth").write_text(str(elsewhere / "lent"))
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1"}  # "0" switches isolation off
    local = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{copy.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": HERE.url,
    }
    python = elsewhere / "venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-I", "-c", TWICE, HERE.install_cell, str(site.resolve())],
        **{"cwd": elsewhere, "env": {**without_git(), **offline, **local}, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, rest = done.stdout.split("-- ran\n")
    assert "mvp_lite" not in first and not second.strip() and not rest.strip()
    assert (site / "mvp_lite" / "__init__.py").is_file()


def test_a_new_notebook_gets_its_badge_and_its_cell_once(tmp_path: Path) -> None:
    v4 = nbformat.v4
    shown = [v4.new_output("execute_result", {"text/plain": "2"}, execution_count=2)]
    code = [v4.new_code_cell("1", execution_count=1), v4.new_code_cell("2", execution_count=2, outputs=shown)]
    code.append(v4.new_code_cell("3"))
    path = tmp_path / "16_new.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# 16 · New"), *code]), path)
    editions.publish(tmp_path, HERE)
    first = path.read_bytes()
    head, install, *others = nbformat.read(path, as_version=4).cells
    assert head.source == f"# 16 · New\n\n{HERE.badge(path.name)}" and without_badge(head.source) == "# 16 · New"
    assert install.source == HERE.install_cell and install.execution_count == 1
    assert [(cell.source, cell.execution_count) for cell in others] == [("1", 2), ("2", 3), ("3", None)]
    assert [out.execution_count for out in others[1].outputs] == [3]
    editions.publish(tmp_path, HERE)
    assert path.read_bytes() == first


def test_the_student_edition_installs_and_opens_no_answers(tmp_path: Path) -> None:
    for path in editions.student(ROOT / "notebooks", tmp_path):
        head, install, *_ = nbformat.read(path, as_version=4).cells
        assert install.source == HERE.install_cell
        assert head.source.startswith("# ") and "Colab" not in path.read_text().replace("as on Colab;", "")


def test_notebooks_read_only_what_the_package_holds() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["data"] == "mvp_lite/data"
    read = set()
    for path in NOTEBOOKS:
        code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        read |= set(re.findall(r'(?:"benchmarks"|folder) / "(\w+\.json)"', code))
        assert not re.search(r'"\.\./', code), f"{path.name} reads a path next to its own folder"
    assert len(read) >= 3
    assert {f"benchmarks/{name}": f"mvp_lite/benchmarks/{name}" for name in read}.items() <= included.items()


# --- containers and uv --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / ".devcontainer").is_dir(), reason="a source archive has no .devcontainer")
def test_the_container_runs_a_supported_python_and_make_setup() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    image, python = container["image"].rsplit(":", 1)
    assert image == "mcr.microsoft.com/devcontainers/python"
    assert f"{python}.99" in SpecifierSet(PROJECT["requires-python"])
    assert container["postCreateCommand"] == "make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu"
    assert re.search("^setup:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_uv_installs_the_versions_of_the_constraints() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert settings["tool"]["uv"]["constraint-dependencies"] == [line for line in lines if line], (
        "[tool.uv] constraint-dependencies in pyproject.toml: copy the lines of constraints.txt"
    )
    assert settings["dependency-groups"]["dev"] == [f"{PROJECT['name']}[test]", "pip"]

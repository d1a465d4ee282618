"""The project agrees with itself: pins, commands, import arrows, notebooks as committed."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# A file imports only from files above it.
ORDER = """
paths hub tokenizer _selection masks scores schedule settings layers penalty_control methods structure.units
storage.checksums structure.shrinking structure.limits structure.loading structure targets matrices hold groups
budgets forward diagnosis report pruner
tasks.toy.language tasks.toy.pretraining tasks.toy tasks.specs tasks.spans tasks.entities tasks.sources tasks.files
tasks.reading tasks.columns tasks.encoding tasks.evaluation tasks.task tasks.loading tasks.loaders tasks models
distill storage.csr storage.onnx storage.positions storage.index storage.building storage.sparse
storage.record storage.card storage.folder storage checkpoints train trainer replaying
gradient_free.batches gradient_free.layer gradient_free.costs gradient_free.r2 gradient_free.d2
gradient_free.mask_search gradient_free.scaling gradient_free.methods gradient_free.pruning gradient_free
latency.variants latency.timing latency.report latency
experiments.table experiments.subsets experiments.settings experiments.remedies experiments.recipes
experiments.grid experiments.lambdas experiments.structured experiments.unlabeled experiments.sizes
experiments.probes experiments.mechanism experiments
course.equations course.anatomy course.arguments course.analysis course.swaps
course.figures.style course.figures.matrices course.figures.movement course.figures.training course.figures.gates
course.figures.comparisons course.figures.first_order
course.figures.dial course.figures.results course.figures.distillation
course.figures.anatomy course.figures.structure course.figures.audit course.figures.gradient_free
course.figures.published course.figures.budgets
course.figures.mechanism course.figures.selection course.figures.score_gradient course.figures.swaps
course.figures.during_training course.figures.deployment course.figures.neurons course.figures course.notebook
course.widgets course.exercises.tools
course.exercises.n01 course.exercises.n02 course.exercises.n03 course.exercises.n04 course.exercises.n05
course.exercises.n06 course.exercises.n07 course.exercises.n08 course.exercises.n09 course.exercises.n10
course.exercises.n11 course.exercises.n12 course.exercises.n13 course.exercises.n14 course.exercises.n15
course.exercises course.tables course.address course.editions course.sliders
course.api course
""".split()
#: the public face, which may name anything
EXEMPT = ["__init__", "__main__"]


def tracked_files() -> list[Path]:
    """Files under version control; without git (an unpacked sdist), every file that is not a by-product."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode == 0:
        return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    by_product = re.compile(r"(^|/)(\.[^/]+|__pycache__|build|dist)/|\.egg-info/")
    files = (path for path in ROOT.rglob("*") if path.is_file())
    return [path for path in files if not by_product.search(path.relative_to(ROOT).as_posix())]


# --- pins ---------------------------------------------------------------------------------------------------------


def direct_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    lines = PROJECT["dependencies"] + [line for extra in extras for line in extra]
    return [req for req in map(Requirement, lines) if req.name != PROJECT["name"]]


def pins() -> dict[str, Version]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    found = {}
    for line in filter(None, lines):
        name, _, version = line.partition("==")
        assert version, f"constraints.txt: {line!r} is not an exact pin"
        assert canonicalize_name(name) not in found, f"constraints.txt pins {name} twice"
        found[canonicalize_name(name)] = Version(version)
    return found


def test_every_dependency_is_pinned_inside_its_range() -> None:
    pinned = pins()
    for req in direct_requirements():
        name = canonicalize_name(req.name)
        assert name in pinned, f"{name} is in pyproject.toml and not in constraints.txt"
        assert len(req.specifier) >= 2, f"{req} needs a lower and an upper bound"
        assert pinned[name] in req.specifier, f"constraints.txt has {name}=={pinned[name]}, pyproject.toml allows {req}"


def test_environment_yml_installs_this_package_with_the_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    assert environment["channels"][0] == "conda-forge"
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    python, *others = conda
    assert others == ["pip"], "conda brings Python and pip alone: one file holds the pins"
    assert python.startswith("python=")
    assert Version(python.removeprefix("python=")) in SpecifierSet(PROJECT["requires-python"])
    assert pip == ["--constraint constraints.txt", "--editable .[test]"]


def test_supported_pythons_agree() -> None:
    allowed = SpecifierSet(PROJECT["requires-python"])
    supported = [f"3.{minor}" for minor in range(8, 20) if Version(f"3.{minor}") in allowed]
    classified = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert classified == supported
    low, high = supported[0], supported[-1]
    guard = "({}) <= v <= ({})".format(*(version.replace(".", ", ") for version in (low, high)))
    assert guard in (ROOT / "Makefile").read_text()


# --- which versions are tested, and when --------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_constrains_pip_to_the_ranges_and_to_their_lower_bounds(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(["make", "build/newest.txt", "build/lowest.txt"], cwd=tmp_path, check=True, capture_output=True)
    newest, lowest = ((tmp_path / "build" / f"{name}.txt").read_text().splitlines() for name in ("newest", "lowest"))
    assert [Requirement(line) for line in newest] == direct_requirements()
    for req, line in zip(direct_requirements(), lowest, strict=True):
        (bound,) = (part.version for part in req.specifier if part.operator == ">=")
        assert line == f"{req.name}=={bound}"


def without_git() -> dict[str, str]:
    """The environment without what git hands to its hooks: with it, commands would write to this repository."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}


@pytest.mark.skipif(not (ROOT / ".ci").is_dir() or sys.platform == "win32", reason="an sdist has no .ci; it is bash")
def test_what_ci_runs_after_the_tests(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        author = ["-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false"]
        command = ["git", *author, *words]
        return subprocess.run(command, cwd=tmp_path, env=clean, check=True, capture_output=True, text=True).stdout

    def turn(**env: str) -> str:
        script = [str(tmp_path / ".ci" / "turn")]
        env = {key: value for key, value in clean.items() if key != "MVP_LITE_CI"} | env
        done = subprocess.run(script, env=env, capture_output=True, text=True)
        return done.stdout.partition(":")[0] or done.stderr

    def commit(name: str, old: str, new: str) -> str:
        path = tmp_path / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        git("commit", "--all", "--message", name)
        return turn()

    clean = without_git() | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    (tmp_path / ".ci").mkdir()
    for name in (".ci/turn", "pyproject.toml", "constraints.txt", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    git("init", "--initial-branch", "main")
    git("add", "--all")
    git("commit", "--message", "start")
    for _ in range(4):
        found = commit("LICENSE", "Apache", "x Apache")
        assert found == ("kernels", "threads", "lowest")[int(git("rev-parse", "HEAD").strip()[-1], 16) % 3]
    assert commit("pyproject.toml", "torch>=", "torch>=1") == "lowest"
    assert commit("pyproject.toml", "<3.14", "<3.99") == "newest"
    assert commit("constraints.txt", "tqdm==", "tqdm==1") == "newest"
    git("switch", "--create", "branch")
    commit("constraints.txt", "tqdm==", "tqdm==1")
    assert commit("LICENSE", "Apache", "x Apache") == "newest", "a branch starts where it left main"
    assert turn(MVP_LITE_CI="threads") == "threads"
    assert "must be one of" in turn(MVP_LITE_CI="all")
    shutil.rmtree(tmp_path / ".git")
    assert turn() == "kernels", "without a history there is nothing to compare"


# --- import arrows and size ---------------------------------------------------------------------------------------


def module_name(path: Path) -> str:
    """ "masks", "tasks.toy"; a package's `__init__.py` has the package's own name."""
    parts = path.relative_to(ROOT / "mvp_lite").with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def own_imports(path: Path) -> set[str]:
    """Names below `mvp_lite` that a file imports, anywhere in it: "masks", "course.toy"; "" is the package itself."""
    package = ["mvp_lite", *path.relative_to(ROOT / "mvp_lite").parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            dotted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in dotted:
            head, *parts = name.split(".")
            if head == "mvp_lite":
                depths = range(len(parts), 0, -1)
                known = (".".join(parts[:depth]) for depth in depths if ".".join(parts[:depth]) in ORDER)
                found.add(next(known, ""))
    return found


def test_imports_point_one_way() -> None:
    for path in sorted((ROOT / "mvp_lite").rglob("*.py")):
        name = module_name(path)
        if name in EXEMPT:
            continue
        assert name in ORDER, f"mvp_lite/{name}: give it a place in the order of tests/test_project.py"
        for imported in own_imports(path):
            assert imported, f"{name} imports the package itself: import from the file that is meant"
            assert ORDER.index(imported) < ORDER.index(name), f"{name} imports {imported}, which stands below it"


def test_import_is_cheap() -> None:
    heavy = [
        "torch._dynamo",
        "transformers",
        "datasets",
        "matplotlib",
        "pandas",
        "torchmetrics",
        "ipywidgets",
        "IPython",
    ]
    code = f"import sys, mvp_lite; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_benchmarks_start() -> None:
    for script in sorted((ROOT / "benchmarks").glob("*.py")):
        subprocess.run([sys.executable, script, "--help"], check=True, capture_output=True)


# --- what must not be in the files --------------------------------------------------------------------------------


def test_no_machine_paths_or_registry_hosts() -> None:
    folders = "|".join(["work", "root", "home", "Users"])
    hosts = "|".join(re.escape(".".join(parts)) for parts in [("pypi", "org"), ("pythonhosted", "org")])
    forbidden = re.compile(rf"(?<![\w.~}}])/(?:{folders})/\w|{hosts}")
    assert forbidden.search('open("/' + 'home/someone")') and not forbidden.search("notebooks/home/page")
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        hit = forbidden.search(data.decode())
        assert hit is None, f"{path.relative_to(ROOT)} contains {hit.group()!r}"


# --- one home for each equation -----------------------------------------------------------------------------------

#: what it computes -> (how it looks in code, where it stands)
EQUATIONS = {
    "G * W": (r"\bG \* W\b|\bgrad \* \w*(master|weight|W)\b|\bW \* G\b", "scores"),
    "|W|": (r"\b(W|master|weight)(\.detach\(\))?\.abs\(\)", "scores"),
    "gate (1 - gate)": (r"\(1(\.0)? - (gate|mask)\)", "scores masks"),
    "hard concrete": (r"HARD_CONCRETE", "masks scores methods"),
    "top-v": (r"\bargsort\(descending=True, stable=True\)|np\.partition", "_selection"),
    "straight-through": (r"torch\.autograd\.Function", "masks"),
    "cubic": (r"\*\* ?3\b", "schedule"),
}
ENGINE = "_selection masks scores schedule layers penalty_control methods matrices groups pruner train".split()


def code_of(path: Path) -> str:
    """A file without its docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def test_each_equation_has_one_home() -> None:
    for equation, (pattern, homes) in EQUATIONS.items():
        found = [name for name in ENGINE if re.search(pattern, code_of(ROOT / "mvp_lite" / f"{name}.py"))]
        assert sorted(found) == sorted(homes.split()), f"{equation} stands in {found}, not in {homes}"

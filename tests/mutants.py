"""Mutation testing of the core: which changes of the code does no test notice? The record is `mutants.json`.

    make mutants                                # the whole core
    make mutants FILES=mvp_lite/schedule.py     # one file

mutmut changes one expression at a time and runs the tests that execute the changed function. Only tests of the same
subject count: a mutant of `masks.py` that a notebook alone notices is a gap in the tests of masks. The command fails
if a mutant survives for which the record gives no reason; write the reason there, or a test.

The rule of what is not changed: texts and types of errors and warnings (whatever stands in `raise` and
`warnings.warn`), docstrings and annotations, and `strict=` of `zip`, whose arguments have one length here. mutmut
itself leaves alone what is decorated (properties, cached functions) and what stands outside functions.
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "mutants.json"
SCRATCH = ROOT / "build" / "mutants"

#: file of the core -> the tests of its subject, as arguments of pytest; whole runs, which are slow, are left out
TESTS = {
    "_selection": "test_masks.py",
    "masks": "test_masks.py test_penalty_control.py",
    "scores": "test_scores.py",
    "schedule": "test_schedule.py",
    "settings": "test_settings.py",
    "layers": "test_scores.py test_oracle.py",
    "penalty_control": "test_penalty_control.py",
    "methods": "test_methods.py test_budgets.py -k 'not fine_prune and not unused_blocks and not nobody_holds "
    "and (not budgets or ignore or penalty_that or where_a_penalty)'",
    "matrices": "test_matrices.py",
    "groups": "test_groups.py test_saving.py test_budgets.py -k 'not fine_prune and not smaller and not lands_on "
    "and not keeps_the_expected and (description or not saving) and (n_of_m or not budgets)'",
    "budgets": "test_budgets.py -k 'not fine_prune and not is_the_fraction and not keep_their_budget and not types'",
    "pruner": "test_pruner.py test_traps.py test_synchronization.py test_budgets.py test_methods.py "
    "-k 'not default_targets and not larger_penalty and not whole_run and not read "
    "and not fine_prune and (not budgets or patterns or penalty_that or every_pool or resume or n_of_m)'",
}
#: the configuration of pytest and of mutmut in the scratch folder
CONFIGURATION = r"""
[tool.pytest.ini_options]
markers = ["slow: takes more than ten seconds on one core"]

[tool.mutmut]
source_paths = ["mvp_lite"]
only_mutate = ["mvp_lite/{name}.py"]
do_not_mutate_patterns = ['^\s*raise\b', '\bwarnings\.warn\(']
also_copy = ["data", "conftest.py"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = ["-m", "not slow", {tests}]
timeout_multiplier = 5.0
timeout_constant = 5.0
use_git_change_detection = false
"""


def measure(name: str, processes: int, again: bool) -> dict[str, Any]:
    """The mutants of one file: how many, how many of them the tests notice, and the others."""
    start = time.monotonic()
    folder = SCRATCH / name
    tested = survivors(statuses(folder)) if again else []
    if not again:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for needed in ("mvp_lite", "tests", "data", "conftest.py"):
            (folder / needed).symlink_to(ROOT / needed)
    chosen = shlex.split(TESTS[name])
    tests = ", ".join(json.dumps(f"tests/{word}" if word.startswith("test_") else word) for word in chosen)
    (folder / "pyproject.toml").write_text(CONFIGURATION.format(name=name, tests=tests))
    with (folder / "log.txt").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes), *tested],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MVP_LITE_DEVICE": "cpu"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    found = statuses(folder)
    alive = survivors(found)
    return {
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.monotonic() - start),
        "tests": TESTS[name],
        "of": len(mutants_of(folder)),
        "mutants": len(found),
        "killed": len(found) - len(alive),
        "timeouts": sum(status == "timeout" for status in found.values()),
        "survivors": [{"function": function_of(key), "change": change_of(folder, key), "why": ""} for key in alive],
    }


def mutants_of(folder: Path) -> list[str]:
    """The names of all mutants of a file."""
    from mutmut.configuration import reset_config
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    path = Path("mvp_lite") / f"{folder.name}.py"
    with contextlib.chdir(folder):
        reset_config()
        return [get_mutant_name(path, name) for name in mutate_file_contents(str(path), path.read_text()).mutant_names]


def statuses(folder: Path) -> dict[str, str]:
    """What became of each mutant that was tested and that the rule counts."""
    from mutmut.stats import status_by_exit_code

    meta = folder / "mutants" / "mvp_lite" / f"{folder.name}.py.meta"
    codes = json.loads(meta.read_text())["exit_code_by_key"]
    return {
        key: status_by_exit_code[code]
        for key, code in codes.items()
        if code is not None and not only_strictness(change_of(folder, key))
    }


def survivors(found: dict[str, str]) -> list[str]:
    return [key for key, status in found.items() if status not in ("killed", "timeout")]


def function_of(key: str) -> str:
    """ "mvp_lite.masks.xǁTopVǁforward__mutmut_3" -> "TopV.forward"."""
    mangled = key.rpartition(".")[2].partition("__mutmut")[0]
    return mangled.removeprefix("x_") if mangled.startswith("x_") else ".".join(mangled.split("ǁ")[1:])


def change_of(folder: Path, key: str) -> list[str]:
    """The lines removed ("-…") and added ("+…")."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    with contextlib.chdir(folder):
        lines = get_diff_for_mutant(key, path=Path("mvp_lite") / f"{folder.name}.py").splitlines()
    return [line[0] + line[1:].strip() for line in lines if line[:1] in ("-", "+") and line[:3] not in ("---", "+++")]


def only_strictness(change: list[str]) -> bool:
    sides = ["".join(line[1:] for line in change if line[0] == sign) for sign in "-+"]
    before, after = (re.sub(r",\s*(strict=\w+)?\s*\)", ")", side) for side in sides)
    return before == after


def with_reasons(found: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Survivors that the record knows already keep their reasons."""
    known = {(one["function"], *one["change"]): one["why"] for one in earlier.get("survivors", [])}
    for one in found["survivors"]:
        one["why"] = known.get((one["function"], *one["change"]), "")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="files of the core, as mvp_lite/schedule.py; default: all")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--again", action="store_true", help="only what survived last time, after tests were added")
    asked = parser.parse_args()
    names = [Path(file).stem for file in asked.files] or list(TESTS)
    if unknown := sorted(set(names) - set(TESTS)):
        parser.error(f"files={unknown}: must be of the core, {', '.join(TESTS)}")
    unexplained = 0
    for name in names:
        found = measure(name, asked.processes, asked.again)
        record = json.loads(RECORD.read_text()) if RECORD.is_file() else {"files": {}}
        earlier = record["files"].get(name, {})
        found = with_reasons(found, earlier)
        if asked.again:
            found["seconds"] += earlier.get("seconds", 0)
        record["versions"] = {package: version(package) for package in ("mutmut", "pytest", "torch")}
        files = record["files"] | {name: found}
        record["files"] = {name: files[name] for name in TESTS if name in files}
        RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        print(f"mvp_lite/{name}.py: {found['killed']} of {found['mutants']} mutants killed, {found['seconds']} s")
        for one in found["survivors"]:
            if not one["why"]:
                unexplained += 1
                print(f"  {one['function']}", *one["change"], sep="\n    ", flush=True)
    return unexplained


if __name__ == "__main__":
    sys.exit(f"{count} mutants survive without a reason in tests/mutants.json" if (count := main()) else None)

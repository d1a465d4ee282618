"""Measure how robust checkpoints, saved folders and equations are, and record it in tests/robustness.json.

`python tests/robustness.py` takes a few minutes on one core; `python tests/robustness.py "killed 0"`
measures this part anew. docs/deploy.md shows the figures, and tests/test_robustness.py compares them with the file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
import torch
from fuzzing import totals

from mvp_lite.storage.record import hardware, versions

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "robustness.json"
POINTS, SEED = 10, 1
#: part -> how many files are damaged
FILES = {"checkpoints": 1000, "shrunk": 1000, "sparse": 2000, "cards": 500}
KILLED = [f"killed {n}" for n in range(6)]
PROPERTIES = [f"properties {n}" for n in range(4)]
PARTS = [*KILLED, *FILES, *PROPERTIES]


def measure_kills(number: int) -> dict[str, Any]:
    """One way of training, killed and resumed."""
    kill = import_module("kill")
    kill.import_all()
    way = list(kill.WAYS)[number]
    with tempfile.TemporaryDirectory() as folder:
        return {"way": way, **kill.check(way, POINTS, SEED, Path(folder))}


def measure_damage(part: str) -> dict[str, Any]:
    run = import_module(f"fuzz_{part}").run_all
    with tempfile.TemporaryDirectory() as folder:
        counts, problems = run(FILES[part], SEED, Path(folder))
    print(*problems[:20], sep="\n")
    return {"files": FILES[part], "ways": len(counts), **totals(counts)}


def measure_properties(number: int) -> dict[str, Any]:
    """Every fourth property: cases of a usual run, and of the thorough profile."""
    names = import_module("test_properties").PROPERTIES[number :: len(PROPERTIES)]
    tests = [f"tests/test_properties.py::{name}" for name in [*names, "test_there_were_enough_cases"]]
    found: dict[str, Any] = {"properties": len(names)}
    for profile in ("same", "thorough"):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        command += ["--hypothesis-profile", profile]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        match = re.search(r"([\d,]+) cases of (\d+) properties", done.stdout)
        assert match and not done.returncode, done.stdout
        found[profile] = int(match[1].replace(",", ""))
    return found | {"hypothesis": hypothesis.__version__}


def measure(part: str) -> dict[str, Any]:
    if part in FILES:
        found = measure_damage(part)
    else:
        of, number = part.rsplit(" ", 1)
        found = (measure_kills if of == "killed" else measure_properties)(int(number))
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": now, "hardware": hardware(torch.device("cpu")), "versions": versions(), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    for part in parser.parse_args().parts or PARTS:
        found = measure(part)
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        record[part] = found
        RECORD.write_text(json.dumps({name: record[name] for name in PARTS if name in record}, indent=1) + "\n")
        print(part, found, flush=True)


if __name__ == "__main__":
    main()

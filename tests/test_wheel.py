"""What a user gets: a wheel, in an environment of its own, running the README's quick start from another folder."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from pages import README, python_blocks

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel built from it, so that the sdist is known to be complete."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_contents(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"mvp_lite/__init__.py", "mvp_lite/data/toy/encoder/model.safetensors"} <= set(names)
    assert all(name.startswith(("mvp_lite/", "mvp_lite-")) for name in names)
    assert not [name for name in names if re.search(r"__pycache__|\.ipynb_checkpoints|\.(pt|pkl|pyc)$", name)]
    assert wheel.stat().st_size < 10_000_000
    with tarfile.open(sdist) as archive:
        folders = {name.split("/")[1] for name in archive.getnames() if name.count("/") > 1}
    assert folders == {"mvp_lite", "data", "docs", "notebooks", "tests", "benchmarks"}


@pytest.mark.slow
def test_the_quick_start_runs_from_the_wheel(built: Path, tmp_path: Path) -> None:
    example = python_blocks(README)[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(tmp_path / "venv")}))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(site), *map(str, built.glob("*.whl"))]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    # The dependencies, gigabytes of them, are lent by the environment that runs the tests. Folders named in a .pth come
    # after the new environment's own, and a .pth inside them (an editable install of this package) is not read.
    lenders = {str(Path(torch.__file__).parents[1]), *(path for path in sys.path if path.endswith("-packages"))}
    (site / "lent.pth").write_text("\n".join(sorted(lenders)) + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = elsewhere / "example.py"
    script.write_text(f"{example}\nassert mvp.__file__.startswith({str(site)!r}), mvp.__file__\n")
    # -I: neither the current folder nor PYTHONPATH can lend the source tree.
    done = subprocess.run([python, "-I", str(script)], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of the encoder's weights kept" in done.stdout
    assert (elsewhere / "pruned" / "model.safetensors").is_file()

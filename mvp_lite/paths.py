"""Where the shipped files are: inside the installed package, or in `data/` of a working copy."""

from pathlib import Path

__all__ = ["data_path"]

_HERE = Path(__file__).resolve().parent


def data_path(*parts: str) -> Path:
    """Path below the shipped `data` folder, e.g. `data_path("toy", "encoder")`; it need not exist yet."""
    packaged = _HERE / "data"
    return (packaged if packaged.is_dir() else _HERE.parent / "data").joinpath(*parts)

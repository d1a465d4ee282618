"""Where the project is published: one address, in pyproject.toml, and what notebooks and pages make of it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Address", "publish", "published", "without_badge"]

_BADGE = re.compile(r"\s*\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)")
_TEXT = (".toml", ".md", ".cff", ".yml", ".yaml", ".json", ".py")


@dataclass(frozen=True)
class Address:
    """Where a version of the project is: `url` is `https://github.com/OWNER/NAME`, its tag is `v` and `version`."""

    url: str
    version: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]*[\w-]", self.url) or self.url.endswith(".git"):
            raise ValueError(f"address={self.url!r}: must be https://github.com/OWNER/NAME, without .git")

    @property
    def requirement(self) -> str:
        """What pip installs. Without extras: Colab has matplotlib and ipywidgets, and its own Jupyter must stay."""
        return f"mvp-lite @ git+{self.url}@v{self.version}"

    @property
    def install_cell(self) -> str:
        """The first code cell of every notebook."""
        return (
            "# Installs mvp_lite where it is missing, as on Colab; otherwise it does nothing.\n"
            "from importlib.util import find_spec\n\n"
            'if find_spec("mvp_lite") is None:\n'
            f'    %pip install --quiet "{self.requirement}"'
        )

    def badge(self, notebook: str) -> str:
        """Markdown of the image that opens a notebook of the course on Colab; the image needs no network."""
        page = f"github/{self.url.removeprefix('https://github.com/')}/blob/v{self.version}/notebooks/{notebook}"
        return f"[![Open in Colab](../docs/open_in_colab.svg)](https://colab.research.google.com/{page})"


def without_badge(text: str) -> str:
    """A cell's Markdown without its badge."""
    return _BADGE.sub("", text)


def published(root: Path) -> Address:
    """The address in the pyproject.toml of a working copy, with the version of the package there.

    Raises:
        ValueError: a folder that is no working copy.
    """
    settings, package = root / "pyproject.toml", root / "mvp_lite" / "__init__.py"
    if not (settings.is_file() and package.is_file()):
        raise ValueError(f"{root.resolve()} is no copy of this project: start this in the project's own folder")
    url = tomllib.loads(settings.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    (version,) = re.findall(r'^__version__ = "(.+)"$', package.read_text(encoding="utf-8"), flags=re.M)
    return Address(url, version)


def publish(root: Path, url: str) -> Address:
    """Write another address into pyproject.toml and the pages that name it, and the version's tag behind it.

    Notebooks are left to `editions.publish`. Writing the first address again restores every byte.

    Raises:
        ValueError: an address of another form.
    """
    old, new = published(root), Address(url, published(root).version)
    named = re.compile(rf"{re.escape(old.url)}(?![\w-])(@v[\d.]*\d)?")
    folders = [root.glob("*"), (root / "docs").rglob("*"), (root / ".github").rglob("*")]
    for path in sorted(path for folder in folders for path in folder if path.suffix in _TEXT):
        text = path.read_text(encoding="utf-8")
        changed = named.sub(lambda found: new.url + (f"@v{new.version}" if found[1] else ""), text)
        if changed != text:
            path.write_text(changed, encoding="utf-8")
    return new

"""What the tests of figures read back from them."""

from typing import Any


def line(ax: Any, label: str) -> Any:
    """The one line of `ax` with this label."""
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return found

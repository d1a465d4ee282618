"""What the notebooks are made of: checks of equations, exercises, figures, statistics of runs, widgets, editions.

    from mvp_lite import course

    course.setup()
    course.check("3.2", S.grad, G * W)

Names are imported at their first use: pandas, matplotlib and ipywidgets are loaded only by what needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvp_lite.course import analysis, anatomy, editions, exercises, figures, sliders, swaps, tables, widgets
    from mvp_lite.course.equations import check
    from mvp_lite.course.notebook import setup

__all__ = [
    "analysis",
    "anatomy",
    "check",
    "editions",
    "exercises",
    "figures",
    "setup",
    "sliders",
    "swaps",
    "tables",
    "widgets",
]

#: Name -> its module; a module of this package stands for itself.
_LAZY = {name: f"{__name__}.{name}" for name in __all__} | {
    "check": "mvp_lite.course.equations",
    "setup": "mvp_lite.course.notebook",
}

if not TYPE_CHECKING:  # so that mypy reports a name that does not exist

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(_LAZY[name])
        return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)

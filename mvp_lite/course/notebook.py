"""`setup()`: what every notebook starts with, so that its numbers and pictures repeat."""

from __future__ import annotations

import os
import random
import sys
import warnings
from typing import Any

import torch

from mvp_lite.course.figures import STYLE
from mvp_lite.train import default_device

__all__ = ["setup"]


def setup(seed: int = 0) -> torch.device:
    """Seed Python, numpy and torch, set the figure style of the course, keep libraries quiet; returns the device.

    Nothing in the course needs the network; set `HF_HUB_OFFLINE=1` to keep libraries off it. Prints nothing.

    Raises:
        ValueError: a seed that is not an integer from 0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r}: an integer from 0 to 2**32 - 1")
    import numpy as np
    from matplotlib import style

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries may sample from the global state
    torch.manual_seed(seed)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", module="tqdm")  # it asks for ipywidgets where they are not installed
    style.use(STYLE)
    _inline_figures()
    return default_device()


def _inline_figures() -> None:
    """Inside Jupyter: pictures without the version of matplotlib in them, so that their bytes repeat."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None and hasattr(shell, "kernel"):
        from matplotlib_inline.config import InlineBackend

        options: Any = {"bbox_inches": "tight", "metadata": {"Software": None}}
        InlineBackend.instance(parent=shell).print_figure_kwargs = options

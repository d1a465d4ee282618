"""What every test and every notebook kernel runs under: no network, an empty model cache, one named device."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same cases in every run; `--hypothesis-profile thorough` draws others, twenty times as many.
settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("same"), derandomize=False, max_examples=2000)
settings.load_profile("same")

# Before anything imports huggingface_hub, which reads these once. Notebook kernels and xdist workers inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MVP_LITE_DEVICE", "cpu")
if "PYTEST_XDIST_WORKER" not in os.environ:
    # An empty cache of our own: what somebody downloaded earlier must not make an offline test pass or fail.
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="mvp-lite-cache-")
    atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ["MVP_LITE_DEVICE"].startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise pytest.UsageError(f"MVP_LITE_DEVICE={os.environ['MVP_LITE_DEVICE']}, but torch sees no CUDA device")
    # nbval takes this path relative to the current folder; tests are started from other folders too.
    sanitize = Path(__file__).parent / "tests" / "nbval_sanitize.cfg"
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(sanitize)


def pytest_report_header() -> str:
    device = os.environ["MVP_LITE_DEVICE"]
    if device.startswith("cuda"):
        import torch

        return f"device: {device} ({torch.cuda.get_device_name()})"
    return f"device: {device}"


@pytest.fixture(scope="session")
def device() -> str:
    """Where tests train: `cpu`, or what MVP_LITE_DEVICE names. A missing device has ended the run before this."""
    return os.environ["MVP_LITE_DEVICE"]


@pytest.fixture(autouse=True)
def _no_figure_is_left() -> Iterator[None]:
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")

"""Running a model to look at it: evaluation mode, hooks that go away again, batches without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["TARGETS", "evaluating", "without_labels"]

#: arguments of a model that are targets
TARGETS = ("labels", "start_positions", "end_positions")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[list[Any]]:
    """Evaluation mode; hooks put into the list are removed, and every module's mode restored, afterwards."""
    modes, handles = [(module, module.training) for module in model.modules()], list[Any]()
    model.eval()
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode


def without_labels(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's inputs alone."""
    return {name: value for name, value in batch.items() if name not in TARGETS}

"""Running a model to look inside: evaluation mode, hooks that go away again, batches without labels or padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Batch", "evaluating", "real_tokens", "without_labels"]

Batch = Mapping[str, Tensor]


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


def without_labels(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The model's inputs alone, on `device`."""
    labels = ("labels", "start_positions", "end_positions")
    return {name: value.to(device) for name, value in batch.items() if name not in labels}


def real_tokens(hidden: Tensor, batch: Batch) -> Tensor:
    """Where hidden states (batch, tokens, ...) are not padding, by `attention_mask`: (batch, tokens) boolean."""
    mask = batch.get("attention_mask")
    if mask is None or mask.shape != hidden.shape[:2]:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return mask.bool()

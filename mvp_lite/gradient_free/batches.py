"""Batches without labels, on the model's device, and which of their tokens are not padding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mvp_lite.forward import without_labels

__all__ = ["Batch", "model_inputs", "real_tokens"]

Batch = Mapping[str, Tensor]


def model_inputs(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The model's inputs alone, on `device`."""
    return {name: value.to(device) for name, value in without_labels(batch).items()}


def real_tokens(hidden: Tensor, batch: Batch) -> Tensor:
    """Where hidden states (batch, tokens, ...) are not padding, by `attention_mask`: (batch, tokens) boolean."""
    mask = batch.get("attention_mask")
    if mask is None or mask.shape != hidden.shape[:2]:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return mask.bool()

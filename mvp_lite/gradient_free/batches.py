"""Batches without labels, on the model's device, and which of their tokens are not padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mvp_lite.forward import without_labels

__all__ = ["Batch", "checked", "model_inputs", "real_tokens"]

Batch = Mapping[str, Tensor]


def checked(name: str, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches one by one; `name` is what the caller calls them.

    Raises:
        TypeError: not batches, or not of tensors.
    """
    expected = f"{name} must be a list (or another iterable) of batches, each a dict of tensors as the model takes it"
    if isinstance(batches, Mapping):
        raise TypeError(f"{name} is one batch, with {', '.join(map(str, batches))}: give a list, [batch]")
    if isinstance(batches, str | bytes | Tensor) or not isinstance(batches, Iterable):
        raise TypeError(f"{name} of type {type(batches).__name__}: {expected}")
    return _each_checked(name, batches, expected)


def _each_checked(name: str, batches: Iterable[Any], expected: str) -> Iterator[Batch]:
    for n, batch in enumerate(batches):
        if not isinstance(batch, Mapping):
            raise TypeError(f"{name}: batch {n} is of type {type(batch).__name__}: {expected}")
        for key, value in batch.items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"{name}: batch {n} has {key} of type {type(value).__name__}: must be a tensor, as of "
                    "tokenizer(texts, padding=True, return_tensors='pt')"
                )
        yield batch


def model_inputs(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The model's inputs alone, on `device`."""
    return {name: value.to(device) for name, value in without_labels(batch).items()}


def real_tokens(hidden: Tensor, batch: Batch) -> Tensor:
    """Where hidden states (batch, tokens, ...) are not padding, by `attention_mask`: (batch, tokens) boolean."""
    mask = batch.get("attention_mask")
    if mask is None or mask.shape != hidden.shape[:2]:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return mask.bool()

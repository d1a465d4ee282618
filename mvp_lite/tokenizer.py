"""The tokenizer that belongs to a model."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from mvp_lite.hub import ADVICE, connection, quiet

__all__ = ["check_vocabulary", "tokenizer_for"]


def tokenizer_for(model: Any) -> Any:
    """The tokenizer stored beside the model that `load_model` or `from_pretrained` returned.

    One without a pad token pads with its end token.

    Raises:
        ValueError: the model does not know where it came from, or there is no tokenizer, or another model's.
        OSError: a hub name that cannot be reached.
    """
    from transformers import AutoTokenizer

    inner = getattr(model, "module", model)
    where = getattr(inner, "name_or_path", "")
    if not where:
        raise ValueError(f"model={type(inner).__name__} has no name_or_path: load its tokenizer and pass that instead")
    with quiet():
        try:
            with nullcontext() if os.path.isdir(where) else connection():
                tokenizer: Any = AutoTokenizer.from_pretrained(where)
        except OSError as error:
            raise OSError(f"no tokenizer for name_or_path={where!r}. {ADVICE} ({error})") from error
    if problem := check_vocabulary(tokenizer, inner):
        raise ValueError(
            f"name_or_path={where!r}: the tokenizer there {problem}; save the right one beside it with "
            "tokenizer.save_pretrained(folder)"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_vocabulary(tokenizer: Any, model: Any) -> str | None:
    """What is wrong with a tokenizer for a model, if anything: no words, or more than the model has embeddings for."""
    tokens, embeddings = tokenizer.vocab_size, getattr(model.config, "vocab_size", None)
    # In a folder without tokenizer files transformers makes one that knows its special tokens only.
    if tokens <= len(tokenizer.all_special_ids) or (embeddings is not None and tokens > embeddings):
        return f"has {tokens} tokens, the model {embeddings}"
    return None

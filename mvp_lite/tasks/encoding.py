"""From texts to batches: tokenized splits, the order of their sequences, and padded tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvp_lite.tasks.sources import Columns
from mvp_lite.tasks.spans import answer_tokens
from mvp_lite.tasks.specs import TaskSpec

__all__ = ["EncodedSplit", "check_tokenizer", "fingerprint", "shuffled", "sorted_by_length", "tokenize"]

WINDOW = 50  # batches sorted by length together, as in the usual length-grouped sampler
IGNORED = -100  # the label of a token that the loss leaves out, in torch and transformers
CHUNK = 4096  # examples tokenized at once; bounds the memory of the tokenizer's Python lists


@dataclass(frozen=True)
class EncodedSplit:
    """A tokenized split without padding: sequence i is `ids[begin[i]:begin[i + 1]]`, made from `example[i]`.

    Attributes:
        begin: (sequences + 1,) positions in the flat arrays.
        example: (sequences,) index of the example; several windows of a long context share one.
        ids, types: (tokens,) token ids, and token types where the tokenizer has them.
        targets: (sequences,) "labels", or "start_positions" and "end_positions"; (tokens,) "labels" of words.
        pad_id, pad_type: what pads the two.
        max_length: width that no batch exceeds.
        spans: (tokens, 2) of a span task: characters of each token in the context, -1 for a token outside it.
        words: (tokens,) of token classification: the word that a token begins, -1 for any other token.
    """

    begin: np.ndarray
    example: np.ndarray
    ids: np.ndarray
    types: np.ndarray | None
    targets: dict[str, np.ndarray]
    pad_id: int
    pad_type: int
    max_length: int
    spans: np.ndarray | None = None
    words: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.example)

    @property
    def lengths(self) -> np.ndarray:
        """(sequences,) tokens of each."""
        return np.diff(self.begin)

    def padded(self, flat: np.ndarray, index: np.ndarray, width: int, fill: int) -> np.ndarray:
        """(len(index), width) from an array over tokens, filled up on the right."""
        position = self.begin[index, None] + np.arange(width)
        outside = position >= self.begin[index + 1, None]
        values = flat[np.where(outside, 0, position)]
        values[outside] = fill
        return values

    def batch(self, index: np.ndarray, device: torch.device | str) -> dict[str, Tensor]:
        """The sequences `index` as arguments of a model; see `EncodedTask.batches`."""
        # `tokenizer.pad` takes lists of Python integers: 20 to 100 times slower, and wider than max_length where that
        # is no multiple of 8.
        lengths = self.lengths[index]
        width = min(-(-int(lengths.max()) // 8) * 8, self.max_length)
        arrays = {
            "input_ids": self.padded(self.ids, index, width, self.pad_id),
            "attention_mask": np.arange(width) < lengths[:, None],
        }
        if self.types is not None:
            arrays["token_type_ids"] = self.padded(self.types, index, width, self.pad_type)
        if self.words is not None:
            arrays["labels"] = self.padded(self.targets["labels"], index, width, IGNORED)
        else:
            arrays |= {name: values[index] for name, values in self.targets.items()}
        dtypes = {name: np.float32 if values.dtype.kind == "f" else np.int64 for name, values in arrays.items()}
        return {name: torch.from_numpy(values.astype(dtypes[name])).to(device) for name, values in arrays.items()}


def sorted_by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Indices of one pass in batches, the longest first."""
    order = np.argsort(-lengths, kind="stable")
    return (order[at : at + batch_size] for at in range(0, len(order), batch_size))


def shuffled(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of endless epochs in full batches of similar lengths, reshuffled for each epoch."""
    whole = len(lengths) // batch_size * batch_size
    while True:
        order = rng.permutation(len(lengths))[:whole]
        for at in range(0, whole, WINDOW * batch_size):
            window = order[at : at + WINDOW * batch_size]
            order[at : at + WINDOW * batch_size] = window[np.argsort(lengths[window], kind="stable")]
        batches = order.reshape(-1, batch_size)
        yield from batches[rng.permutation(len(batches))]


def check_tokenizer(tokenizer: Any) -> None:
    """Raise ValueError for no tokenizer, a slow one, or one without a pad token."""
    if tokenizer is None:
        raise ValueError("tokenizer=None: give encode() or load_task() one, for instance tokenizer_for(model)")
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"tokenizer={type(tokenizer).__name__}: a fast one (of the tokenizers library) is needed")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"tokenizer={type(tokenizer).__name__} has no pad token: set tokenizer.pad_token first")


def fingerprint(tokenizer: Any) -> str:
    """The same for two tokenizers with the same content."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # Calling a tokenizer leaves its last truncation and padding in this state.
    state.update(truncation=None, padding=None, outside=[tokenizer.pad_token_id, tokenizer.model_input_names])
    state["outside"].append(tokenizer.model_max_length)
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def tokenize(
    name: str, spec: TaskSpec, columns: Columns, tokenizer: Any, max_length: int, doc_stride: int
) -> EncodedSplit:
    """Truncate each example to `max_length` tokens; of a span task, make windows of its context instead.

    Raises:
        ValueError: a question that leaves its context no room, or any other failure of the tokenizer.
    """
    span_task, tags = spec.task_type == "span", spec.task_type == "token classification"
    options: dict[str, Any] = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
    if span_task:
        options |= {"truncation": "only_second", "stride": doc_stride}
        options |= {"return_overflowing_tokens": True, "return_offsets_mapping": True}
    if tags:
        options["is_split_into_words"] = True
    ids, types, spans, words = [], [], [], []
    counts: list[int] = []
    examples: list[int] = []
    ends: list[tuple[int, int]] = []
    for first in range(0, len(columns[spec.label_column]), CHUNK):
        texts = [columns[column][first : first + CHUNK] for column in spec.text_columns]
        try:
            encoded = tokenizer(*texts, **options)
        except Exception as error:  # the tokenizers library panics with classes of its own
            room = f"max_length={max_length} and doc_stride={doc_stride} leave a question of {name!r} no room for its "
            problem = (
                f"{room}context, or the tokenizer failed otherwise" if span_task else f"the tokenizer fails on {name!r}"
            )
            raise ValueError(f"{problem}: {error}") from error
        sequences = encoded["input_ids"]
        counts += map(len, sequences)
        ids.append(_flat(sequences))
        if "token_type_ids" in tokenizer.model_input_names:
            types.append(_flat(encoded["token_type_ids"]))
        if tags:
            words += [_first_tokens(encoded.word_ids(i)) for i in range(len(sequences))]
        if not span_task:
            examples += range(first, first + len(sequences))
            continue
        for window, sample in enumerate(encoded["overflow_to_sample_mapping"]):
            in_context = np.array([segment == 1 for segment in encoded.sequence_ids(window)])
            span = np.where(in_context[:, None], np.array(encoded["offset_mapping"][window], dtype=np.int32), -1)
            spans.append(span.astype(np.int32))
            ends.append(answer_tokens(span, columns[spec.label_column][first + sample]))
            examples.append(first + sample)
    if span_task:
        targets = dict(zip(("start_positions", "end_positions"), np.array(ends).T, strict=True))
    elif tags:
        labels = zip(words, columns[spec.label_column], strict=True)
        targets = {"labels": np.concatenate([np.where(w >= 0, np.array(tag)[w], IGNORED) for w, tag in labels])}
    else:
        dtype = np.float32 if spec.task_type == "regression" else np.int64
        targets = {"labels": np.array(columns[spec.label_column], dtype=dtype)}
    return EncodedSplit(
        begin=np.concatenate([[0], np.cumsum(counts)]),
        example=np.array(examples),
        ids=np.concatenate(ids),
        types=np.concatenate(types) if types else None,
        targets=targets,
        pad_id=tokenizer.pad_token_id,
        pad_type=tokenizer.pad_token_type_id,
        max_length=max_length,
        spans=np.concatenate(spans) if spans else None,
        words=np.concatenate(words) if words else None,
    )


def _first_tokens(word_ids: list[int | None]) -> np.ndarray:
    """(tokens,) the word that each token begins, -1 for the later tokens of a word and for special tokens."""
    words = np.array([-1 if word is None else word for word in word_ids])
    return np.where(np.diff(words, prepend=-1) != 0, words, -1)


def _flat(sequences: list[list[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(sequences), dtype=np.int32)

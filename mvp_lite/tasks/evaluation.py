"""Predictions of a model on a tokenized split, and their scores."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvp_lite.forward import evaluating
from mvp_lite.tasks.encoding import EncodedSplit, sorted_by_length
from mvp_lite.tasks.entities import entity_f1
from mvp_lite.tasks.sources import Columns
from mvp_lite.tasks.spans import best_spans, squad_scores
from mvp_lite.tasks.specs import TaskSpec

__all__ = ["constant_answer", "evaluate", "predict"]


def evaluate(
    model: nn.Module, split: EncodedSplit, spec: TaskSpec, columns: Columns, batch_size: int, device: torch.device | str
) -> dict[str, float]:
    """See `EncodedTask.evaluate`."""
    predicted, loss = predict(model, split, spec.task_type, batch_size, device)
    if spec.task_type == "classification":
        scores = _classification_scores(split.targets["labels"], predicted[:, 0], spec.metrics)
    elif spec.task_type == "regression":
        scores = _correlations(split.targets["labels"], predicted[:, 0], spec.metrics)
    elif spec.task_type == "token classification":
        expected = columns[spec.label_column]
        scores = _tag_scores(spec, expected, _word_tags(split, predicted[:, 0], [len(tags) for tags in expected]))
    else:
        contexts, answers = columns[spec.text_columns[1]], columns[spec.label_column]
        scores = squad_scores(_answer_texts(split, predicted, contexts, spec.optional), answers)
    return {"score": scores[spec.metrics[0]], "loss": loss, **scores}


def constant_answer(spec: TaskSpec, columns: Columns) -> float:
    """Score, in per cent, of the best answer that is the same for every input: chance level.

    Classification: the most frequent class. Regression: 0. Span: the F1 of the best fixed place in the context, of one
    to three words; articles and punctuation do not count, as in SQuAD's F1. Where there is no answer, none is right.
    Token classification: the same tag for every word.
    """
    if spec.task_type == "regression":
        return 0.0
    if spec.task_type == "span":
        return _best_place(columns[spec.text_columns[1]], columns[spec.label_column])
    if spec.task_type == "token classification":
        tags = columns[spec.label_column]
        same = ([[number] * len(words) for words in tags] for number in range(len(spec.labels)))
        return max(_tag_scores(spec, tags, answer)[spec.metrics[0]] for answer in same)
    labels = np.asarray(columns[spec.label_column])
    answers = (np.full_like(labels, label) for label in np.unique(labels))
    return max(_classification_scores(labels, answer, spec.metrics)[spec.metrics[0]] for answer in answers)


def _best_place(contexts: list[str], answers: list[dict[str, list[Any]]]) -> float:
    first = np.arange(25)[:, None]  # the first word of a place
    last = first + np.arange(1, 4)  # and the word after it
    found = np.zeros((len(contexts), *last.shape))  # F1
    for example, (context, answer) in enumerate(zip(contexts, answers, strict=True)):
        before = np.cumsum([0, *map(_counts, context.split())])  # words that count, before each word
        for start, text in zip(answer["answer_start"], answer["text"], strict=True):
            begin = len(context[:start].split())
            end = begin + len(text.split())
            shared = _between(before, np.maximum(first, begin), np.minimum(last, end))
            total = _between(before, first, last) + _between(before, begin, end)
            np.maximum(found[example], 2 * shared / np.maximum(total, 1), out=found[example])
    none = float(np.mean([not answer["text"] for answer in answers]))
    return 100 * max(float(found.mean(0).max()), none)


def _between(before: np.ndarray, begin: Any, end: Any) -> Any:
    """How many words count from `begin` to before `end`."""
    final = len(before) - 1
    return np.maximum(before[np.minimum(end, final)] - before[np.minimum(begin, final)], 0)


def _counts(word: str) -> bool:
    return word.lower().strip(string.punctuation) not in ("", "a", "an", "the")


def predict(
    model: nn.Module, split: EncodedSplit, task_type: str, batch_size: int, device: torch.device | str
) -> tuple[np.ndarray, float]:
    """Predictions (sequences, n) in the split's order, and the mean loss.

    n = 1: the class or the number; n = 4 for a span task, see `best_spans`. For token classification (words, 1): the
    tag of each word that has a token. Modes of the modules are restored.
    """
    order = list(sorted_by_length(split.lengths, batch_size))
    losses, outputs = [], []
    tags = np.empty(len(split.ids)) if split.words is not None else None
    with evaluating(model), torch.no_grad():
        for index in order:
            batch = split.batch(index, device)
            result = model(**batch)
            losses.append(result.loss.double() * len(index))
            if split.spans is not None:
                width = batch["input_ids"].shape[1]
                inside = torch.from_numpy(split.padded(split.spans[:, 0], index, width, -1) >= 0).to(device)
                outputs.append(best_spans(result.start_logits.float(), result.end_logits.float(), inside))
            elif tags is not None:
                found = result.logits.argmax(-1).cpu().numpy()
                for row, i in enumerate(index):
                    tags[split.begin[i] : split.begin[i + 1]] = found[row, : split.lengths[i]]
            else:
                logits: Tensor = result.logits
                outputs.append(logits if task_type == "regression" else logits.argmax(-1, keepdim=True))
    loss = float(torch.stack(losses).sum()) / len(split)
    if tags is not None and split.words is not None:
        return tags[split.words >= 0, None], loss
    original = np.argsort(np.concatenate(order))
    return torch.cat(outputs).cpu().double().numpy()[original], loss


def _classification_scores(labels: np.ndarray, predicted: np.ndarray, metrics: tuple[str, ...]) -> dict[str, float]:
    # In float64: torchmetrics divides in float32, which would change recorded scores.
    scores = {"accuracy": 100 * float((labels == predicted).mean())}
    if "f1" in metrics:
        positives = int((labels == 1).sum() + (predicted == 1).sum())
        scores["f1"] = 200 * float(((labels == 1) & (predicted == 1)).sum()) / max(positives, 1)
    if "macro_f1" in metrics:
        classes = np.union1d(labels, predicted)
        counts = [
            ((labels == k) & (predicted == k)).sum() / ((labels == k).sum() + (predicted == k).sum()) for k in classes
        ]
        scores["macro_f1"] = 200 * float(np.mean(counts))
    return scores


def _correlations(labels: np.ndarray, predicted: np.ndarray, metrics: tuple[str, ...]) -> dict[str, float]:
    from torchmetrics.functional.regression import spearman_corrcoef

    found, expected = torch.from_numpy(predicted), torch.from_numpy(labels).double()
    scores = {"spearman": 100 * float(spearman_corrcoef(found, expected))}
    if "pearson" in metrics:
        x, y = found - found.mean(), expected - expected.mean()
        length = float(x.norm() * y.norm())
        scores["pearson"] = 100 * float(x @ y) / length if length else 0.0
    return scores


def _tag_scores(spec: TaskSpec, expected: list[list[int]], predicted: list[list[int]]) -> dict[str, float]:
    """Of tags as numbers; -1 stands for a word without a token, which is wrong and in no entity."""
    right = [
        one == other
        for tags, found in zip(expected, predicted, strict=True)
        for one, other in zip(tags, found, strict=True)
    ]
    scores = {"accuracy": 100 * sum(right) / len(right)}
    if "f1" in spec.metrics:
        names = [*spec.labels, "O"]
        scores["f1"] = entity_f1(*([[names[tag] for tag in tags] for tags in texts] for texts in (expected, predicted)))
    return scores


def _word_tags(split: EncodedSplit, predicted: np.ndarray, counts: list[int]) -> list[list[int]]:
    """The tag of every word of each example; -1 for a word without a token: truncated, or of no character known."""
    assert split.words is not None
    tags, at = [], 0
    for i, count in enumerate(counts):
        words = split.words[split.begin[i] : split.begin[i + 1]]
        words = words[words >= 0]
        found = np.full(count, -1)
        found[words] = predicted[at : at + len(words)]
        tags.append(found.tolist())
        at += len(words)
    return tags


def _answer_texts(split: EncodedSplit, predicted: np.ndarray, contexts: list[str], optional: bool) -> list[str]:
    """The text of the best span over all windows of each example; "" for no answer, where that scores higher."""
    assert split.spans is not None
    texts = [""] * len(contexts)
    best, none = np.full(len(texts), -np.inf), np.full(len(texts), np.inf)
    for window, (score, start, end, without) in enumerate(predicted):
        example = split.example[window]
        none[example] = min(none[example], without)
        if score > best[example]:
            (first, _), (_, last) = split.spans[split.begin[window] + np.array([start, end], dtype=int)]
            best[example], texts[example] = score, contexts[example][first:last]
    return ["" if optional and none[i] > best[i] else text for i, text in enumerate(texts)]

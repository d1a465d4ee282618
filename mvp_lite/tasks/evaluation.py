"""Predictions of a model on a tokenized split, and their scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mvp_lite.forward import evaluating
from mvp_lite.tasks.encoding import EncodedSplit, sorted_by_length
from mvp_lite.tasks.reading import Columns
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
        scores = _rank_correlation(split.targets["labels"], predicted[:, 0])
    else:
        scores = squad_scores(_answer_texts(split, predicted, columns["context"], spec.optional), columns["answers"])
    return {"score": scores[spec.metrics[0]], "loss": loss, **scores}


def constant_answer(spec: TaskSpec, columns: Columns) -> float:
    """Score, in per cent, of the best answer that is the same for every input: chance level.

    Classification: the most frequent class. Regression: 0. Span: the words at the best fixed place of the context
    (of one to three words, on at most 500 examples).
    """
    if spec.task_type == "classification":
        labels = np.asarray(columns["label"])
        values = np.unique(labels)
        return max(
            _classification_scores(labels, np.full_like(labels, value), spec.metrics)[spec.metrics[0]]
            for value in values
        )
    if spec.task_type == "regression":
        return 0.0
    contexts, answers = [text.split() for text in columns["context"][:500]], columns["answers"][:500]
    places = [(begin, begin + length) for begin in range(25) for length in (1, 2, 3)]
    scores = [squad_scores([" ".join(words[slice(*place)]) for words in contexts], answers) for place in places]
    return max(score[spec.metrics[0]] for score in scores)


def predict(
    model: nn.Module, split: EncodedSplit, task_type: str, batch_size: int, device: torch.device | str
) -> tuple[np.ndarray, float]:
    """Predictions (sequences, n) in the split's order, and the mean loss.

    n = 1: the class or the number; n = 4 for a span task, see `best_spans`. Modes of the modules are restored.
    """
    order = list(sorted_by_length(split.lengths, batch_size))
    losses, outputs = [], []
    with evaluating(model), torch.no_grad():
        for index in order:
            batch = split.batch(index, device)
            result = model(**batch)
            losses.append(result.loss.double() * len(index))
            if split.spans is not None:
                width = batch["input_ids"].shape[1]
                inside = torch.from_numpy(split.padded(split.spans[:, 0], index, width, -1) >= 0).to(device)
                outputs.append(best_spans(result.start_logits.float(), result.end_logits.float(), inside))
            else:
                logits: Tensor = result.logits
                outputs.append(logits if task_type == "regression" else logits.argmax(-1, keepdim=True))
    original = np.argsort(np.concatenate(order))
    return torch.cat(outputs).cpu().double().numpy()[original], float(torch.stack(losses).sum()) / len(split)


def _classification_scores(labels: np.ndarray, predicted: np.ndarray, metrics: tuple[str, ...]) -> dict[str, float]:
    # In float64: torchmetrics divides in float32, which would change recorded scores.
    scores = {"accuracy": 100 * float((labels == predicted).mean())}
    if "f1" in metrics:
        positives = int((labels == 1).sum() + (predicted == 1).sum())
        scores["f1"] = 200 * float(((labels == 1) & (predicted == 1)).sum()) / max(positives, 1)
    return scores


def _rank_correlation(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    from torchmetrics.functional.regression import spearman_corrcoef

    return {"spearman": 100 * float(spearman_corrcoef(torch.from_numpy(predicted), torch.from_numpy(labels).double()))}


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

"""Answers as spans of their context: checked, found as tokens, chosen from logits, scored as SQuAD scores them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

N_BEST = 20  # start and end candidates of a window
MAX_ANSWER = 30  # tokens of the longest answer looked for


def answer_problem(answers: Any, context: str, optional: bool = False) -> str | None:
    """What is wrong with an example's answers, {"text": [...], "answer_start": [...]}; None if nothing is.

    `optional`: no answer is allowed too, as in SQuAD 2.0.
    """
    try:
        pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        wrong = [text for text, at in pairs if not text or at < 0 or context[at : at + len(text)] != text]
    except (TypeError, KeyError, ValueError):
        return "is not {'text': [...], 'answer_start': [...]} with lists of equal length"
    if not pairs and not optional:
        return "holds no answer (examples without one must be left out; squad_v2 is the task that takes them)"
    return f"does not fit its context: {wrong[0]!r} is not at its answer_start" if wrong else None


def answer_tokens(span: np.ndarray, answers: dict[str, list[Any]]) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0) if there is none or the window does not hold all of it.

    Args:
        span: (tokens, 2) characters of each token in the context, -1 outside it. Token 0 is [CLS].
        answers: {"text": [...], "answer_start": [...]}.
    """
    tokens = np.flatnonzero(span[:, 0] >= 0)
    if not answers["text"] or not tokens.size:
        return 0, 0
    start, stop = answers["answer_start"][0], answers["answer_start"][0] + len(answers["text"][0])
    begins, ends = span[tokens].T
    if begins[0] > start or ends[-1] < stop:
        return 0, 0
    first, last = np.searchsorted(ends, start, "right"), np.searchsorted(begins, stop, "left") - 1
    return (int(tokens[first]), int(tokens[last])) if first <= last else (0, 0)


def best_spans(start: Tensor, end: Tensor, inside: Tensor) -> Tensor:
    """(windows, 4): score, first and last token of the best span, and the score of no answer, that of token 0.

    The best of 20 starts x 20 ends, at most 30 tokens long; its score is -inf if a window has none.

    Args:
        start, end: logits (windows, width).
        inside: (windows, width), True for tokens of the context.
    """
    count = min(N_BEST, start.shape[1])
    starts, first = start.masked_fill(~inside, -torch.inf).topk(count)
    ends, last = end.masked_fill(~inside, -torch.inf).topk(count)
    gap = last[:, None, :] - first[:, :, None]
    scores = (starts[:, :, None] + ends[:, None, :]).masked_fill((gap < 0) | (gap >= MAX_ANSWER), -torch.inf)
    score, at = scores.flatten(1).max(1, keepdim=True)
    none = start[:, :1] + end[:, :1]
    return torch.cat([score, first.gather(1, at // count), last.gather(1, at % count), none], dim=1)


def squad_scores(texts: list[str], answers: list[dict[str, list[Any]]]) -> dict[str, float]:
    """{"f1", "exact_match"} in per cent, each text against the best of its example's answers; "" is no answer."""
    from torchmetrics.functional.text import squad

    # Numbers as ids, since the metric would merge examples that share an id.
    predicted: Any = [{"id": str(i), "prediction_text": text} for i, text in enumerate(texts)]
    expected: Any = [{"id": str(i), "answers": {"text": list(a["text"]) or [""]}} for i, a in enumerate(answers)]
    return {name: float(value) for name, value in squad(predicted, expected).items()}

r"""Distillation: learning from a teacher's outputs in addition to the labels.

$\mathcal L=\alpha_{ce}\mathcal L_{ce}+\alpha_{kd}T^2\,\mathrm{KL}\big(\mathrm{softmax}(z^{tea}/T)\,\|\,
\mathrm{softmax}(z^{stu}/T)\big)$ (Hinton et al. 2015; Sanh et al. 2020, Table 3). It is a loss like any other: $G$ is
its gradient, and the gradient of the scores is still $G\odot W$.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.forward import without_labels

__all__ = ["Teacher", "distillation_loss"]

_HEADS = ("logits", "start_logits", "end_logits")
_DECODER_INPUTS = {"decoder_input_ids", "decoder_inputs_embeds"}


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    r"""$T^2\,\mathrm{KL}(\mathrm{softmax}(z^{tea}/T)\,\|\,\mathrm{softmax}(z^{stu}/T))$, mean over the batch; a scalar.

    $T^2$ keeps the magnitude of the gradient: with respect to `student` it is $T(q-p)$ divided by the batch size,
    where p and q are the softened probabilities of teacher and student.

    Args:
        student, teacher: logits (batch, classes); of a span's start or end (batch, tokens). Half precision is converted
            to float32.
        temperature: T > 0.

    Raises:
        ValueError: shapes that differ or are not (batch, at least 2 classes).
    """
    if student.shape != teacher.shape or student.ndim != 2 or student.shape[1] < 2:
        shapes = f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)} (regression has no classes)"
        raise ValueError(f"{shapes}: logits of both must be (batch, classes), with the same 2 or more classes")
    dtype = torch.promote_types(student.dtype, torch.float32)
    log_q, log_p = (torch.log_softmax(z.to(dtype) / temperature, dim=-1) for z in (student, teacher))
    return temperature**2 * nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Teacher:
    """A trained model that a student learns from: for `fine_prune(teacher=…)`, or in a loop of your own.

    Sanh et al. (2020, Table 3) call the loss a convex combination of the task loss and the distillation loss; the
    default weights and temperature are their code's.

    Args:
        model: same input, same classes in the same order (a regression head has no classes: `loss` raises). It is put
            into evaluation mode, gets no gradient and does not see the targets.
        alpha_ce, alpha_kd: weights of the student's own loss and of `distillation_loss`.
        temperature: T > 0.

    Raises:
        ValueError: a negative weight, both weights zero, or a temperature that is not positive.
    """

    model: nn.Module
    alpha_ce: float = 0.1
    alpha_kd: float = 0.9
    temperature: float = 2.0

    def __post_init__(self) -> None:
        weights = (self.alpha_ce, self.alpha_kd)
        if not (min(weights) >= 0.0 and 0.0 < sum(weights) < math.inf and 0.0 < self.temperature < math.inf):
            given = f"alpha_ce={self.alpha_ce!r}, alpha_kd={self.alpha_kd!r}, temperature={self.temperature!r}"
            raise ValueError(f"{given}: weights of at least 0, not both 0, and a positive temperature; all finite")

    def loss(self, outputs: Any, batch: Mapping[str, Any]) -> Tensor:
        """The mixed loss of a student on `batch`; a scalar.

        Where a model has two heads (start and end of an answer) the distillation loss is the mean of theirs. Where it
        labels tokens, those with a label count.

        Args:
            outputs: what the student returned for the batch: `.loss` and its logits.
            batch: the arguments that the student got; the teacher gets them without the targets.

        Raises:
            ValueError: logits that do not fit, see `distillation_loss`; a student without a loss; an
                encoder-decoder teacher without decoder inputs.
        """
        if outputs.get("loss") is None:
            raise ValueError("outputs.loss=None: the student must get the targets, of which the teacher gets none")
        if hasattr(self.model, "prepare_decoder_input_ids_from_labels") and not batch.keys() & _DECODER_INPUTS:
            raise ValueError(
                f"batch={sorted(batch)}: must have decoder_input_ids, because the teacher gets no labels to make them "
                "from: model.prepare_decoder_input_ids_from_labels(labels=batch['labels'])"
            )
        self.model.eval()
        with torch.no_grad():
            taught = self.model(**without_labels(batch))
        heads = [(outputs[h], taught[h]) for h in _HEADS if h in outputs]
        if outputs.get("logits") is not None and outputs["logits"].ndim == 3 and "labels" in batch:
            labeled = batch["labels"] != -100  # of tokens, those that the loss on the labels counts
            heads = [(student[labeled], teacher[labeled]) for student, teacher in heads]
        terms = [distillation_loss(student, teacher, self.temperature) for student, teacher in heads]
        mixed: Tensor = self.alpha_ce * outputs.loss + self.alpha_kd * torch.stack(terms).mean()
        return mixed

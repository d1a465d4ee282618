r"""The pruning methods of Sanh et al. 2020 (Table 1), one class each.

A method says how scores start, which entries a step keeps, what gradient the scores get, and what penalty they pay.
Tensors in, tensors out: models, optimizers and hooks are `Pruner`'s business. Scores, masks and their gradients have
one entry for each group of weights that shares a score; without groups that is one for each weight.

| class | scores S | mask M | gradient of S |
|---|---|---|---|
| `Magnitude` | $\lvert W\rvert$ | top-v | none |
| `Movement` | learned | top-v | $G\odot W$ |
| `SoftMovement` | learned | $\sigma(S)>\tau$ | $G\odot W+\lambda R'(S)$ |
| `L0` | learned | hard-concrete gate | $G\odot W\odot f(S)+\lambda R'(S)$ |
| `Random` | drawn once | top-v | none |
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from mvp_lite import masks
from mvp_lite.penalty_control import PenaltyController
from mvp_lite.scores import l0_penalty_gradient, magnitude_start, soft_penalty_gradient
from mvp_lite.settings import Settings

__all__ = [
    "L0",
    "METHODS",
    "Magnitude",
    "Method",
    "Movement",
    "PenalizedMethod",
    "Random",
    "Settings",
    "SoftMovement",
    "TopVMethod",
    "find_method",
    "refuse_ignored",
]


class Method:
    r"""Base of all methods. A method of your own is a subclass, given to `Pruner` in place of a name.

    Movement counts steps towards zero against a weight. This one keeps what the loss is sensitive to, whatever the
    direction, by accumulating $|G\odot W|$:

        from mvp_lite import methods

        class Sensitivity(methods.Movement):
            def score_gradient(self, mask_gradient, S, M):
                return -mask_gradient.abs()

        pruner = mvp.Pruner(model, Sensitivity, density=0.1, total_steps=1000)

    Attributes:
        name: in saved states and results; default: the name of the class.
        learned: True if the optimizer trains the scores.
        start: where learned scores start.
        start_from_magnitude: the default of `magnitude_init`.
        stochastic: True if training uses a random sample of the masks, see `sample`.
        selects_top_v: True if the masks are the highest fraction of the scores, which n:m groups need.
        ignores: names of the settings that have no effect on it; `Pruner` refuses other values than their defaults.
        penalty: lambda for the next step.
    """

    name: ClassVar[str]
    learned: ClassVar[bool] = False
    start: ClassVar[float] = 0.0
    start_from_magnitude: ClassVar[float] = 0.0
    stochastic: ClassVar[bool] = False
    selects_top_v: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    penalty: float = 0.0

    def __init_subclass__(cls) -> None:
        cls.name = cls.__dict__.get("name", cls.__name__)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def default_score_lr(self) -> float:
        """Learning rate of the scores: the papers'."""
        return 1e-2

    @property
    def score_lr(self) -> float:
        """Learning rate of the scores; 0 if they are not learned."""
        if not self.learned:
            return 0.0
        return self.default_score_lr() if self.settings.score_lr is None else self.settings.score_lr

    @property
    def magnitude_init(self) -> float:
        """How far apart |W| sets the scores at the start, in units of `travel`: the dial c."""
        chosen = self.settings.magnitude_init
        return self.start_from_magnitude if chosen is None else chosen

    @property
    def travel(self) -> float:
        """How far a score can move in the run: Adam's steps are about as long as their learning rate, which decays.

        A linear decay to 0 leaves half of `score_lr * total_steps`.
        """
        return 0.5 * self.score_lr * self.settings.schedule.total_steps

    def initial_scores(self, magnitude: Tensor) -> Tensor | None:
        r"""Scores at the start, at least float32, or None if the magnitude itself is ranked.

        $S^{(0)}=s+c\,\ell\,(|W|/\overline{|W|}-1)$ with s `score_init`, c `magnitude_init` and $\ell$ `travel`.

        Args:
            magnitude: $|W|$ of the weights, or its sum over each group that shares a score.
        """
        if not self.learned:
            return None
        start = self.start if self.settings.score_init is None else self.settings.score_init
        scores = torch.full_like(magnitude, start, dtype=torch.promote_types(magnitude.dtype, torch.float32))
        if self.magnitude_init:
            scores += magnitude_start(magnitude.to(scores.dtype), self.magnitude_init * self.travel)
        return scores

    def masks(self, scores: Sequence[Tensor], step: int) -> list[Tensor]:
        """One mask for each tensor of scores (magnitudes, if there are none), after `step` optimizer steps.

        Boolean, or float in [0, 1]. Training sees them too unless the method is stochastic.
        """
        raise NotImplementedError

    def sample(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        """One random mask for training, of a stochastic method."""
        raise NotImplementedError

    def score_gradient(self, mask_gradient: Tensor, S: Tensor, M: Tensor) -> Tensor:
        r"""$\partial\mathcal L/\partial S$ from $\partial\mathcal L/\partial M$; straight-through: the same.

        Args:
            mask_gradient: $G\odot W$, summed over each group; may be overwritten.
            S, M: scores and mask, of the same shape.
        """
        return mask_gradient

    def penalty_gradient(self, S: Tensor, tensors: int) -> Tensor:
        r"""$R'(S)$ of one tensor of scores, out of `tensors` in all; $\lambda$ multiplies it afterwards."""
        raise NotImplementedError

    def after_step(self, step: int, scores: Sequence[Tensor], mean_gradient: float | None) -> None:
        """Called after the optimizer's step, before the masks are computed; may change the scores in place.

        Args:
            step: optimizer steps done.
            scores: all learned scores.
            mean_gradient: mean of |dL/dS| of this step, for a method that `is_controlled`.
        """

    def update_penalty(self, step: int, density: float, count: int) -> None:
        """Set `penalty` for the next step, given the density reached (if `is_controlled`) and the number of scores."""

    @property
    def is_controlled(self) -> bool:
        """Does the penalty depend on what the run does, that is, on the density and on |dL/dS|?"""
        return False

    def outcome(self, scores: Sequence[Tensor]) -> str | None:
        """At the end of a run: what to change, if a fixed penalty has pruned everything or nothing; else None."""
        return None

    def advice(self) -> list[str]:
        """What to try where a run has ended at chance level."""
        return ["train longer", "keep more weights", "choose another learning rate"]

    def state_dict(self) -> dict[str, Any]:
        """Numbers that change over a run, beside the scores."""
        return {"penalty": self.penalty}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.penalty = state["penalty"]


class TopVMethod(Method):
    """Keeps the highest scores; the density falls on the schedule. Local scope: of each tensor; global: of the pool."""

    selects_top_v = True
    ignores: ClassVar[tuple[str, ...]] = ("threshold", "penalty")

    def density(self, step: int) -> float:
        """The fraction to keep after `step` optimizer steps."""
        return self.settings.schedule.value(step, self.settings.initial_density, self.settings.density)

    def masks(self, scores: Sequence[Tensor], step: int) -> list[Tensor]:
        density = self.density(step)
        if self.settings.scope == "global":
            return masks.top_v_global(scores, density, min(self.settings.min_density, density))
        return [masks.top_v(S, density) for S in scores]


class Magnitude(TopVMethod):
    """Automated gradual pruning (Zhu and Gupta 2018): keep the largest |W|."""

    name = "magnitude"
    ignores = (*TopVMethod.ignores, "score_lr", "score_init", "magnitude_init")


class Movement(TopVMethod):
    """Movement pruning, hard: keep the weights that training moved away from zero (Sanh et al. 2020, Eq. 2 and 3).

    The paper's scores start at 0 (`magnitude_init=0`). Ours start from magnitude, which runs of a few hundred or
    thousand steps need: `docs/results.md` compares the two.
    """

    name = "movement"
    learned = True
    start_from_magnitude = 0.2

    def advice(self) -> list[str]:
        found = [] if self.magnitude_init else ["start the scores from magnitude (magnitude_init=0.2)"]
        return found + super().advice()


class Random(TopVMethod):
    """The control: scores are drawn once, uniformly, from the seed."""

    name = "random"
    ignores = Magnitude.ignores

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._generator = torch.Generator().manual_seed(settings.seed)

    def initial_scores(self, magnitude: Tensor) -> Tensor | None:
        return torch.rand(magnitude.shape, generator=self._generator).to(magnitude.device)


class PenalizedMethod(Method):
    r"""Density as an outcome of a penalty $\lambda R(S)$, with all scores in one pool.

    With `penalty="feedback"` a controller sets $\lambda$ so that the run ends at `density`; from the cool-down on
    `settle` removes the remaining error. (Soft movement may end slightly above `density`, because every matrix keeps at
    least half a per cent.) With a number the papers' schedule of $\lambda$ applies.
    """

    learned = True
    ignores: ClassVar[tuple[str, ...]] = ("initial_density", "min_density")
    #: under Adam and linear decay, a learning rate of 30 / total_steps lets a score travel 15 logits in any run
    _PATH = 30.0
    #: where the controller starts, as a fraction of the mean gradient
    _FIRST = 0.1

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.controller = PenaltyController(self._FIRST) if settings.penalty == "feedback" else None
        self.penalty = self.final_penalty
        self._warned = False

    @property
    def final_penalty(self) -> float:
        """The lambda asked for; 0 if the controller sets it."""
        return 0.0 if isinstance(self.settings.penalty, str) else self.settings.penalty

    @property
    def level(self) -> float:
        r"""What $\sigma(S)$ must exceed to be kept at the end of the run."""
        raise NotImplementedError

    def default_score_lr(self) -> float:
        """The papers' value; with the controller, one large enough to reach the threshold even in a short run."""
        if self.controller is None:
            return super().default_score_lr()
        return self._PATH / self.settings.schedule.total_steps

    @property
    def is_controlled(self) -> bool:
        return self.controller is not None

    def observe(self, step: int, scores: Sequence[Tensor], mean_gradient: float) -> None:
        """Tell the controller how large |dL/dS| is, which sets the scale of lambda."""
        assert self.controller is not None
        self.controller.observe(mean_gradient)

    def settle(self, scores: Sequence[Tensor]) -> int:
        """Move the scores, in place, to the density asked for; returns how many are kept."""
        return masks.shift_to_density(scores, self.settings.density, self.level)

    def after_step(self, step: int, scores: Sequence[Tensor], mean_gradient: float | None) -> None:
        if self.controller is None:
            return
        if mean_gradient is not None:
            self.observe(step, scores, mean_gradient)
        if self.settings.schedule.done(step):
            kept = self.settle(scores)
            total = sum(S.numel() for S in scores)
            if kept > 1.01 * masks.keep_count(total, self.settings.density) and not self._warned:
                self._warned = True
                warnings.warn(
                    f"density={self.settings.density!r} cannot be met: {kept} of {total} scores stay, because many are "
                    "equal. Scores stay equal where no gradient arrives: use target= to exclude modules that the "
                    "forward pass does not use",
                    stacklevel=2,
                )

    def update_penalty(self, step: int, density: float, count: int) -> None:
        if self.controller is not None:
            target = self.settings.schedule.value(step, 1.0, self.settings.density)
            self.penalty = self.controller.penalty(density, target, count)

    def open_count(self, scores: Sequence[Tensor]) -> int:
        """How many scores keep their weights, by themselves, at the end of the run."""
        steps = self.settings.schedule.total_steps
        return sum(int(torch.count_nonzero(mask)) for mask in self.masks(scores, steps))

    def outcome(self, scores: Sequence[Tensor]) -> str | None:
        if self.controller is not None:
            return None
        kept, asked = self.open_count(scores), f"penalty={self.final_penalty:g} with score_lr={self.score_lr:g}"
        if kept == 0:
            return f"{asked} has pruned every score: lower penalty or score_lr, or take penalty='feedback'"
        if kept == sum(S.numel() for S in scores):
            return f"{asked} has pruned nothing: raise penalty or score_lr, train longer, or take penalty='feedback'"
        return None

    def state_dict(self) -> dict[str, Any]:
        own = {} if self.controller is None else {"controller": dict(vars(self.controller))}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.controller is not None:
            vars(self.controller).update(state["controller"])


class SoftMovement(PenalizedMethod):
    r"""Soft movement pruning: keep $\sigma(S)>\tau$, with $\tau$ rising from 0 on the schedule (Sanh et al. 2020)."""

    name = "soft_movement"

    @property
    def level(self) -> float:
        return self.settings.threshold

    def masks(self, scores: Sequence[Tensor], step: int) -> list[Tensor]:
        threshold = self.settings.schedule.value(step, 0.0, self.settings.threshold)
        return masks.threshold_masks(scores, threshold)

    def open_count(self, scores: Sequence[Tensor]) -> int:
        # The masks keep half a per cent of each tensor in any case.
        return sum(int((S.sigmoid() > self.level).sum()) for S in scores)

    def penalty_gradient(self, S: Tensor, tensors: int) -> Tensor:
        return soft_penalty_gradient(S, tensors)

    def update_penalty(self, step: int, density: float, count: int) -> None:
        super().update_penalty(step, density, count)
        if self.controller is None:  # lambda follows the threshold, as in the published code
            threshold = self.settings.schedule.value(step, 0.0, self.settings.threshold)
            self.penalty = self.final_penalty * (threshold / self.settings.threshold)


class L0(PenalizedMethod):
    r"""L0 regularization (Louizos et al. 2018): each score opens a random hard-concrete gate; $\lambda$ is constant."""

    name = "l0"
    ignores = (*PenalizedMethod.ignores, "threshold")
    start = 2.197
    stochastic = True
    #: Gates start 4.6 logits above their threshold, and the density does not change before they reach it. Measured on
    #: the toy (tuning seeds): with 0.1 the penalty starts late and then closes too many gates at once.
    _FIRST = 1.0

    @property
    def level(self) -> float:
        low, high, _ = masks.HARD_CONCRETE
        return -low / (high - low)

    def default_score_lr(self) -> float:
        return 1e-1 if self.controller is None else super().default_score_lr()

    def masks(self, scores: Sequence[Tensor], step: int) -> list[Tensor]:
        return [masks.hard_concrete_test_mask(S) for S in scores]

    def observe(self, step: int, scores: Sequence[Tensor], mean_gradient: float) -> None:
        r"""In the warm-up alone, and relative to $R'(S)$, which is 12 times smaller where gates start than at most.

        The papers' $\lambda$ is constant. One in proportion to the present gradient vanishes where the loss does, and
        when the gates then close too far it grows with the gradient and closes them all.
        """
        assert self.controller is not None
        if self.controller.mean_gradient is None or step <= self.settings.schedule.warmup_steps:
            means = [self.penalty_gradient(S, len(scores)).sum() for S in scores]
            self.controller.observe(mean_gradient / max(4.0 * float(torch.stack(means).sum()), 1e-6))

    def settle(self, scores: Sequence[Tensor]) -> int:
        return masks.squeeze_to_density(scores, self.settings.density, self.level)

    def sample(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(scores.shape, generator=generator, device=scores.device, dtype=scores.dtype)
        return masks.hard_concrete(scores, noise.clamp_(torch.finfo(scores.dtype).tiny, 1.0 - 2**-24))

    def score_gradient(self, mask_gradient: Tensor, S: Tensor, M: Tensor) -> Tensor:
        return mask_gradient.mul_(masks.hard_concrete_gradient(M.to(S.dtype)))

    def penalty_gradient(self, S: Tensor, tensors: int) -> Tensor:
        return l0_penalty_gradient(S, tensors)


#: what `Pruner(method=…)` takes by name
METHODS: dict[str, type[Method]] = {cls.name: cls for cls in (Magnitude, Movement, SoftMovement, L0, Random)}


def find_method(method: str | type[Method]) -> type[Method]:
    """The class of a method, by its name or as it is.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a subclass of `Method`.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"method={method!r}: must be one of {', '.join(METHODS)}, or a subclass of methods.Method")
        return METHODS[method]
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise TypeError(f"method={method!r}: a name ({', '.join(METHODS)}) or a subclass of methods.Method")
    return method


def refuse_ignored(method: type[Method], settings: Settings) -> None:
    """Raise ValueError if a setting that the method ignores has another value than its default."""
    defaults = {field.name: field.default for field in fields(Settings)}
    for name in method.ignores:
        value = getattr(settings, name)
        default = method.start_from_magnitude if name == "magnitude_init" else defaults[name]
        if value is not None and value != default:
            users = [other for other, cls in METHODS.items() if name not in cls.ignores]
            raise ValueError(f"{name}={value!r}: method {method.name!r} ignores it; {', '.join(users)} use it")

r"""Pruning while fine-tuning, around the optimizer's step: `Pruner`.

Let $\tilde W=W\odot M$ be the weight the model really uses and $G=\partial\mathcal L/\partial\tilde W$. Then

$$\partial\mathcal L/\partial W=G\odot M,\qquad\partial\mathcal L/\partial S=G\odot W,$$

the left one exact, the right one straight-through. So the model stays as it is: a module's `weight` *holds*
$\tilde W$, and after `loss.backward()` its `.grad` *is* $G$. Before the optimizer's step the pruner sets the two
gradients and hands the dense master $W$ to the optimizer; after it, the pruner reads $W$ back, renews $M$ and writes
$W\odot M$ into `weight`.
"""

from __future__ import annotations

import math
import re
import warnings
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mvp_lite import masks
from mvp_lite.feedback import DensityFeedback, land
from mvp_lite.schedule import check_schedule, cubic
from mvp_lite.scores import magnitude, movement_gradient, soft_penalty_gradient

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METHODS", "Pruner"]

#: method -> (start of the scores, or None where they are not learnt; the papers' rate of the scores)
METHODS: dict[str, tuple[float | None, float]] = {
    "magnitude": (None, 0.0),
    "movement": (0.0, 1e-2),
    "soft_movement": (0.0, 1e-2),
    "l0": (2.197, 1e-1),
    "random": (None, 0.0),
}
# With the feedback rule the scores must be able to cross the cut within the run, however short: under Adam and a linear
# decay, a rate of 30 / total_steps is a path of 15 logits.
_FEEDBACK_PATH = 30.0
STATE_KEY = "mvp_lite"
#: names for `Pruner(groups=…)`: what makes cuts of the matrices found; `groups.py` adds to them
GROUPS: dict[str, Callable[[nn.Module, list[Any]], list[Any]]] = {"weights": lambda model, layers: layers}
_SCALE_AWARE = ("Adafactor", "Lamb", "LAMB", "Lars", "LARS")  # their step size follows the parameter's norm


@dataclass
class _Layer:
    """One pruned matrix: `weight` (in the model) holds master * mask between steps.

    It is also the simplest *cut*, which is what scores and a mask belong to: a score for each weight. `groups.py` has
    cuts that hold several matrices, or one score for many weights.
    """

    name: str
    module: nn.Module
    weight: nn.Parameter
    master: Tensor
    mask: Tensor  # bool; for l0 in the weight's dtype
    scores: Tensor | None = None  # nn.Parameter where learnt
    masked: Tensor | None = None  # the storage `weight` gets back after the step; set only during one
    version: int = -1
    prepared: tuple[Tensor, int] | None = None  # the gradient that was prepared (held, so that no other takes its id)

    def write(self) -> None:
        """Put master * mask into the model, and remember the version, to notice writes by others."""
        torch.mul(self.master, self.factor, out=self.weight.data)
        self.version = self.weight._version

    @property
    def factor(self) -> Tensor:
        """The mask as numbers; multiplying by bytes is three times faster than by bools."""
        return self.mask.view(torch.uint8) if self.mask.dtype == torch.bool else self.mask

    def follow(self) -> None:
        """Move to the device that the model has been moved to."""
        device = self.weight.device
        if device != self.master.device:
            self.master, self.mask = self.master.to(device), self.mask.to(device)
            if self.scores is not None:
                self.scores.data = self.scores.data.to(device)

    def ranking(self) -> Tensor:
        """What a cut ranks: the scores, or the size of the dense weights; never the zeroed ones."""
        return magnitude(self.master) if self.scores is None else self.scores.detach()

    def cut(self, density: float) -> Tensor:
        """The mask of a local cut."""
        return masks.top_v(self.ranking(), density)

    def spread(self, mask: Tensor) -> list[tuple[_Layer, Tensor]]:
        """What a mask of the scores' shape means for the matrices: here it is the matrix's own."""
        return [(self, mask)]

    def fresh(self) -> Tensor | None:
        """G, if it was not prepared yet."""
        G = self.weight.grad
        known = G is None or (self.prepared and self.prepared[0] is G and self.prepared[1] == G._version)
        return None if known else G

    def gradient(self) -> Tensor | None:
        """Of the loss with respect to the scores, straight-through; None without a new G."""
        G, S = self.fresh(), self.scores
        return None if G is None or S is None else movement_gradient(G.to(S.dtype), self.master.to(S.dtype))

    def changed(self) -> bool:
        """Has somebody else written other values into `weight` since the last write?"""
        if self.weight._version == self.version:
            return False
        return not torch.equal(self.weight.data, self.master * self.factor)


class Pruner:
    """Prunes a model while it is fine-tuned: attach it to the optimizer, then train as usual.

    Args:
        model: any `nn.Module`; its `nn.Linear` and GPT-2 `Conv1D` modules can be pruned.
        method: "magnitude" (automated gradual), "movement" (hard, top-v), "soft_movement" ($\\sigma(S)>\\tau$),
            "l0" (hard concrete) or "random" (control). Sanh et al. 2020, Table 1.
        density: fraction of the target weights kept at the end, in (0, 1].
        total_steps, warmup_steps, cooldown_steps: optimizer steps of the whole run, before the density starts to fall,
            and at the end with the final density held (defaults: a tenth and three tenths of the run).
        scope: "local" cuts each matrix, "global" the pool of all; a threshold or gate is global by nature.
        score_lr: learning rate of the scores; a scheduler on the optimizer moves it too. Default: the papers' 1e-2 (l0
            1e-1), but 30 / total_steps where the feedback rule is at work.
        target: regular expression searched in module names; default: every linear map inside the numbered blocks of
            the model (its encoder), never embeddings, pooler or head.
        groups: what shares one score: "weights" (each has its own), "rows", "columns", "heads", "neurons", or what
            `mvp_lite.groups` makes (blocks, n:m, mixed). `density` is the fraction of groups kept.
        initial_density: fraction kept during warm-up (magnitude, movement, random).
        penalty: for soft_movement and l0, "feedback" (ours: lambda follows the density so that the run lands on
            `density`) or the final lambda as a number (the papers': the density is then an outcome; in a run of few
            steps raise `score_lr`, or the scores never reach the cut).
        threshold: final tau of soft_movement, from 0 on the cubic schedule.
        min_density: with global scope, fraction that every matrix keeps at least.
        score_init: start value of learnt scores (default: 0; l0 2.197).
        score_optimizer: makes the scores' own optimizer from a list of them; needed where the model's optimizer
            scales steps by parameter norms (Adafactor, LAMB, LARS). Its rate is not scheduled.
        seed: of random scores and of l0's noise.

    Several processes: with a process group initialised, all its ranks are taken to train one model (data parallel), and
    follow rank 0 at the first step. Writes to `weight.data` by others are not noticed and are lost at the next step.

    Raises:
        ValueError: a value outside its range, no module matched, tied or sharded weights.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str = "movement",
        *,
        density: float,
        total_steps: int,
        warmup_steps: int | None = None,
        cooldown_steps: int | None = None,
        scope: str = "local",
        score_lr: float | None = None,
        target: str | None = None,
        groups: str | Callable[[nn.Module, list[Any]], list[Any]] = "weights",
        initial_density: float = 1.0,
        penalty: float | str = "feedback",
        threshold: float = 0.1,
        min_density: float = 0.0,
        score_init: float | None = None,
        score_optimizer: Callable[[list[Tensor]], Optimizer] | None = None,
        seed: int = 0,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"method={method!r}: one of {', '.join(METHODS)}")
        if scope not in ("local", "global"):
            raise ValueError(f"scope={scope!r}: 'local' or 'global'")
        levels = {"density": density, "initial_density": initial_density, "min_density": min_density}
        for name, value in (levels | {"threshold": threshold}).items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name}={value!r}: a number is wanted")
        for name, value, low in (("density", density, 0.0), ("initial_density", initial_density, density)):
            if not (0.0 < value <= 1.0 and value >= low):
                raise ValueError(f"{name}={value!r}: a fraction kept in (0, 1], the initial one not below the final")
        if penalty != "feedback" and not (isinstance(penalty, int | float) and 0.0 <= penalty < math.inf):
            raise ValueError(f"penalty={penalty!r}: 'feedback' or a lambda >= 0")
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"threshold={threshold!r}: sigmoid scores lie in (0, 1)")
        if not 0.0 <= min_density <= density or (min_density and scope != "global"):
            raise ValueError(f"min_density={min_density!r}: in [0, density={density!r}], and for scope='global' only")
        check_schedule(total_steps, 0, 0)
        warmup_steps = total_steps // 10 if warmup_steps is None else warmup_steps
        cooldown_steps = 3 * total_steps // 10 if cooldown_steps is None else cooldown_steps
        check_schedule(total_steps, warmup_steps, cooldown_steps)
        start, rate = METHODS[method]
        free = method in ("soft_movement", "l0")
        rate = _FEEDBACK_PATH / total_steps if free and penalty == "feedback" else rate
        self.score_lr = rate if score_lr is None or start is None else score_lr
        if start is not None and not self.score_lr > 0.0:
            raise ValueError(f"score_lr={score_lr!r}: a positive learning rate")

        self.method, self.scope = method, scope
        # Plain floats: a checkpoint that is loaded without pickle refuses numpy's.
        self.final_density, self.initial_density = float(density), float(initial_density)
        self.total_steps, self.warmup_steps, self.cooldown_steps = total_steps, warmup_steps, cooldown_steps
        self.threshold, self.min_density, self.seed = float(threshold), float(min_density), seed
        self.penalty = self.final_penalty = 0.0 if isinstance(penalty, str) or not free else float(penalty)
        self._feedback = DensityFeedback() if free and penalty == "feedback" else None
        self.steps_done = 0
        self.model = model
        if isinstance(groups, str) and groups not in GROUPS:
            raise ValueError(f"groups={groups!r}: one of {', '.join(GROUPS)}, or what mvp_lite.groups makes")
        self.cuts = (GROUPS[groups] if isinstance(groups, str) else groups)(model, _find_layers(model, target))
        if free and any(getattr(cut, "ranks_only", False) for cut in self.cuts):
            raise ValueError(f"method={method!r}: n:m patterns need a top-v cut (magnitude, movement, random)")
        self.layers: list[_Layer] = [layer for cut in self.cuts for layer, _ in cut.spread(cut.mask)]
        self._score_optimizer_factory = score_optimizer
        self._score_optimizer: Optimizer | None = None
        self._optimizer: Optimizer | None = None
        self._handles: list[Any] = []
        self._mean_gradient: Tensor | None = None
        self._drawn = -1  # the step for which l0 last drew a sample
        self._skipping = self._sampled = self._scores_differ = self._finalized = False
        generator = torch.Generator().manual_seed(seed)
        for cut, like in ((cut, cut.ranking()) for cut in self.cuts):
            kind = torch.promote_types(like.dtype, torch.float32)
            if start is not None:
                cut.scores = nn.Parameter(
                    torch.full_like(like, start if score_init is None else score_init, dtype=kind)
                )
            elif method == "random":
                cut.scores = torch.rand(like.shape, generator=generator).to(like.device)

    # -- joints ---------------------------------------------------------------------------------------------------

    def attach(self, optimizer: Any) -> Pruner:
        """Hook into an optimizer that holds the target weights, before a scheduler is made on it.

        Adds one parameter group for the scores (rate `score_lr`, no decay). From here on the loop stays the user's.

        Raises:
            TypeError: an optimizer that needs a closure (LBFGS) or averages weights (schedule-free).
            ValueError: attached already, weights not held, a scheduler there already, or steps scaled by norms.
        """
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
        kind = type(optimizer).__name__
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer={kind}: attach() takes a torch.optim.Optimizer")
        if isinstance(optimizer, torch.optim.LBFGS) or "ScheduleFree" in kind:
            raise TypeError(f"optimizer={kind}: its step evaluates or averages weights of its own; use AdamW or SGD")
        if self._optimizer is not None or self._finalized:
            raise ValueError("this pruner was attached before: make a new Pruner for a new run")
        if getattr(optimizer, "_mvp_lite_pruner", None) is not None:
            raise ValueError("another pruner is attached to this optimizer")
        if "initial_lr" in optimizer.param_groups[0]:
            raise ValueError("a scheduler was built on this optimizer already: call attach() first, for the scores")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [layer.name for layer in self.layers if id(layer.weight) not in held]
        frozen = [layer.name for layer in self.layers if not layer.weight.requires_grad]
        if missing or frozen:
            what = "does not hold" if missing else "holds, frozen (requires_grad=False),"
            raise ValueError(f"the optimizer {what} the weights of {_some(missing or frozen)}")
        scores = self._learnt_scores()
        if scores and self._score_optimizer_factory is not None:
            self._score_optimizer = self._score_optimizer_factory(scores)
        elif scores:
            if any(word in kind for word in _SCALE_AWARE):
                what = f"optimizer={kind} scales steps by norms, and scores start at {METHODS[self.method][0]}"
                advice = "score_optimizer=lambda scores: torch.optim.AdamW(scores, lr=1e-2, weight_decay=0)"
                raise ValueError(f"{what}: pass {advice}")
            optimizer.add_param_group({"params": scores, "lr": self.score_lr, "weight_decay": 0.0})
        self._optimizer = optimizer
        optimizer._mvp_lite_pruner = weakref.ref(self)  # type: ignore[attr-defined]
        self._handles += [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._save_hook),
            optimizer.register_load_state_dict_pre_hook(self._load_hook),
        ]
        if self.method == "l0":
            this = weakref.ref(self)  # a deep copy of the model then shares the hook, and the hook ignores it
            self._handles += [
                self.model.register_forward_pre_hook(partial(_l0_forward, this)),
                self.model.register_state_dict_pre_hook(partial(_l0_state, this)),  # type: ignore[no-untyped-call]
            ]
        for cut in self.cuts:  # the model may have been moved or loaded since the constructor ran
            cut.follow()
        for layer in self.layers:
            layer.master = layer.weight.detach().clone()
        self._renew_masks()
        self._renew_penalty()
        return self

    def _learnt_scores(self) -> list[Tensor]:
        return [cut.scores for cut in self.cuts if isinstance(cut.scores, nn.Parameter)]

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("closure") is not None or any(a is not None for a in args[1:]):
            raise TypeError("optimizer.step(closure): a closure would see dense weights; call backward() before step()")
        self._recover()
        found_inf = getattr(optimizer, "found_inf", None)
        self._skipping = found_inf is not None and bool(found_inf)
        if self._skipping:
            return  # a fused optimizer under GradScaler leaves the weights alone; so do we
        self._catch_up()
        self._check_gradients()
        self._prepare(getattr(optimizer, "grad_scale", None))
        for layer in self.layers:
            layer.masked, layer.weight.data = layer.weight.data, layer.master

    def _after_step(self, *_: Any) -> None:
        if self._skipping:
            return
        if self._score_optimizer is not None:
            self._score_optimizer.step()
        for layer in self.layers:
            layer.master = layer.weight.data
            layer.prepared = None
        self._recover()
        for S in self._learnt_scores():
            S.grad = None
        if self._feedback is not None and self._mean_gradient is not None:
            self._feedback.observe(float(self._mean_gradient))  # not before: a step may be skipped or repeated
            self._mean_gradient = None
        self.steps_done += 1
        if self._feedback is not None and self.done:
            low, high = masks.HARD_CONCRETE[:2]
            edge = self.threshold if self.method == "soft_movement" else -low / (high - low)
            land([S.data for S in self._learnt_scores()], self.final_density, math.log(edge / (1.0 - edge)))
        self._renew_masks()
        self._renew_penalty()

    def _recover(self) -> None:
        """Give the model its masked storage back; also after an optimizer step that raised half-way."""
        for layer in self.layers:
            if layer.masked is not None:
                layer.weight.data, layer.masked = layer.masked, None
                layer.version = layer.weight._version

    # -- before the step ------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Take in what happened to the weights since the last step."""
        self._recover()
        if self.steps_done == 0 and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            # Data-parallel wrappers make the weights of all ranks equal, but know nothing of the rest; l0's noise, too,
            # must be the same on each rank.
            for cut in self.cuts:
                cut.follow()
            scores = [cut.scores for cut in self.cuts if cut.scores is not None]
            for tensor in (*scores, *(t for layer in self.layers for t in (layer.master, layer.factor))):
                dist.broadcast(tensor.data, src=0)
            seed = torch.tensor(self.seed, device=self.layers[0].weight.device)
            dist.broadcast(seed, src=0)
            self.seed = int(seed)
        self._adopt()
        if self.method == "l0" and not self._sampled and self._drawn == self.steps_done:
            self._sample()  # an evaluation or a checkpoint came between backward and step

    def _adopt(self) -> None:
        """Follow the model to another device, and accept weights that others loaded into it."""
        for cut in self.cuts:
            cut.follow()
        for layer in self.layers:
            weight = layer.weight
            if getattr(layer.module, "weight", None) is not weight or weight.dtype != layer.master.dtype:
                raise ValueError(
                    f"{layer.name}.weight was replaced (by fully_shard?) or changed dtype after attach(): not supported"
                )
            if layer.changed():
                if bool((weight.data.ne(0) & layer.mask.eq(0)).any()):
                    raise ValueError(
                        f"{layer.name}.weight was changed from outside: pruned entries are not zero any more. Load a "
                        "checkpoint together with its optimizer state, and before training goes on"
                    )
                kept = layer.mask.ne(0)
                factor = torch.where(kept, layer.mask, 1).to(weight.dtype)
                layer.master = torch.where(kept, weight.data / factor, layer.master)
                layer.version = weight._version

    def _check_gradients(self) -> None:
        grads = {layer.name: layer.weight.grad for layer in self.layers if layer.weight.grad is not None}
        if self.method == "l0" and grads and not self._sampled:
            raise ValueError("l0 samples its mask when the pruned model itself is called in training mode: it was not")
        if grads and not math.isfinite(float(torch.nn.utils.get_total_norm(grads.values()))):
            for name, G in grads.items():
                if not bool(G.isfinite().all()):
                    raise ValueError(f"the gradient of {name}.weight is not finite: lower the rate or clip")

    def _prepare(self, grad_scale: Tensor | None = None) -> None:
        """From G in `weight.grad` make the gradients of S (with its penalty) and of W, once per backward pass."""
        norms, scale = [], 1.0 if grad_scale is None else float(grad_scale)
        for cut in self.cuts:
            S = cut.scores
            grad = cut.gradient() if isinstance(S, nn.Parameter) else None
            if grad is not None:
                if self.method == "l0":
                    grad *= masks.hard_concrete_gradient(cut.mask.to(S.dtype))
                if self._feedback is not None:
                    norms.append(torch.linalg.vector_norm(grad, 1) / (scale * self._count))
                if self.penalty > 0.0:
                    grad += scale * self.penalty * self._penalty_gradient(S.detach())
                if self._score_optimizer is not None:
                    grad /= scale  # the scores' own optimizer knows nothing of the scaler
                S.grad = grad
        for layer in self.layers:
            if (G := layer.fresh()) is not None:
                G.mul_(layer.factor)
                layer.prepared = (G, G._version)
        if norms:
            self._mean_gradient = torch.stack([norm.to(norms[0].device) for norm in norms]).sum()

    def _penalty_gradient(self, S: Tensor) -> Tensor:
        low, high, temperature = masks.HARD_CONCRETE  # the expected L0 is a sigmoid too, of shifted scores
        shift = 0.0 if self.method == "soft_movement" else temperature * math.log(-low / high)
        return soft_penalty_gradient(S - shift, len(self.cuts))

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        r"""Clip the joint norm of $(G\odot M,\ G\odot W+\text{penalty},\ \text{other gradients})$, as the paper's code.

        Call it between `backward()` and `step()`, after `scaler.unscale_` if there is one. `torch`'s own clipping (and
        the Trainer's) sees G unmasked and no scores: masks then differ somewhat. Returns the norm before clipping.
        """
        if self._optimizer is None:
            raise ValueError("attach() the pruner to an optimizer before clipping")
        self._catch_up()
        self._prepare()
        params: Iterable[Tensor] = [p for group in self._optimizer.param_groups for p in group["params"]]
        own = self._learnt_scores() if self._score_optimizer is not None else []
        norm = torch.nn.utils.clip_grad_norm_([*params, *own], max_norm)
        for layer in self.layers:
            if layer.weight.grad is not None:
                layer.prepared = (layer.weight.grad, layer.weight.grad._version)
        return norm

    # -- after the step -------------------------------------------------------------------------------------------

    def _level(self, initial: float, final: float) -> float:
        return cubic(self.steps_done, initial, final, self.total_steps, self.warmup_steps, self.cooldown_steps)

    def _renew_masks(self) -> None:
        """Compute M from the scores as they are now and write W * M into the model."""
        density = self._level(self.initial_density, self.final_density)
        if self.method == "l0":
            new = [masks.hard_concrete_test_mask(x.ranking()) for x in self.cuts]
            self._sampled = False
        elif self.method == "soft_movement":
            tau = self._level(0.0, self.threshold)
            new = [masks.threshold_mask(x.ranking(), tau) for x in self.cuts]
        else:
            self._warn_if_equal(density)
            if self.scope == "global":
                new = masks.top_v_global([x.ranking() for x in self.cuts], density, min(self.min_density, density))
            else:
                new = [x.cut(density) for x in self.cuts]
        for cut, mask in zip(self.cuts, new, strict=True):
            _put(cut, mask)

    def _warn_if_equal(self, density: float) -> None:
        if density < 1.0 and not self._scores_differ:
            self._scores_differ = any(bool(S.min() != S.max()) for S in (cut.ranking() for cut in self.cuts))
            if not self._scores_differ:
                text = "a cut while all scores are equal keeps the first entries: give warmup_steps"
                warnings.warn(text, stacklevel=2)

    def _renew_penalty(self) -> None:
        if self.method not in ("soft_movement", "l0"):
            return
        if self._feedback is None:  # the published schedule: lambda follows the threshold; the gate has a constant one
            self.penalty = self.final_penalty
            if self.method == "soft_movement":
                self.penalty *= self._level(0.0, self.threshold) / self.threshold
            return
        wanted = self._level(1.0, self.final_density)
        self.penalty = self._feedback.penalty(self.density, wanted, self._count)

    # -- l0's sampling --------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        """Write W * M for this step's sample of the gate; the noise depends on seed and step alone."""
        self._recover()
        self._adopt()
        key = (1_000_003 * self.seed + self.steps_done) % 2**32  # a CPU generator reads no more than 32 bits
        generator = torch.Generator(self.layers[0].weight.device).manual_seed(key)
        for cut in self.cuts:
            S = cut.ranking()
            tiny = torch.finfo(S.dtype).tiny
            noise = torch.rand(S.shape, generator=generator, device=S.device, dtype=S.dtype).clamp_(tiny, 1.0 - 2**-24)
            _put(cut, masks.hard_concrete(S, noise))
        self._sampled, self._drawn = True, self.steps_done

    def _kept(self) -> list[int]:
        """Entries kept of each matrix: by its mask (for evaluation), or non-zero in the plain weight once finalized."""
        if self._finalized:
            return [int(torch.count_nonzero(layer.weight)) for layer in self.layers]
        now = [masks.hard_concrete_test_mask(x.ranking()) if self._sampled else x.mask for x in self.cuts]
        parts = [part for cut, mask in zip(self.cuts, now, strict=True) for _, part in cut.spread(mask)]
        return [int(torch.count_nonzero(part)) for part in parts]

    # -- what it is and how to keep it -----------------------------------------------------------------------------

    @property
    def _count(self) -> int:
        """How many scores there are."""
        return sum(cut.mask.numel() for cut in self.cuts)

    @property
    def density(self) -> float:
        """Fraction of the target weights that the masks keep now."""
        return sum(self._kept()) / sum(layer.weight.numel() for layer in self.layers)

    @property
    def done(self) -> bool:
        """Has the density reached its end (the cool-down began)? Only such checkpoints compare fairly.

        So with the Trainer's `load_best_model_at_end=True, metric_for_best_model="score"`, let `compute_metrics` return
        `{"score": accuracy if pruner.done else -1.0}`; `finalize()` then keeps the weights of the best checkpoint.
        """
        return self.steps_done >= self.total_steps - self.cooldown_steps

    def report(self) -> pd.DataFrame:
        """One row per pruned matrix: layer, shape, kept (entries), density, empty (nothing left)."""
        import pandas as pd

        pairs = zip(self.layers, self._kept(), strict=True)
        rows = [(x.name, tuple(x.weight.shape), kept, kept / x.weight.numel(), kept == 0) for x, kept in pairs]
        return pd.DataFrame(rows, columns=["layer", "shape", "kept", "density", "empty"])

    def settings(self) -> dict[str, Any]:
        """What must agree for a saved state to fit."""
        names = ["method", "scope", "final_density", "initial_density", "total_steps", "warmup_steps", "cooldown_steps"]
        names += ["threshold", "min_density", "final_penalty", "seed"]
        return {name: getattr(self, name) for name in names} | {"feedback": self._feedback is not None}

    def state_dict(self) -> dict[str, Any]:
        """Masters, scores, step and lambda: tensors (not copies) and plain numbers, so `torch.load` needs no pickle.

        An attached optimizer's own `state_dict()` carries it, so a Trainer checkpoint holds it already.
        """
        state: dict[str, Any] = {"settings": self.settings(), "steps_done": self.steps_done, "penalty": self.penalty}
        state["master"] = {layer.name: layer.master for layer in self.layers}
        state["scores"] = {cut.name: cut.scores.data for cut in self.cuts if cut.scores is not None}
        if self._feedback is not None:
            state["feedback"] = dict(vars(self._feedback))
        if self._score_optimizer is not None:
            state["score_optimizer"] = self._score_optimizer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; raises ValueError where settings or matrices differ, before changing anything."""
        if self._optimizer is None or self._finalized:
            raise ValueError("load_state_dict() belongs between attach() and finalize()")
        mine, own = self.state_dict(), self.settings()
        wrong = {key: (state["settings"].get(key), own[key]) for key in own if state["settings"].get(key) != own[key]}
        shapes = [[(n, t.shape) for k in ("master", "scores") for n, t in x[k].items()] for x in (state, mine)]
        if ("score_optimizer" in state) != (self._score_optimizer is not None):
            wrong["score_optimizer"] = ("score_optimizer" in state, self._score_optimizer is not None)
        if wrong or shapes[0] != shapes[1]:
            what = ", ".join(f"{k}: saved {a!r}, here {b!r}" for k, (a, b) in wrong.items()) or "matrices differ"
            raise ValueError(f"the saved pruner does not fit this one ({what})")
        self._recover()
        for layer in self.layers:
            layer.master = state["master"][layer.name].to(layer.weight.device, layer.weight.dtype, copy=True)
            layer.prepared = None
        for cut in self.cuts:
            if cut.scores is not None:
                cut.scores.data = state["scores"][cut.name].to(cut.scores.device, cut.scores.dtype, copy=True)
        if self._feedback is not None:
            vars(self._feedback).update(state["feedback"])
        if self._score_optimizer is not None:
            self._score_optimizer.load_state_dict(state["score_optimizer"])
        self.steps_done, self._drawn = state["steps_done"], -1
        self._renew_masks()
        self.penalty = state["penalty"]

    def _save_hook(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, STATE_KEY: self.state_dict()}

    def _load_hook(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        if STATE_KEY not in state:
            raise ValueError("this optimizer state was saved without a pruner: it holds no masters and no scores")
        self.load_state_dict(state[STATE_KEY])
        return {key: value for key, value in state.items() if key != STATE_KEY}

    def finalize(self, *, early: bool = False) -> nn.Module:
        """Bake the masks in and take every hook away; returns the model, which is plain again.

        Weights that were loaded into the model meanwhile (the best checkpoint, say) stay as they are, provided they
        are as sparse as the end of the schedule. The emptied score group stays in the optimizer, because schedulers
        count groups; drop the optimizer afterwards: its further steps would move zeros.

        Raises:
            ValueError: the density has not reached its end yet and `early` is not set; or the weights loaded from
                outside are denser than the final density.
        """
        if self._finalized:
            return self.model
        if self._optimizer is None:
            raise ValueError("finalize() before attach(): nothing was pruned")
        if not self.done and not early:
            raise ValueError(
                f"finalize() after {self.steps_done} of {self.total_steps} steps: the density is {self.density:.3g}, "
                f"not yet {self.final_density:.3g}; train on, or pass early=True to keep the masks as they are"
            )
        self._recover()
        if any(layer.changed() for layer in self.layers):
            kept = sum(int(torch.count_nonzero(layer.weight)) for layer in self.layers)
            now = sum(int(torch.count_nonzero(layer.mask)) for layer in self.layers)
            if kept > 1.1 * now and not early:
                raise ValueError(
                    f"weights loaded from outside keep {kept} entries, the schedule's end {now}: that checkpoint is "
                    "from before the end of the schedule (pruner.done); pass early=True to keep it nevertheless"
                )
        elif self.method == "l0":
            self._renew_masks()
        for handle in self._handles:
            handle.remove()
        scores = {id(S) for S in self._learnt_scores()}
        for group in self._optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in scores]
        for S in self._learnt_scores():
            self._optimizer.state.pop(S, None)
        self._optimizer._mvp_lite_pruner = None  # type: ignore[attr-defined]
        self._finalized = True
        return self.model


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _l0_forward(this: weakref.ref[Pruner], module: nn.Module, *_: Any) -> None:
    """Training sees one sample per optimizer step, evaluation the test-time mask."""
    pruner = this()
    if pruner is None or module is not pruner.model:
        return
    if module.training and not pruner._sampled:
        pruner._sample()
    elif not module.training and pruner._sampled:
        pruner._renew_masks()


def _l0_state(this: weakref.ref[Pruner], module: nn.Module, *_: Any) -> None:
    """A checkpoint taken between forward and step holds the test-time mask."""
    pruner = this()
    if pruner is not None and module is pruner.model and pruner._sampled:
        pruner._renew_masks()


def _put(cut: Any, mask: Tensor) -> None:
    """Give a cut its mask, and write what it means into the model."""
    cut.mask = mask
    for layer, part in cut.spread(mask):
        layer.mask = part if part.dtype == torch.bool else part.to(layer.weight.dtype)
        layer.write()


def _find_layers(model: nn.Module, target: str | None) -> list[_Layer]:
    blocks = [f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    linear = {name: m for name, m in model.named_modules() if _is_linear(m)}
    try:
        pattern = None if target is None else re.compile(target)
    except re.error as error:
        raise ValueError(f"target={target!r} is not a regular expression: {error}") from None
    if pattern is None:
        chosen = {n: m for n, m in linear.items() if any(n.startswith(block) for block in blocks)}
    else:
        chosen = {n: m for n, m in linear.items() if pattern.search(n)}
    if not chosen:
        hint = f"target={target!r} matches none"
        if target is None:
            hint = "no linear map inside numbered blocks (nn.ModuleList): pass target="
        raise ValueError(f"{hint}; linear modules are {_some(list(linear))}")
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():  # each module once: one that is called in several places is fine
        for key, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(f"{name}.{key}")
    layers = []
    for path, module in chosen.items():
        name = path.replace("_orig_mod.", "").removeprefix("module.")  # not a compiled or data-parallel wrapper's own
        weight = module.weight
        sharded = hasattr(weight, "ds_id") or type(weight).__name__ in ("DTensor", "FlatParameter")
        if sharded or not isinstance(weight, nn.Parameter):
            raise ValueError(f"{name}.weight is sharded (FSDP, DeepSpeed ZeRO) or parametrized: not supported")
        if len(owners[id(weight)]) > 1:
            names = ", ".join(owners[id(weight)])
            raise ValueError(f"{name}.weight is tied ({names}): prune an untied copy, or leave it out")
        mask = torch.ones_like(weight, dtype=torch.bool)
        layers.append(_Layer(name, module, weight, weight.detach().clone(), mask))
    return layers


def _is_linear(module: nn.Module) -> bool:
    # GPT-2's Conv1D is a linear map with weight (in, out); by name, so that transformers need not be imported.
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" … ({len(names)} in all)" if len(names) > 6 else "") if names else "none"

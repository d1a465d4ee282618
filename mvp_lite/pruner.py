r"""Pruning while fine-tuning, around the optimizer's step: `Pruner`.

Let $\tilde W=W\odot M$ be the weight that the model computes with, and $G=\partial\mathcal L/\partial\tilde W$. Then

$$\partial\mathcal L/\partial W=G\odot M,\qquad\partial\mathcal L/\partial S=G\odot W,$$

the left one exact, the right one straight-through. So the model stays as it is: a module's `weight` *holds*
$\tilde W$, and after `loss.backward()` its `.grad` *is* $G$. Before the optimizer's step the pruner sets the two
gradients and lends the dense W to the optimizer. After the step it takes W back, computes M anew and writes $W\odot M$
into `weight`.
"""

from __future__ import annotations

import functools
import gc
import math
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mvp_lite._selection import count_nonzero, read_together
from mvp_lite.budgets import Pool, find_pools
from mvp_lite.diagnosis import Diagnosis, MaskChanges
from mvp_lite.groups import GroupMaker, WeightGroups, find_maker
from mvp_lite.hold import guard_zeros, remove_guard
from mvp_lite.matrices import PrunedMatrix, find_matrices
from mvp_lite.methods import Method, TopVMethod, find_method, refuse_ignored
from mvp_lite.schedule import Schedule, Shape, check_schedule
from mvp_lite.settings import Density, Settings, check_density, plain
from mvp_lite.targets import some_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Pruner", "prunes"]

STATE_KEY = "mvp_lite"
#: optimizer steps from one look for NaN to the next on a GPU, where every look waits for all queued work
_STEPS_BETWEEN_CHECKS = 50
_SCALE_AWARE = ("Adafactor", "Lamb", "LAMB", "Lars", "LARS")  # their step size depends on the parameter's norm
#: id of a weight -> the pruner that is attached to it
_ATTACHED: weakref.WeakValueDictionary[int, Pruner] = weakref.WeakValueDictionary()


class Pruner:
    """Prunes a model while it is fine-tuned: attach it to the optimizer, then train as usual.

    Args:
        model: any `nn.Module`; its `nn.Linear` and GPT-2 `Conv1D` modules can be pruned.
        method: "magnitude" (automated gradual), "movement" (hard, top-v), "soft_movement" ($\\sigma(S)>\\tau$), "l0"
            (hard concrete), "random" (control), or a subclass of `mvp_lite.methods.Method`. Sanh et al. 2020, Table 1.
        density: fraction kept at the end, in (0, 1], of the weights of the matrices that are pruned. Only whole groups
            are kept, so each budget ends at the nearest count of them. A dict {regular expression: fraction} gives
            groups densities of their own: each takes that of the first expression found in its name (`group.name`:
            that of the module; for heads and neurons "… (heads)", "… (neurons)"), and ".*" serves as the last for all
            others. With a fixed `penalty` the density is an outcome, and this argument has no effect.
        total_steps, warmup_steps, cooldown_steps: optimizer steps of the whole run, before the density starts to fall,
            and at the end with the final density held (defaults: a tenth and three tenths of the run).
        schedule: how the density falls in between: "cubic" (the paper's), "cosine", "linear", or a function of progress
            that returns the part still to fall, from 1 at progress 0 to 0 at 1. It shapes threshold and penalty too.
        scope: "local" selects in each matrix, "global" in the pool of all groups that share a budget: those with
            equally many weights, and with a dict for `density` the same expression. soft_movement and l0 always use
            the pool.
        score_lr: learning rate of the scores; a scheduler on the optimizer changes it too. Default: 1e-2 for movement;
            for soft_movement and l0 30 / total_steps with penalty="feedback", else the papers' 1e-2 and 1e-1.
        target: regular expression searched in module names; default: every linear map inside the numbered blocks of
            the model (its encoder), never embeddings, pooler or head; without such blocks (an MLP) all but the last.
        groups: what shares one score: "weights" (each has its own), "rows", "columns", "heads", "neurons", or what
            `mvp_lite.groups` makes (blocks, n:m, mixed).
        initial_density: fraction kept during warm-up (top-v methods).
        penalty: for soft_movement and l0, "feedback" (ours: lambda is controlled so that the run ends at `density`) or
            the final lambda as a number (the papers': the density is then an outcome; in a run of few steps raise
            `score_lr`, or the scores never reach the threshold).
        threshold: final tau of soft_movement, from 0 on the cubic schedule.
        min_density: with global scope, fraction that every matrix keeps at least.
        score_init: start value of learned scores (default: 0; l0 2.197).
        magnitude_init: c >= 0, how much learned scores start from |W|: a weight of average magnitude starts c times
            `score_lr * total_steps / 2` above a weight of 0. With 0 all start equal, as in the paper. Default: 0.2 for
            movement, else 0.
        score_optimizer: makes the scores' own optimizer from a list of them; needed where the model's optimizer scales
            steps by parameter norms (Adafactor, LAMB, LARS). `score_lr` is then ignored, and a scheduler on the model's
            optimizer does not change the learning rate of the scores.
        seed: of random scores and of l0's noise.

    With an initialized process group all its ranks are taken to train one model (data parallel), and use the scores of
    rank 0. Writes to `weight.data` by others are not noticed and are lost at the next step. An attached pruner cannot
    be copied or pickled; copies of its model are plain models.

    Attributes:
        pools: groups that share a budget, with one instance of the method for each; `method` is the first of these.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a value outside its range, one that the method ignores, no module matched, tied or sharded weights.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str | type[Method] = "movement",
        *,
        density: Density,
        total_steps: int,
        warmup_steps: int | None = None,
        cooldown_steps: int | None = None,
        schedule: str | Shape = "cubic",
        scope: str = "local",
        score_lr: float | None = None,
        target: str | None = None,
        groups: str | GroupMaker = "weights",
        initial_density: float = 1.0,
        penalty: float | str = "feedback",
        threshold: float = 0.1,
        min_density: float = 0.0,
        score_init: float | None = None,
        magnitude_init: float | None = None,
        score_optimizer: Callable[[list[Tensor]], Optimizer] | None = None,
        seed: int = 0,
    ) -> None:
        method = find_method(method)
        total_steps, warmup_steps, cooldown_steps = map(plain, (total_steps, warmup_steps, cooldown_steps))
        check_schedule(total_steps, 0, 0)
        warmup_steps = total_steps // 10 if warmup_steps is None else warmup_steps
        cooldown_steps = 3 * total_steps // 10 if cooldown_steps is None else cooldown_steps
        self.schedule = Schedule(total_steps, warmup_steps, cooldown_steps, schedule)
        asked = check_density(density)
        highest = max(asked.values()) if isinstance(asked, dict) else asked
        settings = Settings(
            self.schedule, highest, initial_density, scope, min_density, threshold, penalty, score_init, seed, score_lr,
            magnitude_init,
        )  # fmt: skip
        refuse_ignored(method, settings)
        self.final_density = asked
        maker = find_maker(groups)
        self.model = model
        self.steps_done = 0
        self.groups: list[WeightGroups] = list(maker(model, find_matrices(model, target)))
        if not method.selects_top_v and any(group.needs_top_v for group in self.groups):
            raise ValueError(f"method={method.name!r}: n:m patterns need top-v selection (magnitude, movement, random)")
        self.pools: list[Pool] = find_pools(self.groups, method, settings, self.final_density)
        self.method = self.pools[0].method
        self.seed = settings.seed
        self.score_lr = self.method.score_lr
        self.matrices: list[PrunedMatrix] = [matrix for group in self.groups for matrix in group.matrices]
        for group, pool in self._grouped():
            scores = pool.method.initial_scores(group.magnitude())
            group.scores = nn.Parameter(scores) if scores is not None and self.method.learned else scores
        self._score_optimizer_factory = score_optimizer
        self._score_optimizer: Optimizer | None = None
        self._optimizer: Optimizer | None = None
        self._handles: list[Any] = []
        self._mask_changes = MaskChanges()
        self._sign = 1.0
        self._sampled_step = -1
        self._skipping = self._sampled = self._scores_differ = self._finalized = False
        self._norm: Tensor | None = None  # what clipping found in the step that is under way
        self._checked_step = -1

    def attach(self, optimizer: Any) -> Pruner:
        """Hook into an optimizer that holds the target weights, before a scheduler is made on it.

        Adds one parameter group for the scores (learning rate `score_lr`, no decay). The training loop stays yours.

        Raises:
            TypeError: an optimizer that needs a closure (LBFGS) or averages weights (schedule-free).
            ValueError: the pruner was attached before, the optimizer lacks some target weights, another pruner prunes
                them, a scheduler exists already, or the optimizer scales steps by parameter norms.
        """
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
        name = type(optimizer).__name__
        self._check_optimizer(optimizer)
        holders = [group for group in optimizer.param_groups if self._target_ids() & set(map(id, group["params"]))]
        maximize = {bool(group.get("maximize", False)) for group in holders}
        if len(maximize) > 1:
            raise ValueError(f"optimizer={name} maximizes some of the target weights and minimizes others")
        self._sign = -1.0 if maximize == {True} else 1.0
        scores = self._learned_scores()
        if scores and self._score_optimizer_factory is not None:
            self._score_optimizer = self._score_optimizer_factory(scores)
            if {bool(group.get("maximize", False)) for group in self._score_optimizer.param_groups} != maximize:
                raise ValueError("score_optimizer and optimizer must both minimize or both maximize")
        elif scores:
            if any(word in name for word in _SCALE_AWARE):
                raise ValueError(
                    f"optimizer={name} scales steps by parameter norms, which does not suit scores: pass "
                    f"score_optimizer=lambda scores: torch.optim.AdamW(scores, lr={self.score_lr:g}, weight_decay=0)"
                )
            added: dict[str, Any] = {"params": scores, "lr": self.score_lr, "weight_decay": 0.0}
            optimizer.add_param_group(added | ({"maximize": True} if self._sign < 0.0 else {}))
        remove_guard(optimizer)  # of an earlier run: from here on the pruner says what is zero
        self._optimizer = optimizer
        optimizer._mvp_lite_pruner = weakref.ref(self)
        for matrix in self.matrices:
            _ATTACHED[id(matrix.weight)] = self
        self._handles += [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._save_hook),
            optimizer.register_load_state_dict_pre_hook(self._load_hook),
        ]
        if self.method.stochastic:
            self._handles += [
                self.model.register_forward_pre_hook(_sampling_hook()(self)),
                self.model.register_state_dict_pre_hook(_EvaluationMasks(self)),  # type: ignore[no-untyped-call]
            ]
        for group in self.groups:  # the model may have been moved or loaded since the constructor ran
            group.to_device()
        for matrix in self.matrices:
            matrix.master = matrix.weight.detach().clone()
        if self.method.magnitude_init:
            for group, pool in self._grouped():
                start = pool.method.initial_scores(group.magnitude())
                if isinstance(group.scores, nn.Parameter) and start is not None:
                    group.scores.data.copy_(start)
        self._update_masks()
        self._mask_changes.observe([group.mask for group in self.groups])
        self._update_penalty()
        return self

    def _grouped(self) -> list[tuple[WeightGroups, Pool]]:
        """Every group with its pool."""
        return [(group, pool) for pool in self.pools for group in pool.groups]

    def _target_ids(self) -> set[int]:
        return {id(matrix.weight) for matrix in self.matrices}

    def _learned_scores(self) -> list[Tensor]:
        return [group.scores for group in self.groups if isinstance(group.scores, nn.Parameter)]

    def _check_optimizer(self, optimizer: Any) -> None:
        name = type(optimizer).__name__
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer={name}: attach() takes a torch.optim.Optimizer")
        if isinstance(optimizer, torch.optim.LBFGS) or "ScheduleFree" in name:
            raise TypeError(f"optimizer={name}: its step evaluates or averages weights of its own; use AdamW or SGD")
        if self._optimizer is not None or self._finalized:
            raise ValueError("this pruner was attached before: make a new Pruner for a new run")
        if getattr(optimizer, "_mvp_lite_pruner", None) is not None:
            raise ValueError("another pruner is attached to this optimizer")
        if "initial_lr" in optimizer.param_groups[0]:
            raise ValueError("a scheduler was built on this optimizer already: call attach() first, for the scores")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [matrix.name for matrix in self.matrices if id(matrix.weight) not in held]
        frozen = [matrix.name for matrix in self.matrices if not matrix.weight.requires_grad]
        replaced = [
            matrix.name for matrix in self.matrices if getattr(matrix.module, "weight", None) is not matrix.weight
        ]
        if replaced:
            raise ValueError(
                f"the weights of {some_names(replaced)} were replaced after the Pruner was made (by fully_shard?): "
                "make it after changes to the model; sharded weights (FSDP, DeepSpeed ZeRO) are not supported"
            )
        if frozen:
            raise ValueError(
                f"the weights of {some_names(frozen)} are frozen (requires_grad=False): call requires_grad_(True) on "
                "them before the optimizer is made, or choose others by target="
            )
        if missing:
            raise ValueError(f"the optimizer does not hold the weights of {some_names(missing)}")
        if self._target_ids() & set(_ATTACHED):
            gc.collect()  # a pruner that nobody holds any more may still be there: it and its optimizer form a cycle
        if taken := [matrix.name for matrix in self.matrices if id(matrix.weight) in _ATTACHED]:
            raise ValueError(
                f"another pruner is attached to the weights of {some_names(taken)}: finalize(early=True) it first"
            )

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("closure") is not None or any(a is not None for a in args[1:]):
            raise TypeError("optimizer.step(closure): a closure would see dense weights; call backward() before step()")
        self._restore_masked()
        found_inf = getattr(optimizer, "found_inf", None)
        self._skipping = found_inf is not None and bool(found_inf)
        if self._skipping:
            return  # a fused optimizer under GradScaler leaves the weights alone; so do we
        self._synchronize()
        self._check_sampling()
        if self._on_cpu() or self.steps_done % _STEPS_BETWEEN_CHECKS == 0:
            self._check_numbers()
            self._check_gradients()
        self._set_gradients(getattr(optimizer, "grad_scale", None))
        for matrix in self.matrices:
            matrix.lend_master()

    def _after_step(self, *_: Any) -> None:
        if self._skipping:
            return
        if self._score_optimizer is not None:
            self._score_optimizer.step()
        for matrix in self.matrices:
            matrix.take_back_master()
        self._restore_masked()
        for S in self._learned_scores():
            S.grad = None
        self._norm = None
        self.steps_done += 1
        for pool in self.pools:
            pool.after_step(self.steps_done)
        self._update_masks()
        self._mask_changes.observe([group.mask for group in self.groups])
        self._update_penalty()

    def _restore_masked(self) -> None:
        for matrix in self.matrices:
            matrix.restore_masked()

    def _synchronize(self) -> None:
        """Take over what happened to model and ranks since the last step."""
        self._restore_masked()
        if self.steps_done == 0 and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._broadcast()
        self._accept_external_weights()
        if self.method.stochastic and not self._sampled and self._sampled_step == self.steps_done:
            self._sample()  # an evaluation or a checkpoint came between backward and step

    def _broadcast(self) -> None:
        """Give all ranks the state of rank 0: data-parallel wrappers know the weights alone."""
        for group in self.groups:
            group.to_device()
        tensors = [group.scores for group in self.groups if group.scores is not None]
        tensors += [tensor for matrix in self.matrices for tensor in (matrix.master, matrix.multiplier)]
        tensors += [group.mask.view(torch.uint8) for group in self.groups if group.mask.dtype == torch.bool]
        for tensor in tensors:
            dist.broadcast(tensor.data, src=0)
        seed = torch.tensor(self.seed, device=self.matrices[0].weight.device)
        dist.broadcast(seed, src=0)
        self.seed = int(seed)  # so that noise is the same on each rank

    def _accept_external_weights(self) -> None:
        """Follow the model to another device, and accept weights that others loaded into it."""
        for group in self.groups:
            group.to_device()
        for matrix in self.matrices:
            matrix.accept_external_weights()

    def _check_sampling(self) -> None:
        if self.method.stochastic and not self._sampled and any(m.weight.grad is not None for m in self.matrices):
            raise ValueError(
                f"{self.method.name} samples its mask when the pruned model itself is called in training mode: "
                "it was not"
            )

    def _on_cpu(self) -> bool:
        return all(matrix.weight.is_cpu for matrix in self.matrices)

    def _check_gradients(self) -> None:
        """Raise ValueError if a gradient is not finite."""
        grads = {matrix.name: matrix.weight.grad for matrix in self.matrices if matrix.weight.grad is not None}
        if not grads:
            return
        norm = self._norm
        if norm is None or any(matrix.new_gradient() is not None for matrix in self.matrices):
            norm = torch.nn.utils.get_total_norm(grads.values())
        if not math.isfinite(float(norm)):
            for name, G in grads.items():
                if not bool(G.isfinite().all()):
                    raise ValueError(f"the gradient of {name}.weight is not finite: lower the learning rate or clip")

    def _check_numbers(self) -> None:
        """On a GPU, raise ValueError if NaN has reached weights or scores since the last check.

        A CPU finds NaN in each step, in the gradients and at the selection. Here NaN stays where it has got to, so that
        it is enough to look once in a while, and before anything is saved.
        """
        last, self._checked_step = self._checked_step, self.steps_done
        if last == self.steps_done or self._on_cpu():
            return  # what was said once is not said again, so that finalize() can follow
        tensors = {f"{matrix.name}.weight": matrix.master for matrix in self.matrices}
        tensors |= {f"scores of {group.name}": group.scores.data for group in self.groups if group.scores is not None}
        found = read_together([tensor.min().isnan() for tensor in tensors.values()])
        if names := [name for name, has_nan in zip(tensors, found, strict=True) if has_nan]:
            raise ValueError(f"NaN by step {self.steps_done} in {some_names(names)}: lower the learning rate or clip")

    def _set_gradients(self, grad_scale: Tensor | None = None) -> None:
        """From G, in `weight.grad`, make the gradients of S (with its penalty) and of W, once per backward pass."""
        scale = 1.0 if grad_scale is None else float(grad_scale)
        new_pass = any(matrix.new_gradient() is not None for matrix in self.matrices)
        for pool in self.pools:
            found = [self._set_score_gradient(group, pool, scale, new_pass) for group in pool.groups]
            norms = [norm for norm in found if norm is not None]
            if norms:
                pool.mean_gradient = torch.stack([norm.to(norms[0].device) for norm in norms]).sum()
        for matrix in self.matrices:
            if (G := matrix.new_gradient()) is not None:
                G.mul_(matrix.multiplier)
                matrix.mark_processed()

    def _set_score_gradient(self, group: WeightGroups, pool: Pool, scale: float, new_pass: bool) -> Tensor | None:
        """Set `scores.grad` where there is a new G or a penalty; returns its share of the pool's mean |dL/dS|."""
        S, method = group.scores, pool.method
        if not isinstance(S, nn.Parameter):
            return None
        mask_gradient, penalized, norm = group.mask_gradient(), method.penalty > 0.0, None
        if mask_gradient is None:
            # No G here: the scores pay their penalty nevertheless, unless clipping has set it for this backward pass.
            if not penalized or (S.grad is not None and not new_pass):
                return None
            grad = torch.zeros_like(S)
        else:
            grad = method.score_gradient(mask_gradient, S.detach(), group.mask)
            if method.is_controlled:
                norm = grad.abs().sum() / (scale * pool.count)
        if penalized:
            gradient = method.penalty_gradient(S.detach(), len(pool.groups))
            grad.add_(gradient, alpha=self._sign * scale * method.penalty)
        if self._score_optimizer is not None:
            grad /= scale  # the scores' own optimizer knows nothing of the scaler
        S.grad = grad
        return norm

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        r"""Clip the joint norm of $(G\odot M,\ G\odot W+\text{penalty},\ \text{other gradients})$, as the paper's code.

        Call it between `backward()` and `step()`, after `scaler.unscale_` if there is one. `torch`'s own clipping (and
        the Trainer's) sees G unmasked and no scores, so masks differ somewhat. Returns the norm before clipping.

        Raises:
            ValueError: before `attach()`, or what an optimizer step raises.
        """
        if self._optimizer is None:
            raise ValueError("clip_grad_norm_() belongs between attach() and finalize()")
        self._synchronize()
        self._set_gradients()
        params: Iterable[Tensor] = [p for group in self._optimizer.param_groups for p in group["params"]]
        own = self._learned_scores() if self._score_optimizer is not None else []
        self._norm = torch.nn.utils.clip_grad_norm_([*params, *own], max_norm)
        for matrix in self.matrices:
            matrix.mark_processed()
        return self._norm

    def _evaluation_masks(self) -> list[Tensor]:
        found = {id(g): M for p in self.pools for g, M in zip(p.groups, p.masks(self.steps_done), strict=True)}
        return [found[id(group)] for group in self.groups]

    def _update_masks(self) -> None:
        """Compute M from the scores as they are now, and write W * M into the model."""
        self._warn_if_equal()
        for group, mask in zip(self.groups, self._evaluation_masks(), strict=True):
            group.set_mask(mask)
        self._sampled = False

    def _warn_if_equal(self) -> None:
        top_v = [pool.method for pool in self.pools if isinstance(pool.method, TopVMethod)]
        if self._scores_differ or all(method.density(self.steps_done) == 1.0 for method in top_v):
            return
        self._scores_differ = any(bool(S.min() != S.max()) for S in (group.importance() for group in self.groups))
        if not self._scores_differ:
            text = "selecting while all scores are equal keeps the first entries: give warmup_steps"
            warnings.warn(text, stacklevel=2)

    def _warn_of_outcome(self) -> None:
        if not self.done:
            return
        for pool in self.pools:
            if text := pool.method.outcome([group.importance() for group in pool.groups]):
                warnings.warn(text, UserWarning, stacklevel=3)

    def _update_penalty(self) -> None:
        kept = dict(zip(map(id, self.matrices), self._kept(), strict=True)) if self.method.is_controlled else {}
        for pool in self.pools:
            mine = [kept[id(matrix)] for group in pool.groups for matrix in group.matrices] if kept else []
            pool.method.update_penalty(self.steps_done, sum(mine) / pool.numel if mine else math.nan, pool.count)

    def _sample(self) -> None:
        """Write W * M for this step's sample of the masks; the noise depends on seed and step alone."""
        self._restore_masked()
        self._accept_external_weights()
        key = (1_000_003 * self.seed + self.steps_done) % 2**32  # a CPU generator reads no more than 32 bits
        generator = torch.Generator(self.matrices[0].weight.device).manual_seed(key)
        methods = {id(group): pool.method for group, pool in self._grouped()}
        for group in self.groups:
            group.set_mask(methods[id(group)].sample(group.importance(), generator))
        self._sampled, self._sampled_step = True, self.steps_done

    def _kept(self) -> list[int]:
        """Entries kept of each matrix: by its mask for evaluation, or non-zero in the plain weight once finalized."""
        return read_together(self._counts())

    def _counts(self) -> list[Tensor]:
        """The same, as the device counts them."""
        if self._finalized:
            return [count_nonzero(matrix.weight) for matrix in self.matrices]
        now = self._evaluation_masks() if self._sampled else [group.mask for group in self.groups]
        expanded = [mask for group, M in zip(self.groups, now, strict=True) for _, mask in group.expand(M)]
        return [count_nonzero(mask) for mask in expanded]

    @property
    def density(self) -> float:
        """Fraction of the weights of `matrices` that the masks keep now; matrices without groups are not counted."""
        return float(self.unread_density())

    def unread_density(self) -> Tensor:
        """`density` as a float64 tensor without dimensions, so that the host need not wait for a GPU."""
        counts = self._counts()
        total = torch.stack([count.to(counts[0].device) for count in counts]).sum()
        return total.double() / sum(matrix.weight.numel() for matrix in self.matrices)

    @property
    def penalty(self) -> float:
        """Lambda for the next step (of several pools the mean); 0 for methods without a penalty."""
        return sum(pool.method.penalty for pool in self.pools) / len(self.pools)

    @property
    def finalized(self) -> bool:
        """Was `finalize()` called? The model is plain from then on."""
        return self._finalized

    @property
    def done(self) -> bool:
        """Has the density reached its final value (has the cool-down begun)? Only such checkpoints compare fairly.

        `PruningCallback` sees to that. With the Trainer alone, `load_best_model_at_end=True` and
        `metric_for_best_model="score"`, let `compute_metrics` return `{"score": accuracy if pruner.done else -1.0}`;
        `finalize()` then keeps the weights of the best checkpoint.
        """
        return self.schedule.done(self.steps_done)

    def __repr__(self) -> str:
        sizes, method, schedule = [matrix.weight.numel() for matrix in self.matrices], self.method, self.schedule
        state = "finalized" if self._finalized else "not attached" if self._optimizer is None else "attached"
        goal = f"{method.settings.density:.3g} at the end"
        if isinstance(method.settings.penalty, float | int) and not isinstance(method, TopVMethod):
            goal = f"an outcome of penalty={method.settings.penalty:g}"
        shared = "" if all(g.mask.shape == m.weight.shape for g in self.groups for m in g.matrices) else ", in groups"
        return (
            f"Pruner({method.name}: density {self.density:.3g} now, {goal}; step {self.steps_done} of "
            f"{schedule.total_steps}; {len(sizes)} matrices with {sum(sizes):,} weights{shared}; {state})"
        )

    def report(self) -> pd.DataFrame:
        """One row per pruned matrix: layer, shape, kept (entries), density, empty (nothing left).

        Printed, it leaves out what all names begin with; its column `layer` has the full names.
        """
        from mvp_lite.report import Report

        pairs = zip(self.matrices, self._kept(), strict=True)
        rows = [(x.name, tuple(x.weight.shape), kept, kept / x.weight.numel(), kept == 0) for x, kept in pairs]
        return Report(rows, columns=["layer", "shape", "kept", "density", "empty"])

    def diagnosis(
        self,
        losses: Sequence[float] = (),
        *,
        score: float | None = None,
        baseline: float | None = None,
        examples: int | None = None,
        constant_share: float | None = None,
    ) -> Diagnosis:
        """Did the run work? `print(pruner.diagnosis(losses, score=..., baseline=...))` says it in a sentence.

        Args:
            losses: training loss of each step so far.
            score, baseline: on held-out examples, in per cent: of the model, and of the best answer that is the same
                for every input (for classification the share of the most frequent class).
            examples: number of held-out examples, for the standard error.
            constant_share: what `mvp_lite.diagnosis.constant_share(model, batches)` returned; judges where there is no
                score.
        """
        changes = self._mask_changes
        return Diagnosis(
            losses, changes.densities, changes.changed, score, baseline, examples, constant_share, self.method.advice()
        )

    def settings(self) -> dict[str, Any]:
        """What must agree for a saved state to fit."""
        asked, schedule = self.method.settings, self.schedule
        return {
            "method": self.method.name,
            "scope": asked.scope,
            "final_density": self.final_density,
            "initial_density": asked.initial_density,
            "total_steps": schedule.total_steps,
            "warmup_steps": schedule.warmup_steps,
            "cooldown_steps": schedule.cooldown_steps,
            "schedule": schedule.fingerprint,
            "threshold": asked.threshold,
            "min_density": asked.min_density,
            "penalty": asked.penalty,
            "magnitude_init": self.method.magnitude_init,
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Masters, scores, step and lambda, as tensors (not copies) and numbers; `torch.load(weights_only=True)` works.

        An attached optimizer's own `state_dict()` carries it, so a Trainer checkpoint holds it already.

        Raises:
            ValueError: on a GPU, NaN in weights or scores.
        """
        self._check_numbers()
        state: dict[str, Any] = {"settings": self.settings(), "steps_done": self.steps_done, **self._tensors()}
        state["method"] = [pool.method.state_dict() for pool in self.pools]
        state["mask_changes"] = self._mask_changes.state_dict()
        if self._score_optimizer is not None:
            state["score_optimizer"] = self._score_optimizer.state_dict()
        return state

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        return {
            "master": {matrix.name: matrix.master for matrix in self.matrices},
            "scores": {group.name: group.scores.data for group in self.groups if group.scores is not None},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`.

        Raises:
            ValueError: settings or matrices differ; nothing has been changed then.
        """
        if self._optimizer is None:
            raise ValueError("load_state_dict() belongs between attach() and finalize()")
        mine, own = self._tensors(), self.settings()
        wrong = {key: (state["settings"].get(key), own[key]) for key in own if state["settings"].get(key) != own[key]}
        if isinstance(self.final_density, dict) and not wrong:
            saved, here = list(state["settings"]["final_density"]), list(self.final_density)
            if saved != here:  # the first pattern that matches counts
                wrong["order of the patterns in density"] = (saved, here)
        shapes = [[(n, t.shape) for k in ("master", "scores") for n, t in x[k].items()] for x in (state, mine)]
        if len(state["method"]) != len(self.pools):
            wrong["pools"] = (len(state["method"]), len(self.pools))
        if ("score_optimizer" in state) != (self._score_optimizer is not None):
            wrong["score_optimizer"] = ("score_optimizer" in state, self._score_optimizer is not None)
        if wrong or shapes[0] != shapes[1]:
            what = ", ".join(f"{k}: saved {a!r}, here {b!r}" for k, (a, b) in wrong.items()) or "matrices differ"
            raise ValueError(f"the saved pruner does not fit this one ({what})")
        self._restore_masked()
        for matrix in self.matrices:
            matrix.replace_master(state["master"][matrix.name])
        for group in self.groups:
            if group.scores is not None:
                saved = state["scores"][group.name]
                group.scores.data = saved.to(group.scores.device, group.scores.dtype, copy=True)
        if self._score_optimizer is not None:
            self._score_optimizer.load_state_dict(state["score_optimizer"])
        self.steps_done, self._sampled_step = state["steps_done"], -1
        for pool, own_state in zip(self.pools, state["method"], strict=True):
            pool.method.load_state_dict(own_state)
        self._update_masks()
        self._mask_changes.load_state_dict(state["mask_changes"], [group.mask for group in self.groups])

    def _save_hook(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, STATE_KEY: self.state_dict()}

    def _load_hook(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        if STATE_KEY not in state:
            raise ValueError("this optimizer state was saved without a pruner: it holds no masters and no scores")
        self.load_state_dict(state[STATE_KEY])
        return {key: value for key, value in state.items() if key != STATE_KEY}

    def __getstate__(self) -> dict[str, Any]:
        if self._optimizer is not None:
            raise TypeError(
                "an attached Pruner cannot be copied or pickled: its hooks belong to one optimizer. Copy the model, "
                "which is plain; to go on later, save optimizer.state_dict(), which contains the pruner's state"
            )
        return self.__dict__

    def finalize(self, *, early: bool = False) -> nn.Module:
        """Keep the masked weights and remove the hooks; returns the model: plain, with zeros for pruned entries.

        Weights that were loaded into the model meanwhile (the best checkpoint, say) stay as they are, provided they
        are as sparse as the end of the schedule. The emptied score group stays in the optimizer, because schedulers
        count groups. Drop the optimizer afterwards: its further steps would move zeros, and the first that does warns.
        To train on, call `mvp_lite.hold_zeros(model, optimizer)`, with this optimizer or a new one.

        Raises:
            ValueError: the density has not reached its end yet and `early` is not set; the weights loaded from outside
                are denser than the final density; on a GPU, NaN that no check has found before.
        """
        if self._finalized:
            return self.model
        if self._optimizer is None:
            raise ValueError("finalize() before attach(): nothing was pruned")
        if not self.done and not early:
            target = sum(p.method.settings.density * p.numel for p in self.pools) / sum(p.numel for p in self.pools)
            raise ValueError(
                f"finalize() after {self.steps_done} of {self.schedule.total_steps} steps: the density is "
                f"{self.density:.3g}, not yet {target:.3g}; train on, or pass early=True to keep "
                "the masks as they are"
            )
        self._check_numbers()
        self._restore_masked()
        if any(matrix.changed_outside() for matrix in self.matrices):
            kept = sum(int(torch.count_nonzero(matrix.weight)) for matrix in self.matrices)
            now = sum(int(torch.count_nonzero(matrix.mask)) for matrix in self.matrices)
            if kept > 1.1 * now and not early:
                raise ValueError(
                    f"the loaded weights have {kept} nonzero entries, but the final density allows {now}: this "
                    "checkpoint was saved before the schedule ended (pruner.done was False); pass early=True to keep "
                    "it nevertheless"
                )
        elif self.method.stochastic:
            self._update_masks()
        self._warn_of_outcome()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        scores = {id(S) for S in self._learned_scores()}
        for group in self._optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in scores]
        for S in self._learned_scores():
            self._optimizer.state.pop(S, None)
        self._optimizer._mvp_lite_pruner = None  # type: ignore[attr-defined]
        guard_zeros(self._optimizer, [matrix.weight for matrix in self.matrices])
        for weight in self._target_ids():
            _ATTACHED.pop(weight, None)
        self._optimizer = None
        self._finalized = True
        return self.model


def prunes(model: nn.Module) -> bool:
    """Is a pruner attached to one of the model's weights?"""
    weights = {id(p) for p in model.parameters()}
    if weights & set(_ATTACHED):
        gc.collect()  # as in attach(): one that nobody holds any more may still be there
    return bool(weights & set(_ATTACHED))


class _ModelHook:
    """A hook on the pruned model that copies and pickles with it, and does nothing in the copy."""

    def __init__(self, pruner: Pruner) -> None:
        self._pruner: Callable[[], Pruner | None] = weakref.ref(pruner)

    def _mine(self, module: nn.Module) -> Pruner | None:
        pruner = self._pruner()
        return pruner if pruner is not None and module is pruner.model else None

    def __reduce__(self) -> tuple[Any, ...]:
        pruner = self._pruner()
        if pruner is not None and pruner._sampled:
            pruner._update_masks()  # the copy gets the masks for evaluation
        return (type(self)._without_pruner, ())

    @classmethod
    def _without_pruner(cls) -> _ModelHook:
        hook = cls.__new__(cls)
        hook._pruner = _nobody
        return hook


def _nobody() -> None:
    return None


class _SampleMasks(_ModelHook):
    """Before each forward pass: training sees one sample per optimizer step, evaluation the masks for evaluation."""

    def __call__(self, module: nn.Module, *_: Any) -> None:
        pruner = self._mine(module)
        if pruner is None:
            return
        if module.training and not pruner._sampled:
            pruner._sample()
        elif not module.training and pruner._sampled:
            pruner._update_masks()


@functools.cache
def _sampling_hook() -> type[_SampleMasks]:
    """Not compiled. Not said at import either: this loads torch._dynamo, which takes as long as torch itself."""
    _SampleMasks.__call__ = torch.compiler.disable(_SampleMasks.__call__)  # type: ignore[method-assign, no-untyped-call]
    return _SampleMasks


class _EvaluationMasks(_ModelHook):
    """Before `state_dict()`: a checkpoint taken between forward and step holds the masks for evaluation."""

    def __call__(self, module: nn.Module, *_: Any) -> None:
        pruner = self._mine(module)
        if pruner is not None and pruner._sampled:
            pruner._update_masks()

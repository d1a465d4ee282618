"""`PruningCallback`: pruning under the stock `Trainer` of transformers."""

from __future__ import annotations

import warnings
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mvp_lite.methods import Method, PenalizedMethod, find_method
from mvp_lite.pruner import Pruner
from mvp_lite.settings import Density, check_density
from mvp_lite.train import check_options, warn_if_sparse

__all__ = ["PruningCallback"]


class PruningCallback(TrainerCallback):
    """Prunes what a `Trainer` trains: `PruningCallback(trainer, "movement", density=0.1)`, then `trainer.train()`.

    The optimizer, its weight decay and the schedule of the learning rate remain the Trainer's; the number of steps is
    taken from it. Logs of the training loss get "density" and, for soft movement and L0, "penalty". Of
    `load_best_model_at_end`, early stopping and `save_strategy="best"`, only evaluations after the density has reached
    its end count. When training ends, the model is plain and pruned, and `callback.pruner` has the report and the
    diagnosis. To resume, make model, Trainer and callback as before and call `train(resume_from_checkpoint=...)`.

    Args:
        trainer: not trained yet. The callback adds itself, and adds to its methods `create_scheduler` and `log`.
        method: see `Pruner`.
        density: fraction of the target weights kept at the end, in (0, 1].
        max_norm: clip the joint gradient norm of weights and scores, as `fine_prune`. The Trainer's own clipping, of
            the unmasked gradients alone, must be off then: `TrainingArguments(max_grad_norm=0)`.
        options: as for `Pruner`, except `total_steps`; `seed` is the Trainer's by default. They are checked when
            `train()` begins.

    Attributes:
        pruner: made when `train()` begins; None before.

    Raises:
        TypeError: no Trainer, or `total_steps` is given.
        ValueError: a Trainer with a scheduler of its own or another such callback; `max_norm` is not positive, or the
            Trainer clips as well. From `train()`: what `Pruner` and `attach` raise; a second run, a model that was
            replaced, a checkpoint without the pruner's state; training or the best checkpoint ended before the
            schedule.

    Warns:
        UserWarning: from `train()`: many entries are zero already; no checkpoint competed for the best.
    """

    def __init__(
        self,
        trainer: Trainer,
        method: str | type[Method] = "movement",
        *,
        density: Density,
        max_norm: float | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(trainer, Trainer):
            raise TypeError(f"trainer={type(trainer).__name__}: must be a transformers.Trainer")
        find_method(method)
        check_density(density)
        if "total_steps" in options:
            raise TypeError(f"total_steps={options['total_steps']!r}: leave it out, the Trainer knows it")
        check_options(options)
        if trainer.lr_scheduler is not None:
            raise ValueError("the Trainer was given a scheduler: pass optimizers=(optimizer, None) or none at all")
        if any(isinstance(callback, PruningCallback) for callback in trainer.callback_handler.callbacks):
            raise ValueError("this Trainer has a PruningCallback already")
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm={max_norm!r}: must be a positive number, or None")
        if max_norm is not None and trainer.args.max_grad_norm:
            raise ValueError(
                f"max_norm={max_norm!r}: the Trainer clips as well (max_grad_norm={trainer.args.max_grad_norm!r}); "
                "turn that off with TrainingArguments(max_grad_norm=0)"
            )
        self.pruner: Pruner | None = None
        self._trainer = trainer
        self._max_norm = max_norm
        self._options = {"method": method, "density": density, "seed": trainer.args.seed} | options
        # The scores must be in the optimizer before a scheduler counts its groups and before a checkpoint is loaded
        # into it; the events of a callback come later. Both methods are documented as those to override.
        self._create_scheduler, self._log = trainer.create_scheduler, trainer.log
        trainer.create_scheduler = self._attach_first  # type: ignore[method-assign]
        trainer.log = self._log_density  # type: ignore[method-assign]
        trainer.add_callback(self)

    def _attach_first(self, num_training_steps: int, optimizer: Any = None) -> Any:
        trainer = self._trainer
        if self.pruner is not None and self.pruner.model is trainer.model:
            raise ValueError(
                "this model has been pruned, or its training was interrupted: one callback prunes one run. Make a new "
                "model, Trainer and callback; train(resume_from_checkpoint=...) then goes on from a checkpoint"
            )
        if trainer.model_wrapped is not trainer.model:
            raise ValueError("trainer.model was replaced, but the Trainer still trains the old one: make a new Trainer")
        pruner = Pruner(trainer.model, total_steps=num_training_steps, **self._options)
        self.pruner = pruner.attach(trainer.optimizer if optimizer is None else optimizer)
        return self._create_scheduler(num_training_steps, optimizer)

    def _log_density(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self.pruner is not None and "loss" in logs:
            logs["density"] = self.pruner.density
            if isinstance(self.pruner.method, PenalizedMethod):
                logs["penalty"] = self.pruner.penalty
        self._log(logs, *args, **kwargs)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that a checkpoint has brought the pruner's state along."""
        pruner = self._attached()
        if pruner.steps_done == 0 and state.global_step > 0:
            raise ValueError(
                f"resume_from_checkpoint: the checkpoint of step {state.global_step} has no optimizer.pt, which holds "
                "the scores and the dense weights (was it saved with save_only_model=True?): training cannot go on"
            )
        if pruner.steps_done == 0:
            warn_if_sparse(pruner)
        self._was_done = pruner.done

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clip, if asked to."""
        if self._max_norm is not None:
            self._attached().clip_grad_norm_(self._max_norm)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Forget the best evaluation so far, until and at the step that ends the fall of the density."""
        if not self._was_done:
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        self._was_done = self._attached().done

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model plain."""
        pruner = self._attached()
        if self._trainer.model is not pruner.model:
            raise ValueError(
                "trainer.model was replaced during training: the one that is pruned is callback.pruner.model"
            )
        if not pruner.done:
            raise ValueError(
                f"training ended after {pruner.steps_done} of {pruner.schedule.total_steps} steps, before the density "
                f"reached its end: it is {pruner.density:.3g}. Resume from a checkpoint, or keep the model as it is "
                "with callback.pruner.finalize(early=True)"
            )
        if args.load_best_model_at_end and state.best_model_checkpoint is None:
            end = pruner.schedule.total_steps - pruner.schedule.cooldown_steps
            warnings.warn(
                f"load_best_model_at_end=True: no checkpoint with a score was saved after step {end}, when the density "
                "reached its end, so the last weights stay; check the metric, eval_steps and save_steps",
                UserWarning,
                stacklevel=2,
            )
        pruner.finalize()

    def _attached(self) -> Pruner:
        if self.pruner is None:
            raise ValueError("this PruningCallback belongs to another Trainer, the one that it was made with")
        return self.pruner

"""A random subset of a task's examples."""

from __future__ import annotations

import numpy as np

from mvp_lite.tasks.task import Task

__all__ = ["random_subset"]


def random_subset(task: Task, split: str, count: int, *, seed: int, argument: str) -> Task:
    """The task with `count` examples of one split, chosen with `seed` and left in their order.

    A smaller subset with the same seed is contained in a larger one.

    Raises:
        ValueError: the split has fewer examples; the message names `argument`.
    """
    total = task.size(split)
    if not 1 <= count <= total:
        raise ValueError(f"{argument}={count!r}: from 1 to the {total} examples of {task.name}'s {split} split")
    return task.subset(split, np.sort(np.random.default_rng(seed).permutation(total)[:count]))

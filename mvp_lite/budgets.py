"""Which groups share a budget: the density asked for holds among them, and they compete with no others.

Scores of groups are sums, so a score of a head of 50,000 weights says nothing about a neuron of 800; and a count of
groups says nothing about the weights that stay. So a budget is shared by groups with equally many weights alone. A
fraction of the groups of each is then the same fraction of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from mvp_lite.groups import WeightGroups
from mvp_lite.methods import Method
from mvp_lite.settings import Settings
from mvp_lite.targets import some_names

__all__ = ["Pool", "find_pools"]


@dataclass(eq=False)
class Pool:
    """Groups that share a budget, and the method that selects among them.

    Attributes:
        groups: in the order of the model.
        method: one instance for each pool; a controlled penalty is thereby the pool's own.
        mean_gradient: mean of |dL/dS| of the step in progress, for a method that `is_controlled`.
    """

    groups: list[WeightGroups]
    method: Method
    mean_gradient: Tensor | None = None

    @property
    def count(self) -> int:
        """How many scores there are."""
        return sum(group.mask.numel() for group in self.groups)

    @property
    def numel(self) -> int:
        """How many weights there are."""
        return sum(matrix.weight.numel() for group in self.groups for matrix in group.matrices)

    def masks(self, step: int) -> list[Tensor]:
        """One mask for each of `groups`, after `step` optimizer steps."""
        return self.method.masks([group.importance() for group in self.groups], step)

    def after_step(self, step: int) -> None:
        """Let the method see the scores that the optimizer has moved."""
        # Only now is the mean read: a step may be skipped or repeated.
        mean, self.mean_gradient = self.mean_gradient, None
        learned = [group.scores.data for group in self.groups if isinstance(group.scores, nn.Parameter)]
        self.method.after_step(step, learned, None if mean is None else float(mean))


def find_pools(
    groups: Sequence[WeightGroups], method: type[Method], settings: Settings, density: float | dict[str, float]
) -> list[Pool]:
    """Divide groups into pools: by the pattern that sets their density, and by how many weights a group has.

    With a fixed penalty there is no budget, and one pool.

    Raises:
        ValueError: no groups; densities by pattern with a fixed penalty; a pattern that is no regular expression, or
            that sets the density of no group; a group that no pattern matches; a density that a group cannot have.
    """
    if not groups:
        raise ValueError("groups: the matrices of target have none of them")
    free = settings.penalty != "feedback"
    if free and isinstance(density, dict):
        raise ValueError(
            f"density={density!r}: with penalty={settings.penalty!r} densities are an outcome; patterns need "
            "penalty='feedback'"
        )
    patterns = _match(density, [group.name for group in groups]) if isinstance(density, dict) else [None] * len(groups)
    members: dict[tuple[str | None, float], list[WeightGroups]] = {}
    for group, pattern in zip(groups, patterns, strict=True):
        members.setdefault((None, 1.0) if free else (pattern, group.weights_each), []).append(group)
    pools = []
    for number, ((pattern, _), mine) in enumerate(members.items()):
        asked = density[pattern] if isinstance(density, dict) and pattern is not None else settings.density
        for group in mine:
            group.check_density(asked)
        # Pools must not draw the same random scores.
        pools.append(Pool(mine, method(replace(settings, density=asked, seed=settings.seed + 7919 * number))))
    return pools


def _match(density: dict[str, float], names: Sequence[str]) -> list[str]:
    """The first pattern that each name matches."""
    compiled = {}
    for pattern in density:
        try:
            compiled[pattern] = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"density={{{pattern!r}: …}} is not a regular expression: {error}") from None
    first = [next((pattern for pattern, regex in compiled.items() if regex.search(name)), None) for name in names]
    if missing := [name for name, pattern in zip(names, first, strict=True) if pattern is None]:
        raise ValueError(
            f"density={density!r}: no pattern matches {some_names(missing)}; add '.*' as the last one for all others"
        )
    for pattern, regex in compiled.items():
        if not any(regex.search(name) for name in names):
            raise ValueError(f"density={{{pattern!r}: …}} matches none of the groups {some_names(names)}")
        if pattern not in first and pattern != ".*":
            raise ValueError(f"density={{{pattern!r}: …}}: patterns before it match all that it does; put it first")
    return [pattern for pattern in first if pattern is not None]

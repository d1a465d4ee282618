"""What a grid runs, as text: a method, perhaps with options, such as "movement magnitude_init=0.2 schedule=cosine"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvp_lite.experiments.remedies import GROUPS, REMEDIES
from mvp_lite.methods import METHODS, Method

__all__ = ["UNPRUNED", "Recipe"]

UNPRUNED = ("dense", "scratch")
_OPTIONS = (
    "schedule warmup_steps cooldown_steps magnitude_init score_init score_lr threshold penalty scope groups dense_steps"
).split()


@dataclass(frozen=True)
class Recipe:
    """A method and its options for `fine_prune`.

    Attributes:
        name: of the method, or "dense", or "scratch" (dense from random weights).
        options: of `fine_prune`.
        dense_steps: of the steps of the run, how many train densely before pruning starts.
    """

    name: str
    options: dict[str, Any]
    dense_steps: int = 0

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read a method and its options.

        Raises:
            ValueError: an unknown method or option.
        """
        name, *words = text.split()
        known = (*UNPRUNED, *METHODS, *REMEDIES)
        if name not in known:
            raise ValueError(f"methods={text!r}: must be one of {', '.join(known)}")
        options = dict(word.partition("=")[::2] for word in words)
        for option in options:
            if option not in _OPTIONS or name in UNPRUNED:
                raise ValueError(f"methods={text!r}: {option!r} is none of {', '.join(_OPTIONS)}")
        values: dict[str, Any] = {option: _value(value) for option, value in options.items()}
        if "groups" in values:
            values["groups"] = GROUPS.get(values["groups"], values["groups"])
        if name not in UNPRUNED and (METHODS | REMEDIES)[name].learned:
            values.setdefault("magnitude_init", 0.0)  # a name alone means the papers' method
        dense_steps = int(values.pop("dense_steps", 0))
        return cls(name, values, dense_steps)

    @property
    def is_dense(self) -> bool:
        return self.name in UNPRUNED

    @property
    def method(self) -> str | type[Method]:
        """What `fine_prune` takes as its method."""
        return "dense" if self.is_dense else REMEDIES.get(self.name, self.name)


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            pass
    return text

"""Settings of experiments: dataclasses whose fields are the options of a command.

So a command is parsed into settings, and settings name the command that runs them: the column `command` of a results
file.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from mvp_lite.experiments.subsets import random_subset
from mvp_lite.paths import data_path
from mvp_lite.tasks.loading import load_task
from mvp_lite.tasks.task import Task

__all__ = ["ModelSettings", "Settings", "floats", "integers", "option", "words"]


def words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def integers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words(text))


def floats(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in words(text))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def option(
    default: Any = MISSING,
    *,
    help: str,
    read: Callable[[str], Any] = str,
    write: Callable[[Any], str] = _text,
    flags: Sequence[str] = (),
    choices: Sequence[str] | None = None,
    public: Callable[[Any], Any] | None = None,
) -> Any:
    """A dataclass field that is also an option of the settings' command; required without a default.

    Args:
        help: its line in `--help`.
        read, write: from the text of the command line to the value, and back.
        flags: names on the command line, first the one to record (default: the field's).
        choices: the only values allowed.
        public: what to record in place of a value that means something on one machine only.
    """
    found = {"help": help, "read": read, "write": write, "flags": flags, "choices": choices, "public": public}
    return field(default=default, metadata=found)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one command runs. Fields made by `option` are its options; others are for use from Python.

    `out` is the results file, an option of every command.
    """

    #: the words behind `python -m mvp_lite`
    command_name: ClassVar[str]
    #: the results file below `data/results` where `out` is not given
    results_name: ClassVar[str]
    out: Path | None = None

    def results_path(self) -> Path:
        return self.out or data_path("results", self.results_name)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the options of these settings."""
        for setting in _options(cls):
            given: dict[str, Any] = {"action": "store_true"}
            if not isinstance(setting.default, bool):
                given = {"type": setting.metadata["read"], "choices": setting.metadata["choices"]}
                given["required"] = setting.default is MISSING
            # SUPPRESS: argparse would pass a default that is text through `read`.
            parser.add_argument(
                *_flags(setting), dest=setting.name, help=_help(setting), default=argparse.SUPPRESS, **given
            )
        parser.add_argument("--out", type=Path, help=f"results file (default: data/results/{cls.results_name})")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """The settings that a parser with these options has read."""
        given = vars(arguments)
        return cls(
            out=arguments.out,
            **{setting.name: given[setting.name] for setting in _options(cls) if setting.name in given},
        )

    def public(self) -> Self:
        """The same settings without what means something on one machine only: local paths."""
        changes = {"out": self.out and Path(self.out.name)}
        for setting in _options(type(self)):
            public, value = setting.metadata["public"], getattr(self, setting.name)
            if public is not None and value is not None:
                changes[setting.name] = public(value)
        return replace(self, **changes)

    def command(self) -> str:
        """The command that runs these settings, made public: an option for each value that is not the default."""
        shown, found = self.public(), ["python", "-m", "mvp_lite", *self.command_name.split()]
        for setting in _options(type(self)):
            value = getattr(shown, setting.name)
            if value != setting.default:
                found += [_flags(setting)[0], *([] if value is True else [setting.metadata["write"](value)])]
        return shlex.join([*found, *(["--out", str(shown.out)] if shown.out else [])])


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """Settings of runs with a model and a task of the user's choice."""

    model: str = option(help='"toy", a local folder or a hub name')
    model_name: str | None = option(
        None, help="name to record (default: --model, or the last component of a folder's path)"
    )
    data_dir: str | None = option(
        None, public=lambda path: "DATA_DIR", help="folder of JSON lines (default: the data set on the hub)"
    )
    max_length: int | None = option(None, read=int, help="tokens per example (default: the task's)")
    doc_stride: int | None = option(
        None, read=int, help="context tokens that neighboring windows share (default: the task's)"
    )
    score_examples: int | None = option(
        None,
        read=int,
        flags=("--score-examples", "--score-rows"),
        help="score this many examples of validation, chosen once (default: all)",
    )
    batch_size: int = option(32, read=int, help="examples per step")
    bf16: bool = option(False, help="train under bfloat16 autocast; weights and optimizer stay in float32")

    @property
    def model_label(self) -> str:
        """The name of the model in a results file."""
        return self.model_name or (Path(self.model).name if Path(self.model).is_dir() else self.model)

    def public(self) -> Self:
        return replace(super().public(), model=self.model_label, model_name=None)

    def load(self, task: str) -> Task:
        """Read a task."""
        return load_task(task, data_dir=self.data_dir, max_length=self.max_length, doc_stride=self.doc_stride)

    def scored(self, task: Task) -> Task:
        """The task with those validation examples that runs are scored on."""
        if self.score_examples is None:
            return task
        return random_subset(task, "validation", self.score_examples, seed=0, argument="score_examples")


def _options(settings: type[Settings]) -> list[Field[Any]]:
    return [setting for setting in fields(settings) if setting.metadata]


def _help(setting: Field[Any]) -> str:
    silent = setting.default is MISSING or setting.default is None or setting.default is False or setting.default == ""
    is_list = setting.metadata["read"] in (words, integers, floats)
    text = str(setting.metadata["help"]) + (", comma-separated" if is_list else "")
    return text if silent else f"{text} (default: {setting.metadata['write'](setting.default)})"


def _flags(setting: Field[Any]) -> Sequence[str]:
    return setting.metadata["flags"] or [f"--{setting.name.replace('_', '-')}"]

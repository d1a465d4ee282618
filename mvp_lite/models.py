"""Encoders with the head a task needs, from the package, a local folder or the hub; and their tokenizers."""

from __future__ import annotations

import copy
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mvp_lite.hub import ADVICE, connection, quiet
from mvp_lite.paths import data_path
from mvp_lite.structure.limits import build_on_meta
from mvp_lite.structure.loading import check_files
from mvp_lite.tasks.task import Task
from mvp_lite.tokenizer import tokenizer_for

__all__ = ["load_model", "tokenizer_for"]


def load_model(name_or_path: str | Path, task: Task, *, pretrained: bool = True, seed: int = 0) -> Any:
    """A transformers model in float32 on the CPU, with the head that `task` needs. Never runs code in the folder.

    One for the classes of a text, the tags of its words, or the ends of an answer. A regression task gets a head of one
    output, trained by mean squared error; where the task does not fix the scale (`make_task`), a new head starts at the
    mean of train's labels and is scaled by their standard deviation, so that the learning rate need not know them.

    Args:
        name_or_path: "toy" (the encoder in the package), a local folder or a hub name.
        task: decides the head.
        pretrained: False draws all weights at random.
        seed: of the weights that the checkpoint lacks (the head, or all); the global random state is left alone.

    Raises:
        TypeError: no task.
        FileNotFoundError: a folder that does not exist.
        OSError: a hub name that cannot be reached.
        ValueError: a checkpoint without the encoder's weights or with a head of another size; a damaged file, or one
            that asks for far more memory than its weights need; a model with code of its own (load it with
            transformers and pass the model).
    """
    import transformers
    from transformers import AutoConfig

    if not hasattr(task, "num_labels"):
        raise TypeError(f"task={task!r}: must be what load_task or make_task returned")
    where = _resolve(name_or_path)
    labels: dict[str, Any] = {"num_labels": task.num_labels}
    if task.labels:
        labels = {"id2label": dict(enumerate(task.labels)), "label2id": {n: i for i, n in enumerate(task.labels)}}
    if task.task_type in ("classification", "regression"):  # else the checkpoint's, or the first batch's, would decide
        labels["problem_type"] = "regression" if task.task_type == "regression" else "single_label_classification"
    auto: Any = getattr(transformers, _HEADS[task.task_type])
    online = nullcontext() if os.path.isdir(where) else connection()
    with quiet(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
        try:
            with online:
                # Before the configuration is used: it might ask for all memory. Other formats than safetensors pass.
                stored = check_files(where) if os.path.isdir(where) else None
                config = AutoConfig.from_pretrained(where, trust_remote_code=False, **labels)
                if getattr(config, "pad_token_id", None) is None:
                    config.pad_token_id = getattr(config, "eos_token_id", None)
                if pretrained and stored is not None:
                    empty = copy.deepcopy(config)
                    build_on_meta(lambda: auto.from_config(empty, trust_remote_code=False), stored)
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
                if pretrained:
                    model, info = auto.from_pretrained(
                        where, config=config, dtype=torch.float32, output_loading_info=True,
                        ignore_mismatched_sizes=True, trust_remote_code=False,
                    )  # fmt: skip
                    _check_loaded(str(name_or_path), model, info)
                    new_head = any(key.rpartition(".")[0] == _head(model)[0] for key in info["missing_keys"])
                else:
                    model, new_head = auto.from_config(config, dtype=torch.float32, trust_remote_code=False), True
        except OSError as error:
            raise OSError(f"name_or_path={str(name_or_path)!r} cannot be loaded. {ADVICE} ({error})") from error
        except MemoryError:
            raise
        except Exception as error:  # whatever a damaged or foreign file leads to in transformers
            if str(error).startswith("name_or_path="):
                raise
            raise ValueError(f"name_or_path={str(name_or_path)!r} cannot be loaded: {error}") from error
    if new_head:
        _scale_head(model, task)
    model.mvp_lite_loaded = {"pretrained": pretrained, "seed": seed}  # for the card of a saved run
    return model


_HEADS = {
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "token classification": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
}


def _resolve(name_or_path: str | Path) -> str:
    if not isinstance(name_or_path, str | Path) or not str(name_or_path):
        raise TypeError(f'name_or_path={name_or_path!r}: must be "toy", a folder or a hub name')
    if name_or_path == "toy":
        folder = data_path("toy", "encoder")
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"the toy encoder is not in {folder}: `python -m mvp_lite toy build` makes it")
        return str(folder)
    folder, text = Path(name_or_path).expanduser(), str(name_or_path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
            raise FileNotFoundError(f"name_or_path={text!r} has no config.json (found: {found}). {ADVICE}")
        return str(folder)
    if isinstance(name_or_path, Path) or text[0] in "./~" or text.count("/") > 1 or os.sep == "\\" in text:
        raise FileNotFoundError(f"name_or_path={text!r}: no such folder (looked in {Path.cwd()}). {ADVICE}")
    return text


def _check_loaded(name: str, model: Any, info: dict[str, Any]) -> None:
    # The pooler belongs to the head here: checkpoints of masked language models come without it.
    base = model.base_model_prefix + "."
    missing = sorted(key for key in info["missing_keys"] if key.startswith(base) and ".pooler." not in key)
    if missing:
        raise ValueError(f"name_or_path={name!r} lacks {len(missing)} weights of the encoder, first {missing[0]!r}")
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    if mismatched:
        raise ValueError(
            f"name_or_path={name!r}: the shape of {', '.join(mismatched)} is not this task's; "
            "take the encoder it was fine-tuned from, or the task it was fine-tuned for"
        )


def _head(model: nn.Module) -> tuple[str, nn.Linear | None]:
    """Name and module of the last linear layer."""
    found: list[tuple[str, nn.Linear]] = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    return found[-1] if found else ("", None)


def _scale_head(model: Any, task: Task) -> None:
    """Give the new head of a regression task the units of its labels."""
    head = _head(model)[1]
    if task.task_type != "regression" or task.spec.scale or head is None or head.out_features != 1:
        return
    labels = np.array(task.examples["train"][task.label_column], dtype=float)
    with torch.no_grad():
        head.weight *= float(labels.std()) or 1.0
        if head.bias is not None:
            head.bias.fill_(float(labels.mean()))

"""Folders of pruned models that work elsewhere: weights, configuration, tokenizer and card, all or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from torch import nn

from mvp_lite.diagnosis import Diagnosis
from mvp_lite.hub import quiet
from mvp_lite.pruner import Pruner, prunes
from mvp_lite.storage.card import FORMAT, make_card, make_readme
from mvp_lite.storage.record import describe_base, describe_task
from mvp_lite.storage.sparse import save_sparse
from mvp_lite.tokenizer import check_vocabulary

__all__ = ["CARD", "push_folder", "save_pruned", "write_folder"]

CARD = "card.json"
_MISSING: Any = object()


def save_pruned(
    model: Any,
    folder: str | Path,
    *,
    tokenizer: Any = _MISSING,
    pruner: Pruner | None = None,
    task: Any = None,
    score: float | None = None,
    diagnosis: Diagnosis | None = None,
    settings: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    overwrite: bool = False,
    sparse: bool = False,
) -> Path:
    """Save a model that was pruned in a loop of your own: weights, configuration, tokenizer and card.

    `transformers.pipeline` and `from_pretrained` read the folder without this package. After `fine_prune`,
    `result.save(folder)` does the same, with all settings in the card.

    Args:
        model: a transformers model.
        folder: is made. A folder that this function wrote earlier is replaced; another one that is not empty is not,
            unless `overwrite` is set.
        tokenizer: the one that the model was trained with; None for a model that reads no text.
        pruner: for the card: method, settings, and density by layer.
        task: for the card: name, baseline and fingerprint of the data.
        score: on held-out examples, in per cent.
        diagnosis: what `pruner.diagnosis(...)` returned; default: made from `score` and the task's baseline.
        settings: more for the card, such as the learning rate.
        seconds: wall time of the training, for the card.
        overwrite: replace the folder with everything in it.
        sparse: write a small file that `mvp_lite.load_sparse` reads, and nothing else does.

    Returns:
        The folder.

    Raises:
        TypeError: a model without `save_pretrained`, no tokenizer, or `score` or `settings` of another type.
        ValueError: another model's tokenizer, a model with adapters, or a pruner that is not finalized.
        FileExistsError: `folder` holds other files, or is a file.
    """
    if tokenizer is _MISSING:
        raise TypeError(
            "tokenizer= is missing: give the one that the model was trained with, such as mvp.tokenizer_for(model), or "
            "tokenizer=None for a model that reads no text"
        )
    model = _unwrapped(model)
    if score is not None and (isinstance(score, bool) or not isinstance(score, Real)):
        raise TypeError(f"score={score!r}: must be a number or None")
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"settings={settings!r}: must be a mapping or None")
    # Hooks would still change the weights, and the card would say that nothing was pruned.
    if isinstance(model, nn.Module) and prunes(model):
        raise ValueError(
            f"model={type(model).__name__}: must be plain, but a pruner is attached to it: call its finalize(), or "
            "finalize(early=True) before the end of its schedule"
        )
    if pruner is not None and not pruner.finalized:
        raise ValueError(
            "pruner=Pruner(...): must be finalized: call finalize(), or finalize(early=True) before the end of its "
            "schedule"
        )
    if diagnosis is None:
        spec = {"score": score, **_baseline(task, tokenizer)}
        diagnosis = Diagnosis(**spec) if pruner is None else pruner.diagnosis(**spec)
    card = make_card(
        model,
        {"base_model": describe_base(model), "task": describe_task(task)},
        settings={**(pruner.settings() if pruner is not None else {}), **(settings or {})},
        diagnosis=diagnosis,
        metrics={},
        density=None if pruner is None else pruner.density,
        report=None if pruner is None else pruner.report(),
        seconds=seconds,
    )
    return write_folder(model, folder, tokenizer, card, overwrite=overwrite, sparse=sparse)


def write_folder(
    model: Any, folder: str | Path, tokenizer: Any, card: Mapping[str, Any], *, overwrite: bool = False,
    sparse: bool = False, name: str = "",
) -> Path:  # fmt: skip
    """Write everything into a temporary folder beside `folder`, then rename it; see `save_pruned`."""
    model = _unwrapped(model)
    if tokenizer is not None and (problem := check_vocabulary(tokenizer, model)):
        raise ValueError(f"tokenizer={type(tokenizer).__name__} {problem}: give the one the model was trained with")
    folder = Path(folder).expanduser().resolve()
    _check_replaceable(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.{part}") for part in ("new", "old"))
    try:
        with quiet():
            if sparse:
                card = {**card, "load": "mvp_lite.load_sparse(folder)"}
                save_sparse(model, temporary)
            else:
                model.save_pretrained(temporary)
            if tokenizer is not None:
                tokenizer.save_pretrained(temporary)
        (temporary / "README.md").write_text(make_readme(card, name or folder.name), encoding="utf-8")
        files = sorted({path.name for path in temporary.iterdir()} | {CARD})
        lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in {**card, "files": files}.items())
        (temporary / CARD).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return folder


def push_folder(
    model: Any, repo_id: str, tokenizer: Any, card: Mapping[str, Any], *, private: bool | None, token: str | None,
    commit_message: str,
) -> str:  # fmt: skip
    """Save into a temporary folder and upload that to the Hub; returns the address of the repository."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        folder = write_folder(model, Path(temporary) / "model", tokenizer, card, name=repo_id)
        api = HfApi(token=token)
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=commit_message)
    return str(made)


def _unwrapped(model: Any) -> Any:
    """The transformers model inside wrappers of torch.

    Raises:
        TypeError: no `save_pretrained`.
        ValueError: adapters, of which save_pretrained would write nothing else.
    """
    for wrapper in ("module", "_orig_mod"):
        model = getattr(model, wrapper, model)
    if not hasattr(model, "save_pretrained"):
        raise TypeError(
            f"model={type(model).__name__} has no save_pretrained: only transformers models can be saved to a folder; "
            "torch.save(model.state_dict(), file) saves the weights of any model"
        )
    if hasattr(model, "peft_config"):
        raise ValueError(f"model={type(model).__name__} has adapters: merge them first, with merge_and_unload()")
    return model


def _baseline(task: Any, tokenizer: Any) -> dict[str, Any]:
    if task is None or tokenizer is None:
        return {}
    encoded = task.encode(tokenizer)
    if not hasattr(encoded, "baseline"):
        return {}
    baseline, examples = encoded.baseline("validation")
    return {"baseline": baseline, "examples": examples}


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"folder={str(folder)!r} is a file: name a folder")
    if any(Path(place).resolve().is_relative_to(folder) for place in (Path.cwd(), Path.home())):
        raise FileExistsError(f"folder={str(folder)!r} holds the current or the home folder: name one of its own")
    if overwrite:
        return
    found = sorted(path.name for path in folder.iterdir())
    others = sorted(set(found) - set(_own_files(folder)))
    if others:
        raise FileExistsError(
            f"folder={str(folder)!r} holds files that are not of a saved model ({', '.join(others[:3])}): name another "
            "folder, or pass overwrite=True to replace it with everything in it"
        )


def _own_files(folder: Path) -> list[str]:
    """What an earlier save wrote there; nothing if there was none."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return [name for name in card["files"] if isinstance(name, str)] if card["format"] == FORMAT else []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []

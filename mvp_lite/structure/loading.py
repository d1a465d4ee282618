"""Loading shrunk models: sizes from `config.json`, and weights that are refused unless all of them fit."""

from __future__ import annotations

import copy
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mvp_lite.hub import connection
from mvp_lite.storage.checksums import check_checksum
from mvp_lite.structure.limits import Stored, build_on_meta, check_numbers, read_stored
from mvp_lite.structure.shrinking import KEY, WEIGHTS_KEY, protect_saves
from mvp_lite.structure.units import find_units

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_files", "load_shrunk", "planned_sizes", "shrink_to"]

#: options that say where on the Hub, and in the cache, files are
_PLACES = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download", "proxies")
_OURS = (
    "trust_remote_code", "ignore_mismatched_sizes", "output_loading_info", "config", "state_dict", "use_safetensors",
)  # fmt: skip
#: what save_sparse writes; `mvp_lite.storage.index`, which stands below this file, calls it FILE
_SPARSE = "sparse.safetensors"
#: tensors or files that an error names at most
_NAMED = 5


def load_shrunk(folder: str | Path, **options: Any) -> PreTrainedModel:
    """Load what a shrunk model's `save_pretrained(folder)` wrote, as a model of the same class; also from the Hub.

    A folder without sizes in its `config.json` is loaded as it is. Every tensor must be there and fit; where the files
    hold checksums (all that `mvp_lite` wrote), their content must be as it was. Sizes are compared with the files
    before anything is allocated. Code in the folder is never executed, and no pickle opened: weights are safetensors.

    Args:
        folder: a folder, or a name on the Hub.
        options: for `from_pretrained`, such as dtype, device_map or revision.

    Raises:
        OSError: no such folder or name on the Hub, or a file that is missing or cannot be read.
        ValueError: sizes that are malformed or do not fit the architecture; tensors that are missing, left over or of
            another shape; a file that has changed since it was saved; an architecture that transformers does not have.
        TypeError: no folder or name, or an option that is not the caller's to set.
    """
    if not isinstance(folder, str | Path):
        raise TypeError(f"folder={folder!r}: must be a folder, or a name on the Hub")
    if taken := [name for name in _OURS if name in options]:
        raise TypeError(f"{taken[0]}={options[taken[0]]!r}: load_shrunk sets this option itself")
    if os.path.isfile(folder):
        raise NotADirectoryError(f"folder={str(folder)!r}: must be a folder, not a file: give the folder that it is in")
    if not os.path.isdir(folder):
        # Without this, a name that is not there takes half a minute where there is no network.
        try:
            with nullcontext() if options.get("local_files_only") else connection():
                return _load(folder, options)
        except OSError as error:
            reason = str(error).partition("\n")[0]
            where = f"folder={str(folder)!r} is no local folder, and cannot be loaded from the Hub"
            raise OSError(f"{where} ({reason})") from error
    if (Path(folder) / _SPARSE).is_file() and not any(Path(folder).glob("*model*.*")):
        raise ValueError(f"folder={str(folder)!r} holds {_SPARSE}: load it with mvp_lite.load_sparse(folder)")
    return _load(folder, options)


def _load(folder: str | Path, options: dict[str, Any]) -> PreTrainedModel:
    places = {name: options[name] for name in _PLACES if name in options}
    stored = check_files(folder, options.get("variant"), places)
    if stored is None:
        name = f"model.{options['variant']}" if options.get("variant") else "model"
        raise FileNotFoundError(f"{folder} has no weights in {name}.safetensors, nor an index of several such files")
    config = _read_config(folder, places)
    architecture = _architecture(folder, config)
    plan = planned_sizes(folder, config)

    built: Any = architecture
    if plan is not None:

        def build(self: nn.Module, config: Any, *args: Any, **kwargs: Any) -> None:
            architecture.__init__(self, config, *args, **kwargs)
            shrink_to(folder, self, plan)

        built = type(architecture.__name__, (architecture,), {"__init__": build})
    try:
        build_on_meta(lambda: built(copy.deepcopy(config)), stored)
        model, report = built.from_pretrained(
            folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False,
            use_safetensors=True, **options,
        )  # fmt: skip
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a damaged configuration leads to
        raise _refusal(folder, error) from error
    _complete(folder, report)
    model.__class__ = architecture
    protect_saves(model)
    return model  # type: ignore[no-any-return]


def _refusal(folder: str | Path, error: Exception) -> ValueError:
    message = str(error).strip() or type(error).__name__
    return ValueError(message if str(folder) in message else f"{folder}: {message}")


def _read_config(folder: str | Path, places: dict[str, Any]) -> Any:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, **places)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise _refusal(folder, error) from error
    if hasattr(config, WEIGHTS_KEY):
        delattr(config, WEIGHTS_KEY)  # it is for loaders that do not know the sizes
    return config


def _architecture(folder: str | Path, config: Any) -> Any:
    import transformers

    names = config.architectures
    name = names[0] if isinstance(names, list) and names else names
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ValueError(f"{folder}: architecture {name!r} in config.json is not one of transformers'")
    if found.config_class is not type(config):
        raise ValueError(f"{folder}: config.json has architecture {name!r} and model_type {config.model_type!r}")
    return found


def planned_sizes(folder: str | Path, config: Any) -> dict[str, list[int]] | None:
    """The sizes in `config.json`, or None if it has none."""
    if not hasattr(config, KEY):
        return None
    plan, where = getattr(config, KEY), f"{folder}: {KEY} in config.json"
    if not isinstance(plan, dict) or set(plan) != {"heads", "neurons"}:
        raise ValueError(f'{where} is {plan!r}: must be {{"heads": [...], "neurons": [...]}}')
    for unit_type, counts in plan.items():
        if not isinstance(counts, list) or not all(type(count) is int and count >= 1 for count in counts):
            raise ValueError(f"{where}: {unit_type}={counts!r}: must be a list of integers of at least 1")
    return plan


def check_files(folder: str | Path, variant: str | None = None, places: dict[str, Any] | None = None) -> Stored | None:
    """Verify the checksums of a folder's safetensors files, and that `config.json` asks for no more than they hold.

    Returns:
        What the files hold; None if there are none.

    Raises:
        ValueError: a damaged file, or a number in `config.json` with which the memory would be filled.
        OSError: a file that is missing or cannot be read.
    """
    files = _weights(folder, variant, places or {})
    try:
        for file in files:
            check_checksum(file)
        stored = read_stored(files)
        if config := _find(folder, "config.json", places or {}):
            check_numbers(json.loads(Path(config).read_text(encoding="utf-8")), config, stored)
    except (ValueError, RecursionError) as error:
        raise _refusal(folder, error) from error
    return stored if files else None


def _find(folder: str | Path, name: str, places: dict[str, Any], must_exist: bool = False) -> str | None:
    from transformers.utils.hub import cached_file

    return cached_file(folder, name, _raise_exceptions_for_missing_entries=must_exist, **places)


def _weights(folder: str | Path, variant: str | None, places: dict[str, Any]) -> list[str]:
    """Paths of the safetensors files; none if the weights are in another format."""
    name = f"model.{variant}" if variant else "model"
    if file := _find(folder, f"{name}.safetensors", places):
        return [file]
    index = _find(
        folder, f"model.safetensors.index.{variant}.json" if variant else "model.safetensors.index.json", places
    )
    if not index:
        return []
    try:
        shards = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
        if outside := [shard for shard in shards if Path(shard).name != shard or not shard.endswith(".safetensors")]:
            raise ValueError(f"{outside[0]!r} is not the name of a safetensors file")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{folder}: {Path(index).name} does not say where the tensors are: {error}") from error
    return [str(_find(folder, shard, places, must_exist=True)) for shard in shards]


def _complete(folder: str | Path, report: dict[str, Any]) -> None:
    """Refuse weights of which some are missing, left over or of another shape."""
    problems = []
    for key, words in (("missing_keys", "missing"), ("unexpected_keys", "not of this model")):
        if names := sorted(report.get(key) or ()):
            problems.append(f"{words}: {_listed(names)}")
    if names := sorted(f"{name} {tuple(a)}, model {tuple(b)}" for name, a, b in report.get("mismatched_keys") or ()):
        problems.append(f"of another shape: {_listed(names)}")
    if problems:
        raise ValueError(f"{folder}: the weights do not fit: tensors {'; '.join(problems)}")
    if errors := report.get("error_msgs"):
        raise ValueError(f"{folder}: {_listed([str(error) for error in errors])}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def shrink_to(folder: str | Path, model: nn.Module, plan: dict[str, list[int]]) -> None:
    """Give a newly built model the sizes of `plan`; its weights are loaded afterwards."""
    where, found = f"{folder}: {KEY} in config.json", find_units(model)
    counts: dict[str, int] = {}
    for unit_type in ("heads", "neurons"):
        layers = [units for units in found if units.unit_type == unit_type]
        if len(plan[unit_type]) != len(layers):
            raise ValueError(f"{where}: {unit_type} of {len(plan[unit_type])} layers, the model has {len(layers)}")
        for units, count in zip(layers, plan[unit_type], strict=True):
            if count > units.count:
                raise ValueError(f"{where}: {count} {unit_type} in {units.name}, which has {units.count}")
            if units.stack and counts.setdefault(units.stack, count) != count:
                raise ValueError(f"{where}: {count} and {counts[units.stack]} heads in {units.stack}: must be equal")
            units.select(torch.arange(count))

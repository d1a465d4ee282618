"""From zeros to a smaller model: heads and FFN neurons without effect are removed, and the result can be saved."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from mvp_lite.storage.checksums import add_checksum
from mvp_lite.structure.units import FAMILIES, Units, check_dense, find_units

__all__ = ["KEY", "WEIGHTS_KEY", "protect_saves", "shrink", "sizes"]

Model = TypeVar("Model", bound=nn.Module)

#: key of `config.json` that holds how many heads and neurons each block has, where the configuration cannot say it
KEY = "mvp_lite_units"
#: transformers' key for the name of the weights file. Stock `from_pretrained` fails to find that file, and says so
WEIGHTS_KEY, NO_SUCH_FILE = "transformers_weights", "load_with_mvp_lite.load_shrunk.safetensors"


def shrink(model: Model, *, uniform: bool = False) -> Model:
    """A smaller dense copy of a pruned model, without the heads and FFN neurons whose outgoing weights are all 0.

    Its outputs equal those of `model` up to rounding. A layer keeps at least one head and one neuron. Where the
    family's configuration can state the sizes, because they are the same in all layers, `save_pretrained` writes a
    folder that stock `from_pretrained` reads. Otherwise the sizes are written into `config.json` for `load_shrunk`, and
    stock `from_pretrained` fails with an error that names it.

    T5 hands the bias of its first block's heads on to all blocks: a head of its self-attention is removed if it is
    pruned in every block of the encoder, or of the decoder, and all cross-attention layers keep equally many.

    Args:
        model: a transformers model of a family in `mvp_lite.structure.units.FAMILIES`, plain (that is, after
            `pruner.finalize()`).
        uniform: keep some pruned units where layers differ, so that stock `from_pretrained` reads the copy: each FFN
            has as many neurons as the one with most. Heads are removed from Llama, Mistral, Qwen2, ViT, T5 and MT5, as
            far as their configuration can state what is left; other families keep all.

    Raises:
        TypeError: no module.
        ValueError: a family whose heads and neurons are not known, or a model that `to_csr` made.
    """
    check_dense(model, "a transformers model", "shrink")
    small: Any = copy.deepcopy(model)
    found = find_units(small)
    for units, mask in zip(found, _kept(small.config, found, uniform), strict=True):
        units.select(mask.nonzero().reshape(-1))
    stated = _stock_sizes(small.config, find_units(small))
    if stated and _stock_builds(small, stated):
        for module in small.modules():
            if hasattr(module, "config"):
                _enter(module.config, stated)
    elif uniform:
        raise ValueError(
            f"uniform=True: {type(model).__name__} has layers of different sizes, {sizes(model)}: shrink the model "
            "that it was made from"
        )
    else:
        setattr(small.config, KEY, sizes(small))
    protect_saves(small)
    return cast(Model, small)


def sizes(model: nn.Module) -> dict[str, list[int]]:
    """Numbers of heads and of neurons of each block: {"heads": […], "neurons": […]}."""
    found: dict[str, list[int]] = {"heads": [], "neurons": []}
    for units in find_units(model):
        found[units.unit_type].append(units.count)
    return found


def protect_saves(model: Any) -> None:
    """Let the model's `save_pretrained`, and so `push_to_hub`, write checksums and the key that names the loader."""

    def save_pretrained(self: Any, save_directory: Any, is_main_process: bool = True, **options: Any) -> Any:
        result = type(self).save_pretrained(self, save_directory, is_main_process, **options)
        if is_main_process:
            _protect(Path(save_directory), options.get("variant"), hasattr(self.config, KEY))
        return result

    model.save_pretrained = MethodType(save_pretrained, model)


def _protect(folder: Path, variant: str | None, needs_loader: bool) -> None:
    name = re.escape(f"model.{variant}" if variant else "model")
    for file in folder.iterdir():
        if re.fullmatch(rf"{name}(-\d+-of-\d+)?\.safetensors", file.name):
            add_checksum(file)
    path = folder / "config.json"
    if needs_loader and path.is_file():
        config = {**json.loads(path.read_text(encoding="utf-8")), WEIGHTS_KEY: NO_SUCH_FILE}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _kept(config: Any, found: Sequence[Units], uniform: bool) -> list[Tensor]:
    """(count,) boolean for each layer: the units that are alive, and those that have to stay with them."""
    kept = [units.alive() for units in found]
    for stack in {units.stack for units in found if units.in_step}:
        members = [n for n, units in enumerate(found) if units.stack == stack]
        union = torch.stack([kept[n].cpu() for n in members]).any(dim=0)
        for n in members:
            kept[n] = union.to(kept[n].device)
    peers = [units.unit_type if uniform else units.stack or f"{units.name} {units.unit_type}" for units in found]
    least = dict.fromkeys(peers, 1)
    for name, mask in zip(peers, kept, strict=True):
        least[name] = max(least[name], int(mask.sum()))
    if uniform and "heads" in least:
        least["heads"] = _heads_that_stock_reads(config, [u for u in found if u.unit_type == "heads"], least["heads"])
    return [_with_pruned(mask, least[name]) for name, mask in zip(peers, kept, strict=True)]


def _with_pruned(alive: Tensor, least: int) -> Tensor:
    """At least so many units stay: those that are alive, then the first of the others."""
    order = alive.logical_not().to(torch.uint8).argsort(stable=True)
    return torch.zeros_like(alive).index_fill_(0, order[: max(least, int(alive.sum()))], True)


def _heads_that_stock_reads(config: Any, layers: Sequence[Units], least: int) -> int:
    """The smallest number of heads, from `least` on, that the model's configuration accepts."""
    most = max(units.count for units in layers)
    if not FAMILIES[config.model_type].heads:
        return most
    for count in range(least, most):
        if _accepted(config, _heads_in_config(config, layers[0], count)) is not None:
            return count
    return most


def _stock_sizes(config: Any, found: Sequence[Units]) -> dict[str, int]:
    """What the configuration has to say for stock transformers to build these sizes; nothing if they differ."""
    by_type = {name: [units for units in found if units.unit_type == name] for name in ("heads", "neurons")}
    if any(len({units.count for units in layers}) > 1 for layers in by_type.values()):
        return {}
    heads = by_type["heads"][0]
    stated = _heads_in_config(config, heads, heads.count)
    return {**stated, FAMILIES[config.model_type].neurons: by_type["neurons"][0].count}


def _heads_in_config(config: Any, units: Units, count: int) -> dict[str, int]:
    """The entries of the configuration that say how many heads there are, where they change."""
    name = FAMILIES[config.model_type].heads
    shared = getattr(units.owner, "num_key_value_groups", 1)
    if not name or getattr(config, name) == count * shared:
        return {}
    keys = {"num_key_value_heads": count} if hasattr(config, "num_key_value_heads") else {}
    return {name: count * shared, "head_dim": units.columns.size // shared, **keys}


def _accepted(config: Any, entries: dict[str, int]) -> Any:
    """A copy of the configuration with these entries, as it would be read from its file; None if it is refused."""
    from huggingface_hub.errors import StrictDataclassError

    new = copy.deepcopy(config)
    try:
        _enter(new, entries)
        return type(new).from_dict(new.to_dict())
    except (StrictDataclassError, TypeError, ValueError):
        return None


def _enter(config: Any, entries: dict[str, int]) -> None:
    for name, value in entries.items():
        setattr(config, name, value)
    if hasattr(config, KEY):
        delattr(config, KEY)


def _stock_builds(model: Any, entries: dict[str, int]) -> bool:
    """Do stock classes, from the model's configuration with these entries, build what the model is?"""
    config = _accepted(model.config, entries)
    if config is None:
        return False
    with torch.device("meta"):
        built = type(model)(config)
    shapes, expected = ({name: x.shape for name, x in m.state_dict().items()} for m in (built, model))
    return shapes == expected and sizes(built) == sizes(model)

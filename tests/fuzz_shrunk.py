"""Damage folders of shrunk models, at random and on purpose: each must be refused in words, or loaded right.

`python tests/fuzz_shrunk.py 1000` prints how often each of the two happened, for each way; tests/test_robustness.py
runs some of them. Two folders are for `load_shrunk`; the third, whose layers are equal, for `load_model`. "Forged"
damage has right checksums, as from someone who means harm.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from fuzzing import ODD, change_bytes, command, fuzz, shorten
from safetensors.torch import load_file, save_file
from test_shrunk_files import pruned

import mvp_lite as mvp
from mvp_lite.storage.checksums import add_checksum
from mvp_lite.structure.shrinking import KEY

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Payload:
    """Unpickled, it leaves a file beside the folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def header(folder: Path) -> tuple[dict[str, Any], bytes]:
    data = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(folder: Path, head: Any, body: bytes, forge: bool) -> None:
    text = json.dumps(head).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + body)
    if forge:
        try:
            add_checksum(folder / WEIGHTS)
        except (ValueError, OSError, TypeError):
            pass


# --- ways to damage ------------------------------------------------------------------------------------------------


def flip_bytes(folder: Path, rng: random.Random) -> None:
    change_bytes(folder / WEIGHTS, rng)


def flip_bytes_of_the_configuration(folder: Path, rng: random.Random) -> None:
    change_bytes(folder / CONFIG, rng)


def truncate(folder: Path, rng: random.Random) -> None:
    shorten(folder / rng.choice([WEIGHTS, WEIGHTS, CONFIG]), rng)


def change_the_configuration(folder: Path, rng: random.Random) -> None:
    """One odd value at any place, a huge one, or none."""
    path = folder / CONFIG
    config = json.loads(path.read_text())
    inner = [config, *(value for value in config.values() if isinstance(value, dict) and value)]
    at = rng.choice([config, config, *inner])
    key = rng.choice([*at, "x", "auto_map", "quantization_config", "num_labels", "transformers_weights", "adapter"])
    if rng.random() < 0.15:
        at.pop(key, None)
    else:
        huge = [2**12, 10**5, 2**30, 10**9, 10**12]
        at[key] = rng.choice([*ODD, *huge, ["GPT2Model"], ["os"], {"AutoConfig": "x.Y"}, json.loads(path.read_text())])
    path.write_text(json.dumps(rng.choice(ODD) if rng.random() < 0.03 else config))


def ask_for_all_memory(folder: Path, rng: random.Random) -> None:
    """Sizes that no file of weights has stated."""
    path = folder / CONFIG
    config = json.loads(path.read_text())
    sizes = [key for key, value in config.items() if type(value) is int and value > 0]
    for key in rng.sample(sizes, rng.randint(1, min(4, len(sizes)))):
        config[key] = config[key] * rng.choice([2**8, 2**12, 2**20, 2**31])
    path.write_text(json.dumps(config))


def change_the_plan(folder: Path, rng: random.Random) -> None:
    """The numbers of heads and neurons; where there are none, some are added."""
    path = folder / CONFIG
    config = json.loads(path.read_text())
    plan = config.setdefault(KEY, {"heads": [1, 2, 3], "neurons": [5, 5, 5]})
    way = rng.randrange(4)
    if way == 0:
        config[KEY] = rng.choice(ODD)
    elif way == 1:
        plan[rng.choice([*plan, "layers"])] = rng.choice([*ODD, [1] * 1000])
    else:
        counts = plan[rng.choice(sorted(plan))]
        counts[rng.randrange(len(counts))] = rng.choice([*ODD, 2, 3, 5, 9, 10**9])
    path.write_text(json.dumps(config))


def forge_tensors(folder: Path, rng: random.Random) -> None:
    """Missing, further, renamed, of another shape or type; the checksum is right, or there is none."""
    tensors = load_file(folder / WEIGHTS)
    name = rng.choice(sorted(tensors))
    x = tensors[name]
    way = rng.randrange(6)
    if way == 0:
        del tensors[name]
    elif way == 1:
        tensors[rng.choice(["x", "../../x", "/etc/passwd", name + ".x", "__class__"])] = torch.ones(2)
    elif way == 2:
        tensors[rng.choice(["../" + name, name[1:], name + "\0"])] = tensors.pop(name)
    elif way == 3:
        tensors[name] = rng.choice([x[:-1].clone(), torch.cat([x, x[:1]]), x.reshape(1, -1), x.reshape(-1)[:0].clone()])
        if tensors[name].shape == x.shape:
            del tensors[name]
    elif way == 4:
        other = rng.choice(sorted(tensors))
        tensors[name], tensors[other] = tensors[other], x
        if tensors[name].shape == x.shape:  # another model that is whole
            del tensors[name]
    else:
        tensors[name] = x.to(rng.choice([torch.int64, torch.bool, torch.uint8])).contiguous()
        if bool((tensors[name].to(x.dtype) == x).all()) or not x.is_floating_point():
            del tensors[name]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    if rng.random() < 0.5:
        add_checksum(folder / WEIGHTS)


def forge_the_header(folder: Path, rng: random.Random) -> None:
    """One odd value at any place of the header, or places of tensors that overlap or lie outside."""
    head, body = header(folder)
    name = rng.choice(sorted(head))
    entry = head[name]
    way = rng.randrange(5)
    if way == 0:
        head[name] = rng.choice(ODD)
    elif name == "__metadata__":
        entry[rng.choice([*entry, "x"])] = rng.choice([1, None, [], {}, "x"])
    elif way == 1:
        entry["data_offsets"] = rng.choice([[0, 4], [2**62, 2**63], [-4, 0], [8, 4], [0, len(body) + 4], [1.5, 2], "x"])
    elif way == 2:
        entry["shape"] = rng.choice([[2**62], [-1, -1], [*entry["shape"], 1, 2], [1.5], "x", [2**31, 2**31, 2**31]])
    elif way == 3:
        entry["dtype"] = rng.choice(["F64", "BF16", "I32", "BOOL", "Q7", "", 1])
    else:
        entry[rng.choice([*entry, "x"])] = rng.choice(ODD)
    write(folder, head, body, forge=rng.random() < 0.5)


def put_a_pickle(folder: Path, rng: random.Random) -> None:
    """In place of the weights, or beside them, under each name that a loader may know."""
    payload = Payload(folder.parent / "ran")
    name = rng.choice([WEIGHTS, WEIGHTS, "pytorch_model.bin", "adapter_model.bin", "training_args.bin", "model.pt"])
    if rng.random() < 0.5:
        (folder / name).write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, folder / name)
    if name == "pytorch_model.bin" and rng.random() < 0.7:
        (folder / WEIGHTS).unlink()
    if name.startswith("adapter"):
        adapter = {"peft_type": "LORA", "base_model_name_or_path": rng.choice([str(folder), "../../x"]), "r": 1}
        (folder / "adapter_config.json").write_text(json.dumps(adapter))


def put_code(folder: Path, rng: random.Random) -> None:
    """Modules of Python, and entries that name them."""
    code = f"import os\nos.mkdir({str(folder.parent / 'ran')!r})\n"
    names = ["code", "modeling_bert", "configuration_bert", "x", "sitecustomize"]
    for name in names:
        (folder / f"{name}.py").write_text(code)
    config = json.loads((folder / CONFIG).read_text())
    module = rng.choice(names)
    autos = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    config["auto_map"] = dict.fromkeys(autos, f"{module}.Model")
    if rng.random() < 0.5:
        config["model_type"] = "of-the-folder"
    if rng.random() < 0.3:
        config["architectures"] = ["Model"]
    if rng.random() < 0.3:
        config["custom_pipelines"] = {"x": {"impl": f"{module}.Model"}}
    (folder / CONFIG).write_text(json.dumps(config))


def swap_files(folder: Path, rng: random.Random) -> None:
    """Other files under the names of these, folders and links in their place."""
    name = rng.choice([WEIGHTS, CONFIG])
    path, other = folder / name, folder / {WEIGHTS: CONFIG, CONFIG: WEIGHTS}[name]
    way = rng.randrange(6)
    if way == 0:
        shutil.copy(other, path)
    else:
        path.unlink()
    if way == 1:
        path.mkdir()
    elif way == 2:
        path.symlink_to(path)
    elif way == 3:
        path.symlink_to(folder / "nowhere")
    elif way == 4:
        path.symlink_to("/dev/zero" if rng.random() < 0.5 else "/dev/null")


def forge_the_index(folder: Path, rng: random.Random) -> None:
    """Weights in several files whose index says odd things, such as names outside of the folder."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / part, metadata={"format": "pt"})
    places: dict[str, Any] = {name: part for part, held in parts.items() for name in held}
    outside = folder.parent / "outside.safetensors"
    shutil.copy(folder / "model-1.safetensors", outside)
    name = rng.choice(names)
    way = rng.randrange(6)
    if way < 2:
        elsewhere = ["../outside.safetensors", str(outside)][way]
        places = {key: elsewhere if value == "model-1.safetensors" else value for key, value in places.items()}
    elif way == 2:
        places[name] = rng.choice([*ODD, "model-3.safetensors", "/etc/passwd", "model-1.bin"])
    elif way == 3:
        del places[name]
    elif way == 4:
        places[rng.choice(["x", "../../x"])] = "model-1.safetensors"
    index = {"metadata": {"total_size": 2**62}, "weight_map": rng.choice(ODD) if way == 5 else places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(rng.choice(ODD) if rng.random() < 0.1 else index))


WAYS = (
    flip_bytes, flip_bytes_of_the_configuration, truncate, change_the_configuration, ask_for_all_memory,
    change_the_plan, forge_tensors, forge_the_header, put_a_pickle, put_code, swap_files, forge_the_index,
)  # fmt: skip


# --- the program ---------------------------------------------------------------------------------------------------


def run_all(count: int, seed: int, folder: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    hf.utils.logging.set_verbosity_error()
    task = mvp.load_task("toy/inference", limit=8)
    models = [mvp.shrink(pruned("bert", heads=(2, 1, 3)).float()), mvp.shrink(pruned("gpt2", heads=(2, 1, 3)).float())]
    models.append(mvp.shrink(pruned("bert", heads=(4,), neurons=(6,), num_labels=3).float()))
    intact = [folder / f"intact {n}" for n in range(len(models))]
    expected = []
    for path, model in zip(intact, models, strict=True):
        model.save_pretrained(path)
        expected.append(model.state_dict())

    def read(damaged: Path, which: int) -> bool:
        if which < 2:
            found, names = mvp.load_shrunk(damaged).state_dict(), list(expected[which])
            if found.keys() != expected[which].keys():
                return False
        else:  # load_model makes a head of its own where there is none
            found = mvp.load_model(damaged, task).state_dict()
            names = [name for name in expected[which] if name.startswith("bert.") and "pooler" not in name]
        return all(
            name in found and found[name].shape == expected[which][name].shape
            and bool((found[name] == expected[which][name]).all()) for name in names
        )  # fmt: skip

    return fuzz(count, seed, folder, intact, WAYS, read, lambda damaged, message: str(damaged) in message)


if __name__ == "__main__":
    command(run_all, 1000, __doc__)

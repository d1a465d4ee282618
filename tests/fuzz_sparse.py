"""Damage files of `save_sparse` in many ways: each must be refused in words, or read right.

`python tests/fuzz_sparse.py 10000 --seed 1` prints how often each of the two happened, for each way;
tests/test_sparse.py runs a few hundred. "Forged" damage has right checksums, as from someone who means harm.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from fuzzing import ODD, change_bytes, command, fuzz, shorten

import mvp_lite as mvp
from mvp_lite.storage.index import FILE, json_checksum
from mvp_lite.storage.positions import encode

Parts = dict[str, tuple[str, list[int], bytes]]


def read_parts(path: Path) -> tuple[Parts, dict[str, Any]]:
    """Type, shape and bytes of everything in a file, and its index."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    index = json.loads(header.pop("__metadata__")["index"])
    body = data[8 + length :]
    return {n: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for n, t in header.items()}, index


def write_parts(folder: Path, parts: Parts, index: Any, forge: bool = True) -> None:
    """Write a file, with right checksums if `forge`; nothing is checked."""
    if forge and isinstance(index, dict):
        for name, entry in index["tensors"].items() if isinstance(index.get("tensors"), dict) else ():
            if isinstance(entry, dict):
                entry["crc32"] = 0
                for part in ("positions", "scales", "values"):
                    entry["crc32"] = zlib.crc32(parts.get(f"{name}/{part}", ("", [], b""))[2], entry["crc32"])
        config = folder / "config.json"
        if isinstance(index.get("files"), dict) and "config.json" in index["files"] and config.is_file():
            index["files"]["config.json"] = json_checksum(json.loads(config.read_text()))
    text = json.dumps(index)
    header: dict[str, Any] = {"__metadata__": {"format": "mvp_lite sparse 1", "index": text}}
    header["__metadata__"]["crc32"] = str(zlib.crc32(text.encode()))
    at = 0
    for name, (dtype, shape, data) in parts.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at := at + len(data)]}
    head = json.dumps(header).encode()
    (folder / FILE).write_bytes(struct.pack("<Q", len(head)) + head + b"".join(data for _, _, data in parts.values()))


# --- ways to damage -----------------------------------------------------------------------------------------------


def flip_bytes(folder: Path, rng: random.Random) -> None:
    change_bytes(folder / FILE, rng)


def flip_bytes_of_the_configuration(folder: Path, rng: random.Random) -> None:
    change_bytes(folder / "config.json", rng)


def truncate(folder: Path, rng: random.Random) -> None:
    shorten(folder / rng.choice([FILE, FILE, "config.json"]), rng)


def extend(folder: Path, rng: random.Random) -> None:
    path = folder / FILE
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def overwrite(folder: Path, rng: random.Random) -> None:
    data = bytearray((folder / FILE).read_bytes())
    at, length = rng.randrange(len(data)), rng.randrange(1, 1000)
    data[at : at + length] = bytes(len(data[at : at + length]))
    (folder / FILE).write_bytes(data)


def swap_tensors(folder: Path, rng: random.Random) -> None:
    parts, index = read_parts(folder / FILE)
    a, b = rng.sample(sorted(parts), 2)
    parts[a], parts[b] = parts[b], parts[a]
    write_parts(folder, parts, index, forge=False)


def change_the_tensors(folder: Path, rng: random.Random, forge: bool = False) -> None:
    """Remove, add or rename one, or change its type or shape."""
    parts, index = read_parts(folder / FILE)
    name = rng.choice(sorted(parts))
    dtype, shape, data = parts[name]
    way = rng.randrange(5)
    if way == 0:
        del parts[name]
    elif way == 1:
        parts[rng.choice(["x/values", "../../x/values", "/etc/passwd", "__metadata__ ", "x", name + "/values"])] = (
            parts[name]
        )
    elif way == 2:
        parts[rng.choice(["../" + name, name[1:], name + "\0"])] = parts.pop(name)
    elif way == 3:
        parts[name] = (rng.choice(["F64", "F32", "BF16", "I32", "U8", "BOOL", "I64", "Q7"]), shape, data)
    else:
        parts[name] = (dtype, rng.choice([[*shape, 1], [2**62], [-1, -1], [*shape[::-1], 2], [0], []]), data)
    write_parts(folder, parts, index, forge)


def forge_the_tensors(folder: Path, rng: random.Random) -> None:
    change_the_tensors(folder, rng, forge=True)


def forge_positions(folder: Path, rng: random.Random) -> None:
    """Noise, bombs, gaps past the end, too few and too many positions."""
    parts, index = read_parts(folder / FILE)
    name = rng.choice([name for name in sorted(parts) if name.endswith("/positions")])
    entry = index["tensors"][name.rpartition("/")[0]]
    size = torch.Size(entry["shape"]).numel()
    found = sorted(rng.sample(range(size), entry["kept"]))

    def deflate(code: bytes) -> bytes:
        coder = zlib.compressobj(9, zlib.DEFLATED, -15)
        return coder.compress(code) + coder.flush()

    def coded(*positions: int) -> bytes:
        return encode(np.array(positions, dtype=np.int64))

    data = [
        lambda: rng.randbytes(rng.randrange(200)),
        lambda: deflate(bytes([rng.choice([0, 1, 254, 255])]) * rng.choice([1, 10**5, 10**8])),
        lambda: coded(*found[:-1], rng.choice([size, size + 7, 2**30])),
        lambda: coded(*found[:-1]),
        lambda: coded(*found, size),
        lambda: parts[name][2][: -rng.randrange(1, 5)],
        lambda: parts[name][2] + rng.randbytes(rng.randrange(1, 5)),
    ][rng.randrange(7)]()
    parts[name] = ("U8", [len(data)], data)
    write_parts(folder, parts, index)


def forge_the_index(folder: Path, rng: random.Random) -> None:
    """One odd value at any place of the index."""
    parts, index = read_parts(folder / FILE)
    entry = index["tensors"][rng.choice(sorted(index["tensors"]))]
    at: Any = rng.choice([entry, entry, entry, index, index["tensors"], index["ties"], index["files"]])
    key = rng.choice([*at, "x", "../../x", "__class__"]) if at is not entry else rng.choice(sorted(entry))
    if rng.random() < 0.2:
        at.pop(key, None)
    elif key == "shape":
        i, old = rng.randrange(len(entry["shape"]) or 1), entry["shape"]
        entry["shape"] = rng.choice([[*old[:i], rng.choice(ODD), *old[i + 1 :]], [*old[::-1], 2], rng.choice(ODD)])
    else:
        # another floating-point type of the tensor would make another file that is whole
        at[key] = rng.choice([*ODD, "int8", *(() if key == "dtype" else ("float16", "bfloat16")), dict(entry)])
    write_parts(folder, parts, rng.choice(ODD) if rng.random() < 0.05 else index)


def forge_the_configuration(folder: Path, rng: random.Random) -> None:
    """Other classes and sizes, code of the folder, odd values."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    key = rng.choice([*config, "architectures", "auto_map", "mvp_lite_units", "num_labels", "quantization_config"])
    config[key] = rng.choice([*ODD, ["GPT2Model"], ["os"], {"AutoConfig": "x.Y"}, 10**9, 4096, 10**12])
    path.write_text(json.dumps(config))
    parts, index = read_parts(folder / FILE)
    write_parts(folder, parts, index)


def repeat_names(folder: Path, rng: random.Random) -> None:
    """The same key twice in the header, or in its metadata."""
    data = (folder / FILE).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head, body = data[8 : 8 + length].decode().rstrip(), data[8 + length :]
    parts, _ = read_parts(folder / FILE)
    name = rng.choice(sorted(parts))
    entry = rng.choice(
        ['{"dtype":"U8","shape":[1],"data_offsets":[0,1]}', '{"dtype":"F32","shape":[],"data_offsets":[4,8]}']
    )
    further = rng.choice([f'"{name}":{entry}', '"__metadata__":{}', '"__metadata__":{"format":"mvp_lite sparse 1"}'])
    head = "{" + further + "," + head[1:] if rng.random() < 0.5 else head[:-1] + "," + further + "}"
    (folder / FILE).write_bytes(struct.pack("<Q", len(head.encode())) + head.encode() + body)


WAYS = (
    flip_bytes, flip_bytes_of_the_configuration, truncate, extend, overwrite, swap_tensors, change_the_tensors,
    forge_the_tensors, forge_positions, forge_the_index, forge_the_configuration, repeat_names,
)  # fmt: skip


# --- the test -----------------------------------------------------------------------------------------------------


def models() -> dict[str, Any]:
    """Values as stored -> a tiny pruned model; the second one has tied embeddings."""
    torch.manual_seed(0)
    bert = hf.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8,
    )  # fmt: skip
    gpt2 = hf.GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=8, bos_token_id=1, eos_token_id=2)
    found = {"exact": hf.BertForSequenceClassification(bert), "int8": hf.GPT2LMHeadModel(gpt2)}
    for model in found.values():
        for p in model.parameters():
            if p.ndim == 2:
                p.data *= torch.rand_like(p) < 0.1
    return found


def state(model: Any) -> dict[str, bytes]:
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {n: str(x.dtype).encode() + x.detach().reshape(-1).view(torch.uint8).numpy().tobytes() for n, x in named}


def run_all(count: int, seed: int, folder: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """Damage `count` files. Returns for each way how many were refused and read, and what went wrong."""
    hf.utils.logging.set_verbosity_error()
    intact, expected = [], []
    for values, model in models().items():
        intact.append(folder / values)
        mvp.save_sparse(model, intact[-1], values)
        expected.append(state(mvp.load_sparse(intact[-1])))

    def read(damaged: Path, which: int) -> bool:
        return state(mvp.load_sparse(damaged)) == expected[which]

    def named(damaged: Path, message: str) -> bool:
        files = (FILE, "config.json", "generation_config.json")
        return any(str(damaged / name) in message for name in files) and len(message) > len(str(damaged)) + 30

    return fuzz(count, seed, folder, intact, WAYS, read, named)


if __name__ == "__main__":
    command(run_all, 10_000, __doc__)

"""`save_sparse` and `load_sparse`: equal bits, small files, and what is refused."""

import copy
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf
from fuzz_sparse import read_parts, write_parts
from nets import Net
from pages import ROOT, said, table, text
from test_shrink import COMMON, FAMILIES, make
from torch import nn

import mvp_lite as mvp
from mvp_lite.paths import data_path
from mvp_lite.storage.index import FILE
from mvp_lite.storage.positions import decode, encode
from mvp_lite.structure.units import find_units


def bits(x):
    """As integers, so that NaN equals itself; both zeros are 0."""
    x = x.detach().reshape(-1)
    found = x.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
    return torch.where(x.float() == 0, 0, found)


def same_tensors(a, b):
    a, b = (
        dict([*m.named_parameters(remove_duplicate=False), *m.named_buffers(remove_duplicate=False)]) for m in (a, b)
    )
    same = [a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and torch.equal(bits(a[n]), bits(b[n])) for n in a]
    return (
        a.keys() == b.keys()
        and all(same)
        and {n: p.requires_grad for n, p in a.items()} == {n: p.requires_grad for n, p in b.items()}
    )


def prune(model, density, seed=0, target=lambda name: True):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and target(name):
                p *= (torch.rand(p.shape, generator=generator) < density).to(p.dtype)
    return model


def code_bytes(n, k):
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2) / 8


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 511, 1000, 70_000])
def test_positions_are_coded_and_decoded(size):
    rng = np.random.default_rng(size)
    for density in (0, 1e-3, 0.03, 0.5, 1):
        positions = np.flatnonzero(rng.random(size) < density)
        assert np.array_equal(decode(encode(positions), len(positions), size), positions)
    for position in range(max(0, size - 2), size):
        assert decode(encode(np.array([position])), 1, size).tolist() == [position]
    with pytest.raises(ValueError, match="position"):
        decode(encode(np.array([size])), 1, size)


@pytest.mark.parametrize("density", [0.03, 0.1])
def test_positions_take_as_few_bytes_as_they_can(density):
    mask = np.random.default_rng(0).random(1_000_000) < density
    code, least = encode(np.flatnonzero(mask)), code_bytes(mask.size, int(mask.sum()))
    assert least <= len(code) + 100 and len(code) < 1.02 * least


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back(family, tmp_path):
    model = prune(make(family).float(), 0.1)
    mvp.save_sparse(model, tmp_path)
    again = mvp.load_sparse(tmp_path)
    assert type(again) is type(model) and not again.training and again.dtype == torch.float32
    assert again.config.architectures == [type(model).__name__] and again.config.name_or_path == str(tmp_path)
    written, read = model.config.to_diff_dict(), again.config.to_diff_dict()
    assert same_tensors(model, again) and written == {name: read[name] for name in written}
    assert read.keys() - written.keys() <= {"architectures", "dtype"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types_stay(dtype, tmp_path):
    model = prune(make("bert").to(dtype), 0.1)
    for values in ("exact", "float16", "int8"):
        mvp.save_sparse(model, tmp_path, values)
        again = mvp.load_sparse(tmp_path)
        assert again.dtype == again.config.dtype == dtype
        assert same_tensors(model, again) == (values == "exact" or (values == "float16" and dtype != torch.float64))


def test_shrunk_models(tmp_path):
    model = make("llama").float()
    for n, units in enumerate(find_units(model)):
        units.columns.module.weight.data.index_fill_(1, units.columns.index(torch.tensor([n % 2]), units.count), 0.0)
    small = prune(mvp.shrink(model), 0.2, target=lambda name: "embed" not in name)
    mvp.save_sparse(small, tmp_path)
    again = mvp.load_sparse(tmp_path)
    assert type(again) is type(model) and same_tensors(small, again)
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in model.parameters())


class Odd(nn.Module):
    """Without configuration: ties, buffers of several types, a 0-d and empty tensors, and every bit pattern."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(40, 40)
        self.b = nn.Linear(40, 40, bias=False)
        self.b.weight = self.a.weight
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.empty = nn.Parameter(torch.empty(0, 7))
        self.none = nn.Parameter(torch.zeros(300, 9))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.transposed = nn.Parameter(torch.randn(20, 30).T)
        self.register_buffer("count", torch.tensor(5))
        self.register_buffer("mask", torch.ones(9, 9, dtype=torch.bool).tril(), persistent=False)
        self.register_buffer("nothing", None)


def test_odd_tensors(tmp_path):
    torch.manual_seed(0)
    model = prune(Odd(), 0.1)
    flat = model.a.weight.data.view(-1)
    flat.view(torch.int32)[:4] = torch.tensor([0x7FC12345, -0x80000000, 1, 0x7F800000])  # NaN, -0.0, 1e-45, inf
    mvp.save_sparse(model, tmp_path)
    again = Odd()
    before = dict(again.named_parameters())
    assert mvp.load_sparse(tmp_path, model=again) is again and again.training
    assert same_tensors(model, again) and again.b.weight is again.a.weight is before["a.weight"]
    parts, _ = read_parts(tmp_path / FILE)
    assert "b.weight/values" not in parts and "none/positions" in parts and "count/positions" not in parts
    assert all(f"{name}/positions" in parts for name in ("a.weight", "mask")) == ("a.weight/positions" in parts)
    with pytest.raises(ValueError, match=r"without config\.json: build it, and pass model="):
        mvp.load_sparse(tmp_path)


@pytest.mark.parametrize("model_class", [hf.GPT2LMHeadModel, hf.T5ForConditionalGeneration])
def test_tied_embeddings(model_class, tmp_path):
    config = hf.GPT2Config(vocab_size=50, n_embd=24, n_layer=1, n_head=4, bos_token_id=1, eos_token_id=2)
    if model_class is hf.T5ForConditionalGeneration:
        config = hf.T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    model = prune(model_class(config), 0.1)
    model.generation_config.max_new_tokens = 7
    mvp.save_sparse(model, tmp_path)
    again = mvp.load_sparse(tmp_path)
    assert same_tensors(model, again) and again.generation_config.max_new_tokens == 7
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    untied = copy.deepcopy(model)
    untied.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    mvp.save_sparse(untied, tmp_path)
    assert same_tensors(untied, mvp.load_sparse(tmp_path))
    with pytest.raises(ValueError, match=r"lm_head\.weight and .* are one tensor in the model, and two in the file"):
        mvp.load_sparse(tmp_path, model=model_class(config))


@pytest.mark.parametrize("density", [0.03, 0.1])
def test_files_are_small(density, tmp_path):
    torch.manual_seed(0)
    model = prune(nn.Sequential(nn.Linear(512, 512, bias=False), nn.Linear(512, 512, bias=False)), density)
    kept = [int(p.count_nonzero()) for p in model.parameters()]
    for values, width in (("exact", 4), ("float16", 2), ("int8", 1)):
        mvp.save_sparse(model, tmp_path, values)
        parts, _ = read_parts(tmp_path / FILE)
        stored = sum(len(data) for _, _, data in parts.values())
        least = sum(code_bytes(512 * 512, k) + width * k for k in kept)
        assert least * 0.99 < stored < 1.05 * least
        assert (tmp_path / FILE).stat().st_size < stored + 2000


def test_rounded_values(tmp_path):
    torch.manual_seed(0)
    model = prune(Net(), 0.3, target=lambda name: "blocks" in name)
    model.blocks[0].weight.data[2] = 0.0
    for values, step in (("float16", 2.0**-11), ("int8", 1 / 254)):
        mvp.save_sparse(model, tmp_path, values)
        again = mvp.load_sparse(tmp_path, model=Net(seed=1))
        for (name, p), q in zip(model.named_parameters(), again.parameters(), strict=True):
            if p.ndim < 2:
                assert torch.equal(p, q)
                continue
            largest = p.abs().amax(1, keepdim=True) if p.count_nonzero() == p.numel() else p.abs().amax()
            bound = p.abs() * step if values == "float16" else largest * step
            assert not torch.equal(p, q) and bool(((p - q).abs() <= bound * 1.001 + 1e-7).all()), name
            assert not bool(q[p == 0].any())
    model.blocks[0].weight.data[1, 1] = 1e5  # beyond float16
    model.blocks[1].weight.data[1, 1] = torch.inf
    for values, exact in (("float16", (0, 1)), ("int8", (1,))):
        mvp.save_sparse(model, tmp_path, values)
        again = mvp.load_sparse(tmp_path, model=Net(seed=1))
        same = [torch.equal(a.weight, b.weight) for a, b in zip(model.blocks, again.blocks, strict=True)]
        assert same == [n in exact for n in (0, 1)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matrices_that_lose_nothing_in_16_bits(dtype, tmp_path):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)]).to(dtype).float()
    model[0].weight.data[0, 0] = 1e30 if dtype == torch.bfloat16 else 1025.0
    model[0].weight.data.copy_(model[0].weight.data.to(dtype))
    model[1].weight.data[0, 0] = 0.1
    mvp.save_sparse(model, tmp_path)
    parts, _ = read_parts(tmp_path / FILE)
    assert {parts[f"{n}.weight/values"][0] for n in (0, 1)} == {"F16" if dtype == torch.float16 else "BF16", "F32"}
    again = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)])
    assert same_tensors(model, mvp.load_sparse(tmp_path, model=again))


def test_a_pruned_model_with_its_tokenizer(tmp_path):
    task = mvp.load_task("toy/inference", limit=200)
    model = mvp.load_model("toy", task)
    tokenizer = mvp.tokenizer_for(model)
    result = mvp.fine_prune(model, task, density=0.03, steps=20, batch_size=8, lr=1e-4, device="cpu", progress=False)
    mvp.save_sparse(result.model, tmp_path / "sparse", tokenizer=tokenizer)
    again = mvp.load_sparse(str(tmp_path / "sparse"))
    assert same_tensors(model, again)
    assert task.encode(mvp.tokenizer_for(again)).evaluate(again, "validation", device="cpu") == result.metrics
    again.save_pretrained(tmp_path / "dense")
    assert same_tensors(type(model).from_pretrained(tmp_path / "dense"), again)
    again.train()
    batch = next(task.encode(tokenizer).batches("train", 8, seed=0, steps=1))
    again(**batch).loss.backward()
    assert all(p.grad is not None for p in again.parameters())


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"values='int4': must be one of exact, float16, int8"):
        mvp.save_sparse(Net(), tmp_path, "int4")
    with pytest.raises(ValueError, match=r"model: weight is of type .* on meta and cannot be stored"):
        mvp.save_sparse(nn.Linear(2, 2, device="meta"), tmp_path)
    with pytest.raises(ValueError, match=r"model: weight is of type torch\.complex64"):
        mvp.save_sparse(nn.Linear(2, 2, dtype=torch.complex64), tmp_path)
    csr = mvp.to_csr(prune(hf.BertModel(hf.BertConfig(**COMMON)), 0.1))
    with pytest.raises(ValueError, match=r"model=BertModel: .* converted by to_csr: save the model that it was made"):
        mvp.save_sparse(csr, tmp_path)
    with pytest.raises(TypeError, match="model=dict: must be a module"):
        mvp.save_sparse({}, tmp_path)
    with pytest.raises(TypeError, match="model=str: must be a module to fill, or None"):
        mvp.load_sparse(tmp_path, model="bert")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match=r"has no sparse\.safetensors"):
        mvp.load_sparse(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        mvp.load_sparse(tmp_path / "nowhere")


def test_folders_of_others_are_left_alone(tmp_path):
    dense, data, file = tmp_path / "dense", tmp_path / "data", tmp_path / "file"
    hf.BertModel(hf.BertConfig(**COMMON)).save_pretrained(dense)
    data.mkdir()
    (data / "train.csv").write_text("a")
    file.write_text("b")
    before = (dense / "config.json").read_bytes()
    for folder, named in ((dense, r"\(config\.json, model\.safetensors\)"), (data, "train.csv"), (file, "is a file")):
        with pytest.raises(FileExistsError, match=named):
            mvp.save_sparse(Net(), folder)
    assert (dense / "config.json").read_bytes() == before and len(list(dense.iterdir())) == 2
    mvp.save_sparse(Net(), data, overwrite=True)
    mvp.save_sparse(Net(), data, "int8")  # an earlier save of its own
    assert [path.name for path in data.iterdir()] == [FILE]
    (data / "model.safetensors").write_text("c")
    with pytest.raises(FileExistsError, match=r"\(model\.safetensors\)"):
        mvp.save_sparse(Net(), data)


def test_a_folder_without_its_configuration(toy, tmp_path):
    (toy / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json: restore it, or .* pass model="):
        mvp.load_sparse(toy)
    mvp.save_sparse(Net(), tmp_path / "net")
    with pytest.raises(ValueError, match=r"without config\.json: build it, and pass model="):
        mvp.load_sparse(tmp_path / "net")


def test_models_that_do_not_fit(tmp_path):
    mvp.save_sparse(Net(), tmp_path)
    wider, other, fewer, double = Net(), Net(), Net(), Net(dtype=torch.float64)
    del fewer.head
    wider.head = nn.Linear(12, 4)
    other.tail = nn.Linear(2, 2)
    for model, problem in (
        (wider, r"head\.\w+ has shape \(3,( 12)?\), in the model \(4"),
        (other, r"lacks, of its model, the tensor 'tail.bias' and 1 more"),
        (fewer, r"has, not in its model, the tensor"),
        (double, r"is of type float32, in the model of torch\.float64"),
    ):
        before = copy.deepcopy(model)
        with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / FILE))}.*{problem}"):
            mvp.load_sparse(tmp_path, model=model)
        assert same_tensors(before, model)


@pytest.fixture
def toy(tmp_path):
    config = hf.BertConfig(**COMMON)
    mvp.save_sparse(prune(hf.BertForSequenceClassification(config), 0.1), tmp_path)
    return tmp_path


def rewrite(folder, change_config=None, change_index=None):
    """Edit config.json and the index, with right checksums: what someone does who means harm."""
    parts, index = read_parts(folder / FILE)
    config = json.loads((folder / "config.json").read_text())
    if change_config:
        change_config(config)
        (folder / "config.json").write_text(json.dumps(config))
    if change_index:
        change_index(index)
    write_parts(folder, parts, index)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("num_hidden_layers", 10**9, "num_hidden_layers=1000000000 is too large"),
        ("num_hidden_layers", 900, "many more than the"),
        ("num_labels", 10**9, "num_labels=1000000000 is too large"),
        ("vocab_size", 10**12, "vocab_size=1000000000000 is too large"),
        ("vocab_size", 10**9, "parameters, the file "),
        ("vocab_size", 999, "word_embeddings.weight has shape"),
        ("hidden_size", -24, "no BertForSequenceClassification can be built"),
        ("hidden_act", "no such", "no BertForSequenceClassification can be built"),
        ("architectures", ["pipeline"], "is not a model of transformers"),
        ("architectures", ["GPT2Model"], "model_type='bert' does not belong to GPT2Model"),
        ("architectures", None, "is not a model of transformers"),
        ("mvp_lite_units", {"heads": [9], "neurons": []}, "can be built"),
    ],
)
def test_hostile_configurations(toy, key, value, problem):
    rewrite(toy, change_config=lambda config: config.update({key: value}))
    with pytest.raises(ValueError, match=problem):
        mvp.load_sparse(toy)


def test_no_code_of_the_folder_runs(toy, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    (toy / "evil.py").write_text("raise SystemExit('ran')")
    model = copy.deepcopy(mvp.load_sparse(toy))  # not mapped from the file
    names = {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M"}
    rewrite(toy, lambda c: c.update(auto_map=names, attn_implementation="someone/kernel", _attn_implementation="x/y"))
    assert same_tensors(mvp.load_sparse(toy), model)
    rewrite(toy, lambda c: c.update(architectures=["Unknown"]))
    with pytest.raises(ValueError, match="not a model of transformers"):
        mvp.load_sparse(toy)


def test_a_file_cannot_ask_for_all_memory(tmp_path):
    mvp.save_sparse(nn.Linear(1, 1), tmp_path)
    huge = nn.Linear(2**20, 2**15, device="meta")
    parts, index = read_parts(tmp_path / FILE)
    entry = {"shape": [2**15, 2**20], "dtype": "float32", "values": "float32", "kept": 0}
    index["tensors"]["weight"] = entry
    index["tensors"]["bias"] = entry | {"shape": [2**15]}
    parts = {f"{n}/{p}": (t, [0], b"") for n in ("weight", "bias") for p, t in (("positions", "U8"), ("values", "F32"))}
    write_parts(tmp_path, parts, index)
    with pytest.raises(ValueError, match=r"would need 137,\S+ bytes of memory, more than 1000 times its own size"):
        mvp.load_sparse(tmp_path, model=huge)


def test_a_configuration_that_was_edited(toy):
    text = (toy / "config.json").read_text()
    (toy / "config.json").write_text(text.replace("\n", "\r\n"))
    model = mvp.load_sparse(toy)
    (toy / "config.json").write_text(text.replace("1e-12", "1e-2"))
    with pytest.raises(ValueError, match=r"config\.json is not what save_sparse wrote"):
        mvp.load_sparse(toy)
    (toy / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        mvp.load_sparse(toy)
    assert same_tensors(mvp.load_sparse(toy, model=copy.deepcopy(model)), model)


# --- what docs/deploy.md says -------------------------------------------------------------------------------------

STORED = {"dense": "dense", "zip": "dense, zipped", "exact": "`save_sparse`", "float16": '`values="float16"`'}
STORED |= {"int8": '`values="int8"`'}


def measured():
    return json.loads((ROOT / "benchmarks" / "sparse_files.json").read_text())


def scores():
    rows = pd.read_csv(data_path("results", "sparse_files.csv"))
    assert not rows.duplicated(["task", "density", "seed", "stored"]).any()
    return rows


def test_the_table_of_sizes():
    minilm = scores().query("task == 'sst2'").set_index(["stored", "density"])
    rows = []
    for stored, label in STORED.items():
        cells = [f"{minilm.loc[(stored, d), c]:.1f}" for d in (0.1, 0.03) for c in ("file_mb", "score")]
        cells += [f"{measured()[f'file_mb, {d}'][stored]:.1f}" for d in (0.1, 0.03)]
        rows.append([label, *cells])
    header = ["stored as", "MiniLM, 10 %", "accuracy", "MiniLM, 3 %", "accuracy"]
    assert table([*header, "BERT-base's size, 10 %", "3 %"], rows) in text("deploy.md")


def test_what_is_said_of_rounding():
    toy = scores().query("task == 'toy/inference'")
    assert toy.groupby(["density", "stored"])["seed"].nunique().eq(3).all()
    found = toy.pivot(index=["density", "seed"], columns="stored", values="score")
    assert found["exact"].equals(found["dense"])
    sst2 = scores().query("task == 'sst2'").pivot(index="density", columns="stored", values="score")
    assert sst2["exact"].equals(sst2["dense"])
    lost = [(f[["float16", "int8"]].sub(f["exact"], axis=0)).abs().max().max() for f in (sst2, found)]
    stated = said(
        "deploy.md", r"changes the accuracy by at most ([\d.]+) points here, and by at most ([\d.]+) on the toy"
    )
    assert stated == tuple(f"{x:.1f}" for x in lost)


def test_what_is_said_of_positions_and_loading():
    least = [x for d in (0.1, 0.03) for x in measured()[f"over the least, {d}"].values()]
    least += scores().query("task == 'sst2'")["over_least"].dropna().tolist()
    assert max(least) < 1.05
    assert said("deploy.md", r"take at most ([\d.]+) % more than") == (f"{100 * max(least) - 100:.1f}",)
    cold, warm = (measured()[f"loading at 0.03, {where} the page cache"] for where in ("not in", "in"))
    stated = said(
        "deploy.md",
        r"each weight once takes ([\d.]+) times .* read from disk \(quartiles ([\d.]+) and ([\d.]+): the machine had "
        r"other work\), and ([\d.]+) times as long",
    )
    assert stated == tuple(f"{x:.2f}" for x in (cold["ratio"], *cold["quartiles"], warm["ratio"])) and cold["ratio"] < 1

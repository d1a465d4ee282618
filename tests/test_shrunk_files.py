"""Folders of shrunk models: what stock transformers reads, what is refused, and what damage does."""

import copy
import json
import pickle
import shutil

import pytest
import torch
import transformers as hf
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from test_shrink import inputs, make, output, remove, same_weights

import mvp_lite as mvp
from mvp_lite import hub
from mvp_lite.storage.checksums import NAME, add_checksum, check_checksum
from mvp_lite.structure.shrinking import KEY, sizes
from mvp_lite.structure.units import FAMILIES, find_units

IN_CONFIG = [family for family in FAMILIES if FAMILIES[family].heads]


def pruned(family, heads=(4, 4, 4), neurons=(9, 5, 7), **changed):
    """A model whose layers keep so many heads, the last ones, and neurons, the first ones; round and round."""
    model = make(family, **changed)
    numbers = {"heads": 0, "neurons": 0}
    for units in find_units(model):
        asked = {"heads": heads, "neurons": neurons}[units.unit_type]
        count = min(asked[numbers[units.unit_type] % len(asked)], units.count)
        numbers[units.unit_type] += 1
        index = torch.arange(units.count)
        remove(units, index >= count if units.unit_type == "neurons" else index < units.count - count)
    return model


def from_stock(model, folder):
    return type(model).from_pretrained(folder, dtype=torch.float64).eval()


def difference(a, b):
    return float((output(a) - output(b)).abs().max())


# --- what stock transformers reads --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_widths_are_read_by_stock_transformers(family, tmp_path):
    model = pruned(family, neurons=(6,))
    small = mvp.shrink(model)
    small.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config[FAMILIES[family].neurons] == 6 and KEY not in config
    for again in (from_stock(model, tmp_path), mvp.load_shrunk(tmp_path, dtype=torch.float64).eval()):
        assert same_weights(again, small) and difference(again, model) < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_uniform_keeps_what_stock_transformers_needs(family, tmp_path):
    """Heads are removed where the configuration can say so: here one of two key-value heads, or one or two of four."""
    model = pruned(family, heads=(1, 2, 1), neurons=(9, 5, 7))
    small = mvp.shrink(model, uniform=True)
    kept = 4 if family not in IN_CONFIG else 2
    assert set(sizes(small)["neurons"]) == {9} and set(sizes(small)["heads"]) == {kept}
    small.save_pretrained(tmp_path)
    again = from_stock(model, tmp_path)
    assert same_weights(again, small) and difference(again, model) < 1e-10
    assert mvp.shrink(model).num_parameters() < small.num_parameters() < model.num_parameters()


def test_a_number_of_heads_that_the_configuration_refuses(tmp_path):
    """Llama wants a hidden size that is a multiple of the heads: of 6 heads with 5 alive all stay, of 3 alive 3."""
    for alive, kept in ((5, 6), (3, 3)):
        model = pruned("llama", heads=(alive,), neurons=(9,), num_attention_heads=6, num_key_value_heads=6, head_dim=4)
        small = mvp.shrink(model, uniform=True)
        assert set(sizes(small)["heads"]) == {kept}
        small.save_pretrained(tmp_path)
        assert difference(from_stock(model, tmp_path), model) < 1e-10
    assert set(sizes(mvp.shrink(pruned("llama", heads=(5,), num_attention_heads=6, num_key_value_heads=6,
                                       head_dim=4)))["heads"]) == {5}  # fmt: skip


def test_uniform_cannot_give_back_what_is_gone():
    small = mvp.shrink(pruned("bert"))
    with pytest.raises(ValueError, match=r"uniform=True: .*'neurons': \[9, 5, 7\].*shrink the model"):
        mvp.shrink(small, uniform=True)


@pytest.mark.parametrize("changed", [{"share_att_key": True}, {"conv_kernel_size": 3}, {"pos_att_type": ["c2p"]}])
def test_forms_of_deberta(changed, tmp_path):
    model = pruned("deberta-v2", heads=(1, 2, 3), **changed)
    small = mvp.shrink(model)
    assert sizes(small) == {"heads": [1, 2, 3], "neurons": [9, 5, 7]} and difference(small, model) < 1e-10
    small.save_pretrained(tmp_path)
    assert difference(mvp.load_shrunk(tmp_path, dtype=torch.float64).eval(), model) < 1e-10


def test_forms_of_t5(tmp_path):
    """Heads of self-attention go if every layer of the stack lost them; cross-attention keeps equally many."""
    model = make("t5", feed_forward_proj="relu", num_decoder_layers=2)
    dead = {"encoder": [[0, 1], [1, 2]], "decoder": [[3, 1], [3, 0]], "cross": [[0, 1], [2, 3]]}
    for units in find_units(model):
        if units.unit_type == "heads":
            stack = "cross" if "EncDec" in units.name else units.name.split(".")[0]
            gone = torch.zeros(4, dtype=torch.bool)
            gone[dead[stack].pop(0)] = True
            remove(units, gone)
    small = mvp.shrink(model)
    assert sizes(small)["heads"] == [3, 3, 3, 2, 3, 2]  # a decoder's layer: its own, then across
    assert difference(small, model) < 1e-10
    small.save_pretrained(tmp_path)
    loaded = mvp.load_shrunk(tmp_path, dtype=torch.float64).eval()
    assert difference(loaded, model) < 1e-10
    long = {"input_ids": inputs(model)["input_ids"], "max_new_tokens": 4, "do_sample": False}  # with a cache
    assert torch.equal(loaded.generate(**long), model.generate(**long))
    config = json.loads((tmp_path / "config.json").read_text())
    config[KEY]["heads"][0] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"3 and 2 heads in encoder\.block\.\*\.layer\.0\.SelfAttention: must be eq"):
        mvp.load_shrunk(tmp_path)


@pytest.mark.parametrize("family", ["t5", "deberta-v2"])
@pytest.mark.parametrize("groups", ["heads", "neurons", mvp.groups.mixed("heads", "neurons")])
def test_heads_and_neurons_can_be_pruned(family, groups):
    model = make(family).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    pruner = mvp.Pruner(model, "movement", density=0.5, total_steps=10, groups=groups).attach(optimizer)
    batch = inputs(model)
    labels = batch["decoder_input_ids"] if family == "t5" else torch.tensor([1, 0])
    for _ in range(10):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    pruner.finalize()
    small = mvp.shrink(model.eval())
    halves = {"heads": 2, "neurons": 10}
    for units in find_units(model):
        if groups == units.unit_type or callable(groups):
            assert int(units.alive().sum()) == halves[units.unit_type]
    torch.testing.assert_close(output(small), output(model))
    assert small.num_parameters() < model.num_parameters() or groups == "heads"


def test_stock_transformers_names_the_loader(tmp_path):
    mvp.shrink(pruned("bert")).save_pretrained(tmp_path)
    for stock in (hf.AutoModelForSequenceClassification, hf.BertModel):
        with pytest.raises(OSError, match=r"load_with_mvp_lite\.load_shrunk"):
            stock.from_pretrained(tmp_path)
    hf.AutoConfig.from_pretrained(tmp_path)


def test_copies_and_reloaded_models_keep_their_saves(tmp_path):
    small = mvp.shrink(pruned("bert"))
    copies = [small, copy.deepcopy(small)]
    small.save_pretrained(tmp_path / "0")
    copies.append(mvp.load_shrunk(tmp_path / "0", dtype=torch.float64))
    for n, model in enumerate(copies):
        model.classifier.bias.data.fill_(n)
        model.save_pretrained(tmp_path / str(n))
        assert check_checksum(tmp_path / str(n) / "model.safetensors")
        assert (mvp.load_shrunk(tmp_path / str(n)).classifier.bias == n).all()
    unpickled = pickle.loads(pickle.dumps(small))  # its saves are stock ones, without checksums
    unpickled.save_pretrained(tmp_path / "stock")
    assert not check_checksum(tmp_path / "stock" / "model.safetensors")
    assert same_weights(mvp.load_shrunk(tmp_path / "stock", dtype=torch.float64), small)


def test_shards(tmp_path):
    small = mvp.shrink(pruned("bert"))
    small.save_pretrained(tmp_path, max_shard_size="10KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2 and all(map(check_checksum, shards))
    assert same_weights(mvp.load_shrunk(tmp_path, dtype=torch.float64), small)
    damaged = bytearray(shards[1].read_bytes())
    damaged[-3] ^= 1
    shards[1].write_bytes(damaged)
    with pytest.raises(ValueError, match=shards[1].name + ".*damaged"):
        mvp.load_shrunk(tmp_path)
    shards[1].unlink()
    with pytest.raises(OSError, match=str(tmp_path)):
        mvp.load_shrunk(tmp_path)


def test_another_checkpoint_beside_it_is_left_alone(tmp_path):
    small = mvp.shrink(pruned("bert"))
    save_file({"x": torch.ones(2)}, tmp_path / "other.safetensors")
    before = (tmp_path / "other.safetensors").read_bytes()
    small.save_pretrained(tmp_path, variant="half")
    assert (tmp_path / "other.safetensors").read_bytes() == before
    assert check_checksum(tmp_path / "model.half.safetensors")
    assert same_weights(mvp.load_shrunk(tmp_path, variant="half", dtype=torch.float64), small)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    small = mvp.shrink(pruned("bert", heads=(2, 1, 3)).float())
    small.save_pretrained(folder)
    return small, folder


def edited(folder, target, **entries):
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text()) | entries
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (None, "is None: must be"),
        ([1, 2], "must be"),
        ({"heads": [2, 1, 3]}, "must be"),
        ({"heads": [2, 1, 3], "neurons": [9, 5, 7], "layers": 3}, "must be"),
        ({"heads": [2, 1, 3], "neurons": [9, 5, 7.0]}, r"neurons=\[9, 5, 7.0\]: must be a list of integers"),
        ({"heads": [2, True, 3], "neurons": [9, 5, 7]}, r"heads=\[2, True, 3\]: must be a list of integers"),
        ({"heads": "213", "neurons": [9, 5, 7]}, "heads='213': must be"),
        ({"heads": [2, 1, 3], "neurons": [9, 5]}, "neurons of 2 layers, the model has 3"),
        ({"heads": [2, 1, 5], "neurons": [9, 5, 7]}, r"5 heads in .*layer\.2.*, which has 4"),
        ({"heads": [2, 1, 2], "neurons": [9, 5, 7]}, r"do not fit: tensors of another shape: .*layer\.2\.attention"),
    ],
)
def test_malformed_sizes(saved, tmp_path, plan, message):
    folder = edited(saved[1], tmp_path / "edited", **{KEY: plan})
    with pytest.raises(ValueError, match=message) as error:
        mvp.load_shrunk(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "entries",
    [
        {"architectures": ["NoSuchModel"]},
        {"architectures": ["logging"]},
        {"architectures": None},
        {"architectures": ["RobertaForSequenceClassification"]},
        {"model_type": "no-such-type"},
        {"model_type": None},
        {"hidden_size": "24"},
        {"hidden_size": 23},
        {"hidden_act": "no-such-function"},
        {"model_type": "no-such-type", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}},
    ],
)
def test_configurations_that_no_model_has(saved, tmp_path, entries, monkeypatch):
    def asked(*args):
        raise AssertionError("a question on standard input")

    monkeypatch.setattr("builtins.input", asked)
    folder = edited(saved[1], tmp_path / "edited", **entries)
    (folder / "code.py").write_text("raise AssertionError('executed')")
    with pytest.raises(ValueError) as error:
        mvp.load_shrunk(folder)
    assert str(folder) in str(error.value)


def test_code_of_the_folder_is_never_executed(saved, tmp_path):
    small, original = saved
    folder = edited(original, tmp_path / "edited", auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"})
    (folder / "code.py").write_text("raise AssertionError('executed')")
    assert same_weights(mvp.load_shrunk(folder), small)
    with pytest.raises(TypeError, match="trust_remote_code=True: load_shrunk sets this option itself"):
        mvp.load_shrunk(folder, trust_remote_code=True)


@pytest.mark.parametrize("checksum", [True, False])
def test_weights_that_do_not_fit(saved, tmp_path, checksum):
    """With a checksum or without, as older folders are."""
    small, original = saved
    folder = edited(original, tmp_path / "edited")
    file, tensors = folder / "model.safetensors", load_file(original / "model.safetensors")

    def save(changed):
        save_file(changed, file, metadata={"format": "pt"})
        if checksum:
            add_checksum(file)

    save(tensors)
    assert same_weights(mvp.load_shrunk(folder), small)
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    for changed, message in (
        ({key: x for key, x in tensors.items() if key != name}, f"missing: {name}$"),
        (tensors | {"extra": torch.ones(1)}, "not of this model: extra$"),
        (tensors | {name: tensors[name][:-1].clone()}, rf"of another shape: {name} \(4, 24\), model \(5, 24\)$"),
    ):
        save(changed)
        with pytest.raises(ValueError, match=message) as error:
            mvp.load_shrunk(folder)
        assert str(folder) in str(error.value)


# --- checksums ----------------------------------------------------------------------------------------------------


def test_what_is_no_folder_of_a_shrunk_model(saved, tmp_path, monkeypatch):
    for wrong in (None, 3):
        with pytest.raises(TypeError, match=f"folder={wrong}: must be a folder, or a name on the Hub"):
            mvp.load_shrunk(wrong)
    with pytest.raises(NotADirectoryError, match=r"folder=.*config\.json.*: give the folder"):
        mvp.load_shrunk(saved[1] / "config.json")
    mvp.save_sparse(make("bert"), tmp_path)
    with pytest.raises(ValueError, match=r"holds sparse\.safetensors: load it with mvp_lite\.load_sparse"):
        mvp.load_shrunk(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_problem", lambda: "no network")
    with pytest.raises(OSError, match=r"folder='nonono' is no local folder.*no answer from .* and not in the cache"):
        mvp.load_shrunk("nonono")


def test_a_checksum_leaves_the_tensors_and_replaces_an_older_one(tmp_path):
    file = tmp_path / "x.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(0), "c": torch.tensor([1, 2], dtype=torch.int8)}
    save_file(tensors, file, metadata={"format": "pt", "note": "kept"})
    assert not check_checksum(file)
    assert add_checksum(file) == add_checksum(file) and check_checksum(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]
    again = load_file(file)
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], x) for name, x in tensors.items())
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        assert opened.metadata()["note"] == "kept" and len(opened.metadata()[NAME]) == 64
    for n in (0, 5, 40):
        file.write_bytes(file.read_bytes()[:n])
        for reader in (add_checksum, check_checksum):
            with pytest.raises(ValueError, match=r"x\.safetensors: "):
                reader(file)

"""What `python -m mvp_lite speed` measures, prints, writes and refuses; never how fast something is."""

import json

import pandas as pd
import pytest
import torch
import transformers as hf
from test_csr import COMMON, pruned

import mvp_lite as mvp
from mvp_lite import latency
from mvp_lite.__main__ import main
from mvp_lite.latency import report
from mvp_lite.latency.variants import _without_zeros, build
from mvp_lite.matrices import find_matrices
from mvp_lite.structure.units import find_units

TORCH = ("dense", "masked", "csr", "shrunk", "int8", "int8 shrunk")
QUICK = {"batch": [1], "length": [8], "rounds": 2, "variants": TORCH}


def smaller(model):
    """Without half of the heads and neurons."""
    for units in find_units(model):
        for part in units.parts:
            dead = torch.arange(units.count // 2)
            part.module.weight.data.index_fill_(part.dim, part.index(dead, units.count), 0.0)
    return model.eval()


def test_scattered_zeros() -> None:
    threads = torch.get_num_threads()
    table = latency.measure(pruned("bert"), **{**QUICK, "batch": [1, 2]})
    assert torch.get_num_threads() == threads
    expected = ["variant", "batch", "length", "ms", "speed_up", "low", "high", "rounds"]
    assert list(table.columns) == expected and set(table["rounds"]) == {2}
    assert list(table["variant"]) == [*TORCH, *TORCH]  # some neurons lost all weights
    assert (table["ms"] > 0).all() and (table["low"] <= table["high"]).all()
    assert (table.loc[table["variant"] == "dense", "speed_up"] == 1).all()


def test_a_shrunk_folder_is_compared_with_the_full_size(tmp_path) -> None:
    torch.manual_seed(0)
    model = smaller(hf.BertForTokenClassification(hf.BertConfig(**COMMON)))
    mvp.shrink(model).save_pretrained(tmp_path)
    table = latency.measure(tmp_path, **QUICK)
    assert list(table["variant"]) == ["dense", "shrunk", "int8 shrunk"]
    assert table.attrs["missing"]["masked"] == "the folder holds a shrunk model"
    assert "no linear map with a density" in table.attrs["missing"]["csr"]


@pytest.mark.parametrize("auto", ["BertModel", "BertForQuestionAnswering"])
def test_structure_in_a_model_of_full_size(auto, tmp_path) -> None:
    torch.manual_seed(0)
    smaller(getattr(hf, auto)(hf.BertConfig(**COMMON))).save_pretrained(tmp_path)
    table = latency.measure(tmp_path, **QUICK)
    assert list(table["variant"]) == ["dense", "masked", "shrunk", "int8", "int8 shrunk"]


def test_a_folder_of_sparse_files(tmp_path) -> None:
    sparse = pytest.importorskip("mvp_lite.storage.sparse")
    model = pruned("bert")
    sparse.save_sparse(model, tmp_path)
    found, expected = latency.load(tmp_path).state_dict(), model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_cannot_be_measured_is_said(monkeypatch) -> None:
    torch.manual_seed(0)
    table = latency.measure(hf.BertModel(hf.BertConfig(**COMMON)), **QUICK)
    assert "nothing to remove" in table.attrs["missing"]["shrunk"]
    shared = hf.AlbertModel(hf.AlbertConfig(**COMMON, embedding_size=8, num_hidden_groups=1))
    find_matrices(shared)[0].weight.data.zero_()
    found = latency.measure(shared, **QUICK)
    assert "albert" in found.attrs["missing"]["shrunk"] and {"dense", "masked", "csr"} <= set(found["variant"])
    monkeypatch.setattr("mvp_lite.latency.variants.find_spec", lambda name: None)
    _, missing = build(pruned("bert"), ["onnx"], 1)
    assert missing == {"onnx": "ONNX Runtime is not installed: pip install onnxruntime"}


def test_the_dense_model_has_no_zeros_and_the_masked_one_is_left_alone() -> None:
    model = pruned("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense = _without_zeros(model)
    assert all(matrix.weight.ne(0).all() for matrix in find_matrices(dense, "."))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_break_even_is_interpolated() -> None:
    speeds = {0.1: 2.0, 0.4: 0.5, 0.05: 3.0}
    rows = [{"tokens": 8, "density": d, "speed_up": s} for d, s in speeds.items()]
    rows += [{"tokens": 16, "density": d, "speed_up": s} for d, s in ((0.1, 3.0), (0.4, 2.0))]
    rows += [{"tokens": 32, "density": d, "speed_up": s} for d, s in ((0.1, 0.7), (0.4, 0.6))]
    table = pd.DataFrame(rows)
    found = latency.crossings(table)
    assert found == {8: pytest.approx(0.2), 16: None, 32: None}
    empty = pd.DataFrame({"variant": [], "batch": [], "length": []})
    said = report.text(empty, table).splitlines()
    assert "8 tokens: CSR is faster than dense below a density of 0.20" in said
    assert "16 tokens: CSR is faster than dense at all densities measured" in said
    assert "32 tokens: CSR is slower than dense at all densities measured" in said


def test_the_sweep_takes_the_models_own_matrices() -> None:
    for family in ("bert", "gpt2"):
        table = latency.break_even(pruned(family), tokens=[4, 200], densities=[0.1, 1.0], rounds=2)
        assert list(table[["tokens", "density"]].itertuples(index=False, name=None)) == [
            (4, 0.1), (4, 1.0), (200, 0.1), (200, 1.0),
        ]  # fmt: skip
        assert (table["low"] <= table["high"]).all()


def test_the_command(tmp_path, capsys) -> None:
    folder, out = tmp_path / "model", tmp_path / "speed.json"
    pruned("bert", 0.2).save_pretrained(folder)
    main(["speed", str(folder), "--batch", "1", "--length", "8", "--rounds", "2", "--out", str(out)])
    said = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert {row["variant"] for row in found["latency"]} | set(found["not measured"]) == set(latency.VARIANTS)
    assert {row["variant"] for row in found["latency"]} >= {"dense", "masked", "csr"}
    assert "1 x 8  dense" in said and "8 tokens: CSR is" in said and f"written: {out}" in said
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_bad_input_gets_one_line(tmp_path, capsys) -> None:
    folder = tmp_path / "model"
    pruned("bert").save_pretrained(folder)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(tmp_path / "empty")], "has no config.json"),
        ([str(folder), "--batch", "0"], "batch=0: must be an integer of at least 1"),
        ([str(folder), "--threads", "-1"], "threads=-1: must be"),
        ([str(folder), "--length", "65"], "length=65: the model takes at most 64 tokens"),
    ):
        with pytest.raises(SystemExit):
            main(["speed", *arguments])
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    with pytest.raises(ValueError, match="variants='fast': must be of dense, masked"):
        latency.measure(pruned("bert"), variants=["fast"])
    with pytest.raises(ValueError, match="densities=0: must be"):
        latency.break_even(pruned("bert"), densities=[0])
    with pytest.raises(ValueError, match="reads pixel_values"):
        latency.measure(hf.ViTModel(hf.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)))

"""ONNX files: what ONNX Runtime computes from them, and what is refused."""

import pytest
import torch
import transformers as hf
from test_csr import COMMON

import mvp_lite as mvp
from mvp_lite.storage import onnx
from mvp_lite.structure.units import find_units

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def run(path, batch):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    found = session.run(names, {name: value.numpy() for name, value in batch.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}


def batch_of(size, length):
    ids = torch.randint(3, 50, (size, length), generator=torch.Generator().manual_seed(size))
    mask = torch.ones_like(ids)
    mask[0, length - 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    return hf.BertForSequenceClassification(hf.BertConfig(**COMMON, num_labels=3)).eval()


def test_a_shrunk_toy_with_its_tokenizer(tmp_path) -> None:
    """Layers of different widths, and the tokenizer of the toy."""
    task = mvp.load_task("toy/inference", limit=64)
    model = mvp.load_model("toy", task).eval()
    for number, units in enumerate(find_units(model)):
        dead = torch.arange(1 + number // 2)
        for part in units.parts:
            part.module.weight.data.index_fill_(part.dim, part.index(dead, units.count), 0.0)
    small = mvp.shrink(model).eval()
    tokenizer = mvp.tokenizer_for(model)
    path = mvp.export_onnx(small, tmp_path / "made" / "small.onnx", tokenizer)
    assert [file.name for file in path.parent.iterdir()] == ["small.onnx"] and path == tmp_path / "made" / "small.onnx"
    examples = task.examples["validation"]
    batch = dict(tokenizer(examples["premise"][:5], examples["hypothesis"][:5], padding=True, return_tensors="pt"))
    with torch.no_grad():
        expected = model(**batch).logits  # of the model before it was shrunk
    torch.testing.assert_close(run(path, batch)["logits"], expected, rtol=1e-4, atol=1e-4)


def test_a_batch_in_place_of_a_tokenizer(tmp_path) -> None:
    """Two outputs, whose names stay; labels are left out; one example is enough."""
    torch.manual_seed(0)
    config = hf.DistilBertConfig(
        vocab_size=50, dim=24, n_layers=2, n_heads=4, hidden_dim=20, max_position_embeddings=32
    )
    model = hf.DistilBertForQuestionAnswering(config).train()
    labels = {"start_positions": torch.zeros(1, dtype=torch.long), "end_positions": torch.zeros(1, dtype=torch.long)}
    path = mvp.export_onnx(model, str(tmp_path / "qa.onnx"), batch_of(1, 8) | labels)
    assert model.training
    model.eval()
    for size, length in ((1, 5), (4, 20)):
        found = run(path, batch_of(size, length))
        with torch.no_grad():
            expected = model(**batch_of(size, length))
        for name in ("start_logits", "end_logits"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_the_check_notices_a_wrong_file(tmp_path, bert, monkeypatch) -> None:
    real = onnx._export

    def wrong(model, *args):
        bias = model.classifier.bias.detach().clone()
        model.classifier.bias.data += 0.01
        real(model, *args)
        model.classifier.bias.data = bias

    monkeypatch.setattr(onnx, "_export", wrong)
    with pytest.raises(ValueError, match=r"wrong.onnx': on \(2, 8\).* differ from the model's by 1.0e-02"):
        mvp.export_onnx(bert, tmp_path / "wrong.onnx", batch_of(2, 8))
    assert not list(tmp_path.iterdir())


def test_what_is_refused(tmp_path, bert, monkeypatch) -> None:
    path = tmp_path / "model.onnx"
    for wrong in ("text", [1], {}, {"input_ids": [1, 2]}, None):
        with pytest.raises(TypeError, match=f"inputs={type(wrong).__name__}: must be a tokenizer"):
            mvp.export_onnx(bert, path, wrong)
    with pytest.raises(ValueError, match="at least two tokens"):
        mvp.export_onnx(bert, path, {"input_ids": torch.ones(2, 1, dtype=torch.long)})
    with pytest.raises(ValueError, match=r"in torch.bfloat16 on cpu: must be torch.float32"):
        mvp.export_onnx(hf.BertModel(hf.BertConfig(**COMMON)).bfloat16(), path, batch_of(2, 8))
    with pytest.raises(ValueError, match="export the model that to_csr was given"):
        mvp.export_onnx(mvp.to_csr(bert, max_density=1), path, batch_of(2, 8))
    for opset in (11, 17, 26):
        with pytest.raises(ValueError, match=f"opset={opset}: must be from 18 to 25"):
            mvp.export_onnx(bert, path, batch_of(2, 8), opset=opset)
    for wrong in (18.0, "18", None, True):
        with pytest.raises(TypeError, match=f"opset={wrong!r}: must be an integer from 18"):
            mvp.export_onnx(bert, path, batch_of(2, 8), opset=wrong)
    with pytest.raises(TypeError, match="model=str: must be a transformers model"):
        mvp.export_onnx("model", path, batch_of(2, 8))
    with pytest.raises(IsADirectoryError, match=r"path=.*: must be a file, not a folder"):
        mvp.export_onnx(bert, tmp_path, batch_of(2, 8))
    with monkeypatch.context() as patch:
        patch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else object())
        with pytest.raises(ImportError, match=r"needs onnxscript: pip install onnxscript$"):
            mvp.export_onnx(bert, path, batch_of(2, 8))
    assert not path.exists()

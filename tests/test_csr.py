"""Sparse matrices for inference: equal outputs, what is converted, and what is refused."""

import copy

import pytest
import torch
import transformers as hf
from torch import nn

import mvp_lite as mvp
from mvp_lite.matrices import find_matrices
from mvp_lite.storage.csr import CSRLinear

COMMON = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON |= {"intermediate_size": 40, "max_position_embeddings": 64}
FAMILIES = {
    "bert": (hf.BertForSequenceClassification, hf.BertConfig(**COMMON)),
    "distilbert": (hf.DistilBertForQuestionAnswering, hf.DistilBertConfig(
        vocab_size=50, dim=24, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=64)),
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config(
        vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_inner=40, n_positions=64)),
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**COMMON, num_key_value_heads=2)),
    "t5": (hf.T5ForConditionalGeneration, hf.T5Config(
        vocab_size=50, d_model=24, d_kv=6, num_heads=4, d_ff=40, num_layers=2, decoder_start_token_id=0)),
}  # fmt: skip


def pruned(family="bert", density=0.1):
    """A small model that keeps random weights inside its blocks; the first matrix loses all of them."""
    torch.manual_seed(0)
    model = FAMILIES[family][0](FAMILIES[family][1])
    with torch.no_grad():
        for number, matrix in enumerate(find_matrices(model)):
            matrix.weight.normal_().mul_(torch.rand_like(matrix.weight) < (density if number else 0.0))
            if matrix.module.bias is not None:
                matrix.module.bias.normal_()
    return model


def inputs(model, batch=3, length=50):
    ids = torch.randint(3, 50, (batch, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask} | (
        {"decoder_input_ids": ids[:, :5]} if model.config.is_encoder_decoder else {}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_outputs(family) -> None:
    model = pruned(family)
    before = copy.deepcopy(model.state_dict())
    sparse = mvp.to_csr(model)
    batch = inputs(model)  # 150 tokens: more than one product takes
    with torch.inference_mode():
        found = sparse(**batch)[0]
    with torch.no_grad():
        torch.testing.assert_close(found, model.eval()(**batch)[0], rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    converted = sum(isinstance(module, CSRLinear) for module in sparse.modules())
    dense = [n for n, m in sparse.named_modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    assert converted >= 2 * 4 and set(dense) <= {"bert.pooler.dense", "classifier", "qa_outputs", "lm_head"}


def test_a_linear_map() -> None:
    for bias in (True, False):
        layer = nn.Linear(8, 5, bias=bias)
        layer.weight.data *= torch.eye(5, 8)
        sparse = copy.deepcopy(CSRLinear(layer.weight, layer.bias))
        for shape in ((8,), (0, 8), (3, 8), (2, 0, 8), (2, 3, 8), (2, 70, 2, 8)):
            x = torch.randn(shape)
            with torch.no_grad():
                torch.testing.assert_close(sparse(x), layer(x))
        x = torch.randn(6, 8, 3).transpose(1, 2)
        torch.testing.assert_close(sparse(x), layer(x).detach())
        assert sparse.weight.layout == torch.sparse_csr and sparse.weight.col_indices().dtype == torch.int32
        assert "in_features=8, out_features=5, density=0.125" in repr(sparse) and sparse.bias.shape == (5,)


def test_only_sparse_matrices_are_converted() -> None:
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))
    for layer, kept in ((model[0], 2), (model[1], 3)):
        layer.weight.data[:, kept:] = 0
    types = [type(module) for module in mvp.to_csr(model)]
    assert types == [CSRLinear, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(m) for m in mvp.to_csr(model, max_density=0.3)][1] is CSRLinear
    assert [type(m) for m in model] == [nn.Linear, nn.Linear, nn.ReLU, nn.Linear]
    with pytest.raises(ValueError, match=r"max_density=0.1 or less; the sparsest, 0, has 0.2$"):
        mvp.to_csr(model, max_density=0.1)
    with pytest.raises(ValueError, match="it has no linear map"):
        mvp.to_csr(nn.Sequential(nn.ReLU()))
    for wrong in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"max_density={wrong}: must be"):
            mvp.to_csr(model, max_density=wrong)
    with pytest.raises(TypeError, match="model=str"):
        mvp.to_csr("folder")


def test_modules_that_read_their_maps_themselves_stay() -> None:
    """torch's attention and encoder layer hand the weights of their maps to fused functions."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.Sequential(nn.Linear(8, 8), layer).eval()
    for p in model.parameters():
        if p.dim() == 2:
            p.data *= torch.rand_like(p) < 0.1
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        torch.testing.assert_close(mvp.to_csr(model)(x), model(x))


def test_for_inference_alone(tmp_path) -> None:
    model = pruned()
    sparse = mvp.to_csr(model.train())
    assert model.training and not sparse.training
    for refused in (sparse.save_pretrained, copy.deepcopy(sparse).save_pretrained):
        with pytest.raises(ValueError, match="Save the model that it was made from"):
            refused(tmp_path / "sparse")
    with pytest.raises(ValueError, match="train the model that it was made from"):
        sparse.train()
    x = torch.randn(2, 5, 24)
    with pytest.raises(ValueError, match="no gradients"):
        sparse(inputs_embeds=x.requires_grad_())
    model.eval().save_pretrained(tmp_path / "dense")  # the model itself can still be saved
    assert (tmp_path / "dense" / "model.safetensors").exists()


def test_float32_on_the_cpu_alone() -> None:
    for other in (pruned().bfloat16(), pruned().double(), pruned().to("meta")):
        with pytest.raises(ValueError, match=r"must be torch.float32 on cpu; pass model.float\(\).cpu\(\)"):
            mvp.to_csr(other)
    sparse = CSRLinear(torch.eye(4), None)
    for x in (torch.randn(2, 4).bfloat16(), torch.randn(2, 4, device="meta")):
        with pytest.raises(ValueError, match=r"torch.float32 on cpu alone"):
            sparse(x)

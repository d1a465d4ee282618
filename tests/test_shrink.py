"""Removing heads and neurons: equal outputs in every family, reloading, and what is refused."""

import json

import pytest
import torch
import transformers as hf
from torch.utils.flop_counter import FlopCounterMode

import mvp_lite as mvp
from mvp_lite.structure.shrinking import KEY, sizes
from mvp_lite.structure.units import FAMILIES, find_units

COMMON = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
COMMON |= {"intermediate_size": 20, "max_position_embeddings": 32}


DEBERTA = {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["c2p", "p2c"]}
DEBERTA |= {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0}
T5 = {"vocab_size": 50, "d_model": 24, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
T5 |= {"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 8, "decoder_start_token_id": 0}


def make(family, seed=0, **changed):
    """A small model in float64 whose biases and norms are not the trivial ones."""
    torch.manual_seed(seed)
    kinds = {
        "bert": (hf.BertForSequenceClassification, hf.BertConfig(**COMMON)),
        "roberta": (hf.RobertaForSequenceClassification, hf.RobertaConfig(**COMMON)),
        "xlm-roberta": (hf.XLMRobertaForSequenceClassification, hf.XLMRobertaConfig(**COMMON)),
        "camembert": (hf.CamembertForSequenceClassification, hf.CamembertConfig(**COMMON)),
        "electra": (hf.ElectraForSequenceClassification, hf.ElectraConfig(**COMMON, embedding_size=12)),
        "distilbert": (hf.DistilBertForQuestionAnswering, hf.DistilBertConfig(
            vocab_size=50, dim=24, n_layers=3, n_heads=4, hidden_dim=20, max_position_embeddings=32)),
        "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config(
            vocab_size=50, n_embd=24, n_layer=3, n_head=4, n_inner=20, n_positions=32)),
        "vit": (hf.ViTForImageClassification, hf.ViTConfig(
            hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=20, image_size=8,
            patch_size=4)),
        "deberta-v2": (hf.DebertaV2ForSequenceClassification, hf.DebertaV2Config(**COMMON, **DEBERTA)),
        "t5": (hf.T5ForConditionalGeneration, hf.T5Config(**T5)),
        "mt5": (hf.MT5ForConditionalGeneration, hf.MT5Config(**T5)),
        "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**COMMON, num_key_value_heads=2)),
        "mistral": (hf.MistralForCausalLM, hf.MistralConfig(**COMMON, num_key_value_heads=4)),
        "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config(**COMMON, num_key_value_heads=2)),
    }  # fmt: skip
    kind, config = kinds[family]
    if changed:
        config = type(config)(**{**config.to_diff_dict(), **changed})
    model = kind(config).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model


def inputs(model):
    generator = torch.Generator().manual_seed(1)
    if model.config.model_type == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator)}
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    text = {"input_ids": torch.randint(3, 50, (2, 7), generator=generator), "attention_mask": mask}
    if model.config.is_encoder_decoder:
        text["decoder_input_ids"] = torch.randint(3, 50, (2, 5), generator=generator)
    return text


def output(model):
    with torch.no_grad():
        return model(**inputs(model))[0]


def same_weights(a, b):
    """Bit by bit. Outputs are equal to rounding only: a matrix product depends on where in memory its operands are."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def remove(units, dead):
    """Zero the weights of the units that `dead` marks."""
    for part in units.parts:
        part.module.weight.data.index_fill_(part.dim, part.index(dead.nonzero().reshape(-1), units.count), 0.0)


@pytest.fixture(params=FAMILIES)
def pruned(request):
    """In block 0 all heads are gone, in block 1 all neurons, elsewhere a random half."""
    model = make(request.param)
    kept = {"heads": [], "neurons": []}
    for units in find_units(model):
        alive = torch.rand(units.count, generator=torch.Generator().manual_seed(len(kept[units.unit_type]))) < 0.5
        if (units.unit_type, len(kept[units.unit_type])) in (("heads", 0), ("neurons", 1)):
            alive[:] = False
        remove(units, ~alive)
        kept[units.unit_type].append(max(1, int(alive.sum())))
    if model.config.model_type in ("t5", "mt5"):
        heads = [units for units in find_units(model) if units.unit_type == "heads"]
        for word in ("encoder", "SelfAttention", "EncDecAttention"):  # the encoder's layers, then the decoder's
            layers = [n for n, units in enumerate(heads) if word in units.name and (n < 2) == (word == "encoder")]
            together = torch.stack([heads[n].alive() for n in layers])
            count = int(together.sum(1).max() if word == "EncDecAttention" else together.any(0).sum())
            for n in layers:
                kept["heads"][n] = max(1, count)
    return model, kept


def test_smaller_and_equal(pruned, tmp_path):
    model, kept = pruned
    before = sizes(model)
    small = mvp.shrink(model)
    assert sizes(small) == kept != before == sizes(model)
    assert float((output(small) - output(model)).abs().max()) < 1e-12
    saved = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in small.parameters())
    gone = 0
    for units, left in zip(find_units(model), find_units(small), strict=True):
        for part in (*units.parts, *([units.bias] if units.bias else [])):
            bias = getattr(part.module, "bias", None)
            own = part.module.weight.numel() + (bias.numel() if part.out and bias is not None else 0)
            gone += own // units.count * (units.count - left.count)
    assert saved == gone > 0

    small.save_pretrained(tmp_path)
    loaded = mvp.load_shrunk(tmp_path, dtype=torch.float64).eval()
    assert type(loaded) is type(model) and sizes(loaded) == kept
    for again in (loaded, mvp.shrink(loaded)):
        assert same_weights(again, small)
        assert float((output(again) - output(small)).abs().max()) < 1e-12
    loaded.train()
    assert loaded(**inputs(loaded))[0].requires_grad


def test_a_unit_is_what_it_adds_to_the_output():
    """Each head and neuron of each family, when removed, changes the output as setting its weights to zero does."""
    for family in ("bert", "gpt2", "llama"):
        for n, units in enumerate(find_units(make(family))):
            for unit in range(min(units.count, 3)):
                zeroed, small = make(family), make(family)
                dead = torch.arange(units.count) == unit
                remove(find_units(zeroed)[n], dead)
                find_units(small)[n].select((~dead).nonzero().reshape(-1))
                assert float((output(zeroed) - output(small)).abs().max()) < 1e-12
                assert float((output(zeroed) - output(make(family))).abs().max()) > 1e-6
                assert find_units(zeroed)[n].alive().tolist() == (~dead).tolist()


def test_only_the_columns_decide():
    """A unit whose rows are zero but whose columns are not may still add a constant: it stays."""
    model = make("bert")
    neurons = next(units for units in find_units(model) if units.unit_type == "neurons")
    neurons.rows[0].module.weight.data[4] = 0.0
    assert neurons.alive().all()
    small = mvp.shrink(model)
    assert sizes(small) == sizes(model) and same_weights(small, model)
    assert float((output(small) - output(model)).abs().max()) < 1e-12


def test_fewer_operations(pruned):
    model, _ = pruned
    counts = []
    for m in (model, mvp.shrink(model)):
        with FlopCounterMode(display=False) as counter:
            output(m)
        counts.append(counter.get_total_flops())
    assert counts[1] < counts[0]


def test_a_movement_pruned_model_goes_through(tmp_path, device):
    """Unstructured pruning seldom empties a unit; the model must come out as it went in."""
    task = mvp.load_task("toy/inference", limit=200)
    result = mvp.fine_prune(
        mvp.load_model("toy", task), task, density=0.03, steps=20, batch_size=8, lr=1e-4, progress=False
    )
    small = mvp.shrink(result.model)
    batch = next(task.encode(mvp.tokenizer_for(result.model)).batches("validation", 8, device=device))
    small.eval(), result.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(small(**batch).logits, result.model(**batch).logits)
    small.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())[KEY] == sizes(small)


def test_what_cannot_be_cut():
    albert = hf.AlbertModel(hf.AlbertConfig(**COMMON, embedding_size=8))
    with pytest.raises(ValueError, match=r"'albert'.*share their matrices.*Known: bert"):
        mvp.shrink(albert)
    with pytest.raises(TypeError, match="model=NoneType: must be a transformers model"):
        mvp.shrink(None)
    with pytest.raises(ValueError, match=r"model=BertModel: .* converted by to_csr: shrink the model that it was made"):
        mvp.shrink(mvp.to_csr(hf.BertModel(hf.BertConfig(**COMMON)), max_density=1))
    with pytest.raises(ValueError, match="model type None"):
        mvp.shrink(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    both = hf.BertLMHeadModel(hf.BertConfig(**COMMON, is_decoder=True, add_cross_attention=True))
    with pytest.raises(ValueError, match="cross-attention"):
        mvp.shrink(both)


def test_folders_that_do_not_fit(tmp_path):
    small = mvp.shrink(make("bert"))
    small.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def changed(**entries):
        folder = tmp_path / "other"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config | entries))
        (folder / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
        return folder

    with pytest.raises(ValueError, match=r"9 heads in .*attention\.self, which has 4"):
        mvp.load_shrunk(changed(**{KEY: {"heads": [9, 4, 4], "neurons": [20, 20, 20]}}))
    with pytest.raises(ValueError, match=r"other: .*neurons=\[20, 0, 20\]: must be a list of integers of at least 1"):
        mvp.load_shrunk(changed(**{KEY: {"heads": [4, 4, 4], "neurons": [20, 0, 20]}}))
    with pytest.raises(ValueError, match=r"heads of 1 layers, the model has 3"):
        mvp.load_shrunk(changed(**{KEY: {"heads": [4], "neurons": [20, 20, 20]}}))
    with pytest.raises(ValueError, match="'NoSuchModel'"):
        mvp.load_shrunk(changed(architectures=["NoSuchModel"]))
    with pytest.raises(OSError):
        mvp.load_shrunk(tmp_path / "nowhere")
    assert KEY not in config  # nothing was pruned
    assert sizes(mvp.load_shrunk(changed())) == sizes(small)

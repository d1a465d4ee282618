"""Which matrices of a model are pruned, and what is said where that is not clear or not possible."""

import re
from itertools import pairwise

import pytest
import torch
from nets import Net
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import mvp_lite as mvp

SETTINGS = {"density": 0.25, "total_steps": 6, "warmup_steps": 1, "cooldown_steps": 1}


def names(model, target=None):
    return [matrix.name for matrix in mvp.Pruner(model, target=target, **SETTINGS).matrices]


def perceptron(*sizes):
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)


class Plain(nn.Module):
    """What most people write; nothing but the order of definition says which map comes last."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc3(self.fc2(self.fc1(x).relu()).relu())


def wrapped(module, name="net"):
    outer = nn.Module()
    outer.add_module("conv", nn.Conv2d(1, 1, 3))
    outer.add_module(name, module)
    return outer


# -- the default without numbered blocks ------------------------------------------------------------------------------


def test_an_mlp_keeps_its_head():
    assert names(perceptron(8, 16, 16, 2)) == ["0", "2"]
    assert names(wrapped(perceptron(8, 16, 2))) == ["net.0"]
    assert names(nn.Sequential(nn.Linear(4, 8), Block(), nn.LayerNorm(8), nn.Linear(8, 2))) == ["0", "1.up", "1.down"]
    shared = nn.Linear(8, 8)
    assert names(nn.Sequential(shared, nn.Linear(8, 8), nn.ReLU(), shared)) == ["1"], "the first is also the last"


def test_an_mlp_ends_pruned():
    torch.manual_seed(0)
    model = perceptron(8, 16, 16, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    pruner = mvp.Pruner(model, **SETTINGS).attach(optimizer)
    for _ in range(6):
        model(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert [int(module.weight.count_nonzero()) for module in pruner.finalize()[::2]] == [32, 64, 32]


def test_numbered_blocks_come_first():
    assert names(Net()) == ["blocks.0", "blocks.1"]
    assert names(nn.ModuleList([nn.Linear(2, 2)])) == ["0"]
    convolutions = nn.Sequential(nn.ModuleList([nn.Conv1d(2, 2, 1)]), perceptron(4, 4, 2))
    assert names(convolutions) == ["1.0"]


@pytest.mark.parametrize(
    ("model", "suggested", "chosen"),
    [
        (Plain(), r"^(fc1$|fc2$)", ["fc1", "fc2"]),
        (nn.Sequential(nn.Linear(4, 8), Block()), r"^(0$|1\.up$)", ["0", "1.up"]),
        (nn.ModuleDict({"embed": nn.Linear(4, 8), "blocks": nn.Sequential(Block(), Block()), "head": nn.Linear(8, 2)}),
         r"^(embed$|blocks\.)",
         ["embed", *(f"blocks.{i}.{name}" for i in (0, 1) for name in ("up", "down"))]),
        (nn.ModuleDict({"a.b".replace(".", "+"): nn.Linear(2, 2), "head": nn.Linear(2, 2)}), r"^a\+b$", ["a+b"]),
    ],
)  # fmt: skip
def test_what_is_suggested_works_when_pasted(model, suggested, chosen):
    with pytest.raises(
        ValueError, match=r"order of the others is not known: pass target=r\".*\" to prune all but"
    ) as e:
        mvp.Pruner(model, **SETTINGS)
    (pasted,) = re.findall(r'target=(r".*?")', str(e.value))
    assert pasted == f'r"{suggested}"'
    assert names(model, eval(pasted)) == chosen


@pytest.mark.parametrize("model", [nn.Linear(4, 4), wrapped(nn.Linear(4, 4), "fc"), nn.Sequential(nn.Linear(4, 4))])
def test_a_single_linear_map_may_be_the_head(model):
    with pytest.raises(ValueError, match=r"only linear map, .*, may be its head: pass target=.*convolutions") as e:
        mvp.Pruner(model, **SETTINGS)
    assert len(names(model, eval(re.findall(r'target=(r".*?")', str(e.value))[0]))) == 1


def test_no_linear_map_at_all():
    for model in (nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()), nn.ModuleList([nn.Embedding(3, 3)])):
        for target in (None, "0"):
            with pytest.raises(ValueError, match=r"the model has no linear map .*convolutions, .* are not pruned"):
                mvp.Pruner(model, target=target, **SETTINGS)


def test_target_is_a_string():
    with pytest.raises(TypeError, match=r"target=\['fc1'\]: must be a regular expression \(a string\) or None"):
        mvp.Pruner(Plain(), target=["fc1"], **SETTINGS)


def test_model_is_a_module():
    for model in ("bert-base-uncased", torch.optim.SGD(Plain().parameters())):
        with pytest.raises(TypeError, match=r"model=.*: must be a torch\.nn\.Module"):
            mvp.Pruner(model, **SETTINGS)


def test_names_are_those_of_the_model_itself():
    """A suggested pattern, or one from an earlier run, fits the compiled or data-parallel model too."""
    assert names(torch.compile(Plain()), r"^fc1$") == ["fc1"]
    assert names(nn.DataParallel(Plain()), r"^fc1$") == ["fc1"]
    assert names(nn.DataParallel(perceptron(4, 4, 2))) == ["0"]


# -- weights that cannot be trained -----------------------------------------------------------------------------------


def small_bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=24, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    return BertForSequenceClassification(config)


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")


def with_adapter(peft):
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS", init_lora_weights=False)
    return peft.get_peft_model(small_bert(), config)


@pytest.mark.parametrize("target", [None, "lora_", "query"])
def test_adapters_are_refused(peft, target):
    with pytest.raises(
        ValueError, match=r"part of a PEFT adapter \(.*merges into a dense weight.*merge_and_unload\(\)"
    ):
        mvp.Pruner(with_adapter(peft), target=target, **SETTINGS)


def test_a_merged_adapter_is_a_plain_model(peft):
    model = with_adapter(peft)
    with pytest.raises(ValueError) as e:
        mvp.Pruner(model, **SETTINGS)
    frozen = model.merge_and_unload()
    with pytest.raises(ValueError, match=r"weights of bert\.encoder.*are frozen.*requires_grad_\(True\)"):
        mvp.Pruner(frozen, **SETTINGS).attach(torch.optim.AdamW(frozen.parameters()))
    scope = {"model": with_adapter(peft)}
    exec(re.findall(r"(model = .*)$", str(e.value))[0], scope)
    model = scope["model"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pruner = mvp.Pruner(model, **SETTINGS).attach(optimizer)
    assert len(pruner.matrices) == 12
    for _ in range(6):
        model(input_ids=torch.randint(4, 24, (4, 8)), labels=torch.tensor([0, 1, 0, 1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    pruner.finalize()
    assert pruner.density == pytest.approx(0.25, abs=1e-3)


def test_frozen_weights_are_named():
    for held in (True, False):  # in the optimizer, or left out of it as trainable parameters alone are given
        net = Net()
        net.blocks[1].weight.requires_grad_(False)
        given = [p for p in net.parameters() if held or p.requires_grad]
        with pytest.raises(ValueError, match=r"weights of blocks\.1 are frozen \(requires_grad=False\): call "):
            mvp.Pruner(net, **SETTINGS).attach(torch.optim.AdamW(given))


class Int8Params(nn.Parameter):
    """As bitsandbytes stores a matrix."""


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantized_weights_are_refused(dtype):
    net = Net()
    net.blocks[0].weight = Int8Params(torch.zeros(16, 12).to(dtype), requires_grad=False)
    with pytest.raises(ValueError, match=rf"blocks\.0\.weight is quantized \(Int8Params, {dtype}\).*afterwards"):
        mvp.Pruner(net, **SETTINGS)


def test_weights_without_values_are_refused():
    for model in (Net(device="meta"), nn.ModuleList([nn.LazyLinear(4)])):
        with pytest.raises(ValueError, match=r"\.?0\.weight has no values yet \(lazy module or meta device\)"):
            mvp.Pruner(model, **SETTINGS)

"""Training on after `finalize()`: zeros are held, or their loss is said."""

import copy
import io
import warnings

import pytest
import torch
from nets import Net, loss_of, make, train
from torch import nn

import mvp_lite as mvp

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.1),
    "fused": lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.1, fused=True),
    "single": lambda p: torch.optim.Adam(p, lr=3e-3, foreach=False),
}


def zeros(net):
    return [block.weight.detach().eq(0) for block in net.blocks]


def equal(first, second):
    return all(map(torch.equal, first, second))


def pruned(optimizer="adamw", **options):
    """A finalized run: the net, its optimizer and where it is zero."""
    given = OPTIMIZERS[optimizer]
    net = Net(dtype=options.pop("dtype", torch.float32), device=options.pop("device", "cpu"))
    net, opt, pruner = make(net=net, optimizer=given(net.parameters()), **options)
    train(net, opt, range(20))
    pruner.finalize()
    assert pruner.density == pytest.approx(0.2, abs=0.01)
    return net, opt, zeros(net)


# -- nothing holds them -----------------------------------------------------------------------------------------------


def test_the_loss_of_zeros_is_said_once():
    net, opt, before = pruned()
    with pytest.warns(
        UserWarning, match=r"density went from 0\.\d+ to .*mvp_lite\.hold_zeros\(model, optimizer\)"
    ) as w:
        train(net, opt, range(20, 25))
    assert len(w) == 1 and w[0].filename.endswith("nets.py") and not opt._optimizer_step_post_hooks
    assert not equal(zeros(net), before)


def test_nothing_is_said_where_nothing_is_lost():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net, opt, before = pruned()
        opt.zero_grad()
        opt.step()  # without gradients
        for group in opt.param_groups:
            group["lr"] = 0.0
        train(net, opt, range(3))
        assert equal(zeros(net), before)
        _, _, pruner = make(net=net, optimizer=opt)  # another run with the same optimizer
        for group in opt.param_groups:
            group["lr"] = 0.01
        train(net, opt, range(20))
        pruner.finalize()
    with pytest.warns(UserWarning, match="density went from"):
        train(net, opt, range(1))


# -- held -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_optimizer", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_stay_zero(name, same_optimizer, device):
    net, opt, before = pruned(name, device=device)
    opt = opt if same_optimizer else OPTIMIZERS[name](net.parameters())
    hold = mvp.hold_zeros(net, opt)
    start = [block.weight.detach().clone() for block in net.blocks]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = train(net, opt, range(20, 60))
    assert equal(zeros(net), before) and sum(losses[-10:]) < sum(losses[:10])
    for block, first, zero in zip(net.blocks, start, before, strict=True):
        assert block.weight.detach().ne(first)[~zero].float().mean() > 0.8, "the others are trained"
        assert not block.weight.grad[zero].any()
        if not same_optimizer:
            momenta = [value for value in opt.state[block.weight].values() if value.shape == zero.shape]
            assert momenta and not any(value[zero].any() for value in momenta)
    hold.release()
    train(net, opt, range(60, 62))
    assert not equal(zeros(net), before), "the test would notice"


def test_it_is_training_with_a_mask():
    """Against the plain way: a mask multiplied to the weights in each forward pass."""
    net, _, before = pruned(dtype=torch.float64)
    masked = copy.deepcopy(net)
    for block, zero in zip(masked.blocks, before, strict=True):
        nn.utils.parametrize.register_parametrization(block, "weight", Masked(~zero))
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    mvp.hold_zeros(net, opt)
    for model, optimizer in ((net, opt), (masked, torch.optim.SGD(masked.parameters(), lr=0.05, momentum=0.9))):
        for i in range(6):
            optimizer.zero_grad()
            loss_of(model, i).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)  # sees no gradient of pruned entries
            optimizer.step()
    for a, b in zip(net.blocks, masked.blocks, strict=True):
        torch.testing.assert_close(a.weight, b.weight)


class Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, W):
        return W * self.mask


def test_momentum_from_before_does_not_move_zeros():
    net, opt, before = pruned("sgd")
    opt.zero_grad(set_to_none=False)
    assert any(bool(opt.state[block.weight]["momentum_buffer"][z].any()) for block, z in zip(net.blocks, before))  # noqa: B905
    mvp.hold_zeros(net, opt)
    opt.step()
    assert equal(zeros(net), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_and_a_gradient_scaler(dtype):
    net, _, before = pruned(dtype=dtype)
    opt = OPTIMIZERS["adamw"](net.parameters())
    mvp.hold_zeros(net, opt)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for i in range(4):
        opt.zero_grad()
        scaler.scale(loss_of(net, i) * (float("inf") if i == 1 else 1.0)).backward()
        scaler.step(opt)
        scaler.update()
    assert equal(zeros(net), before) and all(bool(p.isfinite().all()) for p in net.parameters())


def test_frozen_weights_and_layers_added_later():
    net, _, before = pruned()
    net.blocks[0].weight.requires_grad_(False)
    opt = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    mvp.hold_zeros(net, opt)
    train(net, opt, range(2))
    net.blocks[0].weight.requires_grad_(True)
    opt.add_param_group({"params": [net.blocks[0].weight]})
    train(net, opt, range(2, 4))
    assert equal(zeros(net), before)


def test_pruning_in_stages():
    """A second pruner may start from held zeros: its masks go on from there."""
    net, _, before = pruned()
    opt = OPTIMIZERS["adamw"](net.parameters())
    mvp.hold_zeros(net, opt)
    _, _, pruner = make("magnitude", net=net, optimizer=opt, density=0.1, initial_density=0.2)
    train(net, opt, range(20))
    pruner.finalize()
    assert pruner.density == pytest.approx(0.1, abs=0.005)
    assert all(bool(now[then].all()) for now, then in zip(zeros(net), before, strict=True))


def test_the_trainer(tmp_path, device):
    from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

    def model_and_optimizer():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=24, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
            max_position_embeddings=8, num_labels=2, pad_token_id=0,
        )  # fmt: skip
        model = BertForSequenceClassification(config).to(device)
        model.bert.encoder.layer[0].output.dense.weight.data[:8] = 0
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        mvp.hold_zeros(model, optimizer)
        return model, optimizer

    examples = [{"input_ids": [2, 3 + i % 20, 5], "labels": i % 2} for i in range(16)]
    found = []
    for resume in (False, True):
        model, optimizer = model_and_optimizer()
        args = TrainingArguments(
            str(tmp_path), max_steps=6, per_device_train_batch_size=4, report_to="none", disable_tqdm=True,
            save_steps=3, use_cpu=device == "cpu", dataloader_pin_memory=False, logging_strategy="no",
        )  # fmt: skip
        trainer = Trainer(model, args, train_dataset=examples, optimizers=(optimizer, None))
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3") if resume else None)
        weight = model.bert.encoder.layer[0].output.dense.weight.detach()
        assert not weight[:8].any() and bool(weight[8:].all())
        found.append(weight)
    assert torch.equal(*found)


# -- loading, copying, releasing --------------------------------------------------------------------------------------


def test_loading_weights():
    net, opt, before = pruned()
    mvp.hold_zeros(net, opt)
    state = copy.deepcopy(net.state_dict())
    train(net, opt, range(3))
    net.load_state_dict(state)
    train(net, opt, range(3))
    assert equal(zeros(net), before), "weights with the same zeros go on"
    net.load_state_dict(Net(5).state_dict())
    with pytest.raises(ValueError, match=r"blocks\.0\.weight was changed from outside: .*release\(\)"):
        train(net, opt, range(1))
    net.load_state_dict(state)
    net.blocks[0].weight = nn.Parameter(net.blocks[0].weight.detach())
    with pytest.raises(ValueError, match=r"blocks\.0\.weight was replaced"):
        train(net, opt, range(1))


def test_copies_are_plain():
    net, opt, before = pruned()
    mvp.hold_zeros(net, opt)
    train(net, opt, range(1))
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for other in (copy.deepcopy(net), torch.load(file, weights_only=False)):
        assert equal(zeros(other), before)
        assert not any(p._backward_hooks for p in other.parameters())
        train(other, torch.optim.SGD(other.parameters(), lr=0.1), range(2))
        assert not equal(zeros(other), before)
    assert equal(zeros(net), before)


def test_release_and_repr():
    net, opt, before = pruned()
    hold = mvp.hold_zeros(net, opt)
    count = sum(int(z.sum()) for z in before)
    assert repr(hold) == f"Hold({count} zeros among 384 weights of 2 matrices)"
    hold.release()
    hold.release()
    assert repr(hold).endswith("; released)")
    assert not opt._optimizer_step_post_hooks and not opt._optimizer_step_pre_hooks
    assert not any(block.weight._backward_hooks for block in net.blocks)


def test_what_is_refused():
    net, opt, _ = pruned()
    with pytest.raises(TypeError, match=r"optimizer=Net: hold_zeros takes a torch\.optim\.Optimizer"):
        mvp.hold_zeros(net, net)
    with pytest.raises(ValueError, match=r"the optimizer does not hold the weights of blocks\.0, blocks\.1"):
        mvp.hold_zeros(net, torch.optim.SGD(net.head.parameters()))
    with pytest.raises(ValueError, match=r"no zeros in the weights of head: .*give the target= that the Pruner had"):
        mvp.hold_zeros(net, opt, "head")
    net, opt, pruner = make()
    with pytest.raises(ValueError, match=r"a pruner is attached to this optimizer .*finalize\(\) first"):
        mvp.hold_zeros(net, opt)
    pruner.finalize(early=True)


def test_a_sparse_start_of_fine_prune_names_it():
    task = mvp.load_task("toy/inference", limit=64)
    model = mvp.load_model("toy", task)
    for module in model.bert.encoder.modules():
        if isinstance(module, nn.Linear):
            module.weight.data[::2] = 0
    with pytest.warns(UserWarning, match=r"seems to be pruned already.*mvp_lite\.hold_zeros\(model, optimizer\)"):
        mvp.fine_prune(model, task, density=0.2, steps=2, warmup_steps=0, cooldown_steps=0, progress=False)

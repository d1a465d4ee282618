"""Recipes, methods with options as text, and the changes to hard movement that they can name."""

import math

import pytest
import torch
from nets import Net, layers, loss_of, make, train

import mvp_lite as mvp
from mvp_lite import masks
from mvp_lite.experiments import remedies
from mvp_lite.experiments.recipes import Recipe


def test_a_recipe_is_a_method_with_options():
    found = Recipe.parse("movement  magnitude_init=0.2 schedule=cosine cooldown_steps=30 dense_steps=50")
    assert (found.name, found.method, found.dense_steps, found.is_dense) == ("movement", "movement", 50, False)
    assert found.options == {"magnitude_init": 0.2, "schedule": "cosine", "cooldown_steps": 30}
    assert Recipe.parse("movement groups=centered").options["groups"] is remedies.centered
    assert Recipe.parse("frozen").method is remedies.Frozen
    assert Recipe.parse("dense").is_dense and Recipe.parse("scratch").method == "dense"


@pytest.mark.parametrize("name", ["movement", "soft_movement", "l0"])
def test_a_name_alone_is_the_method_of_the_papers(name):
    assert Recipe.parse(name).options == {"magnitude_init": 0.0}
    assert Recipe.parse("magnitude").options == {}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("lottery", "methods='lottery': must be one of dense, scratch, magnitude"),
        ("movement lr=3", "methods='movement lr=3': 'lr' is none of schedule"),
        ("dense schedule=cosine", "'schedule' is none of"),
    ],
)
def test_recipes_that_are_none(text, match):
    with pytest.raises(ValueError, match=match):
        Recipe.parse(text)


def masks_of_a_run(method, **options):
    net, opt, pruner = make(method, **options)
    found = [[layer.mask for layer in layers(pruner)]]
    train(net, opt, range(20), after=lambda: found.append([layer.mask for layer in layers(pruner)]))
    return found, pruner


def test_frozen_masks_do_not_change_in_the_cool_down():
    found, pruner = masks_of_a_run(remedies.Frozen)
    plain, _ = masks_of_a_run("movement")
    for step in range(17):
        assert all(torch.equal(a, b) for a, b in zip(found[step], plain[step], strict=True))
    assert all(torch.equal(a, b) for step in range(16, 21) for a, b in zip(found[step], found[16], strict=True))
    assert any(not torch.equal(a, b) for step in range(17, 21) for a, b in zip(plain[step], plain[16], strict=True))
    assert pruner.done


def test_masks_that_are_renewed_seldom():
    found, _ = masks_of_a_run(remedies.Seldom)
    for step in range(1, 16):
        same = all(torch.equal(a, b) for a, b in zip(found[step], found[step - 1], strict=True))
        assert same == (step % 10 != 0)


def test_leaking_scores_forget():
    net, opt, pruner = make(remedies.Leaking, optimizer="sgd", score_lr=1e-12)
    for group in pruner.groups:
        group.scores.data.fill_(1.0)
    train(net, opt, range(20))
    for group in pruner.groups:
        torch.testing.assert_close(group.scores.detach(), torch.full_like(group.scores, math.exp(-3.0)))


def test_sensitivity_adds_up_absolute_products():
    net = Net(dtype=torch.float64)
    net, opt, pruner = make(remedies.Sensitivity, net=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    total = [torch.zeros_like(layer.master) for layer in layers(pruner)]
    for step in range(5):
        opt.zero_grad()
        loss_of(net, step).backward()
        for t, layer in zip(total, layers(pruner), strict=True):
            t += 0.3 * (layer.weight.grad * layer.master).abs()
        opt.step()
    for t, layer in zip(total, layers(pruner), strict=True):
        torch.testing.assert_close(layer.scores.detach(), t)


def inputs_of_blocks(net):
    seen = {}
    for name, block in net.blocks.named_children():
        block.register_forward_pre_hook(lambda _, x, name=name: seen.update({f"blocks.{name}": x[0].detach()}))
    return seen


def test_centered_gradients_are_those_of_centered_inputs():
    net, opt, pruner = make("movement", groups=remedies.centered, dtype=torch.float64)
    seen = inputs_of_blocks(net.train())
    train(net, opt, range(5))
    loss_of(net, 5).backward()
    for layer in layers(pruner):
        a = seen[layer.name]  # (examples, in)
        errors = torch.linalg.lstsq(a.T, layer.weight.grad.T).solution.T  # any E with E a = G gives the sums below
        E_a = layer.weight.grad - torch.outer(layer.module.bias.grad, a.mean(0))
        assert errors.shape == (layer.weight.shape[0], len(a))
        torch.testing.assert_close(layer.group.mask_gradient(), E_a * layer.master, rtol=1e-5, atol=1e-7)


def test_a_centered_gradient_ignores_a_constant_input():
    """With the same input in every example there is nothing left."""
    net, _, pruner = make("movement", groups=remedies.centered, dtype=torch.float64)
    x = torch.ones(8, 6, dtype=torch.float64)
    net.train()(x).square().sum().backward()
    for layer in layers(pruner):
        assert layer.weight.grad.abs().max() > 1e-3
        torch.testing.assert_close(layer.group.mask_gradient(), torch.zeros_like(layer.master), rtol=0.0, atol=1e-6)


def test_the_bias_takes_over_what_pruned_weights_contributed():
    net, _, pruner = make("movement", groups=remedies.compensated, dtype=torch.float64)
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = inputs_of_blocks(net.train())
    net(x)
    for layer in layers(pruner):
        a = seen[layer.name]
        before = layer.module(a).mean(0)
        half = masks.top_v(layer.master.abs(), 0.5)
        layer.group.set_mask(half)
        torch.testing.assert_close(layer.module(a).mean(0), before, rtol=1e-5, atol=1e-6)
        assert int((layer.weight == 0).sum()) == int((~half).sum())
        layer.group.set_mask(torch.ones_like(half))
        torch.testing.assert_close(layer.module(a).mean(0), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", ["centered", "compensated"])
def test_runs_with_these_groups_end_at_their_density(groups):
    task = mvp.load_task("toy/sentiment", limit=100)
    model = mvp.load_model("toy", task)
    recipe = Recipe.parse(f"movement groups={groups}")
    result = mvp.fine_prune(model, task, recipe.method, 0.1, steps=6, batch_size=8, progress=False, **recipe.options)
    assert result.density == pytest.approx(0.1, abs=1e-3)

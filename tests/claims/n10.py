"""Notebook 10, structured movement: errors planted in its equations, and what its text claims."""

import copy
import math

import numpy as np
import pandas as pd
import torch
from in_notebook import Claims

import mvp_lite as mvp
from mvp_lite import course
from mvp_lite.structure.shrinking import sizes

claims = Claims()


@claims.planted("10.1")
def _(by_block, M, G, W):
    return {
        "a mean": by_block.flatten() / 4,
        "the mask left in": by_block.flatten() * M.detach(),
        "sign": -by_block.flatten(),
        "W forgotten": G.view(2, 2, 3, 2).sum(dim=(1, 3)).flatten(),
        "blocks of another shape": (G * W).view(4, 2, 3).sum(dim=2).view(2, 4).sum(dim=0).repeat(2)[:6],
    }


@claims.planted("10.2")
def _(into, out):
    return {"the first matrix alone": into, "the second alone": out, "a mean": (into + out) / 2}


@claims.planted("10.3")
def _(ffn, zeros1, zeros2, b1, A, whole):
    rows = zeros1.ne(0).any(dim=1)
    return {
        "rows decide": ffn(zeros1[rows], b1[rows], zeros2[:, rows]),
        "the first biases": ffn(zeros1[A], b1[: len(A)], zeros2[:, A]),
        "no biases": ffn(zeros1, 0 * b1, zeros2),
        "twice": 2 * whole,
    }


@claims.planted("10.4")
def _(head_output, alive, b_O, attention):
    right = sum(head_output(h) for h in alive) + b_O
    no_bias = copy.deepcopy(attention)
    no_bias.self.value.bias.data.zero_()
    X = torch.randn(7, 128, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return {
        "one head forgotten": right - head_output(alive[0]),
        "no bias of the output": right - b_O,
        "no bias of the values": no_bias.output.dense(no_bias.self(X[None])[0])[0],
    }


@claims.planted("10.5")
def _(parameters, layers_of, models, counted, by_formula):
    units = [[sum(column) for column in zip(*layers_of(models[name]), strict=True)] for name in counted]
    return {
        "biases of units left out": [n - 96 * h - m for n, (h, m) in zip(by_formula, units, strict=True)],
        "of one layer": [n // 4 for n in by_formula],
        "no output map": [n - 128 * 32 * h for n, (h, _) in zip(by_formula, units, strict=True)],
    }


@claims.planted("10.6")
def _(layers_of, models, counted, expected):
    heads = [sum(h for h, _ in layers_of(models[name])) for name in counted]
    return {
        "the attention itself forgotten": [n - 4 * 24**2 * 32 * h for n, h in zip(expected, heads, strict=True)],
        "multiply-adds": [n // 2 for n in expected],
        "one product of attention": [n - 2 * 24**2 * 32 * h for n, h in zip(expected, heads, strict=True)],
    }


@claims.claim("Both models keep a third of the encoder's weights.")
def _(runs):
    assert all(abs(run.density - 1 / 3) < 1e-4 for run in runs.values())


@claims.claim("Half of the heads and a quarter of the neurons stay.")
def _(runs):
    assert sizes(mvp.shrink(runs["heads and neurons"].model)) == {"heads": [2] * 4, "neurons": [128] * 4}


@claims.claim("whole rows of $W_1$ are zero, and so are the columns of $W_2$ with the *same numbers*", above=True)
def _(runs):
    layer = runs["heads and neurons"].model.bert.encoder.layer[0]
    rows, columns = layer.intermediate.dense.weight.ne(0).any(dim=1), layer.output.dense.weight.ne(0).any(dim=0)
    assert torch.equal(rows, columns) and rows.sum() == 128
    layer = runs["single weights"].model.bert.encoder.layer[0]
    assert layer.output.dense.weight.ne(0).any(dim=0).all()


@claims.claim("how many of the 827,267 parameters")
def _(dense, small):
    assert dense.num_parameters() == 827_267
    assert [model.num_parameters() for model in small.values()] == [827_267, 300_675]


@claims.claim("the same output. **Predict**")
def _(runs, small, task, dense):
    x = next(task.encode(mvp.tokenizer_for(dense)).batches("train", 8, seed=1, steps=1, device="cpu"))
    for name, run in runs.items():
        with torch.no_grad():
            masked, shrunk = copy.deepcopy(run.model).double().eval(), copy.deepcopy(small[name]).double().eval()
            assert (masked(**x).logits - shrunk(**x).logits).abs().max() < 1e-12


@claims.claim("Both models have the same number of zeros, but only one becomes smaller.", above=True)
def _(runs):
    zeros = [
        sum(int(p.eq(0).sum()) for name, p in run.model.bert.encoder.named_parameters() if p.dim() == 2)
        for run in runs.values()
    ]
    assert abs(zeros[0] - zeros[1]) < 24 and zeros[1] == 4 * 196_608 * 2 // 3


@claims.claim("Half of it is kept: the groups with the largest sum of $|W_{ij}|$.")
def _(masks, matrix):
    assert all(mask.sum() == 128 for mask in masks.values())
    rows = matrix.weight.abs().sum(dim=1)
    assert rows[masks["rows"].any(dim=1)].min() > rows[~masks["rows"].any(dim=1)].max()


@claims.claim("of every four neighboring inputs exactly two stay")
def _(masks):
    assert (masks["2:4"].view(-1, 4).sum(dim=1) == 2).all()


@claims.claim("$\\binom{16}{8}=12870$ ways, in the 2:4 pattern in $6^4=1296$ ways, and as two of four blocks in 6 ways")
def _():
    assert math.comb(16, 8) == 12870 and math.comb(4, 2) ** 4 == 1296 and math.comb(4, 2) == 6


@claims.claim("The best choice under a rule is never better than the best choice without it.", above=True)
def _(size, masks):
    kept = {name: float(size[mask].sum()) for name, mask in masks.items()}
    assert kept["weights"] > kept["2:4"] > max(kept["blocks 4 x 4"], kept["rows"], kept["columns"])


@claims.claim("Blocks of 1 × 1 give back the rule of notebook 03.", above=True)
def _(W, G, by_block):
    for size, expected in ((1, G * W), (2, by_block)):
        matrix = torch.nn.Linear(6, 4, bias=False).double()
        matrix.weight.data = W.clone()
        pruner = mvp.Pruner(matrix, density=0.5, total_steps=10, target="", groups=mvp.groups.blocks(size, size))
        matrix.weight.grad = G
        assert torch.allclose(pruner.groups[0].mask_gradient(), expected)


@claims.claim("with 4 heads and width 128, these are 32 rows or columns each")
def _(dense):
    assert (dense.config.num_attention_heads, dense.config.hidden_size) == (4, 128)


def gradients(task):
    """The pretrained toy in float64, with the gradient of a batch."""
    toy = mvp.load_model("toy", task).double().eval()
    toy(**next(task.encode(mvp.tokenizer_for(toy)).batches("train", 32, seed=0, steps=1, device="cpu"))).loss.backward()
    return toy


@claims.claim("equals the sum over the columns of $W_O$")
def _(task):
    attention = gradients(task).bert.encoder.layer[1].attention

    def rows(linear):
        found = (linear.weight.grad * linear.weight).view(4, -1).sum(dim=1)
        return found + (linear.bias.grad * linear.bias).view(4, -1).sum(dim=1), found

    W_O = attention.output.dense.weight
    out = (W_O.grad * W_O).view(128, 4, 32).sum(dim=(0, 2))
    value, without_bias = rows(attention.self.value)
    assert torch.allclose(value, out, rtol=1e-9) and not torch.allclose(without_bias, out, rtol=1e-3)
    # queries, with biases, and keys; the biases of keys have no effect, since softmax ignores a constant
    assert torch.allclose(rows(attention.self.query)[0], rows(attention.self.key)[1], rtol=1e-9, atol=1e-15)


@claims.claim("For a neuron the argument holds with ReLU in place of GELU.")
def _(x, W1, b1, W2, target):
    ends = [t.clone().requires_grad_() for t in (W1, b1, W2)]
    loss = (torch.relu(x @ ends[0].T + ends[1]) @ ends[2].T - target).square().mean()
    G1, g1, G2 = torch.autograd.grad(loss, ends)
    assert torch.allclose((G1 * W1).sum(dim=1) + g1 * b1, (G2 * W2).sum(dim=0))


@claims.claim("With GELU the two sums of (10.2) are only similar.")
def _(task):
    both = []
    for layer in gradients(task).bert.encoder.layer:
        first, second = layer.intermediate.dense.weight, layer.output.dense.weight
        both.append(torch.stack([(first.grad * first).sum(dim=1), (second.grad * second).sum(dim=0)]).detach())
    assert 0.7 < torch.corrcoef(torch.cat(both, dim=1))[0, 1] < 0.99


@claims.claim("neuron 1 loses its column of $W_2$. Neuron 6 loses its row of $W_1$. Neuron 5 loses both.")
def _(zeros1, zeros2):
    rows, columns = zeros1.eq(0).all(dim=1), zeros2.eq(0).all(dim=0)
    assert rows.nonzero().flatten().tolist() == [5, 6] and columns.nonzero().flatten().tolist() == [1, 5]


@claims.claim("The *column* decides.", above=True)
def _(ffn, zeros1, b1, zeros2, whole):
    without = {n: [m for m in range(8) if m != n] for n in (1, 5, 6)}
    change = {n: (ffn(zeros1[m], b1[m], zeros2[:, m]) - whole).abs().max() for n, m in without.items()}
    assert change[1] < 1e-12 > change[5] and change[6] > 1


@claims.claim("A neuron whose row is zero still adds the constant $W_2[:,n]\\,\\varphi(b_n)$.", above=True)
def _(ffn, zeros1, b1, zeros2, whole):
    m = [n for n in range(8) if n != 6]
    constant = zeros2[:, 6] * torch.nn.functional.gelu(b1[6])
    assert torch.allclose(whole - ffn(zeros1[m], b1[m], zeros2[:, m]), constant.expand_as(whole))


@claims.claim("in which two heads of four are left")
def _(alive):
    assert len(alive) == 2


@claims.claim("A head without $W_{V,h}$ still adds $W_{O,h}\\,b_{V,h}$ to every token.")
def _(attention, X, alive):
    mine = slice(32 * alive[0], 32 * alive[0] + 32)
    changed = copy.deepcopy(attention)
    with torch.no_grad():
        changed.self.value.weight[mine] = 0.0
        before = changed.output.dense(changed.self(X[None])[0])[0]
        constant = changed.output.dense.weight[:, mine] @ changed.self.value.bias[mine]
        changed.self.value.bias[mine] = 0.0
        after = changed.output.dense(changed.self(X[None])[0])[0]
    assert torch.allclose(before - after, constant.expand_as(before)) and constant.abs().max() > 1e-4


@claims.claim("the number of heads times their size is always the width")
def _(dense, models):
    attention = dense.bert.encoder.layer[0].attention.self
    assert attention.attention_head_size == dense.config.hidden_size // dense.config.num_attention_heads
    assert sizes(models["uniform"]) == {"heads": [4] * 4, "neurons": [128] * 4}


@claims.claim("The file of the masked model is as large as that of the dense one.", above=True)
def _(rows, dense, model, batch):
    assert not torch.allclose(dense(**batch).logits, model(**batch).logits, atol=0.1)  # the comparison says something
    assert rows["masked"]["MB"] == rows["dense"]["MB"] > rows["uniform"]["MB"] > rows["shrunk"]["MB"]
    assert all(row["same output"] for row in rows.values())


@claims.claim("We keep a quarter of the blocks and of the neurons.")
def _(runs):
    assert abs(runs["hybrid"].density - 0.25) < 1e-6


@claims.claim("four blocks make up the columns of $W_O$ that belong to one head")
def _(runs):
    for layer in runs["hybrid"].model.bert.encoder.layer:
        blocks = layer.attention.output.dense.weight.detach().view(4, 32, 4, 32).ne(0).any(dim=3).any(dim=1)
        assert blocks.sum() == 4


@claims.claim("About half of the 16 heads have no block left", above=True)
def _(models):
    assert 5 <= 16 - sum(sizes(models["hybrid"])["heads"]) <= 11


@claims.claim("$\\binom{12}{4}/\\binom{16}{4}\\approx0.27$", above=True)
def _():
    assert abs(math.comb(12, 4) / math.comb(16, 4) - 0.27) < 0.005


@claims.claim("where 48 blocks of $W_O$ make up one head, this probability is below one in 100,000", above=True)
def _():
    assert (768 // 32) * (64 // 32) == 48 and (768 // 32) ** 2 == 576
    assert math.comb(576 - 48, 144) / math.comb(576, 144) < 1e-5


@claims.claim("The masked model takes as many operations as the dense one.", above=True)
def _(watched, models):
    assert watched(models["masked"], 24) == watched(models["dense"], 24)


@claims.claim("Zeros gain nothing, and removed zeros gain a good part of what the operations promise.", above=True)
def _(faster):
    assert 0.8 < faster["masked"] < 1.25 and faster["shrunk"] > 1.4


@claims.claim("7 of 12 heads and 1863 of 3072 neurons are left in every layer")
def _(parameters, recorded):
    removed = 12 * (parameters(12, 3072, 768, 64) - parameters(7, 1863, 768, 64))
    assert recorded["parameters"]["dense"] - recorded["parameters"]["shrunk"] == removed


@claims.claim("about 60 % of the operations")
def _(speed):
    assert (1 / speed[speed["variant"] == "shrunk"]["fewer"]).between(0.59, 0.61).all()


@claims.claim("Zeros kept: the same speed within 3 %.", above=True)
def _(speed):
    assert speed[speed["variant"] == "masked"]["speed_up"].between(0.97, 1.03).all()


@claims.claim("1.6 to 1.7 times as fast, at least 95 % of what the operations promise", above=True)
def _(speed):
    shrunk = speed[speed["variant"] == "shrunk"]
    assert shrunk["speed_up"].between(1.6, 1.7).all() and (shrunk["speed_up"] / shrunk["fewer"]).min() > 0.95


@claims.claim("have 300 steps and three seeds, with")
def _(recorded_runs):
    assert (recorded_runs["steps"] == 300).all()
    assert (recorded_runs.groupby(["task", "method", "groups"]).size() == 3).all() and len(recorded_runs) == 36
    assert (recorded_runs["kept"] - 0.1).abs().max() < 0.001


def means(runs):
    return runs.groupby(["method", "groups", "task"])["score"].mean()


@claims.claim("Models with heads and neurons shrink to less than 15 % of the parameters.", above=True)
def _(recorded_runs, dense):
    mine = recorded_runs[recorded_runs["groups"] == "heads+neurons"]["parameters"]
    assert mine.max() < 0.15 * dense.num_parameters()


@claims.claim("Blocks leave 57 to 79 %", above=True)
def _(recorded_runs, dense):
    share = recorded_runs[recorded_runs["groups"] == "blocks"]["parameters"] / dense.num_parameters()
    assert [round(100 * share.min()), round(100 * share.max())] == [57, 79]


@claims.claim(
    "74 % on inference and 72 % on paraphrase on average; blocks, and heads and neurons, at least 93 %", above=True
)
def _(recorded_runs):
    movement = means(recorded_runs)["movement"]
    assert movement["weights"].round().to_dict() == {"toy/inference": 74, "toy/paraphrase": 72}
    assert movement[["blocks", "heads+neurons"]].min() > 93
    by = recorded_runs[recorded_runs["method"] == "movement"].groupby(["groups", "task"])["score"]
    for groups in ("blocks", "heads+neurons"):  # every seed above every seed of single weights
        assert (by.min()[groups] > by.max()["weights"]).all()


@claims.claim("tuning chose $10^{-3}$ for groups and $10^{-4}$ for single weights", above=True)
def _(recorded_runs):
    movement = recorded_runs[recorded_runs["method"] == "movement"].set_index("groups")["lr"]
    assert (movement["weights"] == 1e-4).all() and (movement[["blocks", "heads+neurons"]] == 1e-3).all()


@claims.claim("Here movement starts its scores at 0, like the paper.")
def _(recorded_runs):
    commands = recorded_runs["command"].str.cat(sep=" ")
    assert "magnitude_init" not in commands  # in these files the name "movement" alone means scores from 0
    assert set(recorded_runs["method"]) == {"movement", "magnitude"}


@claims.claim("Our runs above started them from magnitude, the default")
def _(dense):
    pruners = [
        mvp.Pruner(dense, "movement", density=0.1, total_steps=10, **start) for start in ({}, {"magnitude_init": 0.0})
    ]
    from_magnitude, from_zero = (pruner.groups[0].scores.detach() for pruner in pruners)
    assert from_magnitude.std() > 0 and from_zero.eq(0).all()


@claims.claim("Filled markers are shifted to the left and open ones to the right.", above=True)
def _(recorded_runs):
    axes = course.figures.score_against_size(recorded_runs)
    drawn = {line.get_label(): line for line in axes[0].get_lines()}
    left, right = (drawn[f"single weights, {method}"] for method in ("movement", "magnitude"))
    assert left.get_markerfacecolor() != "none" and right.get_markerfacecolor() == "none"
    assert left.get_xdata().max() < 827.267 < right.get_xdata().min()


@claims.claim("or with scores from magnitude (`toy.csv`), they reach more than 98 % on average", above=True)
def _():
    toy = pd.read_csv(mvp.data_path("results", "toy.csv")).query("split == 'validation' and density == 0.1")
    toy = toy[(toy["method"] == "movement magnitude_init=0.2") & (toy["scope"] == "local") & ~toy["distil"]]
    toy = toy[toy["task"].isin(["toy/inference", "toy/paraphrase"])]
    assert (toy["steps"] == 300).all() and (toy.groupby("task")["score"].mean() > 98).all() and len(toy) == 10


@claims.claim("with 900 steps (`toy_long.csv`), or with scores from magnitude", above=True)
def _():
    longer = pd.read_csv(mvp.data_path("results", "toy_long.csv")).query("split == 'validation'")
    longer = longer[longer["method"] == "movement"]
    assert (longer["steps"] == 900).all() and (longer["density"] == 0.1).all() and longer["score"].min() > 98
    assert {"toy/inference", "toy/paraphrase"} <= set(longer["task"])


@claims.claim("Heads and neurons score almost as high as single weights, but blocks lose 11 to 18 points.", above=True)
def _(recorded_runs):
    magnitude = means(recorded_runs)["magnitude"]
    lost = (magnitude["weights"] - magnitude["blocks"]).round().tolist()
    assert sorted(lost) == [11, 18]
    assert (magnitude["weights"] - magnitude["heads+neurons"]).max() < 2


@claims.claim("a score that sums 64 or 256 products", above=True)
def _(dense):
    assert 8 * 8 == 64 and 2 * dense.config.hidden_size == 256


@claims.claim("the sum of their absolute values varies by about 9 % from block to block by chance", above=True)
def _():
    assert round(100 * math.sqrt((math.pi / 2 - 1) / 64)) == 9
    sums = np.abs(np.random.default_rng(0).standard_normal((20_000, 64))).sum(axis=1)
    assert abs(sums.std() / sums.mean() - math.sqrt((math.pi / 2 - 1) / 64)) < 0.003


@claims.claim("the blocks of the pretrained toy differ by no more than that", above=True)
def _(task):
    groups = {"blocks": mvp.groups.blocks(8, 8), "neurons": "neurons", "heads": "heads"}
    weights, ratios = {"blocks": 64, "neurons": 256, "heads": 16384}, {}
    for name, maker in groups.items():
        pruner = mvp.Pruner(mvp.load_model("toy", task), "magnitude", density=0.5, total_steps=10, groups=maker)
        sums = [group.magnitude() for group in pruner.groups]
        chance = math.sqrt((math.pi / 2 - 1) / weights[name])
        ratios[name] = [float(total.std() / total.mean() / chance) for total in sums]
    assert sum(ratios["blocks"]) / 24 < 1.1 and max(ratios["blocks"]) < 1.25
    assert min(ratios["neurons"]) > 1.3 and max(ratios["heads"]) > 3


@claims.claim("4.5 % of the weights in free places score as high as 18 % in blocks", above=True)
def _(logs):
    kept = {(name, share): f1 for name, share, f1, _ in logs}
    assert kept["weights", 4.5] > kept["blocks", 18]


@claims.claim("6.4 % kept makes the model only 1.26 times as fast", above=True)
def _(logs):
    speeds = {(name, share): float(speed) for name, share, _, speed in logs if speed not in ("–", "1.00")}
    assert speeds.pop(("weights, large teacher", 6.4)) == 1.26 and min(speeds.values()) > 1.9


@claims.claim("And the hybrid is better than blocks alone.", above=True)
def _(logs):
    hybrid, blocks = (sorted(row[1:3] for row in logs if row[0] == name) for name in ("hybrid", "blocks"))
    assert all(h[1] > b[1] and h[0] < b[0] + 1 for h, b in zip(hybrid, blocks, strict=True))

"""Notebook 08, distillation: errors planted in its equations, and what its text claims."""

import copy
import math

import numpy as np
import pandas as pd
import torch
from in_notebook import Claims
from torch.nn import functional as F

import mvp_lite as mvp

claims = Claims()


@claims.planted("8.1")
def _(Z_t, T):
    softened = {"logits times T": torch.softmax(Z_t * T, 1), "over examples": torch.softmax(Z_t / T, 0)}
    return {**softened, "T after the softmax": torch.softmax(Z_t, 1) / T}


@claims.planted("8.2")
def _(p, q, crossed, entropy):
    return {
        "student first": (q * (q / p).log()).sum(dim=1),
        "entropy added": crossed + entropy,
        "entropy left out": crossed,
    }


@claims.planted("8.3")
def _(p, q, T, Z_t, Z_s, labels):
    plain = (torch.softmax(Z_s, 1) - torch.softmax(Z_t, 1)) / T
    label = (q - F.one_hot(labels, 3)) / T
    return {"1/T forgotten": q - p, "sign": (p - q) / T, "label for teacher": label, "plain softmax": plain}


@claims.planted("8.4")
def _(p, q, T):
    right = T / 2 * (q - p)
    return {"T squared forgotten": right / T**2, "sum over examples": 2 * right, "mean over all entries": right / 3}


@claims.planted("8.5")
def _(Z_s, Z_t, limit):
    return {"not centered": (Z_s - Z_t) / 3, "K forgotten": 3 * limit, "sign": -limit}


@claims.planted("8.6")
def _(a, b, T, p, q, q_hat, y):
    from_labels, from_teacher = a * (q_hat - y) / 2, b * T * (q - p) / 2
    return {
        "labels at T, too": a * (q - y) / 2 + from_teacher,
        "weights exchanged": 9 * from_labels + from_teacher / 9,
        "without T squared": from_labels + from_teacher / T**2,
        "labels forgotten": from_teacher,
    }


@claims.planted("8.7")
def _(a, b, G_ce, G_kd, W, layer):
    return {
        "the mask left in": (a * G_ce + b * G_kd) * W * layer.mask(),
        "teacher alone": b * G_kd * W,
        "weights exchanged": (b * G_ce + a * G_kd) * W,
        "sign": -(a * G_ce + b * G_kd) * W,
    }


@claims.planted("8.8")
def _(a, b, accounts, masked_layer, X, y6, z_teacher, T):
    def alone(alpha_ce, alpha_kd):
        layer = masked_layer(torch.zeros(3, 4))
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        for t in range(12):
            layer.level = 1.0 if t < 3 else 0.5
            optimizer.zero_grad()
            z = layer(X)
            (alpha_ce * F.cross_entropy(z, y6) + alpha_kd * mvp.distillation_loss(z, z_teacher, T)).backward()
            optimizer.step()
        return layer.scores.detach()

    right = -0.5 * (a * accounts[0] + b * accounts[1])
    assert torch.allclose(alone(a, b), right)
    return {
        "sign": -right,
        "two runs put together": a * alone(1.0, 0.0) + b * alone(0.0, 1.0),
        "teacher alone": -0.5 * b * accounts[1],
    }


@claims.planted("8.9")
def _(z, z_t, terms, positions):
    everywhere = mvp.distillation_loss(z.flatten(0, 1), z_t.flatten(0, 1), 2.0)
    right = torch.stack(terms).mean()
    assert 8 * 4 <= len(positions) < 8 * 7
    return {
        "padding counts": everywhere,
        "over sequences": torch.stack(terms).sum() / 8,
        "T squared forgotten": right / 4,
        "divided by all positions": right * len(positions) / 56,
    }


@claims.claim("The authors of movement pruning released 266 runs with BERT-base")
def _(released):
    runs = pd.read_csv(mvp.data_path("paper", "released_runs.csv"))
    assert len(runs) == 266 and set(released["scope"].dropna()) <= {"local", "global"}
    assert set(runs["distil"]) == {True, False}
    assert not released.duplicated(["task", "method", "distil", "kept"]).any()  # one seed for each point


@claims.claim("On SQuAD every gain is more than a point, and half of them are more than 2.5.", above=True)
def _(gains):
    squad = gains[gains["task"] == "squad1.1"]["gain"]
    assert squad.min() > 1 and squad.median() > 2.5


@claims.claim("On MNLI and on QQP half of the gains are below 0.75 points.", above=True)
def _(gains):
    medians = gains.groupby("task")["gain"].median()
    assert medians["mnli"] < 0.75 and medians["qqp"] < 0.75


@claims.claim("its probabilities, $(0.879,\\,0.119,\\,0.002)$")
def _(Z_t, labels):
    assert [f"{p:.3f}" for p in torch.softmax(Z_t[0], dim=0).tolist()] == ["0.879", "0.119", "0.002"]
    assert Z_t.argmax(1).tolist() == labels.tolist() == [0, 2]


@claims.claim("At $T=3.5$ it does: the probabilities are 0.57, 0.32 and 0.10.", above=True)
def _(Z_t):
    assert [f"{p:.2f}" for p in torch.softmax(Z_t[0] / 3.5, dim=0).tolist()] == ["0.57", "0.32", "0.10"]
    assert torch.softmax(Z_t[0] / 3.5, dim=0)[2] >= 0.1 > torch.softmax(Z_t[0] / 3.0, dim=0)[2]  # steps of the slider


@claims.claim("The order of the classes never changes.", above=True)
def _(Z_t):
    for T in (0.5, 2.0, 16.0):
        assert torch.equal(torch.softmax(Z_t / T, 1).argsort(1), Z_t.argsort(1))


@claims.claim("we can recover all differences of the teacher's logits", above=True)
def _(Z_t, T):
    p = torch.softmax(Z_t / T, dim=1)
    assert torch.allclose(T * (p.log() - p.log()[:, :1]), Z_t - Z_t[:, :1])


@claims.claim("It is 0 if $q=p$ and positive otherwise.")
def _(Z_t, Z_s):
    assert mvp.distillation_loss(Z_t, Z_t + 1) < 1e-12 < mvp.distillation_loss(Z_s, Z_t)


@claims.claim("So KL and cross-entropy have the same gradient")
def _(Z_s, p, T):
    z = Z_s.clone().requires_grad_()
    log_q = torch.log_softmax(z / T, dim=1)
    (from_kl,) = torch.autograd.grad(F.kl_div(log_q, p, reduction="sum"), z, retain_graph=True)
    (from_ce,) = torch.autograd.grad(-(p * log_q).sum(), z)
    assert torch.allclose(from_kl, from_ce)


@claims.claim("takes the *student* first, as *logarithms*, and the teacher second", above=True)
def _(p, q):
    loop = sum(float(x) * math.log(x / y) for x, y in zip(p[0], q[0], strict=True))
    assert math.isclose(float(F.kl_div(q[0].log(), p[0], reduction="sum")), loop)


@claims.claim("The right side is the gradient of a squared distance between logits.")
def _(Z_s, Z_t, limit):
    z = Z_s.clone().requires_grad_()
    centered = (z - z.mean(1, keepdim=True)) - (Z_t - Z_t.mean(1, keepdim=True))
    (slope,) = torch.autograd.grad(centered.square().sum() / 6, z)
    assert torch.allclose(slope, limit)


@claims.claim("With $T^2$ the gradient levels off; without it, it falls as $1/T^2$.", above=True)
def _(magnitude, temperatures, curves):
    without, distance = curves["without"], curves["distance from the limit (8.5)"]
    assert abs(magnitude[-1] / magnitude[3] - 1) < 0.1  # from temperature 8 on
    assert torch.allclose(without[5:-1] / without[6:], torch.tensor(4.0), rtol=0.05)
    assert torch.allclose(distance[5:-1] / distance[6:], torch.tensor(2.0), rtol=0.05)


@claims.claim(
    "The weights are in the spreadsheet of the released runs: $\\alpha_{ce}=0.1$ for the labels and $\\alpha_{kd}=0.9$"
)
def _(released):
    weights = released.loc[released["distil"], ["alpha_ce", "alpha_kd"]].dropna().drop_duplicates()
    assert weights.values.tolist() == [[0.1, 0.9]]
    teacher = mvp.Teacher(torch.nn.Linear(2, 2))
    assert (teacher.alpha_ce, teacher.alpha_kd, teacher.temperature) == (0.1, 0.9, 2.0)


@claims.claim("the student is pulled to the wrong side: the teacher has 90 % of the weight", above=True)
def _(a, b):
    assert (a, b) == (0.1, 0.9)
    z = torch.zeros(1, 3, requires_grad=True)
    wrong = torch.tensor([[4.0, 0.0, 0.0]])  # the label is class 2
    loss = a * F.cross_entropy(z, torch.tensor([2])) + b * mvp.distillation_loss(z, wrong, 2.0)
    (slope,) = torch.autograd.grad(loss, z)
    assert slope.argmin() == 0  # gradient descent raises class 0


@claims.claim("the same numbers in ascending order")
def _(sequences):
    batch = sequences(200, seed=5)
    lengths = batch["attention_mask"].sum(1)
    assert lengths.unique().tolist() == [4, 5, 6, 7]
    numbers = batch["input_ids"][batch["attention_mask"] == 1]
    assert numbers.unique().tolist() == list(range(2, 14))
    for row, labels, read in zip(batch["input_ids"], batch["labels"], batch["decoder_input_ids"], strict=True):
        right = sorted(row[row > 0].tolist())
        assert labels[labels != -100].tolist() == right == sorted(set(right))
        assert read.tolist()[: len(right)] == [0, *right[:-1]]


@claims.claim("It puts the teacher into evaluation mode and computes no gradient for it.", above=True)
def _(teacher, pair, batch):
    pair[1].train()
    teacher.loss(pair[0](**batch), batch).backward()
    assert not pair[1].training and all(w.grad is None for w in pair[1].parameters())
    pair[0].zero_grad()


@claims.claim("In training mode dropout would turn its answers into noise", above=True)
def _(pair, batch):
    noisy = copy.deepcopy(pair[1]).train()
    for module in noisy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.1
    with torch.no_grad():
        first, second = (noisy(**batch).logits.flatten(0, 1) for _ in range(2))
    assert mvp.distillation_loss(first, second) > 0.001


@claims.claim("with a gradient it could learn from its student", above=True)
def _(Z_s, Z_t):
    free = Z_t.clone().requires_grad_()
    (pushed,) = torch.autograd.grad(mvp.distillation_loss(Z_s, free), free)
    assert pushed.abs().max() > 0.1


@claims.claim("First the dense model, trained on 6,400 sequences.")
def _(score, dense):
    assert 200 * 32 == 6400 and score(dense) > 90


@claims.claim("only **30 sequences** have one")
def _(few, new):
    assert all(len(batch["labels"]) == 30 for batches in few.values() for batch in batches)
    assert all(len(batches) == 50 and len(batches[0]["labels"]) == 32 for batches in new.values())


@claims.claim("We prune this model to 5 % in 50 steps")
def _(dense):
    pruner = mvp.Pruner(copy.deepcopy(dense), "movement", density=0.05, total_steps=50)
    assert sum(group.scores.numel() for group in pruner.groups) == 81_920


def mean(row):
    return sum(row) / len(row)


@claims.claim("On the same 30 inputs the teacher adds a few points.", above=True)
def _(scores):
    assert 0.5 < mean(scores["teacher, same inputs"]) - mean(scores["labels"]) < 13


@claims.claim("the task has only one right answer", above=True)
def _(dense, test):
    with torch.no_grad():
        p = torch.softmax(dense(**test).logits, -1)[test["labels"] != -100]
    assert p.amax(-1).median() > 0.9  # the teacher knows it


@claims.claim("On new inputs the same teacher adds more than ten.", above=True)
def _(scores):
    assert mean(scores["teacher, new inputs"]) - mean(scores["labels"]) > 10
    assert min(scores["teacher, new inputs"]) > max(scores["labels"])


@claims.claim("The true labels of these inputs would be hardly better or worse than its answers.", above=True)
def _(scores):
    assert abs(mean(scores["labels of the new inputs"]) - mean(scores["teacher, new inputs"])) < 7


@claims.claim("With 100 steps, new inputs add less.", above=True)
def _(tiny_t5, dense, alone, few, new, sequences, train, score, scores):
    longer = {None: few[1] * 2, alone: [*new[1], *(sequences(32, seed=50_000 + i) for i in range(50))]}
    found = []
    for teacher, batches in longer.items():
        student = tiny_t5(seed=0)
        student.load_state_dict(dense.state_dict())
        pruner = mvp.Pruner(student, "movement", density=0.05, total_steps=100)
        train(student, batches, lr=1e-3, teacher=teacher, pruner=pruner)
        pruner.finalize()
        found.append(score(student))
    assert 0 < found[1] - found[0] < mean(scores["teacher, new inputs"]) - mean(scores["labels"]) - 2


@claims.claim("at 5 % all four ways fail: most of the next tokens are wrong", above=True)
def _(tiny_t5, dense, ways, train, score):
    for batches, teacher in ways.values():
        student = tiny_t5(seed=0)
        student.load_state_dict(dense.state_dict())
        pruner = mvp.Pruner(student, "magnitude", density=0.05, total_steps=50)
        train(student, batches[1], lr=1e-3, teacher=teacher, pruner=pruner)
        pruner.finalize()
        assert score(student) < 50


@claims.claim("There are 316 comparisons.")
def _(both):
    assert len(both) == 316


@claims.claim("In seven: six are lower and one is level.", above=True)
def _(both, not_higher):
    assert len(not_higher) == 7 and (both["gain"].round(6) < 0).sum() == 6 and (both["gain"].round(6) == 0).sum() == 1
    between = both[both["method"].isin(["soft_movement", "l0"])]
    assert (between["gain"] < 0.005).sum() == 1  # the other six compare runs of the same density
    exact = not_higher[not_higher["method"].isin(["magnitude", "movement"])]
    runs = pd.read_csv(mvp.data_path("paper", "released_runs.csv"))
    for task, method, kept in exact[["task", "method", "kept"]].itertuples(index=False):
        same = runs[(runs["task"] == task) & (runs["method"] == method) & (runs["kept"] == kept)]
        assert set(same["distil"]) == {True, False}


@claims.claim("The largest loss, half a point of F1, is that of magnitude on QQP at 3 %.", above=True)
def _(not_higher):
    worst = not_higher.iloc[0]
    assert (worst["task"], worst["method"], worst["measure"]) == ("qqp", "magnitude", "other")
    assert round(worst["kept"], 2) == 0.03 and round(worst["gain"], 2) == -0.54


@claims.claim("On SQuAD magnitude gains most with the fewest weights, and movement gains least there.", above=True)
def _(gains):
    squad = gains[gains["task"] == "squad1.1"].set_index("kept").groupby("method")["gain"]
    magnitude, movement = squad.get_group("magnitude"), squad.get_group("movement")
    assert magnitude.idxmax() == magnitude.index.min() and movement.idxmin() == movement.index.min()
    assert round(magnitude.max()) == 5 and movement.min() < 2


@claims.claim("magnitude and movement score more than a point *above* the dense model on SQuAD", above=True)
def _(released):
    tables = pd.read_csv(mvp.data_path("paper", "movement_tables.csv"))
    dense = tables[(tables["method"] == "dense") & (tables["task"] == "squad1.1")]["score"].iloc[0]
    runs = released[released["distil"] & (released["task"] == "squad1.1") & released["kept"].between(0.89, 0.91)]
    assert set(runs["method"]) == {"magnitude", "movement"} and (runs["score"] > dense + 1).all()


@claims.claim("It is not among the released runs.", above=True)
def _(released):
    assert released["kept"].max() < 1


@claims.claim("The two toy tasks have three seeds.")
def _(pairs):
    toy = pairs["task"].str.startswith("toy/")
    assert (pairs[toy].groupby(["task", "method", "density"])["seed"].nunique() == 3).all()
    assert pairs.loc[~toy, "seed"].nunique() == 1 and pairs.loc[toy, "task"].nunique() == 2
    assert pairs.loc[~toy, "task"].nunique() == 3 and pairs.loc[~toy, "model"].str.contains("MiniLM").all()
    assert set(pairs.loc[toy, "steps"]) == {300} and set(pairs.loc[~toy, "steps"]) == {1200, 1500}
    assert not pairs.duplicated(["task", "method", "density", "seed"]).any()
    real = pairs[~toy]
    assert real["lr_with"].equals(real["lr_without"])


@claims.claim("six of eight runs were at chance level without a teacher, and five of them leave it", above=True)
def _(pairs):
    mnli = pairs[pairs["task"] == "mnli"]
    chance = mnli["score_without"] < 33
    assert len(mnli) == 8 and chance.sum() == 6 and (mnli.loc[chance, "score_with"] > 40).sum() == 5


@claims.claim("On SQuAD no run reaches an F1 of 40 without a teacher, and six of eight gain more than four", above=True)
def _(pairs):
    squad = pairs[pairs["task"] == "squad"]
    assert len(squad) == 8 and squad["score_without"].max() < 40 and (squad["gain"] > 4).sum() == 6


@claims.claim("soft movement is at chance in some pairs without a teacher, and solves the task with one", above=True)
def _(pairs):
    soft = pairs[(pairs["task"] == "toy/paraphrase") & (pairs["method"] == "soft_movement")]
    assert len(soft) == 6 and ((soft["score_without"] < 62) & (soft["score_with"] > 99)).sum() == 3


@claims.claim("On SST-2 no difference is as large as one standard error.", above=True)
def _(pairs):
    rows = pairs[pairs["task"] == "sst2"]
    x, y = rows["score_with"] / 100, rows["score_without"] / 100
    errors = (x - y) / np.sqrt((x * (1 - x) + y * (1 - y)) / 872)
    assert len(rows) == 8 and errors.abs().max() < 1


@claims.claim("magnitude changes by less than three points in all twelve pairs", above=True)
def _(pairs):
    rows = pairs[pairs["task"].str.startswith("toy/") & (pairs["method"] == "magnitude")]
    assert len(rows) == 12 and rows["gain"].abs().max() < 3


@claims.claim("gains 14 points with one seed and loses 17 with another", above=True)
def _(pairs):
    rows = pairs[(pairs["task"] == "toy/paraphrase") & (pairs["method"] == "movement") & (pairs["density"] == 0.03)]
    assert (round(rows["gain"].max()), round(rows["gain"].min())) == (14, -17)


@claims.claim("it adds up to five points on SQuAD and mostly less than one on MNLI and QQP.", above=True)
def _(gains):
    largest = gains.groupby("task")["gain"].max()
    assert round(largest["squad1.1"]) == 5 and largest.idxmax() == "squad1.1"
    others = gains[gains["task"] != "squad1.1"]["gain"]
    assert (others < 1).mean() > 0.75


@claims.claim("keeps the teacher's share of the mixture nearly the same at every high temperature", above=True)
def _(magnitude):
    assert magnitude[3:].max() / magnitude[3:].min() < 1.1  # from temperature 8 on

"""Notebook 04: planted errors in its equations, and what its text says of scores, optimizers, schedule and runs."""

import copy

import numpy as np
import torch
from in_notebook import Claims

from mvp_lite import Pruner, masks, schedule
from mvp_lite.course.exercises import n04

claims = Claims()


@claims.planted("4.1")
def _(S, G, W):
    return {"sign": S[:-1] + G[:-1] * W[:-1], "the weight after the step": S[:-1] - G[:-1] * W[1:]}


@claims.planted("4.2")
def _(S, G, W, M):
    products = -G[:30] * W[:30]
    masked = (products * M[:30]).sum(dim=0)
    return {"sign": -S[30], "G masked, as Eq. 3 reads": masked, "one step short": products[:-1].sum(dim=0)}


@claims.planted("4.3")
def _(growth, steps_squared):
    return {
        "second order left out": 5 * growth,
        "the 2 forgotten": 10 * (growth - steps_squared),
        "wrong sign of the steps": 5 * (growth + steps_squared),
        "sign": -5 * (growth - steps_squared),
    }


@claims.planted("4.4")
def _(g):
    first = -0.01 * g[0] / (g[0].abs() + 1e-8)
    uncorrected = -0.01 * 0.1 * g[0] / ((0.001 * g[0] ** 2).sqrt() + 1e-8)
    return {
        "sign": -first,
        "the means not corrected": uncorrected,
        "SGD": -0.01 * g[0],
        "no learning rate": 100 * first,
    }


@claims.planted("4.5")
def _(p):
    return {
        "ends swapped": 1 - 0.9 * (1 - p) ** 3,
        "squared": 0.1 + 0.9 * (1 - p) ** 2,
        "late by the cool-down, as printed": 0.1 + 0.9 * (1 - p + 20 / 70) ** 3,
        "a straight line": 1 - 0.9 * p,
    }


@claims.planted("4.6")
def _(by_hand):
    right = torch.tensor(by_hand)
    return {"without the half": 2 * right, "not centered": right + 0.15, "no steps": right / 50}


# --- two weights --------------------------------------------------------------------------------------------------


@claims.claim("the large weight has to shrink, the small one has to grow.")
def _(start, goal, runs):
    assert goal[0] < start[0] and goal[1] > start[1]
    W = runs["dense"][0]
    assert W[-1, 0] < start[0] and W[-1, 1] > start[1]


@claims.claim("After 20 steps $w_1$ is still the larger weight", above=True)
def _(runs):
    for W, S, _, _ in runs.values():
        assert W[20, 0] > W[20, 1] and S[20, 0] < 0 < S[20, 1]
    assert runs["magnitude"][2][20:].tolist() == [[1, 0]] * 11
    assert runs["movement"][2][20:].tolist() == [[0, 1]] * 11


@claims.claim("It ends at a loss of 0.18, magnitude at 0.30.", above=True)
def _(runs, loss_of):
    ends = {name: float(loss_of(*(W * M)[-1])) for name, (W, _, M, _) in runs.items()}
    assert abs(ends["movement"] - 0.18) < 0.005 and abs(ends["magnitude"] - 0.3025) < 0.005


@claims.claim("the masks stay the same and magnitude ends lower.", above=True)
def _(walk, goal):
    ends = {}
    for method, mask in (("magnitude", [1, 0]), ("movement", [0, 1])):
        W, _, M, _ = walk(method, k=torch.ones(2))
        assert M[20:].tolist() == [mask] * 11
        ends[method] = float((0.5 * (W[-1] * M[-1] - goal).square()).sum())
    assert ends["magnitude"] < ends["movement"]


@claims.claim("until, after eleven steps, the weights change places; later they change again and again.", above=True)
def _(walk, curvature, goal):
    W, S, M, _ = walk("movement", steps=60)
    rise = S[21:30, 0] - S[20:29, 0]
    assert torch.allclose(rise, curvature[0] * goal[0] * W[20, 0] * torch.ones(9))
    swaps = (M[21:] != M[20:-1]).any(dim=1)
    assert int(swaps.nonzero()[0]) + 1 == 11 and swaps[10:].sum() > 10


# --- what the sum measures, and Adam ------------------------------------------------------------------------------


@claims.claim("and their scores would stand still.", above=True)
def _(W, M, G):
    pruned = M[20:30] == 0
    assert pruned.sum() == 10
    assert ((G * M * W)[20:30][pruned] == 0).all() and ((G * W)[20:30][pruned] != 0).all()


@claims.claim("from 1.0 to 1.1 the square grows by 0.21, from 0 to 0.1 only by 0.01.")
def _():
    assert abs(1.1**2 - 1.0**2 - 0.21) < 1e-12 and abs(0.1**2 - 0.01) < 1e-12


@claims.claim("$w_1$ ends with a score of 0.95, where (4.3) would give $-2.94$.", above=True)
def _(runs):
    W, S, M, _ = runs["movement"]
    said = (W[-1] ** 2 - W[0] ** 2 - W.diff(dim=0).square().sum(dim=0)) / (2 * 0.1)
    assert M[-1].tolist() == [0, 1] and torch.allclose(S[-1, 1], said[1])
    assert abs(S[-1, 0] - 0.95) < 0.005 and abs(said[0] + 2.94) < 0.005


@claims.claim("With small steps the last sum is small.")
def _(growth, steps_squared):
    assert (steps_squared < 0.1 * growth.abs()).all()


@claims.claim("The steps are not small, so the last sum of (4.3) counts.")
def _(path, S):
    trail = torch.stack(path)
    gain, squares = trail[-1] ** 2 - trail[0] ** 2, trail.diff(dim=0).square().sum(dim=0)
    assert (0.5 * gain - S).abs().max() > 0.05 * S.abs().max() and torch.allclose(0.5 * (gain - squares), S)


@claims.claim("The pretraining task depends on inputs 0 to 7, the new task on inputs 4 to 11.")
def _(tasks):
    _, x, y, batches = tasks[0]
    solved = torch.linalg.lstsq(x, torch.atanh(y)).solution
    assert (solved[:4].abs() < 1e-6).all() and (solved[4:].abs() > 1e-4).any(dim=1).all()
    assert x.shape == (1500, 12) and batches.shape == (200, 32) and int(batches.max()) < 1000


@claims.claim("So the score moves by $\\alpha_S$, however large $g$ is")
def _(scores_after, g):
    for scale in (1.0, 100.0):
        first = scores_after(torch.optim.Adam, [scale * g[0]])
        assert torch.equal(first.sign(), -g[0].sign()) and first.numel() == 144
        assert (first.abs() > 0.0095).sum() > 140 and (first.abs() <= 0.01).all()


@claims.claim("Under SGD the jumpy weight wins by fifty to one.", above=True)
def _(scores_after, steady, jumpy):
    gradients = torch.stack([steady, jumpy], dim=1)
    small, large = scores_after(torch.optim.SGD, list(gradients)).tolist()
    assert abs(large / small - 50) < 1e-9
    full, less = scores_after(torch.optim.Adam, list(gradients)).tolist()
    assert abs(full - 40 * 0.01) < 1e-4 and less < 0.5 * full
    hundred = scores_after(torch.optim.Adam, list(gradients * torch.tensor([100.0, 1.0])))
    assert abs(float(hundred[0]) - full) < 1e-4


@claims.claim("Scores under SGD span several powers of ten. Under Adam none is larger than 0.4.", above=True)
def _(by_sgd, by_adam):
    assert by_sgd.abs().max() > 1e3 * by_sgd.abs().min() and by_adam.abs().max() < 0.4


@claims.claim("each would keep 36 weights, and 32 of them are the same.", above=True)
def _(by_sgd, by_adam):
    kept = masks.top_v(by_sgd, 0.25), masks.top_v(by_adam, 0.25)
    assert kept[0].sum() == kept[1].sum() == 36 and (kept[0] & kept[1]).sum() == 32


@claims.claim("If the learning rate changes, each step counts with its own.", above=True)
def _(g):
    S = torch.zeros_like(g[0])
    sgd = torch.optim.SGD([S], lr=1.0)
    falling = torch.optim.lr_scheduler.LambdaLR(sgd, lambda t: 1 - t / 40)
    for S.grad in g:
        sgd.step()
        falling.step()
    weighted = -sum((1 - t / 40) * gradient for t, gradient in enumerate(g))
    assert torch.allclose(S, weighted) and not torch.allclose(S, -sum(g) / 2)


@claims.claim("Momentum of 0.9 counts an old step up to ten times.", above=True)
def _(g):
    S = torch.zeros_like(g[0])
    sgd = torch.optim.SGD([S], lr=1.0, momentum=0.9)
    for S.grad in (gradient.clone() for gradient in g):
        sgd.step()
    times = [(1 - 0.9 ** (40 - t)) / (1 - 0.9) for t in range(40)]
    assert torch.allclose(S, -sum(n * gradient for n, gradient in zip(times, g, strict=True)))
    assert 9.8 < times[0] < 10 and abs(times[-1] - 1) < 1e-12


@claims.claim("A common start shifts all scores and changes no mask; unequal starts give another run.", above=True)
def _(walk, loss_of, start):
    def masks_from(S0):
        w, S = start.clone().requires_grad_(), S0.clone().requires_grad_()
        sgd = torch.optim.SGD([{"params": [w], "lr": 0.1}, {"params": [S], "lr": 1.0}])
        seen = []
        for t in range(60):
            M = masks.TopV.apply(S, 1.0 if t < 20 else 0.5)
            seen.append(M.tolist())
            sgd.zero_grad()
            loss_of(*(w * M)).backward()
            sgd.step()
        return seen, S.detach()

    plain, shifted, uneven = (masks_from(torch.tensor(S0)) for S0 in ([0.0, 0.0], [5.0, 5.0], [5.0, 0.0]))
    assert plain[0] == shifted[0] and torch.allclose(shifted[1], plain[1] + 5)
    assert plain[0] == walk("movement", steps=59)[2].tolist()
    assert uneven[0] != plain[0]


# --- the schedule -------------------------------------------------------------------------------------------------


@claims.claim("halfway down, seven eighths of what will go is gone")
def _(cubic):
    assert cubic[0] == 1 and abs(cubic[-1] - 0.1) < 1e-12 and len(cubic) == 71
    assert abs((1 - cubic[35]) / 0.9 - 7 / 8) < 1e-12
    fell = -cubic.diff()
    assert (fell.diff() < 0).all() and 2.8 < fell[0] / (0.9 / 70) < 3 and fell[-1] < 1e-3 * fell[0]


@claims.claim("At the end of our warm-up it asks for 2.01 times the weights there are.", above=True)
def _():
    def printed(t):
        return 0.1 + 0.9 * (1 - (t - 10 - 20) / 70) ** 3

    assert abs(printed(10) - 2.01) < 0.005 and abs(printed(79) - 0.124) < 0.001
    coded = [schedule.cubic(t, 1.0, 0.1, 100, 10, 20) for t in range(10, 81)]
    assert np.allclose(coded, [printed(t + 20) for t in range(10, 81)])


@claims.claim("The published code accepts that silently; ours raises an error.", above=True)
def _():
    for settings in ((10, 10, 0), (10, 12, 0), (10, 5, 5)):
        try:
            schedule.check_schedule(*settings)
        except ValueError:
            continue
        raise AssertionError(settings)


# --- one run ------------------------------------------------------------------------------------------------------


@claims.claim("The scores spread, and the threshold moves to the right.", above=True)
def _(run, densities):
    spread = [float(run["S"][t].std()) for t in densities]
    assert spread == sorted(spread) and spread[-1] > 1.5 * spread[0]
    lowest = [float(run["S"][t][masks.top_v(run["S"][t], v)].min()) for t, v in densities.items()]
    assert lowest == sorted(lowest) and lowest[0] < 0 < lowest[-1]
    assert densities[40] == 1 and abs(densities[200] - 0.25) < 1e-12
    assert run["S"][40].unique().numel() == 144 and (run["S"][0] == 0).all()


@claims.claim("seven of those kept at the end were pruned at step 90.", above=True)
def _(run, densities):
    then = masks.top_v(run["S"][90], densities[90])
    assert (run["mask"] & ~then).sum() == 7 and run["mask"].sum() == 36


@claims.claim("Its modules hold $W\\odot M$, so after `loss.backward()` their gradient *is* $G$.", above=True)
def _(tasks):
    _, x, y, _ = tasks[0]
    linear = torch.nn.Linear(12, 3, bias=False)
    adam = torch.optim.Adam(linear.parameters(), lr=0.01)
    options = {"density": 0.5, "total_steps": 10, "warmup_steps": 0, "cooldown_steps": 5, "target": ""}
    pruner = Pruner(linear, "movement", **options).attach(adam)
    for step in range(8):
        adam.zero_grad()
        used = linear.weight.detach().clone()
        assert torch.equal(used == 0, pruner.groups[0].mask == 0)
        loss = (linear(x) - y).square().mean()
        loss.backward()
        free = used.clone().requires_grad_()
        (x @ free.T - y).square().mean().backward()
        assert torch.allclose(linear.weight.grad, free.grad)
        assert step < 6 or (linear.weight.grad[used == 0] != 0).all()
        adam.step()
        assert not (pruner.matrices[0].master == 0).any()
    pruner.finalize()


@claims.claim("Movement has emptied all four columns. Magnitude keeps eight weights there", above=True)
def _(masks, tasks):
    assert masks["movement"][:, :4].sum() == 0 and masks["magnitude"][:, :4].sum() == 8
    pretrained = tasks[0][0][0].weight.detach()
    row, column = divmod(int(pretrained.abs().argmax()), 12)
    assert column < 4 and masks["magnitude"][row, column] and not masks["movement"][row, column]


# --- five tasks ---------------------------------------------------------------------------------------------------


def _errors(results):
    return results.pivot(index="seed", columns=["method", "density"], values="error")


@claims.claim("At 70 % of the weights movement is ahead, but not by much.", above=True)
def _(results):
    table = _errors(results)
    lead = {v: table["magnitude", v] - table["movement", v] for v in (0.7, 0.25)}
    assert (lead[0.7] > 0).sum() >= 4 and 0 < lead[0.7].mean() < 0.3 * lead[0.25].mean()


@claims.claim("At 25 % it is ahead on four of five tasks, and its mean error is little more than half", above=True)
def _(results):
    table = _errors(results)
    assert table.shape == (5, 6) and (table["movement", 0.25] < table["magnitude", 0.25]).sum() == 4
    assert 0.5 < table["movement", 0.25].mean() / table["magnitude", 0.25].mean() < 0.65


@claims.claim("Both are now clearly worse than the dense network.", above=True)
def _(results):
    table = _errors(results)
    dense = table["magnitude", 1.0]
    assert np.allclose(dense, table["movement", 1.0])
    assert (table["movement", 0.25] > 1.5 * dense).all() and (table["magnitude", 0.25] > 1.5 * dense).all()


# --- the dial -----------------------------------------------------------------------------------------------------


@claims.claim("By (4.3) its score is then nearly proportional to $(w^{(0)})^2$", above=True)
def _(curvature, start):
    for lr, steps, tol in ((0.1, 40, 0.3), (0.001, 5000, 0.003)):  # pretraining: the same bowl, around (1, 0.2)
        w, S = torch.zeros(2), torch.zeros(2)
        for _ in range(steps):
            G = curvature * (w - start)
            w, S = w - lr * G, S - G * w
        assert ((2 * lr * S / w**2 - 1).abs() < tol).all() and S[0] > S[1] and w[0] > w[1]


@claims.claim("**So for hard movement pruning the learning rate of the scores does not matter.**")
def _(tasks, train):
    ends = []
    for score_lr in (0.01, 0.1):
        model, x, y, batches = copy.deepcopy(tasks[0])
        adam = torch.optim.Adam(model.parameters(), lr=0.01)
        options = {"total_steps": 200, "warmup_steps": 40, "cooldown_steps": 60, "magnitude_init": 0.2, "target": ""}
        pruner = Pruner(model, "movement", density=0.25, score_lr=score_lr, **options).attach(adam)
        losses = list(train(model, adam, x, y, batches))
        pruner.finalize()
        ends.append((model[0].weight.detach(), losses))
    assert torch.equal(ends[0][0] == 0, ends[1][0] == 0) and np.allclose(ends[0][1], ends[1][1], rtol=1e-6)


@claims.claim("The default of `magnitude_init` is 0.2.", above=True)
def _(tasks):
    pruner = Pruner(tasks[0][0], density=0.5, total_steps=10, target="")
    assert pruner.method.magnitude_init == 0.2


@claims.claim(
    "At $c=0$, 0.2 and 0.5 the mean error is nearly the same, about 0.18; at 0.1 it is higher, 0.25.", above=True
)
def _(found):
    mean, low = found.groupby("c")["score"].mean(), found.query("c < 1")["score"]
    assert (mean[[0.0, 0.2, 0.5]] - 0.18).abs().max() < 0.01 and abs(mean[0.1] - 0.25) < 0.01
    assert abs(low.min() - 0.05) < 0.01 and abs(low.max() - 0.35) < 0.01


@claims.claim("From 1 on the error is above that of magnitude pruning, also with twice the steps", above=True)
def _(found, magnitude, tasks, fine_prune):
    mean = found.groupby("c")["score"].mean()
    assert mean[[0.0, 0.1, 0.2, 0.5]].max() < magnitude < mean[[1.0, 2.0]].min()
    twice = [(*task[:3], task[3].repeat(2, 1)) for task in tasks]
    means = {}
    for method, c in (("movement", 1.0), ("magnitude", 0.0)):
        means[method] = sum(fine_prune(task, method, 0.1, 80, c=c)["error"] for task in twice) / 5
    assert means["movement"] > means["magnitude"] + 0.02


@claims.claim("That is not magnitude pruning, which ranks the weights as they are now.")
def _(tasks, fine_prune):
    frozen = [fine_prune(task, "movement", 0.1, c=1000.0) for task in tasks]
    for task, end in zip(tasks, frozen, strict=True):
        start = task[0][0].weight.detach().abs()
        assert torch.equal(masks.top_v(start, 0.1).bool(), end["mask"])
    magnitude = [fine_prune(task, "magnitude", 0.1) for task in tasks]
    assert sum(end["error"] for end in frozen) / 5 > sum(end["error"] for end in magnitude) / 5 + 0.1


@claims.claim("0.032 when it is right, 0.064 with the gradient of $S$ masked, 0.069 ranked by $|W|$.", above=True)
def _(network, weights, pairs, v):
    for mistake, said in (("", 0.032), ("scores masked", 0.064), ("magnitude", 0.069)):
        losses = n04._train(network, weights, pairs, v, 0.01, mistake)[2]
        assert abs(sum(losses[-20:]) / 20 - said) < 0.001, mistake


@claims.claim("the line between kept and pruned falls with slope $-c$.")
def _(frames):
    for c, frame in frames.items():
        score = frame["movement"] + c * frame["magnitude"]
        kept = frame["kept"]
        assert kept.sum() == 14 and score[kept].min() > score[~kept].max()


@claims.claim("has a mean error of 0.20 on them, and the setting below is worse.")
def _(more, fine_prune, before):
    assert abs(sum(fine_prune(task, "magnitude", 0.25, 12)["error"] for task in more) / 5 - 0.20) < 0.01
    assert before > 0.3


@claims.claim("with a learning rate of 0.05 it reaches 0.08.", above=True)
def _(more, fine_prune, mean_error, setting):
    assert abs(sum(fine_prune(task, "magnitude", 0.25, 12, lr=0.05)["error"] for task in more) / 5 - 0.08) < 0.01
    assert mean_error(**setting(mean_error)) < 0.04
    assert mean_error(12, 0.01, 0.0) > 0.1  # the learning rate of the other runs is not enough
    assert abs(mean_error(40, 0.01, 0.5) - n04._mean_error(40, 0.01, 0.5)) < 1e-9

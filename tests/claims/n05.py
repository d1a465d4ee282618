"""Notebook 05: planted errors in the argument of Appendix A.1; what is said of swaps, of runs and of pictures."""

import pandas as pd
import torch
from in_notebook import Claims

import mvp_lite as mvp
from mvp_lite.course import swaps
from mvp_lite.experiments.probes import between_inputs

claims = Claims()


# Planted errors


@claims.planted("5.1")
def _(S, S_next, leaving, entering):
    late = torch.stack([S_next[entering], S[leaving]])
    exchanged = torch.stack([S[leaving], S_next[entering]])[[1, 0]]
    return {"before and after exchanged": late, "the two weights exchanged": exchanged}


@claims.planted("5.2")
def _(change, entering, S_next):
    return {"subtracted the other way": -change[entering], "the leaving score doubled": 2 * change.min()}


@claims.planted("5.3")
def _(G, M, W):
    return {
        "the mask left in": 0.1 * -G * M * W,
        "uphill": 0.1 * G * W,
        "weight forgotten": -0.1 * G,
        "absolute weight": -0.1 * G * W.abs(),
    }


@claims.planted("5.4")
def _(enters, change, entering):
    return {"the sign not reversed": -enters, "not divided by the learning rate and its sign": 10 * change[entering]}


@claims.planted("5.5")
def _(W, W_next, M, a, x):
    return {
        "pruned weights used": torch.cat([W @ x, W_next @ x]),
        "the mask of before": torch.cat([a, (W_next * M) @ x]),
        "the order of time reversed": torch.cat([(W_next * ~M) @ x, a]),
    }


@claims.planted("5.6")
def _(first, leaves):
    return {"what leaves is forgotten": first + leaves, "both added": first + 2 * leaves, "sign": -first}


@claims.planted("5.7")
def _(G, W, leaving, entering):
    second = G[entering] * W[entering] - G[leaving] * W[leaving]
    trained = -0.1 * G[entering] ** 2
    return {
        "the mask forgotten": torch.stack([trained, second]),
        "the wrong order": torch.stack([0 * trained, -second]),
        "added": torch.stack([0 * trained, G[entering] * W[entering] + G[leaving] * W[leaving]]),
    }


@claims.planted("5.8")
def _(G8, W8, E, L, K):
    enter, leave, trained = (G8 * W8)[E].sum(), (G8 * W8)[L].sum(), (G8**2)[K].sum()
    return {
        "those that stay forgotten": enter - leave,
        "leaving costs": enter + leave - 0.1 * trained,
        "uphill": enter - leave + 0.1 * trained,
        "all trained, not only those that stay": enter - leave - 0.1 * (G8**2).sum(),
    }


@claims.planted("5.9")
def _(measured, W, M, M_next, x, y):
    slopes, bends = zip(
        *[((s * (W * M) @ x - y) @ (s * (W * M_next - W * M) @ x), 0.5 * (s * (W * M_next - W * M) @ x).square().sum())
          for s in range(1, 11)], strict=True)  # fmt: skip
    slope, bend = torch.stack(slopes), torch.stack(bends)
    assert torch.allclose(slope + bend, torch.stack(measured))
    return {"first order only": slope, "the half forgotten": slope + 2 * bend, "curvature helps": slope - bend}


@claims.planted("5.10")
def _(measured, GW6, S6, S6_next):
    right = torch.cat(measured)
    return {
        "the signs exchanged": -right,
        "both rules alike": right.abs(),
        "all entries in place of the flips": torch.cat([-GW6.abs().sum((1, 2)), GW6.abs().sum((1, 2))]),
    }


# The run at the top


@claims.claim(
    "The loss falls to 0.5 and seems to settle. From step 184 on it jumps above 4, again and again", above=True
)
def _(losses, kept):
    loss = torch.stack(losses)
    assert (loss[40:184] - 0.5).abs().max() < 0.01 and loss[0] == 6.5
    jumps = [t for t in range(1, 400) if loss[t] > loss[t - 1] + 3]
    assert jumps[0] == 184 and len(jumps) >= 8 and (loss[jumps] > 4).all()
    assert all(kept[t] != kept[t - 1] for t in jumps)


@claims.claim("All of this holds here. Is the paper wrong?", above=True)
def _(W, S, x, y, step):
    """The step is that of the package's layer and PyTorch's SGD."""
    for _ in range(200):
        layer = mvp.MaskedLinear(torch.nn.Linear(3, 2, bias=False), method="movement")
        layer.weight.data, layer.scores.data, layer.level = W.clone(), S.clone(), 1 / 6
        loss = 0.5 * (layer(x) - y).square().sum()
        loss.backward()
        torch.optim.SGD(layer.parameters(), lr=0.01).step()
        W, S, found = step(W, S, 0.01)
        assert torch.allclose(W, layer.weight) and torch.allclose(S, layer.scores) and torch.allclose(found, loss)


@claims.claim("so only $W_{12}=0.5$ is used")
def _(M, a, G, y, x):
    assert M.nonzero().tolist() == [[0, 1]] and a.tolist() == [-1, 0] and (a - y).tolist() == [-2, -3]
    assert torch.equal(G, torch.outer(a - y, x))


# The pencil example


@claims.claim("Weight $(k,l)=(2,3)$ takes the place of $(i,j)=(1,2)$")
def _(M, M_next, leaving, entering):
    assert M.nonzero().tolist() == [list(leaving)] == [[0, 1]]
    assert M_next.nonzero().tolist() == [list(entering)] == [[1, 2]]


@claims.claim("Here: $0.75-0.3=0.45$ against $0.3-0.5=-0.2$")
def _(S, S_next, change, leaving, entering):
    assert torch.allclose(torch.stack([S_next[entering], S[entering]]), torch.tensor([0.75, 0.3]))
    assert torch.allclose(torch.stack([S_next[leaving], S[leaving]]), torch.tensor([0.3, 0.5]))
    assert torch.allclose(torch.stack([change[entering], change[leaving]]), torch.tensor([0.45, -0.2]))


@claims.claim("Here: $-4.5\\le 2$")
def _(enters, leaves):
    assert torch.allclose(torch.stack([enters, leaves]), torch.tensor([-4.5, 2.0]))


@claims.claim("Here $\\Delta_1=-4.5-2=-6.5$. The true change is $-4.875$")
def _(first, moved, loss_of, a, a_next):
    assert moved == 0 and abs(first + 6.5) < 1e-12
    assert torch.allclose(loss_of(a_next) - loss_of(a), torch.tensor(-4.875))


# Several swaps, and thousands


@claims.claim("Yes: the score of (2, 4) falls")
def _(S8, S8_next, E, L, K, G8, W8, total):
    assert [int(which.sum()) for which in (E, L, K)] == [2, 2, 2]
    assert E[1, 3] and S8_next[1, 3] < S8[1, 3] and ((S8_next - S8)[L] < (S8_next - S8)[1, 3]).all()
    assert total <= 0


@claims.claim("So (5.4) holds for *every* pair")
def _(G8, W8, S8, S8_next, E, L):
    assert S8[L].min() > S8[E].max() and S8_next[L].max() < S8_next[E].min()
    assert ((G8 * W8)[E][:, None] <= (G8 * W8)[L][None, :]).all()


@claims.claim("draws 4,000 random layers of 6 × 6 weights")
def _(covered):
    W, S, x, y = swaps.draw()
    assert W.shape == S.shape == (4000, 6, 6) and x.shape == y.shape == (4000, 6, 1)
    assert all(len(changes.true) > 800 for changes in covered.values())


@claims.claim("For a linear loss $\\Delta_1$ is the whole change, so this share is proved too", above=True)
def _(covered, shares):
    linear = covered["linear loss, scale 1"]
    assert torch.allclose(linear.first, linear.true) and shares["linear loss, scale 1"] == 1
    for batch, scale in ((8, 1.0), (1, 0.01)):
        changes = swaps.sample("linear", scale, batch=batch)
        assert (changes.first <= 0).all() and torch.allclose(changes.first, changes.true)


@claims.claim("With small weights almost every swap is harmless. With large weights about one swap in six", above=True)
def _(shares):
    assert all(share > 0.99 for name, share in shares.items() if not name.endswith("scale 1"))
    assert 0.16 < 1 - shares["squared loss, scale 1"] < 0.19 and 0.95 < shares["cross-entropy, scale 1"] < 1
    other = [swaps.sample("squared", 1.0, seed=seed).share for seed in (1, 2, 3)]
    assert all(0.15 < 1 - share < 0.19 for share in other)


# Gap 1


@claims.claim("there is no learning rate in it, because the masked weight $W_{kl}$ has not moved", above=True)
def _(W, W_next, entering):
    assert W_next[entering] == W[entering]


@claims.claim("In the pencil example: $-6.5+\\frac12(1^2+1.5^2)=-4.875$")
def _(a, a_next):
    assert torch.allclose((a_next - a).square(), torch.tensor([1.0, 1.5]) ** 2)


@claims.claim("The same swap happens, with larger outputs")
def _(W, S, x, y, leaving, entering):
    for s in range(1, 11):
        swap = swaps.step(s * W, S, x, y, 0.1)
        assert (swap.leaves, swap.enters) == (leaving, entering)


@claims.claim("The first-order change is $-5.5\\,s-s^2$, negative for every $s$", above=True)
def _(W, S, x, y):
    for s in (1.0, 3.0, 8.7, 8.9, 10.0):
        swap = swaps.step(s * W, S, x, y, 0.1)
        assert abs(swap.first - (-5.5 * s - s**2)) < 1e-9 and abs(swap.true - (-5.5 * s + 0.625 * s**2)) < 1e-9
        assert (swap.true > 0) == (s > 8.8)


@claims.claim("The swap comes *later*, but the jump is no smaller", above=True)
def _(W, S, M, step):
    waits, rises = [], []
    for lr in (1e-2, 1e-3, 1e-4, 1e-5):
        W_t, S_t, steps = 10 * W, S, 0
        while mvp.masks.top_v(S_t, 1 / 6).equal(M):
            W_t, S_t, loss = step(W_t, S_t, lr)
            steps += 1
        waits, rises = [*waits, steps], [*rises, (step(W_t, S_t, lr)[2] - loss).item()]
    assert waits == [1, 2, 13, 130] and rises == sorted(rises) and 7.4 < rises[0] and rises[-1] < 8.2


@claims.claim("All points lie left of zero, as (5.8) demands. All lie above the dotted line, since curvature only adds")
def _(changes):
    assert (changes.first < 0).all() and (changes.true > changes.first).all()
    assert 40 < (changes.true[:400] > 0).sum() < 90


@claims.claim("Half the way leaves about an eighth of the error", above=True)
def _(second_order, start, way):
    true = [start.log_softmax(0)[0] - (start + h * way).log_softmax(0)[0] for h in (0.4, 0.2, 0.1)]
    errors = [abs(second_order(start, start + h * way, 0) - t) for h, t in zip((0.4, 0.2, 0.1), true, strict=True)]
    assert 6.5 < errors[0] / errors[1] < 9 and 7 < errors[1] / errors[2] < 9


# Thresholds, and Gap 2


@claims.claim("An entry enters only if its score rises, so $G_{mn}W_{mn}<0$")
def _(GW6, S6, S6_next):
    enter, leave = (S6_next > 0.5) & (S6 <= 0.5), (S6_next <= 0.5) & (S6 > 0.5)
    assert (GW6[enter] < 0).all() and (GW6[leave] > 0).all() and enter.sum() > 1000 and leave.sum() > 1000


@claims.claim("At the low end every flip *raises* the loss", above=True)
def _(measured, S6, S6_next):
    flips = ((S6 < -0.5) != (S6_next < -0.5)).flatten(1).any(1)
    assert (measured[1][flips] > 0).all() and (measured[0] <= 0).all()


@claims.claim("n = 19")
def _(costs):
    assert (costs != 0).sum() == 6 and (costs <= 0).all()


@claims.claim("Two lines are proved: 100 % and 0 %", above=True)
def _(outside, proved):
    assert outside["threshold"] == 1 and outside["reversed: S < −0.5"] == 0 and len(proved) == 2
    others = [share for name, share in outside.items() if name not in proved]
    assert all(0.4 < share < 0.92 for share in others)


@claims.claim("For this one it is a coin toss, because our examples are independent", above=True)
def _(outside):
    assert abs(outside["top 5, another example"] - 0.5) < 0.04


@claims.claim("*Largest $|S|$*: favorable and unfavorable flips, about half each", above=True)
def _(outside):
    assert abs(outside["top 5 of |S|"] - 0.5) < 0.04


@claims.claim("Entries leave because they rank last, even if their scores rose", above=True)
def _():
    W, S, x, y = swaps.draw()
    S_next = S - 0.3 * (y @ x.mT) * W
    leave = swaps.top(S, 5) & ~swaps.top(S_next, 3)
    assert (S_next[leave] > S[leave]).any()


# Gap 3


@claims.claim("Our run satisfies $\\Delta_1\\le0$ at every step")
def _(W, S, x, y):
    W_t, S_t = W, S
    for _ in range(400):
        M = mvp.masks.top_v(S_t, 1 / 6)
        G = torch.outer((W_t * M) @ x - y, x)
        used, W_old = W_t * M, W_t
        W_t, S_t = W_t - 0.01 * G * M, S_t - 0.01 * G * W_old
        assert (G * (W_t * mvp.masks.top_v(S_t, 1 / 6) - used)).sum() <= 0


@claims.claim("The kept weight (2, 3) makes output 2 exactly right")
def _(W, S, x, y, step, kept):
    W_t, S_t = W, S
    for _ in range(183):
        W_t, S_t, loss = step(W_t, S_t, 0.01)
    assert kept[183] == 5 and abs(W_t[1, 2] * x[2] - y[1]) < 1e-6 and abs(loss - 0.5) < 1e-6


@claims.claim("The masked weight (1, 1) has $G_{11}W_{11}=-0.4$", above=True)
def _(scores, losses, kept, window):
    S_t = torch.stack(scores)
    moves = (S_t[1:] - S_t[:-1])[100:183]
    assert moves[:, 1, 2].abs().max() < 1e-4 and torch.allclose(moves[:, 0, 0], torch.tensor(0.004))
    assert (window[1:, 0, 0] > window[:-1, 0, 0]).all()
    assert (kept[183:186] == torch.tensor([5, 0, 5])).all()


@claims.claim("the loss jumps by 4.18. One step later it is back", above=True)
def _(losses):
    assert abs(losses[184] - losses[183] - 4.18) < 0.005 and abs(losses[185] - losses[183]) < 1e-6


@claims.claim("So the swaps keep their pace almost to the end", above=True)
def _(W, S, step, run, jumps):
    """Also over twice as many steps; the lead won at a swap is that of one step, 0.09 at the learning rate 0.01."""
    assert len(jumps) == 27 and jumps[-1] == 798 and (jumps[1:] - jumps[:-1]).max() <= 40
    W_t, S_t, last = W, S, 0
    for t in range(1600):
        W_t, S_t, loss = step(W_t, S_t, 0.01 * (1 - t / 1600))
        last = t if loss > 4 else last
    assert last > 1560


# Gap 4: recorded runs


@claims.claim("with means over 128 sentences")
def _():
    table = pd.read_csv(mvp.data_path("results", "mechanism_sst2.csv"))
    assert (table["batch_size"] * table["batches"] == 128).all()
    h = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert abs(between_inputs(h) - 1 / (0.5 * (5 + 13))) < 1e-12


@claims.claim("The runs trained in bfloat16 autocast")
def _(recorded, runs):
    table = pd.read_csv(mvp.data_path("results", "mechanism_sst2.csv"))
    assert (table["precision"] == "bf16 autocast").all()
    ten = _last_layer(recorded, runs["movement, 10 % kept"])
    assert ten.index[ten < 1e-13].tolist() == [110, 155, 200] and (ten[[110, 155, 200]] > 1e-14).all()


def _last_layer(recorded, run, quantity="between"):
    recipe, density = run
    found = recorded[(recorded["recipe"] == recipe) & (recorded["density"] == density)]
    found = found[found["quantity"] == quantity]
    return (found[found["layer"] == found["layer"].max()] if quantity == "between" else found).set_index("step")[
        "value"
    ]


@claims.claim("With 95 % of the weights still in place, all sentences look alike", above=True)
def _(recorded, runs):
    ten, three, started = (_last_layer(recorded, run) for run in runs.values())
    share = recorded[(recorded["recipe"] == "movement") & (recorded["density"] == 0.1)].groupby("step")["kept"].first()
    assert share[50] == 1 and 0.95 < share[55] < 0.96 and recorded["step"].max() == 500
    assert ten[50] > 0.6 and ten[55] < 1e-6 and three[55] < 1e-6 and started.min() > 0.2
    assert ten[[275, 350, 425, 500]].max() < 1e-9, "they never come back"
    assert three[350] > 0.5, "they come back"


@claims.claim("and the run ends with 56 % right", above=True)
def _(recorded, runs):
    score, baseline = (
        _last_layer(recorded, runs["movement, 10 % kept"], quantity)[500] for quantity in ("score", "baseline")
    )
    assert score == baseline and round(baseline) == 56


@claims.claim("removing the 5 % that movement selects raises the loss by 0.69", above=True)
def _(recorded):
    run = recorded[(recorded["recipe"] == "movement") & (recorded["density"] == 0.1) & (recorded["step"] == 50)]
    removed = run[run["fraction"] == 0.05].set_index("quantity")["value"]
    assert round(removed["actual_scores"], 2) == 0.69 and abs(removed["actual_random"]) < 0.04


@claims.claim("the run at 10 % gets 69 % of the held-out sentences right", above=True)
def _(recorded):
    assert round(_last_layer(recorded, ("movement, centered", 0.1), "score")[500]) == 69


# The pictures, as their descriptions say


@claims.claim("course.figures.shares(outside, proved=proved, xlabel=label)")
def _(outside):
    said = {"threshold and penalty": 84, "top 5, then top 3": 75, "top 5, momentum": 83, "top 5, Adam": 77}
    assert all(abs(100 * outside[name] - percent) < 1 for name, percent in said.items())


@claims.claim("course.figures.shares(shares, proved=")
def _(shares):
    percents = [round(100 * share, 1) for share in shares.values()]
    assert all(abs(a - b) < 0.3 for a, b in zip(percents, [100, 100, 99.7, 82.5, 100, 98.9], strict=True))


@claims.claim('course.exercises.check("5.3", bad_swap)')
def _(bad_swap):
    assert all(swaps.step(*bad_swap(lr), lr).first < 0 for lr in (0.1, 1e-3, 1e-9))

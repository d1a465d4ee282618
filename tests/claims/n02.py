"""What notebook 02 says about removing weights, and wrong values of its equations, which must be noticed."""

import torch
from in_notebook import Claims
from numpy.polynomial.legendre import leggauss
from torch.func import grad, hessian, vmap

import mvp_lite as mvp

claims = Claims()


# --- errors planted in the equations ------------------------------------------------------------------------------


@claims.planted("2.1")
def _(g, w, slope):
    return {"the weight forgotten": g, "the sign": -slope, "the slope at c = 0": -6 * w, "the square of w": g * w**2}


@claims.planted("2.2")
def _(L, w, predicted):
    change = L(torch.zeros(4)) - L(w)
    return {
        "first order alone": predicted,
        "half forgotten": predicted + 4 * w**2,
        "sign": -change,
        "curvature alone": 2 * w**2,
    }


@claims.planted("2.3")
def _(chances, g_k, h_k, y):
    return {
        "square of the mean": (chances @ g_k) ** 2,
        "the label of the data alone": g_k[1 - int(y[0])] ** 2,
        "answers exchanged": chances.flip(0) @ g_k**2,
        "both answers alike": (g_k**2).mean(dim=0),
    }


@claims.planted("2.4")
def _(fisher, w_start, G, example_gradients):
    return {
        "square outside the mean": 0.5 * w_start**2 * G**2,
        "half forgotten": 2 * fisher,
        "sum": 300 * fisher,
        "absolute value for the square": 0.5 * w_start**2 * example_gradients(w_start).abs().mean(dim=0),
    }


@claims.planted("2.5")
def _(alone, together):
    mixed = together - alone
    return {
        "the mixed term forgotten": alone,
        "its sign": alone - mixed,
        "half of it": alone + mixed / 2,
        "twice": alone + 2 * mixed,
    }


# --- one weight ---------------------------------------------------------------------------------------------------


@claims.claim("The best weight is 1.5", above=False)
def _(L):
    near = torch.linspace(-2, 4, 601)
    assert near[L(near).argmin()].item() == 1.5 == 3 / 2 and L(1.5) == 0


@claims.claim("**removing this weight raises the loss by 2.5.**", above=True)
def _(L):
    assert L(0.0) - L(0.5) == 2.5


@claims.claim("85 million weights in the encoder of BERT-base", above=True)
def _():
    assert round(12 * (4 * 768**2 + 2 * 768 * 3072) / 1e6) == 85


@claims.claim("at $c=0$ it reads 2, not far from 2.5", above=True)
def _(L):
    at = torch.tensor(0.5)
    assert -grad(L)(at) * at == 2


@claims.claim("The tangent promises that the loss falls by 4. In fact it rises by 4.", above=True)
def _(L, w, g):
    assert w[3] == 2 and -g[3] * w[3] == -4 and L(0.0) - L(w[3]) == 4


@claims.claim("a slightly smaller weight would be better", above=True)
def _(L):
    assert L(1.9) < L(2.0) and L(0.0) > L(1.5)


@claims.claim("For the two small weights the prediction misses by 0.5, for the largest by 8.", above=True)
def _(w, g, predicted, change):
    assert g.tolist() == [-8, -4, 0, 2] and predicted.tolist() == [-4, 2, 0, -4]
    assert change.tolist() == [-3.5, 2.5, 4.5, 4.0] and (change - predicted).tolist() == [0.5, 0.5, 4.5, 8]
    assert w.abs().argmax() == 3 and w[:2].abs().tolist() == [0.5, 0.5]


@claims.claim("which is 4 everywhere here")
def _(L, g, g_auto, h_auto):
    assert (
        torch.equal(g_auto, g) and (vmap(grad(grad(L)))(torch.linspace(-3, 3, 50)) == 4).all() and (h_auto == 4).all()
    )


# --- fifteen weights ----------------------------------------------------------------------------------------------


@claims.claim("There are 300 examples")
def _(x, y, w_start, maker, logit):
    assert x.shape == (300, 4) and y.shape == (300,) and w_start.shape == maker.shape == (15,)
    assert (w_start > 0).any() and (w_start < 0).any() and (w_start != 0).all()
    assert ((logit(maker, x) > 0) != (y > 0)).any(), "even the net of the labels is wrong on some"


@claims.claim("we turn the dials to 0, one after the other")
def _(loss, measured_changes, w_start):
    for i, change in enumerate(measured_changes(w_start)):
        without = w_start.clone()
        without[i] = 0.0
        assert torch.isclose(change, loss(without) - loss(w_start), atol=1e-15)


@claims.claim("# -G * w")
def _(G, w_start, first):
    assert torch.equal(first, torch.stack([-G[i] * w_start[i] for i in range(15)]))


@claims.claim("the correlation with the measurement is 0.91", above=True)
def _(first, measured):
    assert 0.905 < correlation(first, measured) < 0.915


@claims.claim("Weight 4 has the largest error. Its removal was predicted to help, but it hurts.", above=True)
def _(first, measured):
    assert (measured - first).abs().argmax() == 4 and first[4] < 0 < measured[4]


@claims.claim("With the curvature the sign is right, and the correlation rises to 0.99.", above=True)
def _(first, second, measured):
    assert second[4] > 0 and 0.985 < correlation(second, measured) < 0.995
    assert (second - measured).abs().max() < 0.6 * (first - measured).abs().max()


@claims.claim("some removals *lower* the loss", above=True)
def _(measured):
    assert (measured < 0).sum() >= 2


@claims.claim("Taylor's formula with an integral for the remainder is exact for every smooth loss", above=True)
def _(loss, w_start, first, second, measured):
    """The integral as a weighted sum over 40 points (Gauss-Legendre)."""
    nodes, weights = map(torch.from_numpy, leggauss(40))
    c, share = (nodes + 1) / 2, weights / 2  # from [-1, 1] to [0, 1]
    bend = torch.stack([vmap(grad(grad(dial(loss, i, w_start))))(c) for i in range(15)])  # w_i**2 h_i(c)
    assert torch.allclose(measured, first + bend @ (share * c), rtol=0, atol=1e-12)
    assert torch.isclose((share * c).sum(), torch.tensor(0.5)) and torch.isclose(share.sum(), torch.tensor(1.0))
    for wrong in (first, second, first + bend @ share, -first + bend @ (share * c)):
        assert (wrong - measured).abs().max() > 0.01


# --- scores -------------------------------------------------------------------------------------------------------


@claims.claim("for $w=2$ it recommended a removal that costs 4", above=True)
def _(predicted, change):
    assert predicted[3] == predicted.min() and change[3] == 4


@claims.claim("The division changes no mask")
def _(snip, G, w_start):
    assert torch.equal(snip, torch.stack([(G[i] * w_start[i]).abs() for i in range(15)]))
    assert torch.equal(mvp.masks.top_v(snip, 0.4), mvp.masks.top_v(snip / snip.sum(), 0.4))


@claims.claim("$w=-\\tfrac12$ has the SNIP score 4, and $w=\\tfrac12$ has 2", above=True)
def _(w, g, change):
    assert w[:2].tolist() == [-0.5, 0.5] and (g * w).abs()[:2].tolist() == [4, 2] and change[:2].tolist() == [-3.5, 2.5]


@claims.claim("SNIP protects this weight, Taylor prunes it first.", above=True)
def _(snip, first, measured, worst):
    assert worst == measured.argmin() and measured[worst] < 0
    assert (snip > snip[worst]).sum() == 1 and first.argmin() == worst


@claims.claim("The $p_k$ always sum to 1, so the $p_k''$ sum to 0")
def _(logit, w_start, x):
    def yes(w):
        return torch.sigmoid(logit(w, x[:1]))[0]

    p, bend = yes(w_start), hessian(yes)(w_start).diagonal()
    assert torch.allclose(hessian(lambda w: 1 - yes(w))(w_start).diagonal(), -bend, atol=1e-15)
    slope = grad(yes)(w_start)
    h_yes = hessian(lambda w: -yes(w).log())(w_start).diagonal()
    assert torch.allclose(h_yes, (slope / p) ** 2 - bend / p)


@claims.claim("we need the gradient of every single example")
def _(example_gradients, G, one_loss, w_start, x, y):
    g_n = example_gradients(w_start)
    looped = [grad(one_loss)(w_start, a, label) for a, label in zip(x, y, strict=True)]
    assert g_n.shape == (300, 15) and torch.allclose(g_n, torch.stack(looped)) and torch.allclose(g_n.mean(dim=0), G)


@claims.claim("but 5 of the 15 true curvatures are", above=True)
def _(h, fisher):
    assert (h < 0).sum() == 5 and h.abs().min() > 1e-4 and (fisher > 0).all()


@claims.claim("and before training they do not", above=True)
def _(loss, maker, w_start, h, fisher):
    assert loss(w_start) > loss(maker) + 0.1
    ratio = fisher / (0.5 * h * w_start**2)
    assert ((ratio < 0.5) | (ratio > 2)).sum() > 7


@claims.claim("There $g=0$, so the score is 0, but removal costs 4.5.", above=True)
def _(L, w, g):
    pencil = mvp.scores.fisher([2 * (2 * w - 3)], w)  # a data set of one example, at the four weights
    assert pencil.tolist() == [8.0, 2.0, 0.0, 8.0] and (0.5 * 4 * w**2).tolist() == [0.5, 0.5, 4.5, 8.0]
    assert w[2] == 1.5 and g[2] == 0 and L(0.0) - L(1.5) == 4.5


@claims.claim("inside a batch the gradients cancel before they are squared")
def _(loss, x, y, w_start, fisher):
    in_batches = [grad(loss)(w_start, a, b) for a, b in zip(x.split(30), y.split(30), strict=True)]
    assert (mvp.scores.fisher(in_batches, w_start) < fisher).all()


@claims.claim("Removed alone, the weights cost 2, 1.125 and 0.125.")
def _(added, three, cost):
    assert three.sum() == 1 and added(three) == 0 and grad(added)(three).tolist() == [0.0, 0.0, 0.0]
    assert [cost(i).item() for i in range(3)] == [2.0, 1.125, 0.125]


@claims.claim("(Taylor, SNIP and Fisher are all 0 here.)")
def _(added, three):
    G = grad(added)(three)
    for score in (mvp.scores.taylor(G, three), mvp.scores.snip(G, three), mvp.scores.fisher([G], three)):
        assert score.abs().tolist() == [0.0, 0.0, 0.0]


@claims.claim("the cheapest single weight is 0.5, and the best pair does not contain it", above=True)
def _(three, cost, pairs):
    cheapest, best = min(range(3), key=cost), min(pairs, key=lambda pair: cost(*pair))
    assert three[cheapest] == 0.5 and cheapest not in best


@claims.claim("removing both costs less", above=True)
def _(three, cost, pairs):
    cheapest = sorted(range(3), key=cost)[:2]
    assert three[cheapest].tolist() == [0.5, -1.5] and cost(*cheapest) == 0.5
    assert min(pairs, key=lambda pair: cost(*pair)) == (0, 1) and cost(0, 1) == 0.125


# --- at the minimum -----------------------------------------------------------------------------------------------


@claims.claim("every weight, useful or not", above=True)
def _(first_end, measured_end, loss, w_start, w_end):
    assert loss(w_end) < 0.8 * loss(w_start) and grad(loss)(w_end).abs().max() < 1e-4
    assert torch.linalg.eigvalsh(hessian(loss)(w_end)).min() > 0
    assert first_end.abs().max() < 1e-3 * measured_end.max()


@claims.claim("Now every removal costs something, and the Fisher score sees it.", above=True)
def _(measured_end, fisher_end, first_end, loss, w_end):
    assert (measured_end > 0).all() and correlation(fisher_end, measured_end) > 0.9
    assert abs(correlation(first_end, measured_end)) < 0.4
    curvature = 0.5 * hessian(loss)(w_end).diagonal() * w_end**2
    assert correlation(curvature, measured_end) > 0.9
    assert 0.5 < (fisher_end / curvature).min() and (fisher_end / curvature).max() < 2


@claims.claim("Only the *mean* of the gradients $g_n$ is zero.")
def _(one_loss, w_end, x, y):
    each = vmap(grad(one_loss), (None, 0, 0))(w_end, x, y)
    assert each.mean(dim=0).abs().max() < 1e-4 < 1e-3 < each.abs().max(dim=0).values.min()


@claims.claim("Taylor, the best cheap score before training, now says nothing about the order.", above=True)
def _(ranks):
    before, after = ranks["before training"], ranks["at the minimum"]
    cheap = {name: value for name, value in before.items() if name != "second order"}
    assert max(cheap, key=cheap.get) == "Taylor" and before["Taylor"] > 0.7 and abs(after["Taylor"]) < 0.3
    assert before["second order"] > 0.95 and after["second order"] > 0.95


@claims.claim("Fisher, poor before, is good.", above=True)
def _(ranks):
    assert ranks["before training"]["Fisher"] < 0.4 and ranks["at the minimum"]["Fisher"] > 0.9


@claims.claim("SNIP keeps a little of the order", above=True)
def _(ranks):
    assert 0.2 < ranks["at the minimum"]["SNIP"] < 0.6 and abs(ranks["before training"]["SNIP"]) < 0.2


@claims.claim("and magnitude is good as well", above=True)
def _(ranks):
    assert ranks["at the minimum"]["magnitude"] > 0.8


@claims.claim("With seed 1, SNIP's correlation is close to 0 and magnitude's is below 0.5", above=True)
def _(logit):
    loss, x, y, w = trained(1, logit)
    G, measured, each = at(loss, x, y, w)
    assert abs(in_order(mvp.scores.snip(G, w), measured)) < 0.15
    assert in_order(w.abs(), measured) < 0.5
    assert in_order(mvp.scores.fisher(each, w), measured) > 0.9


@claims.claim("Change the seed of the net from 5 to 1, 2 or 3")
def _(logit):
    """What the cells print, and what the text says of any net, is true of these three as well."""
    for seed in (1, 2, 3):
        loss, x, y, w = trained(seed, logit)
        G, measured, each = at(loss, x, y, w)
        assert 1e-4 < G.abs().max() < 0.001, "the other three nets train more slowly"
        assert (measured > 0).all() and abs(in_order(mvp.scores.taylor(G, w), measured)) < 0.3
        assert in_order(mvp.scores.fisher(each, w), measured) > 0.9
        split = [part.split([20, 100, 180]) for part in (x, y)]
        broken = sum(mvp.scores.snip(grad(loss)(w, *batch), w) / 3 for batch in zip(*split, strict=True))
        assert broken.max() > 10 * mvp.scores.snip(G, w).max()


@claims.claim("With a single batch it does.")
def _(one_batch, G_end, w_end):
    assert torch.allclose(one_batch, mvp.scores.snip(G_end, w_end), atol=1e-15)


@claims.claim("its scores are more than ten times too large")
def _(one_batch, three_batches):
    assert three_batches.max() > 10 * one_batch.max()


@claims.claim("Your scores must not change; those of `broken_snip` do.", above=True)
def _(snip_over_batches, broken_snip, loss, w_end, x, y, one_batch, three_batches):
    sizes = [1, 9, 290]
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    assert torch.allclose(snip_over_batches(loss, w_end, batches), one_batch, atol=1e-12)
    assert not torch.allclose(broken_snip(loss, w_end, batches), three_batches, rtol=0.1)


# --- the sum along the way ----------------------------------------------------------------------------------------


@claims.claim("This is a sum of Taylor scores, one for each step.")
def _(S, lr, slopes, path):
    assert len(slopes) == 1500 and len(path) == 1501
    assert torch.allclose(S, -lr * sum(g * w for g, w in zip(slopes, path[:-1], strict=True)))


@claims.claim("Weight 13 has the highest score, and its removal costs most.", above=True)
def _(S, measured_end):
    assert S.argmax() == 13 == measured_end.argmax()


@claims.claim("training took it from 0.85 to nearly zero, and removing it costs almost nothing", above=True)
def _(S, measured_end, w_start, w_end):
    assert S.argmin() == 9 == measured_end.argmin() and measured_end[9] < 0.001
    assert 0.845 < w_start[9] < 0.855 and w_end[9].abs() < 0.02


@claims.claim("Weights 4 and 5 began large and shrank a little.", above=True)
def _(w_start, w_end):
    assert set(w_start.abs().topk(3).indices.tolist()) == {4, 5, 8}
    assert (w_end[4:6] < w_start[4:6]).all() and (w_end[4:6] > 0.9 * w_start[4:6]).all()


@claims.claim("Their scores are below zero, and yet each of them costs about 0.2.", above=True)
def _(S, measured_end):
    assert (S[4:6] < 0).all() and ((measured_end[4:6] - 0.2).abs() < 0.03).all()


@claims.claim("If $S>0$, the weight has moved away from zero", above=True)
def _(S, path):
    growth, steps = 0.5 * (path[-1] ** 2 - path[0] ** 2), 0.5 * path.diff(dim=0).square().sum(dim=0)
    assert torch.allclose(S, growth - steps)
    assert (S > 0).any() and (path[-1].abs() > path[0].abs())[S > 0].all()


@claims.claim("On this net, magnitude at the end orders the weights better.", above=True)
def _(S, measured_end, w_end, first_end, rank_correlation):
    assert 0.5 < rank_correlation(S, measured_end) < rank_correlation(w_end.abs(), measured_end)
    assert abs(rank_correlation(first_end, measured_end)) < 0.3


@claims.claim("It is good for small weights away from a minimum", above=True)
def _(loss, w_start):
    """Scale one weight down: what the tangent misses falls with its square, the prediction only in proportion."""
    for i in (0, 4, 13):
        missed = []
        for scale in (1.0, 0.1, 0.01):
            dialed = dial(loss, i, w_start * (1 + (scale - 1) * torch.eye(15)[i]))
            slope = grad(dialed)(torch.tensor(1.0))
            missed.append(((dialed(0.0) - dialed(1.0) + slope) / slope).abs())
        assert missed[2] < 0.2 * missed[1] and missed[2] < 0.1


def correlation(a, b):
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item()


def dial(loss, i, w):
    """The loss as a function of the dial c of weight i."""
    return lambda c: loss(w * (1 + (c - 1) * torch.eye(15)[i]))


def trained(seed, logit):
    """The net of the notebook with another seed: its loss, data and weights at the end."""
    torch.manual_seed(seed)
    x, maker = torch.randn(300, 4), 1.5 * torch.randn(15)
    y = torch.bernoulli(torch.sigmoid(logit(maker, x)))
    w = 0.6 * torch.randn(15)

    def loss(w, x=x, y=y):
        return torch.nn.functional.binary_cross_entropy_with_logits(logit(w, x), y)

    for _ in range(1500):
        w = w - 2.0 * grad(loss)(w)
    return loss, x, y, w


def at(loss, x, y, w):
    """Gradient, measured changes and gradients of the single examples."""
    measured = torch.stack([loss(w * (1 - only)) - loss(w) for only in torch.eye(15)])
    each = vmap(lambda a, label: grad(loss)(w, a[None], label[None]))(x, y)
    return grad(loss)(w), measured, each


def in_order(a, b):
    """Rank correlation."""
    return correlation(a.argsort().argsort().double(), b.argsort().argsort().double())

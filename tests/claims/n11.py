"""Notebook 11, pruning without labels: errors planted in its equations, and what its text claims."""

import math

import torch
from in_notebook import Claims
from torch.nn import functional as F

from mvp_lite.gradient_free import r2_scores
from mvp_lite.gradient_free.r2 import r2_coefficients

claims = Claims()


@claims.planted("11.1")
def _(m, H, W, b, by_neuron, ffn, batch, exact, real):
    seen = []
    hook = ffn.intermediate.dense.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        exact(**batch)
    hook.remove()
    before = seen[0][real]
    assert torch.allclose(F.gelu(before), H)
    assert torch.allclose(F.gelu(before * m) @ W, (H * m) @ W)  # the same for a mask of zeros and ones
    scale = m + 0.5
    assert not torch.allclose(F.gelu(before * scale) @ W, (H * scale) @ W)
    return {"bias masked away": by_neuron - b, "the pruned ones": b + (H * (1 - m)) @ W, "no mask": b + H @ W}


@claims.planted("11.2")
def _(Q, m, W, H):
    gap = 1 - m
    return {
        "neurons one by one": gap.square() @ Q.diagonal(),
        "matrix product": gap @ (W @ W.T) @ (H.T @ H) @ gap,
        "m for 1 - m": m @ Q @ m,
        "weights alone": gap @ (W @ W.T) @ gap,
    }


@claims.planted("11.3")
def _(C, K, objective):
    value = objective(C, K)
    return {
        "2 forgotten": value + (K @ C).trace(),
        "C K C": value - (C.T @ K @ C - C @ K @ C).trace(),
        "squared error of the kernel": (K - K @ C).square().sum(),
    }


@claims.planted("11.4")
def _(C, K, step):
    return {
        "no root": step(C, K).square() / C,
        "upside down": C.square() / step(C, K),
        "entry by entry": C * (K / (K * C)).sqrt(),
    }


@claims.planted("11.5")
def _(path, K, objective):
    start = path[0]
    inverted = [start]
    for _ in range(200):
        inverted.append(inverted[-1] * ((K @ inverted[-1]) / K).sqrt())
    values = torch.stack([objective(C, K) for C in inverted[:21]])
    wrong = torch.cat([values[1:], values[1:].max().repeat(180)])
    return {"quotient upside down": wrong}


@claims.planted("11.6")
def _(delta, kernels):
    entrywise = [((K / K.mean(1, keepdim=True)).sqrt() / len(K) - 1 / len(K)).abs().sum() / len(K) for K in kernels]
    return {"absolute value": delta.abs(), "sum of absolute values": torch.stack(entrywise)}


@claims.planted("11.7")
def _(r):
    return {"root forgotten": 1 / (12 * r), "sum for mean": 1 / (12 * (12 * r).sqrt()), "1/N forgotten": 1 / r.sqrt()}


@claims.planted("11.8")
def _(H_all, a, H):
    of_sequences = (a[..., None] * H_all).sum(1) / a.sum(1, keepdim=True)
    return {
        "padding included": H_all.mean((0, 1)),
        "mean of the sequences' means": of_sequences.mean(0),
        "absolute values": H.abs().mean(0),
        "padding in the divisor": (a[..., None] * H_all).sum((0, 1)) / a.numel(),
    }


@claims.planted("11.9")
def _(D2, by_hand):
    minmax, zscore, largest = by_hand.values()
    return {
        "least value not subtracted": torch.stack([D2 / (D2.max() - D2.min()), zscore, largest]),
        "variance for standard deviation": torch.stack([minmax, (D2 - D2.mean()) / D2.var(), largest]),
        "N for N - 1": torch.stack([minmax, zscore * (512 / 511) ** 0.5, largest]),
        "signed maximum of the negative": torch.stack([minmax, zscore, D2 / D2.min()]),
    }


@claims.planted("11.10")
def _(product, by_hand, D2, W):
    R2 = r2_scores(W, sigma=1.0)[0]
    return {
        "sum": R2 + by_hand["minmax"],
        "z-score": R2 * by_hand["zscore"],
        "not normalized": R2 * D2,
        "R2 normalized too": (R2 - R2.min()) / (R2.max() - R2.min()) * by_hand["minmax"],
    }


@claims.claim("A neuron far from all others represents itself, and its score is nearly 1.", above=True)
def _(C, points):
    scores = C.diagonal()
    assert scores[[6, 8, 9]].min() > 0.93
    distances = torch.cdist(points, points) + 9 * torch.eye(12)
    assert distances[[6, 8, 9]].min() > 0.7 > distances[:6].min(1).values.max()


@claims.claim("So *all four* are pruned, and no near copy of them is left.", above=True)
def _(C, points):
    scores = C.diagonal()
    assert scores[:4].max() < 0.45 and sorted(scores.argsort()[:6].tolist()) == [0, 1, 2, 3, 4, 5]
    assert scores.sort().values.diff()[5] > 0.01  # the sixth and the seventh are told apart
    assert torch.cdist(points[:4], points[6:]).min() > 0.7 and torch.cdist(points[:4], points[:4]).max() < 0.6
    assert scores[:6].max() < 0.55 < 0.56 <= round(float(scores[6:].min()), 2)


@claims.claim("It has 4 layers of width $d=128$, each with $N=512$ neurons.")
def _(dense):
    config = dense.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (4, 128, 512)


@claims.claim("256 sentence pairs")
def _(batches):
    assert sum(len(batch["input_ids"]) for batch in batches) == 256
    assert all((batch["token_type_ids"].max(1).values == 1).all() for batch in batches)


@claims.claim("no score below looks at their labels")
def _(batches, dense):
    from mvp_lite.gradient_free import d2_scores

    without = [{name: x for name, x in batch.items() if name != "labels"} for batch in batches[:2]]
    pairs = zip(d2_scores(dense, without), d2_scores(dense, batches[:2]), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@claims.claim(
    "$Q_{ii}=\\lVert w_i\\rVert^2\\sum_th_{ti}^2$ is the exact price of removing neuron $i$ alone.", above=True
)
def _(Q, W, H, b):
    assert torch.allclose(Q.diagonal(), W.square().sum(1) * H.square().sum(0))
    mask = torch.ones(512, dtype=torch.float64)
    mask[7] = 0
    assert torch.allclose(((H * (1 - mask)) @ W).square().sum(), Q[7, 7])


@claims.claim("no score that looks at one neuron at a time can see them", above=True)
def _(Q, m):
    gap = 1 - m
    assert not torch.isclose(gap @ Q @ gap, gap @ Q.diagonal(), rtol=0.05)


@claims.claim("1 for equal weights, almost 0 for distant ones")
def _(K, points):
    assert (K.diagonal() == 1).all() and K[torch.cdist(points, points) > 2].max() < 0.001 and (K > 0).all()


@claims.claim("A Cholesky factor of $K$ is one such $\\Phi$.")
def _(K, Phi):
    assert torch.allclose(Phi.T @ Phi, K)


@claims.claim("This bounds the linear term $-2\\sum K_{ij}c_{ij}$ from above.")
def _(K):
    noise = torch.Generator().manual_seed(0)
    c, C = (torch.rand(12, 12, dtype=torch.float64, generator=noise) + 0.01 for _ in range(2))
    assert (c >= C * (1 + (c / C).log()) - 1e-12).all()
    assert (C.T @ K @ C).trace() <= ((K @ C) * C).sum() + 1e-12
    assert (c.T @ K @ c).trace() <= ((K @ C) * c**2 / C).sum()
    assert torch.isclose((K @ c).trace(), (K * c).sum())


@claims.claim("Draw a simpler function $u$ that lies above $f$ and touches it at the present $C$.")
def _(objective, upper, C, K):
    noise = torch.Generator().manual_seed(1)
    for _ in range(20):
        c = torch.rand(12, 12, dtype=torch.float64, generator=noise) / 5
        assert objective(c, K) <= upper(c, C, K)
    assert torch.isclose(objective(C, K), upper(C, C, K))


@claims.claim("so no step raises the objective")
def _(path, objective, upper, step, K):
    for C in path[:50]:
        new = step(C, K)
        assert objective(new, K) <= upper(new, C, K) + 1e-12 and upper(new, C, K) <= upper(C, C, K) + 1e-12


@claims.claim("The objective is never negative and never rises, so its values converge.", above=True)
def _(values):
    assert (values > 0).all() and values[-1] < 0.1 * values[0]


@claims.claim("The first picture shows 7 iterations.")
def _(points, frames):
    C, iterations = r2_coefficients(points, sigma=0.5)
    assert iterations == 7 and torch.equal(C, frames["iterations: 7"])


@claims.claim("So $f(C)=0$ holds for $C=I$ and for no other $C$", above=True)
def _(K, objective):
    assert torch.linalg.eigvalsh(K).min() > 1e-4  # f(C) = tr (I - C)' K (I - C) > 0 unless C = I
    assert abs(objective(torch.eye(12, dtype=torch.float64), K)) < 1e-12


@claims.claim("After one iteration the scores hardly differ; after 2,000 they are all nearly 1.", above=True)
def _(frames):
    first, between, last = (C.diagonal() for C in frames.values())
    assert first.max() - first.min() < 0.15 and last.min() > 0.95
    assert between.max() - between.min() > 0.6


@claims.claim("With our twelve points, that takes roots of negative numbers.", above=True)
def _(points):
    A, C = points @ points.T, torch.full((12, 12), 1 / 12, dtype=torch.float64)
    plus, minus = (A.abs() + A) / 2, (A.abs() - A) / 2
    printed = (A - A.abs()) / 2
    assert torch.equal(printed, -minus)
    assert (C * ((plus + printed @ C) / (printed + plus @ C)).sqrt()).isnan().any()


@claims.claim("the rule is $C'=C\\odot\\sqrt{(A_++A_-C)/(A_-+A_+C)}$", above=True)
def _(points):
    A, C = points @ points.T, torch.full((12, 12), 1 / 12, dtype=torch.float64)
    plus, minus = (A.abs() + A) / 2, (A.abs() - A) / 2
    before = (points.T - points.T @ C).square().sum()
    for _ in range(60):
        C = C * ((plus + minus @ C) / (minus + plus @ C)).sqrt()
        now = (points.T - points.T @ C).square().sum()
        assert now <= before + 1e-12
        before = now
    assert before < 0.05 * points.square().sum()


@claims.claim("$C_1(i,j)=\\frac1N\\sqrt{K_{ij}/r_i}$")
def _(kernels, delta):
    for K, change in zip(kernels, delta, strict=True):
        C0 = torch.full_like(K, 1 / len(K))
        C1 = C0 * (K / (K @ C0)).sqrt()
        assert torch.allclose(C1, (K / K.mean(1, keepdim=True)).sqrt() / len(K)) and C1.sum(1).max() <= 1 + 1e-12
        assert torch.isclose((C1.sum() - C0.sum()) / C0.sum(), change, atol=1e-12)


@claims.claim("for every $W$, every $\\sigma$ and every $\\alpha\\ge0$")
def _():
    for seed in range(200):
        noise = torch.Generator().manual_seed(seed)
        rows = 10 ** (2 * torch.rand(1, generator=noise) - 1) * torch.randn(5 + seed % 30, 6, generator=noise)
        # in single precision the sum of equal entries may exceed the exact one by a rounding error
        assert r2_scores(rows.double(), sigma=1.0, alpha=1e-12, stop="printed")[1] == 1


@claims.claim("We compute $\\delta_1$ for 100 random layers of different sizes and scales.")
def _(kernels):
    assert len(kernels) == 100 and len({len(K) for K in kernels}) == 30
    means = torch.stack([(K.sum() - len(K)) / (K.numel() - len(K)) for K in kernels])
    assert means.min() < 0.01 and means.max() > 0.9


@claims.claim("A neuron scores high if it resembles the others little on average.")
def _(r, points):
    scores = r2_scores(points, sigma=0.5, stop="printed")[0]
    assert torch.equal(scores.argsort(descending=True), r.argsort())


@claims.claim("On these layers no reading gives between 3 and 20", above=True)
@claims.claim("The absolute value takes one step or two", above=True)
def _(counts):
    for printed, absolute, entrywise in counts:
        assert printed == 1 <= absolute <= 2 and 20 < entrywise < 100


@claims.claim("With the default rule, R2 at $\\sigma=1$ is (11.7) on the toy's layers.", above=True)
def _(outgoing):
    for rows in outgoing:
        printed, default = (r2_scores(rows, sigma=1.0, stop=rule)[0] for rule in ("printed", "absolute"))
        assert torch.equal(printed, default)


@claims.claim("R2 sees the copies: they rank below neurons of the same norm.", above=True)
def _(with_copies, is_copy, scores):
    norms = with_copies.norm(dim=1)
    for i in is_copy.nonzero()[:, 0]:
        alike = ~is_copy & ((norms - norms[i]).abs() < 0.005)
        assert alike.any() and scores[i] < scores[alike].min()


@claims.claim("the other neurons are almost on one rising curve", above=True)
def _(with_copies, is_copy, scores):
    norms = with_copies.norm(dim=1)[~is_copy]
    ranks = torch.stack([x.argsort().argsort().double() for x in (norms, scores[~is_copy])])
    assert torch.corrcoef(ranks)[0, 1] > 0.95


@claims.claim("for nearly orthogonal weights", above=True)
def _(W):
    unit = W / W.norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T)[~torch.eye(512, dtype=torch.bool)]
    assert cosine.abs().mean() < 0.15


@claims.claim("Then $r_i$ is close to $e^{-\\lVert w_i\\rVert^2/2\\sigma^2}$", above=True)
def _(W):
    r = torch.exp(-torch.cdist(W, W).square() / 2).mean(1)
    factor = r / torch.exp(-W.square().sum(1) / 2)
    assert factor.std() < 0.05 * factor.mean()


@claims.claim("For the toy we have measured this", above=True)
def _(outgoing):
    for rows in outgoing:
        pair = (r2_scores(rows, sigma=1.0)[0], rows.norm(dim=1))
        ranks = torch.stack([x.argsort().argsort().double() for x in pair])
        assert torch.corrcoef(ranks)[0, 1] > 0.8


@claims.claim("Most activations are close to 0.", above=True)
def _(H_all, real):
    assert H_all[0, :, :20].abs().median() < 0.17 and (H_all[real].abs() < 0.2).double().mean() > 0.6


@claims.claim("(GELU is never below $-0.17$.)", above=True)
def _(H_all):
    lowest = F.gelu(torch.linspace(-5, 0, 50_001, dtype=torch.float64)).min()
    assert lowest > -0.17 and math.isclose(lowest, -0.17, abs_tol=1e-4) and H_all.min() >= lowest - 1e-9


@claims.claim("Padding is not zero", above=True)
def _(H_all, real):
    assert H_all[~real].abs().mean() > 0.05 and (~real[0]).sum() == 5 and real.sum(1).unique().numel() > 1


@claims.claim("how much of it there is depends on the batch", above=True)
def _(batches):
    assert len({float(batch["attention_mask"].double().mean()) for batch in batches}) > 1


@claims.claim("We check it against 32 runs, each with one sequence and no padding at all.")
def _(alone, a):
    assert len(a) == 32 and sum(len(alone(s)) for s in range(32)) == int(a.sum())


@claims.claim("Mean activations and z-scores have both signs", above=True)
def _(D2, by_hand):
    for scores in (D2, by_hand["zscore"], by_hand["max"]):
        assert 0.2 < (scores < 0).double().mean() < 0.9
    assert by_hand["minmax"].min() == 0 and by_hand["minmax"].max() == 1


@claims.claim("the one with the *higher* R2 ranks lower", above=True)
def _():
    R2, D2 = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -1.0])
    assert (R2 * D2).argmax() == R2.argmin()


@claims.claim("In *each* layer the scores now start at 0 and reach about as high as R2 allows.")
def _(dense, batches, outgoing):
    import mvp_lite as mvp

    pruned = mvp.prune_neurons(dense, batches[:1], 0.6, "r2d2", scale=False)
    for scores, rows in zip(pruned.scores, outgoing, strict=True):
        assert scores.min() == 0 and scores.max() > 0.75 * r2_scores(rows, sigma=1.0)[0].max()


@claims.claim(
    "Normalize D2 by min-max within its layer, multiply, and keep the $k$ best neurons of all layers together."
)
def _(pruned, masks, k):
    assert k == 799 and all(torch.equal(a, b) for a, b in zip(masks, pruned.masks, strict=True))


@claims.claim("The attention stays whole, so only 799 of the 2,048 neurons are left.")
def _(pruned):
    assert sum(int(mask.sum()) for mask in pruned.masks) == 799 and sum(map(len, pruned.masks)) == 2048
    assert abs(pruned.flops - 0.6) < 0.001


@claims.claim("Nothing is trained, scaled or corrected afterwards.")
def _(pruned):
    assert all(((scales == 0) | (scales == 1)).all() for scales in pruned.scales)


@claims.claim("The dense model scores about 99 %, and pruning by the norm loses almost nothing.", above=True)
def _(encoded, dense, found):
    score = encoded.evaluate(dense)["score"]
    assert score > 98.5 and found[found["option"] == "norm of outgoing weights"]["score"].min() > score - 1.5


@claims.claim("Every score is far better than random selection, though none has seen a label.", above=True)
def _(found):
    mean = found.groupby("option")["score"].mean()
    assert mean.drop("random").min() > mean["random"] + 3


@claims.claim("On the toy, the best of these scores is the plain norm of the outgoing weights.", above=True)
def _(found):
    assert found.groupby("option")["score"].mean().idxmax() == "norm of outgoing weights"


@claims.claim("the product is not better than R2 alone, and R2 is not better than the plain norm", above=True)
def _(found):
    mean = found.groupby("option")["score"].mean()
    products = mean[[name for name in mean.index if "·" in name]]
    assert len(products) == 2 and products.max() < mean["R2"] + 0.2 and mean["R2"] < mean["norm of outgoing weights"]


@claims.claim("(R2 and the norm do not look at the text, so their two dots coincide.)", above=True)
def _(found):
    values = found.groupby("option")["score"].nunique()
    assert values["R2"] == values["norm of outgoing weights"] == 1


@claims.claim("the other with `half=False`", above=True)
def _(points):
    squares = torch.cdist(points, points).square()
    wide = torch.exp(-squares / 0.5**2)
    expected = 1 / (12 * wide.mean(1).sqrt())
    assert torch.allclose(r2_coefficients(points, sigma=0.5, stop="printed", half=False)[0].diagonal(), expected)


@claims.claim("It ranks copies low, all of them", above=True)
def _(is_copy):
    assert is_copy.sum() == 41

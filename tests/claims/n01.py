"""Claims of notebook 01, and errors planted in its equations: masks, ties, scopes, and where |W| is the best score."""

import torch
from in_notebook import Claims

import mvp_lite as mvp

claims = Claims()


def places(W, masks, inputs, mean_error, mask):
    """The place of a mask among all, 1 for the smallest error."""
    own = mean_error(W, mask, inputs)
    return 1 + sum(bool(mean_error(W, other, inputs) < own - 1e-9) for other in masks)


def cost_of(corner, gone, twins, mean_error):
    """Error of the corner without the weights of these values."""
    mask = torch.tensor([[float(weight not in gone) for weight in row] for row in corner.tolist()])
    return mean_error(corner, mask, twins).item()


@claims.planted("1.1")
def _(W, M, x):
    return {"no mask": W @ x, "the complement": (W * (1 - M)) @ x, "inputs masked by rows": (W * M.flip(0)) @ x}


@claims.planted("1.2")
def _(n, v):
    return {"rounded down": (v * n).int(), "round()": (v * n).round(), "no max": torch.floor(v * n + 0.5)}


@claims.planted("1.3")
def _(r, larger):
    return {"<= k": r <= 2, "all ties stay": larger.sum(dim=1).view(2, 3) < 2, "lowest stay": r >= 4}


@claims.planted("1.4")
def _(network, W, V, c, batch):
    return {"both times c": network(c * W, c * V, batch), "c below zero": network(-c * W, -V / c, batch)}


@claims.planted("1.5")
def _(D, W, M, X, Sigma):
    covariance, kept = X.T.cov(correction=0), W * M
    return {
        "covariance": (D @ covariance @ D.T).trace(),
        "kept for pruned": (kept @ Sigma @ kept.T).trace(),
        "sum for trace": (D @ Sigma @ D.T).sum(),
    }


@claims.planted("1.6")
def _(W, M):
    return {"not squared": ((1 - M) * W.abs()).sum(), "kept for pruned": (M * W.square()).sum()}


@claims.planted("1.7")
def _(W, white, mean_error, squares):
    signed = mvp.masks.top_v(W, 0.3).double()  # -0.5 counts as small
    return {"signed weights": mean_error(W, signed, white), "one too few": squares[:3].sum()}


@claims.planted("1.8")
def _(W, M, stretched):
    power = stretched.square().mean(dim=0)
    return {
        "no root": ((1 - M) * (W * power).square()).sum(),
        "sizes left out": ((1 - M) * W.square()).sum(),
        "kept for pruned": (M * W.square() * power).sum(),
    }


@claims.planted("1.9")
def _(w1, w2):
    row = w1**2 + w2**2
    return {"no cross term": row, "no factor 2": row + w1 * w2 * 0.8, "sign": row - 2 * w1 * w2 * 0.8}


@claims.planted("1.10")
def _(old, name, q, distance, first, last):
    away = (old[name].abs() - q).abs().flatten()
    return {"any weight": away.topk(len(distance)).values, "magnitude": old[name].abs()[first != last]}


@claims.claim("If 0.6 and −0.5 stay and $x=(1,2,-1)$, then $a_1=0.6")
def _(a):
    assert torch.allclose(a, torch.tensor([-0.4, 0.0]))


@claims.claim("at density 0.3 has $vn=1.8$, so $k=2$")
def _(W):
    assert abs(0.3 * W.numel() - 1.8) < 1e-12 and mvp.masks.keep_count(W.numel(), 0.3) == 2


@claims.claim("keep at least one weight")
def _():
    assert int(0.05 * 6) == round(0.05 * 6) == 0 and mvp.masks.keep_count(6, 0.05) == 1


@claims.claim("Three entries of this $S$ share the highest score")
def _(S):
    assert (S == S.max()).sum() == 3


@claims.claim("No two entries have the same $r$")
def _(r):
    assert sorted(r.flatten().tolist()) == list(range(6))


@claims.claim("The last 0.5 comes third in reading order ($r=2$)", above=True)
def _(S, r):
    assert r[1, 2] == 2 and S[1, 2] == 0.5 and r[0, 1] == 0 and r[1, 0] == 1


@claims.claim("the first $k$ weights stay: a definite answer")
def _():
    assert mvp.masks.top_v(torch.zeros(2, 3), density=0.5).int().tolist() == [[1, 1, 1], [0, 0, 0]]


@claims.claim("0.6 and -0.5 stay")
def _(W, M):
    assert torch.equal(mvp.masks.top_v(mvp.scores.magnitude(W), 0.3), M.bool())


@claims.claim("only eight of the 256 weights are left, seven of them in rows 9, 10 and 11, and twelve rows", above=True)
def _(query):
    rows = mvp.masks.top_v(query[:16, :16].abs(), 0.03).sum(dim=1)
    assert rows.sum() == 8 and rows[9:12].sum() == 7 and (rows == 0).sum() == 12


@claims.claim("It is right in the first case below and wrong in the next two")
def _(W, broken_top_v):
    assert torch.equal(broken_top_v(W.abs(), 0.3), mvp.masks.top_v(W.abs(), 0.3))
    assert broken_top_v(torch.zeros(2, 3), 0.3).sum() == broken_top_v(W.abs(), 0.05).sum() == 6
    assert mvp.masks.keep_count(6, 0.3) == 2 and mvp.masks.keep_count(6, 0.05) == 1


@claims.claim("It has three bugs, and one of them shows in none of these cases")
def _(broken_top_v):
    """Ties, k = 0, and halves, which none of the three cases has."""
    assert all((density * 6) % 1 != 0.5 for density in (0.3, 0.05))
    assert broken_top_v(torch.arange(5.0), 0.5).sum() == 2 and mvp.masks.keep_count(5, 0.5) == 3


@claims.claim("Global** pruning ranks the weights of all matrices together")
def _(W, V):
    pooled = torch.cat([mask.flatten() for mask in mvp.masks.top_v_global([W.abs(), V.abs()], 0.5)])
    assert torch.equal(pooled, mvp.masks.top_v(torch.cat([W.flatten(), V.flatten()]).abs(), 0.5))


@claims.claim("whose weights are all smaller than those of $W$", above=True)
def _(W, V):
    assert V.abs().max() < W.abs().min()


@claims.claim("the output is 0 for every input")
def _(W, V, batch, network):
    masks = mvp.masks.top_v_global([W.abs(), V.abs()], 0.5)
    assert [int(mask.sum()) for mask in masks] == [6, 0]
    assert not network(W * masks[0], V * masks[1], batch).any() and network(W, V, batch).any()


@claims.claim("Local pruning does not notice $c$. Global pruning empties $W$ at $c=0.1$", above=True)
def _(W, V, c):
    for A, factor in ((W, c), (V, 1 / c)):
        assert torch.equal(mvp.masks.top_v((factor * A).abs(), 0.5), mvp.masks.top_v(A.abs(), 0.5))
    masks = mvp.masks.top_v_global([(c * W).abs(), (V / c).abs()], 0.5)
    assert [int(mask.sum()) for mask in masks] == [0, 6]


@claims.claim("keeps three of each only for $c$ from about 0.32 to 0.41", above=True)
def _(W, V):
    def kept_of_W(c):
        return int(mvp.masks.top_v_global([(c * W).abs(), (V / c).abs()], 0.5)[0].sum())

    equal = [c for c in torch.arange(0.01, 3, 0.001).tolist() if kept_of_W(c) == 3]
    assert 0.315 < min(equal) < 0.32 and 0.405 < max(equal) < 0.41 and len(equal) > 90
    assert kept_of_W(0.4) == 3


@claims.claim(r"$V=\begin{pmatrix}0.05&-0.08\\0.07&0.02\\-0.03&0.04\end{pmatrix}$")
def _(V):
    assert V.tolist() == [[0.05, -0.08], [0.07, 0.02], [-0.03, 0.04]]


@claims.claim(r"\sum_i\sum_{j,l}D_{ij}\,\Sigma_{jl}\,D_{il}=\operatorname{tr}")
def _(D, Sigma):
    total = sum(D[i, j] * Sigma[j, m] * D[i, m] for i in range(2) for j in range(3) for m in range(3))
    assert torch.isclose(total, (D @ Sigma @ D.T).trace())


@claims.claim(r"the *second moment* $\Sigma=\mathbb E[xx^\top]")
def _(X, Sigma):
    assert torch.allclose(Sigma, torch.stack([torch.outer(x, x) for x in X]).mean(dim=0))


@claims.claim("Their mean is not zero")
def _(X):
    assert (X.mean(dim=0).abs() > 0.09).all()


@claims.claim("Four inputs are enough for a white list")
def _(W, M, white, mean_error):
    assert torch.equal(white.T @ white / 4, torch.eye(3))
    assert torch.isclose(mean_error(W, M, white), torch.tensor(0.2**2 + 0.4**2 + 0.3**2 + 0.1**2))


@claims.claim("masks with two ones, so we can try them all")
def _(fifteen):
    assert fifteen.unique(dim=0).shape == (15, 2, 3) and (fifteen.sum(dim=(1, 2)) == 2).all()


@claims.claim("Under these conditions no mask of the same density is better", above=True)
def _(W, M, white, fifteen, mean_error):
    assert places(W, fifteen, white, mean_error, M) == 1
    generator = torch.Generator().manual_seed(0)
    A, inputs = torch.randn(2, 4, generator=generator), torch.linalg.qr(torch.randn(6, 4, generator=generator))[0]
    kept = mvp.masks.top_v(A.abs(), 3 / 8).double()
    for chosen in torch.combinations(torch.arange(8), 3):
        other = torch.zeros(8).index_fill(0, chosen, 1.0).view(2, 4)
        assert mean_error(A, kept, inputs) <= mean_error(A, other, inputs) + 1e-12


@claims.claim("so the best mask is Top-v of *that* score")
def _(W, stretched, score, fifteen, mean_error):
    best = mvp.masks.top_v(score, 0.3).double()
    assert torch.equal(stretched.T @ stretched / 4, torch.diag(torch.tensor([1.0, 9.0, 25.0])))
    assert places(W, fifteen, stretched, mean_error, best) == 1 and best.tolist() == [[0, 1, 1], [0, 0, 0]]


@claims.claim("0.6, the largest of all, has to go, and 0.2 stays, because its input is five times as large", above=True)
def _(W, M, stretched, fifteen, mean_error):
    errors = [mean_error(W, mask, stretched).item() for mask in fifteen]
    best = fifteen[errors.index(min(errors))]
    assert W[best == 1].tolist() == [-0.5, 0.2] and W.max() == 0.6
    assert abs(min(errors) - 1.58) < 1e-9 and abs(mean_error(W, M, stretched) - 2.22) < 1e-9
    assert (stretched[:, 2].abs() == 5 * stretched[:, 0].abs()).all()


@claims.claim("half the second derivative of the error times the squared weight", above=True)
def _(W, stretched):
    weights = W.flatten()

    def error(left):
        return ((W.flatten() - left).view(2, 3) @ stretched.T).square().sum(dim=0).mean()

    curvature = torch.autograd.functional.hessian(error, weights).diagonal()
    price = (W.square() * stretched.square().mean(dim=0)).flatten()
    assert torch.allclose(curvature * weights.square() / 2, price)


@claims.claim("when does your mask agree with the magnitude mask?")
def _(W, M, white, mean_error, sizes):
    assert sizes.tolist() == [2, 1, 4], "not the sizes of the text above"
    kept = mvp.masks.top_v(W.abs() * (white * sizes).square().mean(dim=0).sqrt(), 0.3).double()
    assert mean_error(W, kept, white * sizes) < mean_error(W, M, white * sizes)


@claims.claim(r"Then $\Sigma_{11}=\Sigma_{22}=1$ and $\Sigma_{12}=(9-1)/10=0.8$")
def _(twins):
    assert torch.allclose(twins.T @ twins / 10, torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    assert (twins[:, 0] == twins[:, 1]).sum() == 9 and (twins[:, 0] == -twins[:, 1]).sum() == 1


@claims.claim("removing both weights costs less than the sum of their separate prices")
def _(corner, twins, mean_error):
    pair = cost_of(corner, [0.6, -0.5], twins, mean_error)
    assert abs(pair - 0.13) < 1e-9
    assert pair < cost_of(corner, [0.6], twins, mean_error) + cost_of(corner, [-0.5], twins, mean_error)


@claims.claim("For weights in different rows, the squares simply add up")
def _(corner, twins, mean_error):
    assert abs(cost_of(corner, [-0.5, 0.3], twins, mean_error) - (0.5**2 + 0.3**2)) < 1e-9


@claims.claim("at more than three times the error", above=True)
def _(corner, twins, mean_error):
    pairs = [[0.6, -0.5], [0.6, 0.4], [0.6, 0.3], [-0.5, 0.4], [-0.5, 0.3], [0.4, 0.3]]
    errors = [cost_of(corner, pair, twins, mean_error) for pair in pairs]
    assert errors[0] == min(errors) and errors[5] > 3 * errors[0], "magnitude prunes the last pair"


@claims.claim("If only one weight had to go, it should be 0.3", above=True)
def _(corner, twins, mean_error):
    single = {weight: cost_of(corner, [weight], twins, mean_error) for weight in corner.flatten().tolist()}
    assert min(single, key=single.get) == 0.3


@claims.claim("the twins get a third input, nearly independent of them")
def _(inputs):
    moment = inputs["twins"].T @ inputs["twins"] / 10
    assert moment.diagonal().allclose(torch.ones(3)) and moment[2, :2].abs().max() <= 0.2 + 1e-9


@claims.claim("Magnitude comes first on white inputs, third on stretched ones, and eighth of fifteen", above=True)
def _(W, M, fifteen, inputs, mean_error):
    assert [places(W, fifteen, data, mean_error, M) for data in inputs.values()] == [1, 3, 8]


@claims.claim("each comes eighth or worse at least once", above=True)
def _(W, fifteen, inputs, mean_error):
    for mask in fifteen:
        assert max(places(W, fifteen, data, mean_error, mask) for data in inputs.values()) >= 8


@claims.claim("does it find the best pair? And what happens to the error if you let it prune a third weight?")
def _(corner, left, twins, mean_error, price_of_one_more):
    pair = mean_error(corner, left, twins)
    assert corner[left == 1].tolist() == [0.6, 0.4] and pair > cost_of(corner, [0.6, -0.5], twins, mean_error) + 0.1


@claims.claim(
    "Greedy pruning ends at 0.34, although the best pair costs 0.13. A third removal *lowers* the error", above=True
)
def _(corner, left, twins, mean_error, price_of_one_more):
    pair = mean_error(corner, left, twins)
    third = price_of_one_more(corner, left, twins.T @ twins / 10).min()
    assert abs(pair - 0.34) < 1e-9 and abs(pair + third - 0.22) < 1e-9


@claims.claim("without pruning, and compare the magnitude masks of its 24 matrices before and after")
def _(tuned):
    history = tuned.history["loss"]
    assert len(history) == 40 and history.iloc[-1] < history.iloc[0] and tuned.score > 90


@claims.claim("if training had shuffled the weights, it would be 10 %", above=True)
def _(before, old):
    names = mvp.Pruner(before, density=0.1, total_steps=100).report()["layer"]
    assert list(old) == [f"{name}.weight" for name in names]


@claims.claim("About 95 %", above=True)
def _(old, new):
    shares = []
    for name, weights in old.items():
        first, last = (mvp.masks.top_v(W.abs(), 0.1) for W in (weights, new[name]))
        shares.append((first & last).sum() / first.sum())
    assert abs(sum(shares) / 24 - 0.95) < 0.02 and min(shares) > 0.85


@claims.claim("The few weights that changed sides are all close to the threshold", above=True)
def _(old, new, name):
    first, last = (mvp.masks.top_v(weights[name].abs(), 0.1) for weights in (old, new))
    threshold = old[name].abs()[first].min()
    share = (first != last).double().mean()
    assert 0 < share < 0.02
    assert (old[name].abs() - threshold).abs()[first != last].max() < 0.15 * threshold


@claims.claim("is at most about the sum of the learning rates, here 0.02")
def _(tuned, delta, old, new):
    total = tuned.history["lr"].sum()
    largest = max((new[name] - old[name]).abs().max() for name in old)
    assert abs(total - 0.02) < 0.002 and delta <= largest < total and tuned.history["lr"].max() <= 1e-3


@claims.claim("The overlap falls to about 89 %", above=True)
def _(task, matrices, old, name):
    model = mvp.load_model("toy", task)
    longer = matrices(mvp.fine_prune(model, task, method="dense", steps=300, lr=1e-3, progress=False).model)
    masks = {n: [mvp.masks.top_v(weights[n].abs(), 0.1) for weights in (old, longer)] for n in old}
    shares = {n: ((first & last).sum() / first.sum()).item() for n, (first, last) in masks.items()}
    assert abs(sum(shares.values()) / 24 - 0.89) < 0.02 and abs(shares[name] - 0.92) < 0.02
    moves, kept = (longer[name] - old[name]).abs(), old[name].abs()[masks[name][0]]
    assert (kept - kept.min() <= 2 * moves.max()).double().mean() > 0.9
    assert moves.median() < moves.max() / 4

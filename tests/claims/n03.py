"""Notebook 03: what it says about the pencil layer, its gradients and a weight that comes back; planted errors."""

import inspect
import json
import re

import torch
from in_notebook import ROOT, Claims
from torch.autograd.gradcheck import GradcheckError

import mvp_lite as mvp
from mvp_lite import masks
from mvp_lite.groups import WeightGroups
from mvp_lite.matrices import PrunedMatrix
from mvp_lite.methods import Movement

claims = Claims()
near = torch.allclose


@claims.planted("3.1")
def _(W, S, x):
    return {"no mask": W @ x, "S as mask": (W * S) @ x}


@claims.planted("3.2")
def _(G, a, x):
    return {"sign": -G, "a for dL/da": torch.outer(a, x), "transposed": G.T}


@claims.planted("3.3")
def _(G_batch, errors, xs):
    early = torch.outer(errors.sum((0, 1)), xs.sum((0, 1)))
    return {"mean over tokens": G_batch / 5, "mean over the batch": G_batch / 4, "summed too early": early}


@claims.planted("3.4")
def _(G_C, C, W):
    return {"mask for weight": G_C * C, "mask left in": G_C * C * W, "sign": -G_C * W}


@claims.planted("3.5")
def _(G_C, C, W):
    return {"weight for mask": G_C * W, "mask forgotten": G_C, "sign": -G_C * C}


@claims.planted("3.6")
def _(M):
    return {"one for one": torch.eye(6), "kept only": torch.diag(M.view(6))}


@claims.planted("3.7")
def _(M, measured, through):
    return {"the true derivative": measured, "kept entries only": torch.diag(M.view(6)) @ through, "sign": -through}


@claims.planted("3.8")
def _(G_batch, W, M):
    return {"mask left in": G_batch * W * M, "sign": -G_batch * W, "W forgotten": G_batch}


@claims.planted("3.9")
def _(G, W):
    return {"sign": G * W, "no direction": (G * W).abs(), "push alone": -G}


@claims.claim("The mask keeps the four highest of the six scores")
def _(S, M, W):
    assert M.sum() == 4 and S[M == 1].min() > S[M == 0].max()
    assert W.shape == S.shape == M.shape == (2, 3)


@claims.claim("and $a_2=-0.3\\cdot1+(-0.1)(-2)+0.6\\cdot3=1.7$")
def _(W, M, x, y, a, loss_of):
    assert near(a, torch.tensor([0.5, 1.7])) and y.tolist() == [1, 0.9]
    assert abs(loss_of(a) - 0.445) < 1e-12
    assert near((W * M) @ x, a)


@claims.claim(r"$G=\begin{pmatrix}-0.5&1&-1.5\\0.8&-1.6&2.4\end{pmatrix}$. Pruned weights")
def _(G, dL_da, M):
    assert near(dL_da, torch.tensor([-0.5, 0.8]))
    assert near(G, torch.tensor([[-0.5, 1.0, -1.5], [0.8, -1.6, 2.4]]))
    assert (G[M == 0] != 0).all()


@claims.claim("an entry in $G$ too. It says how the loss would change")
def _(G, W, M, x, loss_of, S):
    for i, j in (M == 0).nonzero().tolist():
        step = torch.zeros(2, 3)
        step[i, j] = 1e-5
        slope = (loss_of((W * M + step) @ x) - loss_of((W * M - step) @ x)) / 2e-5
        assert abs(slope - G[i, j]) < 1e-8


@claims.claim("If the loss is a mean over the batch, its $1/N$ is already inside")
def _(W, M, xs, ys):
    used = (W * M).requires_grad_()
    outputs = xs @ used.T
    outputs.retain_grad()
    (0.5 * (outputs - ys).square().sum() / len(xs)).backward()
    assert near(used.grad, torch.einsum("npi,npj->ij", outputs.grad, xs))


@claims.claim(r"\partial\mathcal L/\partial M_{13}=-1.5\cdot0.2=-0.3$, while")
def _(G, W, M):
    assert near((G * W)[[1, 0], [2, 2]], torch.tensor([1.44, -0.3]))
    assert near((G * M)[[1, 0], [2, 2]], torch.tensor([2.4, 0.0]))
    assert M[1, 2] == 1 and M[0, 2] == 0


@claims.claim("its score is 0.1, and the lowest score that is kept is 0.3")
def _(S, M):
    assert S[0, 2] == 0.1 and S[M == 1].min() == 0.3 and M[0, 2] == 0


@claims.claim("On the left the loss is smooth, and $-0.3$ is its slope at 0", above=True)
def _(by_mask, m, G, W):
    assert abs((by_mask[1] - by_mask[0]) / m[1] + 0.3) < 0.01 and abs(G[0, 2] * W[0, 2] + 0.3) < 1e-12


@claims.claim("weight (1, 3) enters, weight (2, 1) has to leave, and the loss jumps to 0.61", above=True)
def _(by_score, s, S, E, M, W, x, loss_of):
    below, above = (masks.top_v(S + (to - 0.1) * E, 2 / 3).double() for to in (0.2999, 0.3001))
    assert torch.equal(below, M) and above[0, 2] == 1 and above[1, 0] == 0 and (above != below).sum() == 2
    loss = torch.stack(by_score)
    assert near(loss[s < 0.299], torch.tensor(0.445)) and near(loss[s > 0.301], torch.tensor(0.61))
    for h in (1e-1, 1e-3, 1e-5):  # the jump does not depend on how closely one looks
        up, down = (masks.top_v(S + (0.2 + d) * E, 2 / 3) for d in (h / 2, -h / 2))
        assert abs(loss_of((W * up) @ x) - loss_of((W * down) @ x) - 0.165) < 1e-12


@claims.claim("a step function such as `torch.sign` has the gradient zero")
def _(S, M, step_function, claimed, nudge, W, x, loss_of):
    assert torch.equal(step_function(S), M) and not claimed.any()
    assert not masks.top_v(S.clone().requires_grad_(), 2 / 3).requires_grad
    assert not nudge(lambda scores: loss_of((W * masks.top_v(scores, 2 / 3)) @ x), S).any()


@claims.claim("In the package the decision is the last line")
def _(S, M, G):
    source = inspect.getsource(masks.TopV)
    assert "return top_v(scores, density).to(scores.dtype)" in source and "return grad, None" in source
    assert source.rstrip().endswith("return grad, None")
    assert torch.equal(masks.TopV.apply(S, 2 / 3), M)
    cells = json.loads((ROOT / "notebooks" / "03_gradient_of_movement_scores.ipynb").read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    (printed,) = re.findall(r"^```python\n(class TopV.*?)^```", text, flags=re.S | re.M)
    copied = {"torch": torch, "top_v": masks.top_v}
    exec(printed, copied)  # what a reader copies works
    scores = S.clone().requires_grad_()
    mask = copied["TopV"].apply(scores, 2 / 3)
    mask.backward(G)
    assert torch.equal(mask, M) and torch.equal(scores.grad, G)


@claims.claim("The formula holds for **every** entry, kept or pruned")
def _(layer, M):
    assert (layer.scores.grad[M == 0] != 0).all() and (layer.weight.grad[M == 0] == 0).all()


@claims.claim("Autograd's answer, and ours, on the batch of sequences")
def _(layer, G_batch, M, errors, xs, W):
    assert near(layer.weight.grad, G_batch * M), "Eq. (3.5) on a batch"
    slow = torch.zeros(2, 3)
    for n, p, i, j in torch.cartesian_prod(*map(torch.arange, (4, 5, 2, 3))):
        slow[i, j] += errors[n, p, i] * W[i, j] * xs[n, p, j]
    assert near(slow, layer.scores.grad), "Eq. 2 of the paper, summed over the inputs"


@claims.claim("let $\\sigma(S)$ through in place of $S$. The mask stays the same")
def _():
    S = torch.tensor([-2.0, 0.0, 8.0]).requires_grad_()
    mask = masks.top_v(S, 0.3).to(S.dtype) + (S.sigmoid() - S.sigmoid().detach())
    mask.sum().backward()
    assert torch.equal(mask.detach(), torch.tensor([0.0, 0.0, 1.0]))
    assert S.grad[2] < 0.001, "the gradient of a very high score nearly vanishes"


@claims.claim("It rejects only the scores. It measures six zeros, Eq. (3.6), and autograd reports", above=True)
def _(cases, G, W):
    agrees = {}
    for name, (loss, at) in cases.items():
        at = at.clone().requires_grad_()
        agrees[name] = torch.autograd.gradcheck(loss, at, raise_exception=False)
    assert list(agrees.values()) == [True, True, False]
    loss, at = cases["scores, through TopV"]
    at = at.clone().requires_grad_()
    loss(at).backward()
    assert near(at.grad, G * W)
    try:
        torch.autograd.gradcheck(loss, at)
    except GradcheckError as error:
        text = str(error)
    assert "Jacobian mismatch" in text and text.count("[0.]") == 6


@claims.claim("With the noise held fixed, and away from the clamps, `gradcheck` passes")
def _(S, W, x, y, loss_of):
    noise = torch.tensor([[0.3, 0.6, 0.45], [0.4, 0.25, 0.35]])
    scores = S.clone().requires_grad_()
    gate = masks.hard_concrete(scores, noise)
    assert ((gate > 0.05) & (gate < 0.95)).all()
    assert torch.autograd.gradcheck(lambda S: loss_of((W * masks.hard_concrete(S, noise)) @ x), scores)
    G_gate = torch.outer(((W * gate) @ x - y), x).detach()
    loss_of((W * gate) @ x).backward()
    assert near(scores.grad, G_gate * W * masks.hard_concrete_gradient(gate.detach()))


@claims.claim("The scores of (1, 1), (2, 1) and (1, 3) rise", above=True)
def _(G, W):
    assert ((-G * W) > 0).nonzero().tolist() == [[0, 0], [0, 2], [1, 0]]


@claims.claim("Each of these weights is pushed **away from zero**", above=True)
def _(G, W):
    farther = (W - 0.01 * G).abs() > W.abs()
    assert torch.equal(farther, -G * W > 0)


@claims.claim("Weight (2, 3) is the largest of all, and its score falls fastest")
def _(G, W):
    assert W.abs().argmax() == 5 and (-G * W).argmin() == 5


@claims.claim("By (3.5) its gradient is $G_{ij}\\cdot0=0$")
def _(pencil_layer, loss_of, x, M, G, W):
    layer = pencil_layer()
    loss_of(layer(x)).backward()
    assert (layer.weight.grad[M == 0] == 0).all() and near(layer.scores.grad, G * W)


@claims.claim("Only plain SGD freezes a pruned weight", above=True)
def _(optimizers, pruned_weights_moved):
    moved = {name: pruned_weights_moved(make) for name, make in optimizers.items()}
    assert moved == {"plain SGD": 0, "SGD with momentum": 2, "SGD with weight decay": 2, "Adam": 2}


@claims.claim("it moves down by $0.05\\cdot2.4$, to 0.48. Its score falls by $0.4\\cdot1.44$, from 0.5 to $-0.076$")
def _(history):
    W, S, M, G = (history[name][:, 1, 2] for name in "WSMG")
    assert near(W[:2], torch.tensor([0.6, 0.48])) and near(S[:2], torch.tensor([0.5, -0.076]))
    assert M[:2].tolist() == [1, 0] and abs(G[0] - 2.4) < 1e-12
    assert (history["M"].sum((1, 2)) == 4).all()


@claims.claim("Without the weight, $a_2$ drops to $-0.3$, far below the target 0.9. Now $G_{23}=-3.6$")
def _(history, x):
    outputs = (history["W"] * history["M"]) @ x
    assert abs(outputs[1, 1] + 0.3) < 1e-12 and abs(history["G"][1, 1, 2] + 3.6) < 1e-12


@claims.claim("to 0.6152, and in step 2 it is kept again **with the value 0.48 it had when it left**")
def _(history):
    W, S, M = (history[name][:, 1, 2] for name in "WSM")
    assert abs(S[2] - 0.6152) < 1e-12 and M[2] == 1 and W[2] == W[1] and abs(W[2] - 0.48) < 1e-12


@claims.claim("In step 4 the same happens once more")
def _(history):
    W, M = (history[name][:, 1, 2] for name in "WM")
    assert M.tolist() == [1, 0, 1, 1, 0, 1, 1, 1, 1, 1] and W[4] == W[5]


@claims.claim("The loss rises each time the weight is pruned")
def _(losses, M_t):
    for step in (M_t[:, 1, 2] == 0).nonzero().flatten().tolist():
        assert losses[step] > losses[step - 1] and losses[step] > losses[step + 1]


@claims.claim("and also in step 7, where (1, 3) leaves and (2, 1) returns")
def _(losses, M_t):
    assert losses[7] > 10 * losses[6]
    assert (M_t[7] - M_t[6]).tolist() == [[0, 0, -1], [1, 0, 0]]


@claims.claim("In fact it jumps *up*, to 0.61")
def _(by_score, G, W):
    assert max(by_score) == by_score[-1] and abs(by_score[-1] - 0.61) < 1e-9 and by_score[0] < 0.45
    assert abs((G * W)[0, 2] + 0.3) < 1e-12


@claims.claim("The dashed line in the right panel of the stair is what (3.8) claims about $S_{13}$")
def _(right, s, pencil_layer, loss_of, x):
    layer = pencil_layer()
    loss_of(layer(x)).backward()
    (dashed,) = [drawn for drawn in right.get_lines() if drawn.get_linestyle() == "--"]
    slope = float(layer.scores.grad[0, 2])
    assert abs(slope + 0.3) < 1e-12 and near(torch.from_numpy(dashed.get_ydata()), 0.445 + slope * (s - 0.1))


@claims.claim("$M$ is no factor, it enters only through $G$")
def _(W, M, S, x, y):
    other = masks.top_v(S + torch.tensor([[0.0, 0.0, 0.25], [0.0, 0.0, -0.5]]), 2 / 3)  # (1, 3) in place of (2, 3)
    before, after = (torch.outer((W * mask) @ x - y, x)[1, 2] for mask in (M, other))
    assert abs(before - 2.4) < 1e-12 and abs(after + 3) < 1e-12, "another mask, another G"


@claims.claim("How often does the weight leave?")
def _(run):
    def leaves(score_lr):
        kept = run(score_lr=score_lr)["M"][:, 1, 2]
        return int(((kept[:-1] == 1) & (kept[1:] == 0)).sum())

    assert [leaves(score_lr) for score_lr in (0.05, 0.4, 1.0)] == [0, 2, 3]


@claims.claim("its weight stands still, its score does not")
def _(history):
    out = history["M"][:-1] == 0
    moved = {name: history[name][1:] != history[name][:-1] for name in "WS"}
    assert out.any() and not moved["W"][out].any() and moved["S"][out].all()


@claims.claim('once a weight is pruned," they say, "its score stands still')
def _(S, M, W, x, y, broken_step, scores, layer):
    assert torch.equal(scores[M == 0], S[M == 0]) and not torch.equal(scores[M == 1], S[M == 1])
    assert (layer.weight[M == 0] == 0).all() and (W[M == 0] != 0).all()
    used, losses, now = torch.nn.Linear(3, 2, bias=False), [], S.clone()
    used.weight.data = W.clone()
    for _ in range(5):
        kept = masks.top_v(now, 2 / 3)
        assert kept.sum() == 4
        losses.append(float(0.5 * ((used.weight * kept) @ x - y).square().sum().detach()))
        broken_step(used, now, x[None], y[None], 2 / 3, 0.05, 0.4)
    assert losses[-1] < losses[0], "the loss falls"


@claims.claim("nine of your steps equal nine of the package's")
def _(same):
    assert all(same)


@claims.claim("Here it goes through the same nine steps, starting from our scores")
def _(pruner, net, W_t, S_t, M_t):
    assert torch.equal(pruner.matrices[0].master, W_t[9]) and torch.equal(pruner.groups[0].scores, S_t[9])
    assert torch.equal(net[0].weight, W_t[9] * M_t[9])


@claims.claim("From the equations to the lines of the package")
def _():
    lines = {
        PrunedMatrix.write_masked: "torch.mul(self.master, self.multiplier, out=self.weight.data)",
        WeightGroups.mask_gradient: "movement_gradient(G.to(dtype), part.matrix.master.to(dtype))",
        mvp.scores.movement_gradient: "return G * W",
        Movement.score_gradient: "return mask_gradient",
        mvp.Pruner._set_gradients: "G.mul_(matrix.multiplier)",
        PrunedMatrix.lend_master: "self._masked, self.weight.data = self.weight.data, self.master",
        PrunedMatrix.take_back_master: "self.master = self.weight.data",
        Movement.masks: "return [masks.top_v(S, density) for S in scores]",
    }
    for function, line in lines.items():
        assert line in inspect.getsource(function)


@claims.claim("scores of pruned weights would stand still |")
def _(pencil_layer, xs, ys, W, M):
    layer = pencil_layer()
    (0.5 * (layer(xs) - ys).square().sum()).backward()
    short = layer.weight.grad * W
    assert (short[M == 0] == 0).all() and near(short[M == 1], layer.scores.grad[M == 1])

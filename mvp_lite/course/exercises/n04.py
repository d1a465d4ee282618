"""Checks of notebook 04: scores from a path of weights, the training loop of movement pruning, a setting that works."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal
from mvp_lite.masks import top_v, top_v_global
from mvp_lite.pruner import Pruner
from mvp_lite.schedule import cubic


@exercise("4.1")
def _scores_from_path(answer: Any) -> None:
    cases = [(7, 2, 3, 0.3, 0.3), (4, 3, 2, 0.1, 1.0), (12, 4, 4, 0.5, 0.01), (1, 1, 2, 0.2, 0.4)]
    for seed, (steps, rows, columns, lr, score_lr) in enumerate(cases):
        G = normal(steps, rows, columns, seed=seed)
        W, S = normal(rows, columns, seed=100 + seed), torch.zeros(rows, columns, dtype=torch.float64)
        path = [W]
        for g in G:
            S, W = S - score_lr * g * W, W - lr * g
            path.append(W)
        trail = torch.stack(path)
        moves = trail[1:] - trail[:-1]
        gain, ratio = trail[-1].square() - trail[0].square(), score_lr / lr
        close(
            call(answer, trail, lr, score_lr),
            S,
            mistakes={
                "the squares of the steps are missing": ratio / 2 * gain,
                "the factor 1/2 is missing": ratio * (gain - moves.square().sum(dim=0)),
                "it uses the weights after each step (or adds the squares of the steps)": ratio
                * (trail[1:] * moves).sum(dim=0),
                "the sign: a weight that has moved away from zero has a positive score": -S,
                "the ratio of the learning rates is inverted": S / ratio**2,
                "the learning rate of the scores is missing": S / score_lr,
                "the learning rates are missing": S / ratio,
                "it averages over the steps, expected a sum": S / steps,
                "the last step is missing": ratio * (trail[:-2] * moves[:-1]).sum(dim=0),
            },
            what=f"the scores after {steps} steps of {rows}x{columns} weights",
        )


Network = Callable[[Sequence[Tensor], Tensor], Tensor]
Run = tuple[list[Tensor], list[Tensor], list[float]]

#: A mistake in the training loop, as `_train` makes it -> what the message says.
_LOOP_MISTAKES = {
    "never": "nothing is ever pruned: the forward pass takes W * M, and the masks are selected anew after each step",
    "dense": "the forward pass uses the dense W, expected W * M",
    "scores masked": "the gradient of S is masked, so pruned weights can never return: expected G * W",
    "weights unmasked": "the gradient of W is G, expected G * M",
    "sign": "the sign of the scores: their gradient is G * W, Adam steps against it, and the highest stay",
    "magnitude": "the masks keep the largest |W|, expected the highest scores",
    "late": "the masks are those of the scores before the step, expected after it",
    "pool": "the masks are selected in the pool of all matrices, expected in each one",
    "hard": "W is overwritten by W * M, so pruned weights lose their values: keep W dense",
    "no scores": "the scores never move: give each S its gradient",
    "either sign": "the masks keep the largest |S|, expected the highest S: a very negative score is a low one",
    "after the step": "the loss is computed after the step, expected the loss of the prediction that gave G",
    "after the masks": "the loss is computed after the new masks, expected the loss of the prediction that gave G",
    "summed": "the loss is the sum of the squared errors, expected their mean",
    "half": "the loss has a factor 1/2, expected the mean of the squared errors",
}


def _train(
    network: Network, weights: list[Tensor], batches: Any, densities: list[float], lr: float, mistake: str = ""
) -> Run:
    """The loop that is asked for, or the loop with one mistake."""
    W = [w.clone() for w in weights]
    S, M, losses = [torch.zeros_like(w) for w in W], [torch.ones_like(w) for w in W], []
    adam = torch.optim.Adam(W + S, lr=lr)
    for (x, y), density in zip(batches, densities, strict=True):
        used = [(w if mistake == "dense" else w * m).clone().requires_grad_() for w, m in zip(W, M, strict=True)]
        loss = _loss(network(used, x), y, mistake)
        losses.append(loss.item())
        for w, s, m, G in zip(W, S, M, torch.autograd.grad(loss, used), strict=True):
            w.grad = G if mistake == "weights unmasked" else G * m
            s.grad = None if mistake == "no scores" else {"sign": -G, "scores masked": G * m}.get(mistake, G) * w
        before = [s.clone() for s in S]
        adam.step()
        if mistake == "after the step":
            losses[-1] = _loss(network([w * m for w, m in zip(W, M, strict=True)], x), y).item()
        if mistake == "either sign":
            before = [s.abs() for s in S]
        ranked = {"magnitude": [w.abs() for w in W], "late": before, "either sign": before}.get(mistake, S)
        v = 1.0 if mistake == "never" else density
        kept = top_v_global(ranked, v) if mistake == "pool" else [top_v(s, v) for s in ranked]
        M = [mask.to(torch.float64) for mask in kept]
        if mistake == "hard":
            for w, m in zip(W, M, strict=True):
                w.mul_(m)
        if mistake == "after the masks":
            losses[-1] = _loss(network([w * m for w, m in zip(W, M, strict=True)], x), y).item()
    return W, M, losses


def _loss(prediction: Tensor, y: Tensor, mistake: str = "") -> Tensor:
    squares = (prediction - y).square()
    return squares.sum() if mistake == "summed" else squares.mean() * (0.5 if mistake == "half" else 1)


def _one_layer(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    return x @ weights[0].T


def _two_layers(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    return torch.tanh(x @ weights[0].T) @ weights[1].T


@exercise("4.2")
def _training_loop(answer: Any) -> None:
    for seed, (network, shapes) in enumerate([(_one_layer, [(4, 6)]), (_two_layers, [(5, 6), (3, 5)])]):
        weights = [normal(*shape, seed=10 * seed + i) for i, shape in enumerate(shapes)]
        inputs, outputs = 6, shapes[-1][0]
        batches = [(normal(8, inputs, seed=100 + t), normal(8, outputs, seed=200 + t)) for t in range(24)]
        densities = [cubic(t, 1.0, 0.4, 24, 6, 8) for t in range(1, 25)]
        expected = _train(network, weights, batches, densities, 0.05)
        given = [w.clone() for w in weights]
        got = answer(network, given, batches, densities, 0.05)
        _compare_runs(got, expected, functools.partial(_train, network, weights, batches, densities, 0.05))
        if not all(map(torch.equal, given, weights)):
            raise WrongAnswer("your function changes the weights that it was given: work on copies")


def _compare_runs(got: Any, expected: Run, with_mistake: Callable[[str], Run]) -> None:
    if got is None:
        raise WrongAnswer("your answer is None: does the function return its result?")
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise WrongAnswer("expected three results: the dense weights W, the masks M, the losses")
    W, M, losses = got
    for name, values, right in (("W", W, expected[0]), ("M", M, expected[1])):
        if not isinstance(values, tuple | list) or len(values) != len(right):
            raise WrongAnswer(f"{name} must be a list of {len(right)}: one tensor for each matrix")
    found = losses
    if not isinstance(losses, Tensor):
        found = torch.tensor([float(loss) for loss in losses], dtype=torch.float64)
    right_losses = torch.tensor(expected[2], dtype=torch.float64)
    like(found, right_losses, "the list of losses")
    tol = 1e-4 if found.dtype == torch.float32 else 1e-7
    if not torch.allclose(found.double(), right_losses, rtol=tol, atol=tol):
        for mistake, words in _LOOP_MISTAKES.items():
            if torch.allclose(
                found.double(), torch.tensor(with_mistake(mistake)[2], dtype=torch.float64), rtol=tol, atol=tol
            ):
                raise WrongAnswer(words)
        t = int(((found.double() - right_losses).abs() > tol * (1 + right_losses)).nonzero()[0])
        raise WrongAnswer(f"the loss of step {t + 1} is {found[t].item():.6g}, expected {right_losses[t].item():.6g}")
    for i, (w, m, right_w, right_m) in enumerate(zip(W, M, *expected[:2], strict=True), 1):
        masked = {"it is returned masked: W is the dense matrix": right_w * right_m}
        close(w, right_w, mistakes=masked, what=f"W of matrix {i}", tol=1e-7)
        if isinstance(m, Tensor) and m.dtype == torch.bool:
            m = m.double()
        close(m, right_m, mistakes={"it is inverted: 1 means kept": 1 - right_m}, what=f"M of matrix {i}")


#: what exercise 4.3 asks for: the mean error on these tasks, with this fraction of the weights, below this bound
_SEEDS, _DENSITY, _BOUND = (5, 6, 7, 8, 9), 0.25, 0.06
#: its runs are short
_STEPS, _COOLDOWN = 60, 18


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, batches: Tensor) -> None:
    for batch in batches:
        optimizer.zero_grad()
        (model(x[batch]) - y[batch]).square().mean().backward()
        optimizer.step()


def _network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        layers = [nn.Linear(12, out, bias=False, dtype=torch.float64) for out in (12, 3)]
    return nn.Sequential(layers[0], nn.Tanh(), layers[1])


@functools.cache
def _transfer_task(seed: int) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """As in the notebook: pretrained weights, 1,500 inputs, the new task's outputs, 200 batches."""
    noise = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise, dtype=torch.float64)

    x, U = random(1500, 12), 0.8 * random(12, 3)
    old, new = U.clone(), U.clone()
    old[8:], new[:4] = 0, 0
    model = _network()
    for weight in model.parameters():
        weight.data = 0.3 * random(*weight.shape)
    batches = torch.randint(0, 1000, (500, 32), generator=noise)
    _steps(model, torch.optim.Adam(model.parameters(), lr=0.01), x, torch.tanh(x @ old), batches[:300])
    return model.state_dict(), x, torch.tanh(x @ new), batches[300:]


@functools.cache
def _errors(warmup: int, lr: float, c: float) -> tuple[float, ...]:
    """Test error of movement pruning on each task."""
    found = []
    for seed in _SEEDS:
        weights, x, y, batches = _transfer_task(seed)
        model = _network()
        model.load_state_dict(weights)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        steps: dict[str, Any] = {"total_steps": _STEPS, "warmup_steps": warmup, "cooldown_steps": _COOLDOWN}
        pruner = Pruner(model, "movement", density=_DENSITY, magnitude_init=c, target="", **steps).attach(optimizer)
        _steps(model, optimizer, x, y, batches[:_STEPS])
        pruner.finalize()
        with torch.no_grad():
            found.append(float((model(x[1000:]) - y[1000:]).square().mean()))
    return tuple(found)


def _mean_error(warmup: int, lr: float, c: float) -> float:
    return sum(_errors(warmup, lr, c)) / len(_SEEDS)


@exercise("4.3")
def _setting(answer: Any) -> None:
    got = answer(_mean_error)
    if got is None:
        raise WrongAnswer("your answer is None: does the function return its result?")
    if not isinstance(got, Mapping) or set(got) != {"warmup", "lr", "c"}:
        raise WrongAnswer('expected a dictionary with the keys "warmup", "lr" and "c"')
    values = {name: _number(name, got[name]) for name in ("warmup", "lr", "c")}
    warmup, lr, c = values.values()
    if isinstance(got["warmup"], float) or warmup != int(warmup) or not 0 <= warmup < _STEPS - _COOLDOWN:
        last = f"since the last {_COOLDOWN} of {_STEPS} steps are cool-down"
        raise WrongAnswer(f"warmup={got['warmup']}: an integer from 0 to {_STEPS - _COOLDOWN - 1}, {last}")
    if not 0 < lr <= 1:
        raise WrongAnswer(f"lr={lr:g}: must be above 0, and 1 at most")
    if not 0 <= c <= 1000:
        raise WrongAnswer(f"c={c:g}: must be from 0 to 1000")
    errors = _errors(int(warmup), lr, c)
    mean = sum(errors) / len(errors)
    if mean < _BOUND:
        return
    each = ", ".join(f"{error:.3f}" for error in errors)
    raise WrongAnswer(
        f"the errors are {each}, mean {mean:.3f}; the mean must be below {_BOUND:g}: {_way_out(int(warmup), lr, c)}"
    )


def _number(name: str, value: Any) -> float:
    number = math.nan
    if not isinstance(value, bool | str):
        try:
            number = float(value)
        except (TypeError, ValueError):
            pass
    if not math.isfinite(number):
        raise WrongAnswer(f"{name}={value!r}: expected a number")
    return number


def _way_out(warmup: int, lr: float, c: float) -> str:
    """Whether one of the three values stands in the way, or more than one."""
    if any(_mean_error(*setting) < _BOUND for setting in ((warmup, 0.05, c), (warmup, lr, 0.1), (0, lr, c))):
        return "two of the three values can stay"
    return "change more than one of the three"

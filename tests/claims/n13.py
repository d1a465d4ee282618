"""Notebook 13: planted errors in its equations, and what its text says of scores, files, speed and failed runs."""

import json
import math
import random

import torch
from in_notebook import ROOT, Claims

import mvp_lite as mvp

claims = Claims()


@claims.planted("13.1")
def _(variance, n, p):
    return {
        "the variance": variance,
        "no root of n": (p * (1 - p)) ** 0.5,
        "n - 1": (p * (1 - p) / (n - 1)) ** 0.5,
        "p alone": (p / n) ** 0.5,
    }


@claims.planted("13.2")
def _(n, v, k, entropy):
    return {
        "the second term forgotten": n * entropy,
        "its sign": n * entropy + 0.5 * math.log2(2 * math.pi * n * v * (1 - v)),
        "natural logarithms": math.log(2) * n * entropy,
        "an index for each entry": k * math.log2(n),
        "n for n v (1 - v)": n * entropy - 0.5 * math.log2(2 * math.pi * n),
    }


@claims.planted("13.3")
def _(values, columns, starts, x, i):
    a, b = starts[i], starts[i + 1]
    return {
        "the next row": values[b : starts[i + 2]] @ x[columns[b : starts[i + 2]]],
        "inputs in order": values[a:b] @ x[: b - a],
        "one entry too many": values[a : b + 1] @ x[columns[a : b + 1]],
        "no inputs": values[a:b].sum(),
    }


# --- what there is to gain ----------------------------------------------------------------------------------------


@claims.claim("MiniLM, a real encoder with 22.7 million parameters", above=False)
def _(sizes, times):
    assert round(sizes[sizes["stored"] == "dense"]["file_mb"].iloc[0] / 4, 1) == 22.7
    assert times["about"]["how"].startswith("one thread")


@claims.claim("no single word gives the answer away", above=False)
def _(ticket):
    rng = random.Random(1)
    found = [example for example in (ticket(rng) for _ in range(1000)) if "invoice" in example["text"]]
    billing = [example["department"] == "billing" for example in found]
    assert 0.35 < sum(billing) / len(billing) < 0.65  # a thing of a department says no more than a coin


@claims.claim("A perfect classifier would score about 96 %", above=True)
def _(task):
    assert math.isclose(0.95 + 0.05 / 4, 0.9625) and len(task.labels) == 4


@claims.claim("the pruned model scores a little less than the dense one", above=True)
def _(dense, result):
    assert dense.score > 90 and -8 < result.score - dense.score < 0.5 and abs(result.density - 0.1) < 0.001


@claims.claim("The density (dashed) should reach its end well before the run does", above=True)
def _(result):
    assert result.history["density"].iloc[22:].max() < 0.101 and result.history["density"].iloc[0] == 1


@claims.claim("So 500 examples leave an error of one point", above=True)
def _(variance):
    assert abs(100 * variance.sqrt() - 1) < 0.03


@claims.claim("much smaller this error is than the 1.4 points", above=True)
def _(error, variance):
    assert error < 1.2 and round(100 * float((2 * variance).sqrt()), 1) == 1.4


@claims.claim("It takes the number of steps from the Trainer and leaves the optimizer to it.")
def _(callback, trainer):
    assert callback.pruner.schedule.total_steps == trainer.args.max_steps == 60
    assert abs(callback.pruner.density - 0.1) < 0.001


@claims.claim("which says how the model was made", above=False)
def _(folder, result):
    card = json.loads((folder / "pruned" / "card.json").read_text())
    assert card["score"] == result.score and card["task"]["name"] == "tickets" and card["standard_error"] > 0
    assert str(folder) not in (folder / "pruned" / "card.json").read_text()
    plain = type(result.model).from_pretrained(folder / "pruned").state_dict()
    assert all(torch.equal(plain[name], value) for name, value in result.model.state_dict().items())


@claims.claim("an integer of more than two thousand digits", above=False)
def _(n, k):
    assert len(str(math.comb(n, k))) > 2000


@claims.claim(
    "A position costs less than five bits, whereas a plain index of 14 bits would cost three times as much", above=True
)
def _(stirling, k, n):
    assert stirling / k < 5 and math.log2(n) == 14 and 14 / (stirling / k) > 2.9


@claims.claim("The sparse file is five per cent above the least", above=True)
def _(kilobytes, least):
    assert 1.03 < kilobytes["sparse"] / least < 1.07 and kilobytes["sparse, 8 bits"] < kilobytes["sparse"]
    assert kilobytes["dense"] > 5 * kilobytes["sparse"]


@claims.claim("That is one product for each kept weight", above=False)
def _(values, W):
    assert len(values) == W.count_nonzero()


@claims.claim("with matrices of 384 × 384 and larger, sparse matrices were about twice as fast at 10 %")
def _(times):
    recorded = json.loads((ROOT / "benchmarks" / "zeros.json").read_text())["MiniLM-L6 size"]["1 x 32"]
    assert recorded == times["MiniLM-L6 size"]["1 x 32"]
    assert 1.7 < recorded["10 % of the weights"]["csr"]["speed_up"] < 2.4


@claims.claim("Each layer keeps 128 of its 512 neurons", above=True)
def _(small, structured):
    assert all(layer.ffn.lin1.weight.shape == (128, 128) for layer in small.distilbert.transformer.layer)
    assert small.config.hidden_dim == 128 and structured.score > 60
    batch = {"input_ids": torch.tensor([[2, 3, 4]])}
    torch.testing.assert_close(mvp.shrink(structured.model)(**batch).logits, structured.model(**batch).logits)


@claims.claim("| the density stays near 1; a warning at the end |", above=True)
def _(failed, said):
    assert failed["penalty too weak"].density > 0.99 and "has pruned nothing" in said["penalty too weak"]


@claims.claim("| the density drops to 0, the loss jumps |", above=True)
def _(failed):
    run = failed["penalty too strong"]
    assert run.density < 0.01 and run.history["loss"].iloc[-10:].mean() > 1 and run.diagnosis.at_chance


@claims.claim('the verdict says "chance level"', above=True)
def _(failed):
    run = failed["learning rate too high"]
    assert "chance level" in run.diagnosis.verdict and run.history["loss"].iloc[-10:].mean() > 1


@claims.claim("| a warning that all scores are equal |", above=True)
def _(said):
    assert "all scores are equal" in said["all scores equal"]


@claims.claim("| `report` shows `empty` matrices |", above=True)
def _(failed):
    run = failed["a layer is gone"]
    assert run.report["empty"].any() and abs(run.density - 0.1) < 0.03


@claims.claim("| `finalize()` raises an error |", above=True)
def _(pruner):
    assert pruner.steps_done == 40 and not pruner.done and pruner.density > 0.9

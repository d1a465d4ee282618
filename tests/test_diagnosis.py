"""The diagnosis of a run: counts against slow counting, the verdict case by case, and the recorded runs."""

import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from nets import METHODS, Net, layers, make, train
from torch import nn

import mvp_lite as mvp
from mvp_lite.diagnosis import Diagnosis, MaskChanges, constant_share
from mvp_lite.paths import data_path
from mvp_lite.tasks.evaluation import constant_answer
from mvp_lite.tasks.spans import squad_scores
from mvp_lite.tasks.specs import SPECS


@pytest.mark.parametrize("method", METHODS)
def test_counts_of_a_run(method):
    net, opt, pruner = make(method)
    seen = [[layer.mask.clone() for layer in layers(pruner)]]
    before = []

    def after():
        before.append(pruner.density)
        seen.append([m.clone() for m in pruner._evaluation_masks()])

    train(net, opt, range(20), after=after)
    found = pruner.diagnosis()
    count = sum(m.numel() for m in seen[0])
    assert found.densities == pytest.approx([1.0, *before[:-1]], abs=1e-6)
    slow = [
        sum(int((a.bool() != b.bool()).sum()) for a, b in zip(now, last, strict=True)) / count
        for last, now in pairwise(seen)
    ]
    assert found.changed == pytest.approx(slow, abs=1e-6) and sum(slow) > 0.7


def test_counts_on_a_sample_of_a_large_mask():
    changes, generator = MaskChanges(), torch.Generator().manual_seed(0)
    first = torch.rand(1000, 1000, generator=generator) < 0.5
    second = first ^ (torch.rand(1000, 1000, generator=generator) < 0.1)
    changes.observe([first, torch.ones(10, dtype=torch.bool)])
    changes.observe([second, torch.ones(10, dtype=torch.bool)])
    assert changes.densities == [pytest.approx(0.5, abs=0.04)]
    assert changes.changed == [pytest.approx(0.1, abs=0.03)]


@pytest.mark.parametrize("method", ["movement", "l0"])
def test_counts_go_on_after_a_resume(method):
    net, opt, whole = make(method)
    train(net, opt, range(20))
    net, opt, pruner = make(method)
    train(net, opt, range(9))
    state = {"net": net.state_dict(), "opt": opt.state_dict()}
    net, opt, pruner = make(method, net=Net(1))
    net.load_state_dict(state["net"])
    opt.load_state_dict(state["opt"])
    train(net, opt, range(9, 20))
    assert pruner.diagnosis().densities == whole.diagnosis().densities
    assert pruner.diagnosis().changed == whole.diagnosis().changed


# The hidden state before the head


class Head(nn.Module):
    """A head that reads what it is given."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.unused = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, h):
        self.first(torch.ones(1, 4, dtype=h.dtype))
        return self.head(h)


def test_constant_share_by_pairs():
    h = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1.0
    pairs = np.mean([float(h[i] @ h[j]) for i in range(7) for j in range(7) if i != j])
    expected = pairs / float(h.square().sum(1).mean())
    model = Head().double().train()
    assert constant_share(model, [{"h": h[:3]}, {"h": h[3:]}]) == pytest.approx(expected)
    assert model.training and not model.head._forward_pre_hooks
    assert constant_share(Head(), [{"h": torch.ones(5, 4)}]) == pytest.approx(1.0)
    opposite = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    assert constant_share(Head(), [{"h": opposite}]) == pytest.approx(-1.0)


def test_constant_share_of_a_sequence_is_taken_position_by_position():
    """Positions differ, inputs do not: all is constant. Positions past the shortest batch do not count."""
    place = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    batches = [{"h": place.expand(3, 6, 4)}, {"h": place[:, :5].expand(2, 5, 4)}]
    assert constant_share(Head(), batches) == pytest.approx(1.0)


def test_constant_share_needs_inputs_and_a_head():
    with pytest.raises(ValueError, match="needs at least two inputs, got 1"):
        constant_share(Head(), [{"h": torch.ones(1, 4)}])
    with pytest.raises(ValueError, match=r"uses no nn\.Linear"):
        constant_share(nn.Identity(), [{"input": torch.ones(2, 4)}])


# The verdict


def recorded():
    """Every recorded run with a loss curve, of a task whose constant answer has a known training loss."""
    choices = {"toy/inference": 3, "toy/paraphrase": 2, "toy/sentiment": 2, "toy/qa": 2, "sst2": 2, "mnli": 3}
    validation = {"sst2": 872, "mnli": 5000, "toy": 500}
    for path in sorted(data_path("results").glob("*.csv")):
        rows = pd.read_csv(path, keep_default_na=False, dtype=str)
        if "losses" in rows:
            for row in rows[(rows["losses"] != "") & rows["task"].isin(choices)].to_dict("records"):
                count = 1000 if row["split"] == "holdout" else validation[row["task"].partition("/")[0]]
                yield row, count, math.log(choices[row["task"]])


def curve(text):
    return [float(value) for value in text.split()]


def test_the_diagnosis_finds_the_recorded_failures_and_no_others():
    """By the score alone, it tells which runs ended with the training loss of a constant answer."""
    failed = healthy = unclear = 0
    for row, examples, constant_loss in recorded():
        found = Diagnosis(
            curve(row["losses"]), (), curve(row["changed"]), float(row["score"]), float(row["baseline"]), examples,
            float(row["constant_share"]), ("train longer",),
        )  # fmt: skip
        end = np.mean(found.losses[-2:]) / constant_loss
        if 0.93 < end < 0.993:  # has learned next to nothing: either verdict is right
            unclear += 1
        else:
            assert found.at_chance == (end > 0.96), (row["task"], row["method"], row["seed"], found.verdict)
        failed, healthy = failed + found.at_chance, healthy + (not found.at_chance)
        assert found.verdict.startswith("at chance level, score" if found.at_chance else "score ")
    assert failed >= 100 and healthy >= 400 and unclear <= 0.07 * (failed + healthy)


def test_chance_level_is_three_standard_errors_above_a_constant_answer():
    error = 100 * math.sqrt(0.5 * 0.5 / 400)
    assert Diagnosis(score=50 + 2.9 * error, baseline=50.0, examples=400).at_chance
    assert not Diagnosis(score=50 + 3.1 * error, baseline=50.0, examples=400).at_chance
    assert Diagnosis(score=50.0, baseline=50.0).at_chance and not Diagnosis(score=50.1, baseline=50.0).at_chance
    assert Diagnosis(score=25.0, baseline=0.0, examples=100).at_chance, "a correlation: its error is 1 / sqrt(n)"
    assert not Diagnosis(score=35.0, baseline=0.0, examples=100).at_chance
    assert Diagnosis(score=90.0, examples=900).standard_error == pytest.approx(1.0)


def test_the_verdict_names_when_and_what_to_try():
    losses = [0.33] * 40 + [0.58] * 160
    densities = [1.0] * 30 + [1.0 - 0.005 * i for i in range(170)]
    found = Diagnosis(losses, densities, score=50.0, baseline=50.0, examples=400, advice=("a", "b", "c"))
    assert found.rise == (40, pytest.approx(0.33), pytest.approx(0.58))
    assert str(found) == (
        "at chance level, score 50.0 ± 2.5 where a constant answer scores 50.0: the loss rose from 0.33 to 0.58 while "
        "the density fell from 1 to 0.91; a, b, or c"
    )
    assert str(Diagnosis(losses, densities, score=84.9, baseline=55.9, examples=1000)) == (
        "score 84.9 ± 1.1; a constant answer scores 55.9"
    )


def test_the_verdict_without_a_score():
    alike, apart = Diagnosis(constant_share=0.995), Diagnosis(constant_share=0.2)
    assert alike.at_chance and "at chance level, it seems: 99 % of the hidden state" in alike.verdict.replace(
        "100", "99"
    )
    assert not apart.at_chance and apart.verdict.startswith("inputs are told apart: 20 % of the hidden state")
    assert Diagnosis().verdict == "no score and no hidden states to judge by"
    assert Diagnosis([1.0, 0.9, 0.8, 0.7]).rise is None


def test_fine_prune_returns_its_diagnosis(device):
    task = mvp.load_task("toy/inference", limit=200)
    model = mvp.load_model("toy", task)
    result = mvp.fine_prune(model, task, "movement", 0.1, steps=40, batch_size=8, progress=False, magnitude_init=0)
    found = result.diagnosis
    assert found.losses == result.history["loss"].tolist()
    assert found.densities == pytest.approx(result.history["density"].tolist(), abs=0.01)
    assert len(found.changed) == 40 and found.examples == 200 and found.score == result.score
    labels = task.examples["validation"]["label"]
    assert found.baseline == pytest.approx(100 * max(labels.count(i) for i in range(3)) / 200)
    assert "start the scores from magnitude" in found.advice[0]
    assert "magnitude" not in " ".join(
        mvp.methods.Movement(mvp.methods.Settings(mvp.schedule.Schedule(10, 0, 0), 0.5, magnitude_init=0.2)).advice()
    )


def test_dense_runs_have_a_diagnosis_too(device):
    task = mvp.load_task("toy/qa", limit=100)
    model = mvp.load_model("toy", task)
    found = mvp.fine_prune(model, task, "dense", steps=3, batch_size=8, progress=False).diagnosis
    assert list(found.densities) == list(found.changed) == [] and found.baseline > 40


def test_the_picture():
    found = Diagnosis([0.7, 0.5, 0.6, 0.4], [1.0, 0.9, 0.5, 0.1], [0.0, 0.1, 0.4, 0.4], 60.0, 50.0, 100)
    top, bottom = found.plot()
    assert top.get_title(loc="left") == found.verdict
    assert list(top.lines[0].get_ydata()) == found.losses and list(bottom.lines[0].get_ydata()) == [0, 10, 40, 40]
    plt.close(top.figure)


# What a constant answer scores


def test_the_constant_answer_of_a_span_task_by_trying_every_place():
    """Where no word stands twice in a context: elsewhere SQuAD's F1 also counts a word that stands in another place."""
    examples = mvp.load_task("toy/qa").examples["validation"]
    contexts = [text.replace(" . ", " ") for text in examples["context"]]
    plain = [i for i, text in enumerate(contexts) if len({*text.split()} - {"the"}) == len(text.split()) - 2]
    columns = {name: [examples[name][i] for i in plain] for name in ("context", "answers")}
    assert len(plain) > 100
    scores = []
    for begin in range(25):
        for end in range(begin + 1, begin + 4):
            texts = [" ".join(text.split()[begin:end]) for text in columns["context"]]
            scores.append(squad_scores(texts, columns["answers"])["f1"])
    assert constant_answer(SPECS["toy/qa"], columns) == pytest.approx(max(scores), abs=1e-3)


def test_other_constant_answers():
    labels = {"label": [0, 2, 2, 1, 2]}
    assert constant_answer(SPECS["mnli"], labels) == pytest.approx(60.0)
    assert constant_answer(SPECS["stsb"], {"label": [0.5, 2.0]}) == 0.0
    none = {
        "context": ["a cat sat", "b", "c"],
        "answers": [{"text": ["cat"], "answer_start": [2]}, *2 * [{"text": [], "answer_start": []}]],
    }
    assert constant_answer(SPECS["squad_v2"], none) == pytest.approx(200 / 3)
    none["answers"] = none["answers"][:1]
    none["context"] = none["context"][:1]
    assert constant_answer(SPECS["squad_v2"], none) == 100.0
    task = mvp.load_task("toy/sentiment", limit=10)
    encoded = task.encode(mvp.tokenizer_for(mvp.load_model("toy", task)))
    labels = task.examples["validation"]["label"]
    assert encoded.baseline("validation") == (10.0 * max(labels.count(0), labels.count(1)), 10)
    with pytest.raises(ValueError, match="split='test': must be one of train, validation"):
        encoded.baseline("test")


def test_a_high_correlation_of_few_examples_is_above_chance():
    assert not Diagnosis(score=97.6, baseline=0.0, examples=8).at_chance
    assert Diagnosis(score=80.0, baseline=0.0, examples=8).at_chance, "artanh 0.8 = 1.10 < 3 / sqrt(5)"
    assert Diagnosis(score=100.0, baseline=0.0, examples=3).at_chance, "three numbers are soon in order"
    assert Diagnosis(score=80.0, baseline=0.0, examples=101).standard_error == pytest.approx(3.6)

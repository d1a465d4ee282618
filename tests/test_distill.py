"""Distillation: the loss against loops and closed forms, what a teacher gets, `fine_prune`, the stock Trainer."""

import copy
import math
import re

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, T5Config, T5ForConditionalGeneration
from transformers.utils import ModelOutput

import mvp_lite as mvp


def logits(seed, rows=4, classes=3):
    return torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("T", [0.5, 1.0, 2.0, 7.0])
def test_loss_is_a_loop_over_classes(T):
    student, teacher = logits(0), logits(1)
    total = 0.0
    for z, y in zip(student.tolist(), teacher.tolist(), strict=True):
        q = [math.exp(a / T) / sum(math.exp(b / T) for b in z) for a in z]
        p = [math.exp(a / T) / sum(math.exp(b / T) for b in y) for a in y]
        total += sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True))
    assert float(mvp.distillation_loss(student, teacher, T)) == pytest.approx(T * T * total / len(student), rel=1e-12)
    assert float(mvp.distillation_loss(teacher, teacher, T)) == pytest.approx(0.0, abs=1e-12)


def test_gradient_is_the_difference_of_softened_probabilities():
    T, student, teacher = 3.0, logits(0).requires_grad_(), logits(1)
    mvp.distillation_loss(student, teacher, T).backward()
    q, p = (torch.softmax(z.detach() / T, -1) for z in (student, teacher))
    torch.testing.assert_close(student.grad, T * (q - p) / len(teacher), rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(lambda z: mvp.distillation_loss(z, teacher, T), student)


def test_temperature_squared_keeps_the_magnitude_of_the_gradient():
    sizes = {}
    for T in (10.0, 100.0):
        student = logits(0).requires_grad_()
        mvp.distillation_loss(student, logits(1), T).backward()
        sizes[T] = float(student.grad.norm())
    assert sizes[10.0] == pytest.approx(sizes[100.0], rel=0.1)


def test_half_precision_is_computed_in_float32():
    student, teacher = logits(0).bfloat16(), logits(1).bfloat16()
    found = mvp.distillation_loss(student, teacher)
    assert found.dtype == torch.float32 and float(found) == pytest.approx(
        float(mvp.distillation_loss(student.double(), teacher.double())), rel=1e-5
    )


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((4, 3), (4, 2)), ((4, 3), (1, 3)), ((4, 1), (4, 1)), ((3,), (3,)), ((2, 4, 3), (2, 4, 3))],
)
def test_shapes_that_do_not_fit(student, teacher):
    with pytest.raises(ValueError, match=re.escape(f"student {student}, teacher {teacher}")):
        mvp.distillation_loss(torch.zeros(student), torch.zeros(teacher))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"alpha_ce": -0.1}, "alpha_ce=-0.1"),
        ({"alpha_kd": math.nan}, "alpha_kd=nan"),
        ({"alpha_ce": 0, "alpha_kd": 0.0}, "alpha_ce=0, alpha_kd=0.0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": math.inf}, "temperature=inf"),
    ],
)
def test_settings_that_teach_nothing(options, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        mvp.Teacher(torch.nn.Linear(2, 2), **options)


@pytest.fixture(scope="module")
def task():
    return mvp.load_task("toy/inference", limit=400)


@pytest.fixture(scope="module")
def encoder(task):
    return mvp.load_model("toy", task)


def first_batch(task, encoder, device="cpu"):
    encoded = task.encode(mvp.tokenizer_for(encoder))
    return next(encoded.batches("train", 8, seed=0, device=device))


def test_mixed_loss_of_a_classifier(task, encoder):
    student, other = copy.deepcopy(encoder).eval(), mvp.load_model("toy", task, seed=5)
    batch = first_batch(task, encoder)
    outputs = student(**batch)
    other.train()
    teacher = mvp.Teacher(other, alpha_ce=0.3, alpha_kd=0.6, temperature=4.0)
    found = teacher.loss(outputs, batch)
    assert not other.training  # dropout in the teacher would make its answers noise
    kd = mvp.distillation_loss(outputs.logits, other(**batch).logits.detach(), 4.0)
    torch.testing.assert_close(found, 0.3 * outputs.loss + 0.6 * kd)
    found.backward()
    assert all(p.grad is None for p in other.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


def test_mixed_loss_of_spans_is_the_mean_of_start_and_end():
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=12, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    student, other = BertForQuestionAnswering(config).eval(), BertForQuestionAnswering(config)
    batch = {"input_ids": torch.randint(0, 30, (3, 12)), "start_positions": torch.tensor([1, 2, 3]),
             "end_positions": torch.tensor([4, 2, 9])}  # fmt: skip
    outputs, taught = student(**batch), other.eval()(input_ids=batch["input_ids"])
    start = mvp.distillation_loss(outputs.start_logits, taught.start_logits)
    end = mvp.distillation_loss(outputs.end_logits, taught.end_logits)
    found = mvp.Teacher(other).loss(outputs, batch)
    torch.testing.assert_close(found, 0.1 * outputs.loss + 0.9 * (start + end) / 2)


def test_a_teacher_that_generates_needs_tokens_for_its_decoder():
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    torch.manual_seed(0)
    student, other = (T5ForConditionalGeneration(config).eval() for _ in range(2))
    batch = {"input_ids": torch.randint(1, 20, (2, 5)), "labels": torch.randint(1, 20, (2, 4))}
    outputs, teacher = student(**batch), mvp.Teacher(other)
    message = r"batch=\['input_ids', 'labels'\]: must have decoder_input_ids, .*(?<=: )model\.(\w+)\("
    with pytest.raises(ValueError, match=message) as error:
        teacher.loss(outputs, batch)
    remedy = re.search(message, str(error.value)).group(1)
    tokens = getattr(other, remedy)(labels=batch["labels"])
    logits = other(input_ids=batch["input_ids"], decoder_input_ids=tokens).logits.flatten(0, 1)
    kd = mvp.distillation_loss(outputs.logits.flatten(0, 1), logits)
    found = teacher.loss(outputs, batch | {"decoder_input_ids": tokens})
    torch.testing.assert_close(found, 0.1 * outputs.loss + 0.9 * kd)
    inputs = {"input_ids": batch["input_ids"], "decoder_input_ids": tokens}
    with pytest.raises(ValueError, match=r"outputs\.loss=None: the student must get the targets"):
        teacher.loss(student(**inputs), inputs)


class Blind(torch.nn.Module):
    """A teacher that returns fixed logits and refuses the targets of a batch."""

    def __init__(self, **logits):
        super().__init__()
        self.logits, self.seen = logits, None

    def forward(self, **batch):
        assert not batch.keys() & {"labels", "start_positions", "end_positions"}, "the teacher got the targets"
        self.seen = set(batch)
        return self.logits


@pytest.mark.parametrize("targets", [("labels",), ("start_positions", "end_positions")])
def test_a_teacher_never_sees_the_targets(targets):
    heads = ("logits",) if targets == ("labels",) else ("start_logits", "end_logits")
    student = ModelOutput(loss=torch.tensor(1.0), **{head: logits(0) for head in heads})
    other = Blind(**{head: logits(1) for head in heads})
    batch = {"input_ids": torch.ones(4, 3), "attention_mask": torch.ones(4, 3)}
    found = mvp.Teacher(other).loss(student, batch | {name: torch.ones(4) for name in targets})
    assert other.seen == set(batch)
    expected = 0.1 + 0.9 * float(mvp.distillation_loss(logits(0), logits(1)))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def prune(encoder, task, **options):
    return mvp.fine_prune(
        copy.deepcopy(encoder), task, "movement", 0.3, steps=20, lr=3e-4, batch_size=16, progress=False, **options
    )


def test_fine_prune_with_a_teacher(task, encoder, device):
    dense = mvp.fine_prune(copy.deepcopy(encoder), task, "dense", steps=30, lr=3e-4, batch_size=16, progress=False)
    before = {name: value.clone() for name, value in dense.model.state_dict().items()}
    alone, taught, again = (prune(encoder, task, teacher=t) for t in (None, dense.model, mvp.Teacher(dense.model)))
    assert taught.history.equals(again.history) and not taught.history.loss.equals(alone.history.loss)
    assert taught.settings["alpha_kd"] == 0.9 and alone.settings["alpha_kd"] is None
    assert all(torch.equal(value, before[name]) for name, value in dense.model.state_dict().items())
    warm = prune(encoder, task, teacher=mvp.Teacher(dense.model, alpha_ce=1.0, alpha_kd=0.0))
    assert warm.history.loss.to_numpy() == pytest.approx(alone.history.loss.to_numpy(), rel=1e-6)


def test_scores_are_in_the_result(task, encoder):
    result = prune(encoder, task)
    assert set(result.scores) == set(result.masters) == set(result.report.layer)
    for name, S in result.scores.items():
        mask = result.model.get_submodule(name).weight.detach().cpu() != 0
        assert not S.requires_grad and float(S[mask].min()) >= float(S[~mask].max())


def test_a_teacher_that_cannot_teach(task, encoder):
    model = copy.deepcopy(encoder)
    with pytest.raises(ValueError, match="teacher is the model itself"):
        mvp.fine_prune(model, task, "movement", 0.3, steps=20, teacher=model, progress=False)
    two = mvp.load_model("toy", mvp.load_task("toy/sentiment", limit=50))
    with pytest.raises(ValueError, match=r"student \(16, 3\), teacher \(16, 2\)"):
        prune(encoder, task, teacher=two)

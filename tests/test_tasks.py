"""Tasks and encoders: reading, checking, tokenizing, batches, scores, held-out examples, heads."""

import gzip
import hashlib
import json
import os
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mvp_lite.models import load_model, tokenizer_for
from mvp_lite.paths import data_path
from mvp_lite.tasks import TASKS, load_task, spans
from mvp_lite.train import fine_prune

WORDS = "a b c d e f g h i j good bad who what is the red blue cat dog sat ran on mat . ?".split()
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(SPECIALS + WORDS)}
    core = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{word[1:-1].lower()}_token": word for word in SPECIALS},
    )


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory):
    """A folder with a headless half-precision encoder and its tokenizer, as a user would have one."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = BertConfig(
        vocab_size=len(SPECIALS + WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write(folder: Path, stem: str, examples: list[dict], gz: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.jsonl{'.gz' if gz else ''}"
    with (gzip.open if gz else open)(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(example) + "\n" for example in examples)
    return folder


def sentences(n: int, labels: int = 2, keys: tuple[str, ...] = ("sentence",)) -> list[dict]:
    rng = np.random.default_rng(n)
    return [
        {key: " ".join(rng.choice(WORDS, size=rng.integers(1, 30))) for key in keys} | {"label": i % labels, "extra": 0}
        for i in range(n)
    ]


PAIRS = {
    "mnli": (("premise", "hypothesis"), 3),
    "qqp": (("question1", "question2"), 2),
    "mrpc": (("sentence1", "sentence2"), 2),
    "qnli": (("question", "sentence"), 2),
}


def folder_for(name: str, where: Path, n: int = 40, gz: bool = False) -> Path:
    keys, labels = PAIRS.get(name, (("sentence",), 2))
    write(where, "train", sentences(n, labels, keys), gz)
    return write(where, "validation_matched" if name == "mnli" else "validation", sentences(9, labels, keys))


def question(context: str, answer: str, others: tuple[str, ...] = (), text: str = "what is the cat ?") -> dict:
    texts = [answer, *others]
    return {
        "id": "same",  # examples made by hand need not have distinct ones
        "context": context,
        "question": text,
        "answers": {"text": texts, "answer_start": [context.index(t) for t in texts]},
    }


# 100 words, so several windows of 32 tokens; the marked answer stands in the middle.
LONG = " ".join(["a b c d"] * 12 + ["the red cat ."] + ["e f g h"] * 12)
SHORT = "the blue dog sat on the mat ."


@pytest.fixture
def squad(tmp_path):
    examples = [question(LONG, "red cat"), question(SHORT, "blue dog"), question(SHORT, "mat", ("the mat",))]
    write(tmp_path, "train", examples * 2, gz=True)
    write(tmp_path, "validation", examples)
    return load_task("squad", tmp_path, max_length=32, doc_stride=8)


class TestReading:
    @pytest.mark.parametrize("gz", [False, True])
    @pytest.mark.parametrize("name", ["sst2", "mnli", "qqp", "mrpc", "qnli"])
    def test_a_folder_is_read_plain_or_gzipped(self, name, gz, tmp_path):
        task = load_task(name, folder_for(name, tmp_path, gz=gz))
        assert (task.size("train"), task.size("validation")) == (40, 9)
        assert task.task_type == "classification" and task.metric == "accuracy" and task.label_column == "label"
        assert task.num_labels == len(task.labels) == (3 if name == "mnli" else 2)
        assert set(task.examples["train"]) == {*task.text_columns, "label"}
        assert repr(task) == f"Task({name!r}, classification, 40 train, 9 validation examples)"

    def test_squad_is_a_span_task(self, squad):
        assert (squad.task_type, squad.metric, squad.labels, squad.num_labels) == ("span", "f1", [], 2)

    def test_limit_keeps_the_first_examples(self, tmp_path):
        folder = folder_for("sst2", tmp_path)
        assert load_task("sst2", folder, limit=5).examples["train"]["label"] == [0, 1, 0, 1, 0]

    def test_reading_a_folder_leaves_nothing_in_the_cache(self, tmp_path):
        cache = Path(os.environ["HF_HOME"])
        before = sorted(cache.rglob("*"))
        load_task("sst2", folder_for("sst2", tmp_path, gz=True))
        load_task("toy/qa", limit=5)
        assert sorted(cache.rglob("*")) == before

    def test_a_subset_has_the_examples_named_in_that_order(self, tmp_path):
        task = load_task("sst2", folder_for("sst2", tmp_path))
        part, train = task.subset("train", np.array([7, 2])), task.examples["train"]
        assert part.examples["train"] == {name: [train[name][7], train[name][2]] for name in train}
        assert part.examples["validation"] == task.examples["validation"] and task.size("train") == 40
        with pytest.raises(ValueError, match="split='test'"):
            task.subset("test", [0])

    def test_a_hub_data_set_gives_what_a_folder_gives(self, tmp_path, monkeypatch):
        import datasets

        asked = []

        def fake(*names, split):
            asked.append((*names, split))
            return datasets.Dataset.from_list(sentences(40 if split == "train" else 9, 3, PAIRS["mnli"][0]))

        monkeypatch.setattr(datasets, "load_dataset", fake)
        hub, local = load_task("mnli", limit=7), load_task("mnli", folder_for("mnli", tmp_path), limit=7)
        assert hub.examples == local.examples
        assert asked == [("nyu-mll/glue", "mnli", "train"), ("nyu-mll/glue", "mnli", "validation_matched")]

    @pytest.mark.parametrize(
        ("name", "hub", "columns"),
        [
            ("mrpc", ("nyu-mll/glue", "mrpc"), ["sentence1", "sentence2", "label"]),
            ("qnli", ("nyu-mll/glue", "qnli"), ["question", "sentence", "label"]),
            ("stsb", ("nyu-mll/glue", "stsb"), ["sentence1", "sentence2", "label"]),
            ("squad_v2", ("rajpurkar/squad_v2",), ["id", "question", "context", "answers"]),
        ],
    )
    def test_names_on_the_hub(self, name, hub, columns, monkeypatch):
        import datasets

        asked = []

        def fake(*names, split):
            asked.append((*names, split))
            example = dict.fromkeys(columns, "a") | {"label": 1, "answers": {"text": [], "answer_start": []}, "idx": 0}
            return datasets.Dataset.from_list([example])

        monkeypatch.setattr(datasets, "load_dataset", fake)
        task = load_task(name)
        assert asked == [(*hub, "train"), (*hub, "validation")] and list(task.examples["train"]) == columns


class TestBadInput:
    def test_unknown_name_lists_the_names(self):
        with pytest.raises(ValueError, match=r"name='sst' .*toy/sentiment.*squad"):
            load_task("sst")

    def test_missing_file_names_folder_and_what_is_there(self, tmp_path):
        write(tmp_path, "train", sentences(4, 3, PAIRS["mnli"][0]))
        with pytest.raises(FileNotFoundError, match=r"lacks validation_matched\.jsonl .*found: train\.jsonl"):
            load_task("mnli", tmp_path)
        with pytest.raises(FileNotFoundError, match="no such folder"):
            load_task("mnli", tmp_path / "elsewhere")

    def test_missing_column_names_file_line_and_columns(self, tmp_path):
        write(folder_for("sst2", tmp_path), "validation", [{"sentence": "a", "label": 0}, {"text": "a", "label": 0}])
        with pytest.raises(ValueError, match=r"validation\.jsonl, line 2 lacks the column 'sentence' \(found: text, l"):
            load_task("sst2", tmp_path)

    @pytest.mark.parametrize("label", [-1, 2, "1", None, 0.0, True])
    def test_label_out_of_range_names_the_first_such_example(self, label, tmp_path):
        write(folder_for("sst2", tmp_path), "train", [{"sentence": "a", "label": x} for x in (0, 1, label, label)])
        with pytest.raises(ValueError, match=rf"train\.jsonl, line 3, .*{label!r} is not a label \(0 negative, 1 pos"):
            load_task("sst2", tmp_path)

    def test_text_that_is_none(self, tmp_path):
        write(folder_for("sst2", tmp_path), "train", [{"sentence": None, "label": 0}])
        with pytest.raises(ValueError, match=r"line 1, .*'sentence': None is not a text"):
            load_task("sst2", tmp_path)

    @pytest.mark.parametrize(
        ("answers", "problem"),
        [
            ({"text": [], "answer_start": []}, "holds no answer"),
            ({"text": ["dog"], "answer_start": [0]}, "'dog' is not at its answer_start"),
            ({"text": ["dog"]}, "lists of equal length"),
            ({"text": ["dog"], "answer_start": []}, "lists of equal length"),
            (["dog"], "lists of equal length"),
        ],
    )
    def test_answers_that_do_not_fit(self, answers, problem, tmp_path):
        good = question(SHORT, "mat")
        write(write(tmp_path, "train", [good]), "validation", [good, good | {"answers": answers}])
        with pytest.raises(ValueError, match=rf"validation\.jsonl, line 2, .*{problem}"):
            load_task("squad", tmp_path)

    def test_broken_files(self, tmp_path):
        folder = folder_for("sst2", tmp_path, gz=True)
        path = folder / "train.jsonl.gz"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match=r"train\.jsonl\.gz cannot be read, is it truncated"):
            load_task("sst2", folder)
        (folder / "train.jsonl").write_text('{"sentence": "a", "label": 0}\n{"sentence"\n')
        with pytest.raises(ValueError, match=r"train\.jsonl, line 2 is not JSON"):
            load_task("sst2", folder)
        (folder / "train.jsonl").write_text("")
        with pytest.raises(ValueError, match="has no examples"):
            load_task("sst2", folder)

    @pytest.mark.parametrize("options", [{"max_length": 4}, {"doc_stride": -1}, {"doc_stride": 384}, {"limit": 0}])
    def test_options(self, options, tmp_path):
        with pytest.raises(ValueError, match=rf"{next(iter(options))}="):
            load_task("squad", tmp_path, **options)

    @pytest.mark.parametrize("name", ["sst2", "mnli", "qqp", "mrpc", "qnli", "stsb", "squad", "squad_v2"])
    def test_offline_hub_name_tells_the_local_layout(self, name):
        with pytest.raises(OSError, match=rf"load_task\('{name}', data_dir=\.\.\.\).*train\.jsonl.*(label|answers)"):
            load_task(name)


class TestTokenizing:
    def test_the_work_is_shared_by_equal_tokenizers(self, tokenizer, encoder, tmp_path):
        from transformers import AutoTokenizer

        task = load_task("sst2", folder_for("sst2", tmp_path), tokenizer=tokenizer)
        encoded = task.encode()
        next(encoded.batches("train", 4, seed=0))
        assert task.encode(AutoTokenizer.from_pretrained(encoder)) is encoded
        longer = AutoTokenizer.from_pretrained(encoder)
        longer.add_tokens(["zebra"])
        assert task.encode(longer) is not encoded
        assert task.subset("train", range(8)).encode() is not encoded

    def test_unusable_tokenizers(self, encoder, tmp_path):
        from transformers import AutoTokenizer

        task = load_task("sst2", folder_for("sst2", tmp_path))
        with pytest.raises(ValueError, match="tokenizer=None"):
            task.encode()
        with pytest.raises(ValueError, match="a fast one"):
            task.encode(str.split)
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        tokenizer.pad_token = None
        with pytest.raises(ValueError, match="no pad token"):
            task.encode(tokenizer)

    def test_windows_hold_the_answer_or_point_at_cls(self, squad, tokenizer):
        (batch,) = squad.encode(tokenizer).batches("validation", 100)
        answers = []
        for ids, start, end in zip(batch["input_ids"], batch["start_positions"], batch["end_positions"], strict=True):
            assert (start == 0) == (end == 0)
            if start:
                answers.append(tokenizer.decode(ids[start : end + 1]))
        # 24 tokens of context a window, 16 new ones each: the answer, words 49 and 50 of 100, is in the windows from
        # 32 and from 48.
        assert Counter(answers) == {"red cat": 2, "blue dog": 1, "mat": 1}
        assert batch["input_ids"].shape[1] == 32
        assert squad.encode(tokenizer).size("validation") == 6 + 2  # ceil((100 - 24) / 16) + 1, and two short examples

    def test_a_question_without_room_for_its_context(self, tokenizer, tmp_path):
        example = question(SHORT, "mat", text="what is the cat ? " * 10)
        task = load_task(
            "squad", write(write(tmp_path, "train", [example]), "validation", [example]), max_length=24, doc_stride=8
        )
        with pytest.raises(ValueError, match="max_length=24"):
            task.encode(tokenizer).size("train")

    def test_never_longer_than_the_tokenizer_allows(self, tokenizer, tmp_path):
        examples = [{"sentence": "a " * 200, "label": 0}]
        task = load_task("sst2", write(write(tmp_path, "train", examples), "validation", examples))
        (batch,) = task.encode(tokenizer).batches("validation", 1)
        assert task.max_length == 128 and batch["input_ids"].shape == (1, 64)


@pytest.fixture
def encoded(tokenizer, tmp_path):
    """SST-2 with 403 examples, identified by their first words."""
    examples = [
        example | {"sentence": f"{' '.join(WORDS[int(c)] for c in f'{i:03}')} {example['sentence']}"}
        for i, example in enumerate(sentences(403))
    ]
    return load_task("sst2", write(write(tmp_path, "train", examples), "validation", examples[:9])).encode(tokenizer)


def numbers(batches) -> list[int]:
    codes = torch.cat([batch["input_ids"][:, 1:4] - len(SPECIALS) for batch in batches])
    return (codes @ torch.tensor([100, 10, 1])).tolist()


class TestBatches:
    def test_an_epoch_has_every_example_once(self, encoded):
        epoch = numbers(encoded.batches("train", 13, seed=0, steps=31))
        assert sorted(epoch) == list(range(403))
        assert numbers(encoded.batches("train", 13, seed=0, steps=62))[403:] != epoch

    def test_the_ragged_rest_is_dropped_and_differs_between_epochs(self, encoded):
        two = numbers(encoded.batches("train", 32, seed=0, steps=24))
        epochs = [set(two[:384]), set(two[384:])]
        assert [len(epoch) for epoch in epochs] == [384, 384] and epochs[0] != epochs[1]

    def test_an_evaluation_pass_has_all_examples_longest_first(self, encoded):
        batches = list(encoded.batches("train", 32))
        assert sorted(numbers(batches)) == list(range(403)) and len(batches[-1]["labels"]) == 403 % 32
        lengths = torch.cat([batch["attention_mask"].sum(1) for batch in batches])
        assert (lengths.diff() <= 0).all()

    def test_padding(self, encoded):
        wide = narrow = 0
        for batch in encoded.batches("train", 8, seed=1, steps=50):
            lengths = batch["attention_mask"].sum(1)
            assert batch["input_ids"].shape[1] == -(-int(lengths.max()) // 8) * 8
            assert torch.equal(batch["attention_mask"] == 0, batch["input_ids"] == 0)
            assert all(value.dtype == torch.int64 for value in batch.values())
            assert list(batch) == ["input_ids", "attention_mask", "token_type_ids", "labels"]
            wide, narrow = wide + 40 * 8, narrow + batch["input_ids"].numel()
        assert narrow < 0.75 * wide  # random batches of eight would be nearly all of the full width

    def test_batches_are_what_the_tokenizer_gives(self, encoded, tokenizer):
        texts = dict(zip(range(403), encoded.task.examples["train"]["sentence"], strict=True))
        batch = next(encoded.batches("train", 8, seed=3))
        expected = tokenizer([texts[i] for i in numbers([batch])], padding=True, return_tensors="pt")
        width = expected["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert torch.equal(batch[name][:, :width], expected[name]) and not batch[name][:, width:].any()
        assert batch["labels"].tolist() == [i % 2 for i in numbers([batch])]

    def test_the_seed_decides_and_the_global_state_is_left_alone(self, encoded):
        state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        first, same, other = (numbers(encoded.batches("train", 8, seed=s, steps=20)) for s in (5, 5, 6))
        assert first == same != other
        assert torch.equal(state, torch.get_rng_state())
        assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002

    def test_steps(self, encoded):
        assert len(list(encoded.batches("train", 200, seed=0, steps=7))) == 7
        assert list(encoded.batches("train", 8, seed=0, steps=0)) == []
        assert len(list(islice(encoded.batches("train", 200, seed=0), 9))) == 9

    def test_bad_arguments_raise_at_the_call(self, encoded):
        with pytest.raises(ValueError, match="split='test'"):
            encoded.batches("test", 8)
        with pytest.raises(ValueError, match="batch_size=0"):
            encoded.batches("train", 0)
        with pytest.raises(ValueError, match="batch_size=404: the train split has only 403"):
            encoded.batches("train", 404, seed=0)
        with pytest.raises(ValueError, match="steps=3 needs a seed"):
            encoded.batches("train", 8, steps=3)
        with pytest.raises(ValueError, match="steps=-1"):
            encoded.batches("train", 8, seed=0, steps=-1)


class Says(torch.nn.Module):
    """A stand-in model that predicts what `answer(batch)` says; the loss is the mean of the labels or starts."""

    def __init__(self, answer):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.frozen = torch.nn.Dropout()
        self.answer = answer

    def forward(self, input_ids, labels=None, start_positions=None, **batch):
        assert not self.training and not torch.is_grad_enabled()
        target = labels if labels is not None else start_positions
        return SimpleNamespace(loss=target.float().mean(), **self.answer(input_ids))


class TestScores:
    def test_accuracy_f1_and_loss_by_hand(self, tokenizer, tmp_path):
        # "good" predicts a duplicate: right on examples 0 1 (true positives) and 3 4 5 (true negatives).
        texts = ["good a", "good b c d e f g h i", "bad", "bad a b", "c", "d", "good"]
        labels = [1, 1, 1, 0, 0, 0, 0]
        examples = [{"question1": t, "question2": "who", "label": y} for t, y in zip(texts, labels, strict=True)]
        task = load_task("qqp", write(write(tmp_path, "train", examples), "validation", examples))
        good = tokenizer.convert_tokens_to_ids("good")

        def answer(ids):
            found = (ids == good).any(1).float()
            return {"logits": torch.stack([1 - found, found], 1)}

        model = Says(answer)
        model.frozen.eval()
        scores = task.encode(tokenizer).evaluate(model, batch_size=2)
        assert scores == pytest.approx(
            {"score": 100 * 5 / 7, "accuracy": 100 * 5 / 7, "f1": 100 * 2 / 3, "loss": 3 / 7}
        )
        assert model.training and not model.frozen.training

    def test_no_positives_at_all_is_an_f1_of_zero(self, tokenizer, tmp_path):
        examples = [{"question1": "a", "question2": "b", "label": 0}]
        task = load_task("qqp", write(write(tmp_path, "train", examples), "validation", examples))
        scores = task.encode(tokenizer).evaluate(Says(lambda ids: {"logits": torch.tensor([[1.0, 0.0]])}))
        assert (scores["accuracy"], scores["f1"]) == (100.0, 0.0)

    def test_exact_match_and_f1_by_hand(self, squad, tokenizer):
        """Starts and ends are voted for by word, weakly outside the context, so the best span is known.

        Example 0: "the red cat" for "red cat": articles do not count, so exact, F1 1. Example 1: "blue dog sat" for
        "blue dog": precision 2/3, recall 1, F1 0.8. Example 2 has the same context, so "blue dog sat" for "mat": 0.
        """
        start, end = (
            torch.zeros(len(SPECIALS + WORDS)).index_fill(0, torch.tensor(tokenizer.convert_tokens_to_ids(words)), 1.0)
            for words in (["the", "blue"], ["cat", "sat"])
        )
        start[tokenizer.convert_tokens_to_ids("blue")] = 2.0
        start[tokenizer.convert_tokens_to_ids("what")] = end[tokenizer.convert_tokens_to_ids("?")] = 9.0
        model = Says(lambda ids: {"start_logits": start[ids], "end_logits": end[ids]})
        scores = squad.encode(tokenizer).evaluate(model, batch_size=4)
        assert scores["exact_match"] == pytest.approx(100 / 3)
        assert scores["score"] == scores["f1"] == pytest.approx(100 * (1 + 0.8 + 0) / 3)

    def test_the_best_span_against_a_loop(self):
        torch.manual_seed(0)
        start, end, inside = torch.randn(6, 50), torch.randn(6, 50), torch.rand(6, 50) < 0.4
        inside[5] = False
        found = spans.best_spans(start, end, inside)
        for w in range(5):
            starts = [i for i in start[w].argsort(descending=True).tolist() if inside[w, i]][: spans.N_BEST]
            ends = [j for j in end[w].argsort(descending=True).tolist() if inside[w, j]][: spans.N_BEST]
            every = [(start[w, i] + end[w, j], i, j) for i in starts for j in ends if i <= j < i + spans.MAX_ANSWER]
            assert found[w].tolist() == pytest.approx([float(x) for x in (*max(every), start[w, 0] + end[w, 0])])
        assert found[5, 0] == -torch.inf

    def test_a_real_model_runs(self, squad, encoder, device):
        model = load_model(encoder, squad).to(device)
        scores = squad.encode(tokenizer_for(model)).evaluate(model)
        assert set(scores) == {"score", "loss", "f1", "exact_match"} and scores["loss"] > 0 and model.training is False

    def test_loss_is_weighted_by_sequences(self, encoded, encoder, device):
        model = load_model(encoder, encoded.task).to(device)
        small, whole = (encoded.evaluate(model, batch_size=size) for size in (4, 9))
        assert small["loss"] == pytest.approx(whole["loss"], rel=1e-5)

    def test_a_head_that_does_not_fit(self, squad, tokenizer, encoder, tmp_path):
        mnli = load_task("mnli", folder_for("mnli", tmp_path / "mnli"))
        sst2 = load_task("sst2", folder_for("sst2", tmp_path / "sst2"))
        for made_for, used_on in ((mnli, sst2), (sst2, mnli), (sst2, squad), (squad, sst2)):
            model = load_model(encoder, made_for)
            with pytest.raises(ValueError, match=rf"does not fit '{used_on.name}'"):
                used_on.encode(tokenizer).evaluate(model)


def similar(labels: list, texts: list[str] | None = None) -> list[dict]:
    texts = texts or ["a"] * len(labels)
    return [{"sentence1": t, "sentence2": "who", "label": y} for t, y in zip(texts, labels, strict=True)]


class TestRegression:
    @pytest.fixture
    def stsb(self, tmp_path):
        examples = similar([i % 6 if i % 2 else i % 6 - 0.0 for i in range(40)])
        return load_task("stsb", write(write(tmp_path, "train", examples), "validation", examples[:9]))

    def test_what_it_is(self, stsb):
        assert (stsb.task_type, stsb.metric, stsb.labels, stsb.num_labels) == ("regression", "spearman", [], 1)
        assert stsb.label_column == "label" and "regression, 40 train" in repr(stsb)

    @pytest.mark.parametrize("label", [-1.0, -1, 5.001, float("nan"), "3", None, True])
    def test_labels_outside_the_scale(self, label, tmp_path):
        write(write(tmp_path, "validation", similar([1.0])), "train", similar([0, 5.0, label, label]))
        with pytest.raises(ValueError, match=rf"train\.jsonl, line 3, .*{label!r} is not a number from 0 to 5 \(ex"):
            load_task("stsb", tmp_path)

    def test_batches_keep_the_numbers(self, tokenizer, tmp_path):
        examples = similar([3.2, 0, 4.75])
        task = load_task("stsb", write(write(tmp_path, "train", examples), "validation", examples))
        (batch,) = task.encode(tokenizer).batches("validation", 4)
        assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == pytest.approx([3.2, 0, 4.75])
        assert batch["input_ids"].dtype == torch.int64

    @pytest.mark.parametrize(
        ("predicted", "spearman"),
        [
            ([10, 10, 30, 20, 50], 7.25 / 9.5),  # ranks 1.5 1.5 4 3 5 against 1 2.5 2.5 4 5
            ([-1, -2, -2, -4, -5], -1.0),
            ([0.1, 0.2, 0.2, 40, 50], 1.0),  # ranks, not values
            ([7, 7, 7, 7, 7], 0.0),
        ],
    )
    def test_spearman_by_hand(self, predicted, spearman, tokenizer, tmp_path):
        examples = similar([1, 2, 2.0, 4, 5], ["a", "b c", "c d e f g h i j a", "d", "e"])
        task = load_task("stsb", write(write(tmp_path, "train", examples), "validation", examples))
        by_word = dict(zip(tokenizer.convert_tokens_to_ids(list("abcde")), predicted, strict=True))
        model = Says(lambda ids: {"logits": torch.tensor([[float(by_word[int(row[1])])] for row in ids])})
        scores = task.encode(tokenizer).evaluate(model, batch_size=2)
        assert scores == pytest.approx({"score": 100 * spearman, "spearman": 100 * spearman, "loss": 2.8}, abs=1e-3)

    def test_the_loss_is_the_squared_error(self, stsb, encoder, tokenizer):
        model = load_model(encoder, stsb).eval()
        assert model.classifier.weight.shape == (1, 16) and model.config.problem_type == "regression"
        batch = next(stsb.encode(tokenizer).batches("train", 8, seed=0))
        outputs = model(**batch)
        torch.testing.assert_close(outputs.loss, ((outputs.logits[:, 0] - batch["labels"]) ** 2).mean())

    def test_a_head_for_classes_is_refused_before_training(self, stsb, encoder, tokenizer, tmp_path):
        sst2 = load_task("sst2", folder_for("sst2", tmp_path / "sst2"))
        for made_for, used_on in ((sst2, stsb), (stsb, sst2)):
            model = load_model(encoder, made_for)
            before = model.classifier.weight.clone()
            with pytest.raises(
                ValueError, match=rf"does not fit '{used_on.name}' \({used_on.task_type}, {used_on.num_labels} o"
            ):
                fine_prune(model, used_on, steps=1, batch_size=4, tokenizer=tokenizer, progress=False)
            assert torch.equal(before, model.classifier.weight)

    def test_no_teacher(self, stsb, encoder, tokenizer):
        model, teacher = load_model(encoder, stsb), load_model(encoder, stsb, seed=1)
        with pytest.raises(ValueError, match=r"student \(4, 1\).*regression has no classes"):
            fine_prune(
                model, stsb, "dense", steps=1, batch_size=4, teacher=teacher, tokenizer=tokenizer, progress=False
            )


NONE = {"text": [], "answer_start": []}


class TestOptionalAnswers:
    def read(self, folder, examples, name="squad_v2"):
        return load_task(
            name, write(write(folder, "train", examples), "validation", examples), max_length=32, doc_stride=8
        )

    def test_only_here_may_an_answer_be_missing(self, tmp_path):
        examples = [question(SHORT, "mat"), question(SHORT, "mat") | {"answers": NONE}]
        task = self.read(tmp_path, examples)
        assert (task.task_type, task.metric, task.num_labels) == ("span", "f1", 2) and task.examples["train"][
            "answers"
        ][1] == NONE
        with pytest.raises(ValueError, match=r"train\.jsonl, line 2, .*holds no answer .*squad_v2 is the task"):
            self.read(tmp_path, examples, "squad")

    @pytest.mark.parametrize(
        "answers", [{"text": [], "answer_start": [3]}, {"text": [""], "answer_start": [0]}, {"text": []}, None]
    )
    def test_what_is_missing_must_be_missing_altogether(self, answers, tmp_path):
        with pytest.raises(ValueError, match=r"line 2, .*'answers'"):
            self.read(tmp_path, [question(SHORT, "mat"), question(SHORT, "mat") | {"answers": answers}])

    def test_no_answer_is_trained_as_token_0(self, tokenizer, tmp_path):
        examples = [question(LONG, "red cat") | {"answers": NONE}, question(SHORT, "mat")]
        (batch,) = self.read(tmp_path, examples).encode(tokenizer).batches("train", 100)
        starts, ends = batch["start_positions"], batch["end_positions"]
        assert len(starts) == 6 + 1 and (starts > 0).sum() == 1 and torch.equal(starts > 0, ends > 0)
        assert (batch["input_ids"][starts == 0, 0] == tokenizer.cls_token_id).all()

    def test_when_no_answer_is_predicted(self, tokenizer, tmp_path):
        """The best span scores 2. No answer scores 1.5, in a window with an f 3, with a g 2: only 3 is above.

        The f of the long context is in its last windows alone, so the lowest score over windows decides: 1.5.
        """
        cases = [  # context, answer ("" for none), question, right?
            (SHORT, "blue dog", "who ?", True),
            (SHORT, "", "who f ?", True),
            (SHORT, "", "what f ?", True),
            (SHORT, "", "who ?", False),
            (SHORT, "blue dog", "who f ?", False),
            (LONG, "red cat", "who ?", True),
            (SHORT, "blue dog", "who g ?", True),  # level: the span
        ]
        examples = [question(c, a or "mat", text=q) | ({} if a else {"answers": NONE}) for c, a, q, _ in cases]
        start, end = (
            torch.zeros(len(SPECIALS + WORDS)).index_fill(0, torch.tensor(tokenizer.convert_tokens_to_ids(words)), 1.0)
            for words in (["red", "blue"], ["cat", "dog"])
        )
        f, g = tokenizer.convert_tokens_to_ids(["f", "g"])

        def answer(ids):
            starts = start[ids]
            in_short = (ids == tokenizer.convert_tokens_to_ids("blue")).any(1)
            level = torch.where(in_short & (ids == g).any(1), 2.0, 1.5)
            starts[:, 0] = torch.where((ids == f).any(1), 3.0, level)
            return {"start_logits": starts, "end_logits": end[ids]}

        scores = self.read(tmp_path, examples).encode(tokenizer).evaluate(Says(answer), batch_size=3)
        assert scores["exact_match"] == scores["score"] == pytest.approx(100 * 5 / 7)
        answered = [example for example, case in zip(examples, cases, strict=True) if case[1]]
        scores = self.read(tmp_path / "v1", answered, "squad").encode(tokenizer).evaluate(Says(answer), batch_size=3)
        assert scores["exact_match"] == 100.0  # SQuAD 1.1 always answers

    def test_the_metric_of_none(self):
        answers = [NONE, NONE, {"text": ["the red cat", "cat"], "answer_start": [0, 8]}, {"text": ["cat"]}]
        scores = spans.squad_scores(["", "cat", "red dog", ""], answers)
        assert scores == pytest.approx({"exact_match": 25.0, "f1": 100 * (1 + 0 + 0.5 + 0) / 4})


@pytest.mark.parametrize("name", ["mrpc", "qnli", "stsb", "squad_v2"])
def test_fine_prune_runs(name, encoder, tokenizer, tmp_path):
    if name == "squad_v2":
        examples = [question(SHORT, "mat"), question(LONG, "red cat"), question(SHORT, "mat") | {"answers": NONE}] * 8
    elif name == "stsb":
        examples = similar([i / 8 for i in range(40)], [" ".join(WORDS[: 1 + i % 20]) for i in range(40)])
    else:
        examples = sentences(40, 2, PAIRS[name][0])
    folder = write(write(tmp_path, "train", examples), "validation", examples[:9])
    task = load_task(name, folder, max_length=32, doc_stride=8 if name == "squad_v2" else None)
    assert task.recipe(4) == (3 * len(examples) // 4, 3e-5)
    model = load_model(encoder, task)
    result = fine_prune(
        model, task, density=0.5, steps=12, lr=1e-3, batch_size=4, warmup_steps=3, cooldown_steps=3,
        device="cpu", tokenizer=tokenizer, progress=False,
    )  # fmt: skip
    assert result.density == pytest.approx(0.5, rel=0.01) and result.settings["task"] == name
    assert np.isfinite(result.history["loss"]).all() and np.isfinite(result.metrics["loss"])
    named = {"mrpc": {"accuracy", "f1"}, "qnli": {"accuracy"}, "stsb": {"spearman"}}
    assert set(result.metrics) == {"score", "loss"} | named.get(name, {"f1", "exact_match"})
    assert result.score == result.metrics[task.metric] and -100 <= result.score <= 100


class TestHoldout:
    def test_examples_come_from_train_and_leave_it(self, encoded):
        task = encoded.task
        held = task.holdout(50, seed=1)
        parts = [held.examples[split]["sentence"] for split in ("train", "validation")]
        assert [len(part) for part in parts] == [353, 50] and not set(parts[0]) & set(parts[1])
        assert sorted(parts[0] + parts[1]) == sorted(task.examples["train"]["sentence"])
        assert held.examples == task.holdout(50, seed=1).examples != task.holdout(50, seed=2).examples
        assert task.size("train") == 403 and held.encode(encoded.tokenizer) is not encoded

    def test_examples_with_one_context_stay_together(self, tmp_path):
        contexts = [f"{word} cat sat on the mat" for word in WORDS]
        examples = [question(context, answer) for context in contexts for answer in ("cat", "mat", "sat")]
        task = load_task("squad", write(write(tmp_path, "train", examples), "validation", examples[:1]))
        held = task.holdout(10, seed=0)
        train, validation = (set(held.examples[split]["context"]) for split in ("train", "validation"))
        assert not train & validation and held.size("validation") == 10
        assert held.size("train") == len(examples) - 12  # four contexts of three examples are needed for ten

    def test_examples_with_one_question_stay_together(self, tmp_path):
        examples = [
            {"question": f"who {w} ?", "sentence": s, "label": y} for w in WORDS for y, s in enumerate(("a", "b"))
        ]
        task = load_task("qnli", write(write(tmp_path, "train", examples), "validation", examples[:1])).holdout(
            8, seed=0
        )
        train, validation = (set(task.examples[split]["question"]) for split in ("train", "validation"))
        assert not train & validation and len(validation) == 4

    @pytest.mark.parametrize("n", [0, -1, 403, 2.0])
    def test_bad_sizes(self, encoded, n):
        with pytest.raises(ValueError, match=rf"n={n}.* from 1 to 402"):
            encoded.task.holdout(n, seed=0)

    def test_nothing_left(self, squad):
        with pytest.raises(ValueError, match="nothing would be left"):
            squad.holdout(5, seed=0)


class TestModels:
    @pytest.fixture
    def sst2(self, tmp_path):
        return load_task("sst2", folder_for("sst2", tmp_path / "sst2"))

    def test_float32_head_and_names(self, encoder, sst2, squad, capfd):
        model = load_model(encoder, sst2)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.classifier.weight.shape == (2, 16) and model.config.id2label == {0: "negative", 1: "positive"}
        assert load_model(str(encoder), squad).qa_outputs.weight.shape == (2, 16)
        assert capfd.readouterr() == ("", "")
        assert tokenizer_for(model)("cat")["input_ids"] == [2, 5 + WORDS.index("cat"), 3]

    def test_the_seed_draws_the_head_and_changes_nothing_else(self, encoder, sst2):
        state = torch.get_rng_state()
        first, same, other = (load_model(encoder, sst2, seed=s).state_dict() for s in (0, 0, 1))
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(first[name], same[name]) for name in first)
        changed = {name for name in first if not torch.equal(first[name], other[name])}
        assert changed == {"classifier.weight"}

    def test_from_random_weights(self, encoder, sst2):
        state = torch.get_rng_state()
        known, first, same, other = (
            load_model(encoder, sst2, pretrained=p, seed=s) for p, s in ((True, 0), (False, 0), (False, 0), (False, 1))
        )
        assert torch.equal(state, torch.get_rng_state()) and first.dtype == torch.float32
        query = "bert.encoder.layer.0.attention.self.query.weight"
        weights = [dict(model.named_parameters())[query] for model in (known, first, same, other)]
        assert torch.equal(weights[1], weights[2])
        assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[3])
        assert tokenizer_for(first).vocab_size == len(SPECIALS + WORDS)

    def test_folders_and_names_that_are_not_there(self, sst2, tmp_path):
        for missing in ("./nowhere", str(tmp_path / "nowhere"), tmp_path / "nowhere", "a/b/c", "~/nowhere"):
            with pytest.raises(FileNotFoundError, match=r'no such folder.*"toy"'):
                load_model(missing, sst2)
        with pytest.raises(FileNotFoundError, match=r"no config\.json \(found: train"):
            load_model(folder_for("sst2", tmp_path / "data"), sst2)
        with pytest.raises(OSError, match=r'"toy" for the encoder in the package'):
            load_model("bert-base-uncased", sst2)
        with pytest.raises(TypeError, match="name_or_path=None"):
            load_model(None, sst2)

    def test_checkpoints_of_another_shape(self, encoder, sst2, squad, tmp_path):
        from safetensors.torch import load_file, save_file

        mnli = load_task("mnli", folder_for("mnli", tmp_path / "mnli"))
        load_model(encoder, mnli).save_pretrained(tmp_path / "three")
        assert load_model(tmp_path / "three", squad).qa_outputs.weight.shape == (2, 16)
        with pytest.raises(ValueError, match=r"classifier\.bias, classifier\.weight is not this task's"):
            load_model(tmp_path / "three", sst2)
        weights = load_file(tmp_path / "three" / "model.safetensors")
        del weights["bert.encoder.layer.0.output.dense.weight"], weights["bert.pooler.dense.weight"]
        save_file(weights, tmp_path / "three" / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"lacks 1 weights of the encoder, first 'bert\.encoder\.layer\.0\.outpu"):
            load_model(tmp_path / "three", mnli)

    def test_tokenizers_that_are_not_there(self, encoder, sst2, tmp_path):
        from transformers import BertConfig, BertForSequenceClassification

        load_model(encoder, sst2).save_pretrained(tmp_path / "bare")
        with pytest.raises(ValueError, match=r"tokenizer\.save_pretrained\(folder\)"):
            tokenizer_for(load_model(tmp_path / "bare", sst2))
        config = BertConfig(
            vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4
        )
        with pytest.raises(ValueError, match="has no name_or_path"):
            tokenizer_for(BertForSequenceClassification(config))

    def test_saved_and_loaded_again_is_the_same_model(self, encoder, sst2, tmp_path):
        model = load_model(encoder, sst2)
        model.save_pretrained(tmp_path / "saved")
        again = load_model(tmp_path / "saved", sst2, seed=9)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


# From here on the shipped toy is read: data/toy has to be there.


@pytest.mark.parametrize("name", [name for name in TASKS if name.startswith("toy/")])
def test_toy_tasks_and_their_encoder(name, device):
    task = load_task(name)
    assert task.size("train") > 1000 and task.size("validation") >= 200
    assert task.recipe(32) == (300, 3e-4)
    with pytest.raises(ValueError, match=r"data_dir='.*': .* comes from the package; leave data_dir out"):
        load_task(name, data_path(*name.split("/")))
    if task.labels:
        assert set(task.examples["train"]["label"]) == set(range(task.num_labels))
    model = load_model("toy", task).to(device)
    encoded = task.encode(tokenizer_for(model))
    assert encoded.size("train") == task.size("train")  # every toy text fits into one window
    unknown = encoded.tokenizer.unk_token_id
    assert all((batch["input_ids"] != unknown).all() for batch in encoded.batches("validation", 100))
    assert model(**next(encoded.batches("train", 16, seed=0, device=device))).loss.isfinite()


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("toy/inference", "7c77680b6e54e842"),
        ("toy/qa", "8ce5fd22216b2926"),
    ],
)
def test_batches_are_those_of_the_recorded_runs(name, digest):
    """Another order of the examples would give other scores than the committed results have."""
    task = load_task(name)
    batches = task.encode(tokenizer_for(load_model("toy", task))).batches("train", 32, seed=0, steps=200)
    found = hashlib.sha256()
    for batch in batches:
        for key, value in batch.items():
            found.update(f"{key} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    assert found.hexdigest()[:16] == digest

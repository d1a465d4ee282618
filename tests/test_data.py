"""Data of one's own: lists, data sets, frames, folders and loaders as tasks, and what is said where they do not fit."""

import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from torch.utils.data import DataLoader

import mvp_lite as mvp
from mvp_lite.tasks.entities import entities, entity_f1

NOUNS = {"animal": "dog cat horse", "bird": "hen duck owl", "fruit": "apple pear plum", "vehicle": "car bus truck"}
TOPICS = [
    {"text": f"the {adjective} {noun} was {praise}", "label": topic}
    for topic, nouns in NOUNS.items()
    for noun in nouns.split()
    for adjective in "big small old new".split()
    for praise in ("good", "bad")
]
NAMES = sorted(NOUNS)
TAGGED = [
    {"tokens": [who, verb, "the", noun], "ner_tags": ["B-PER", "O", "O", f"B-{'BIRD' if noun == 'hen' else 'THING'}"]}
    for who in "ann ben cara dan".split()
    for verb in "washed fixed bought found".split()
    for noun in "hen car drill".split()
]
PRICES = [{"text": f"the {word} car was {end}", "price": 1000.0 * i + 250 * j}
          for i, word in enumerate("old wet dry new big small".split())
          for j, end in enumerate("bad dull good great".split())]  # fmt: skip


def quick(data, options=None, model=None, **settings):
    task = mvp.make_task(data, **options or {})
    settings = {"steps": 6, "batch_size": 8, "lr": 1e-3, "density": 0.5, "progress": False} | settings
    return mvp.fine_prune(model or mvp.load_model("toy", task), task, **settings)


class TestSameData:
    """However the examples come, the task is the same."""

    def test_lists_frames_and_data_sets(self):
        train, validation = TOPICS[::2], TOPICS[1::4]
        named = (
            [{**row, "label": NAMES.index(row["label"])} for row in train],
            [{**row, "label": NAMES.index(row["label"])} for row in validation],
        )
        features = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})
        sets = [Dataset.from_list(rows, features=features) for rows in named]
        tasks = [
            mvp.make_task(train, validation),
            mvp.make_task(pd.DataFrame(train), pd.DataFrame(validation)),
            mvp.make_task(Dataset.from_list(train), Dataset.from_list(validation)),
            mvp.make_task(*named, labels=NAMES),
            mvp.make_task(*sets),
            mvp.make_task(*(data.with_format("torch") for data in sets)),
            mvp.make_task(DatasetDict(train=sets[0], validation=sets[1], test=sets[1].select([0]))),
            mvp.make_task({"train": train, "test": validation}),
            mvp.make_task([{k: np.str_(v) for k, v in row.items()} for row in train], validation),
        ]
        for task in tasks:
            assert task.examples == tasks[0].examples and task.labels == NAMES and task.task_type == "classification"
        assert ["split test" in repr(task) for task in tasks].index(True) == 7

    def test_a_run_on_data_is_the_run_on_the_named_task(self):
        named = mvp.load_task("toy/inference", limit=64)
        rows = {split: pd.DataFrame(named.examples[split]).to_dict("records") for split in named.splits}
        settings = {"steps": 5, "batch_size": 8, "lr": 1e-3, "progress": False, "density": 0.5}
        expected = mvp.fine_prune(mvp.load_model("toy", named), named, **settings)
        model = mvp.load_model("toy", named)
        found = mvp.fine_prune(model, pd.DataFrame(rows["train"]), validation=rows["validation"], **settings)
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-6)
        assert found.history["loss"].tolist() == pytest.approx(expected.history["loss"].tolist(), rel=1e-5)

    def test_the_order_of_a_models_own_labels_counts(self):
        order = NAMES[::-1]
        model = mvp.load_model("toy", mvp.make_task(TOPICS, labels=order))
        seen = []
        model.register_forward_pre_hook(lambda module, args, batch: seen.append(batch["labels"]), with_kwargs=True)
        mvp.fine_prune(model, TOPICS[:8] + TOPICS[-24:], steps=1, progress=False, validation=TOPICS[:1])
        assert (seen[0] == order.index("animal")).sum() == 8 and (seen[0] == order.index("vehicle")).sum() == 24


class TestWhatIsInferred:
    @pytest.mark.parametrize(
        ("row", "task_type", "text", "label"),
        [
            ({"id": "a", "review": "a b", "target": "x"}, "classification", ("review",), "target"),
            ({"first": "a", "second": "b", "labels": 1}, "classification", ("first", "second"), "labels"),
            ({"idx": 3, "text": "a", "score": 0.5}, "regression", ("text",), "score"),
            ({"id": "a", "tokens": ["a", "b"], "ner_tags": [0, 1]}, "token classification", ("tokens",), "ner_tags"),
            ({"id": "a", "title": "t", "context": "a b", "question": "q",
              "answers": {"text": ["b"], "answer_start": [2]}}, "span", ("question", "context"), "answers"),
        ],
    )  # fmt: skip
    def test_columns_and_type(self, row, task_type, text, label):
        other = {"x": "y", 1: 0, 0.5: 2.25}.get(row[label]) if isinstance(row[label], str | int | float) else row[label]
        task = mvp.make_task([row, row | {label: other}], [row])
        assert (task.task_type, task.text_columns, task.label_column) == (task_type, text, label)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"a": "x", "b": "y", "c": "z", "label": 0}], r"'a' \(text\), 'b' \(text\), 'c' .*several.* write text="),
            ([{"a": 1, "label": 0}], r"no column but 'label' is text: write text="),
            ([{"text": "x", "stars": 0}], r"'text' \(text\), 'stars' \(int\); none is called label: write label="),
            ([{"text": "x", "label": 0, "target": 1}], r"several may be the label: write label="),
            ([{"text": "x", "label": y} for y in (1, 5, 7)], r"label='label' holds \[1, 5, 7\]: write task_type='regr"),
            ([{"text": "x", "label": y} for y in (0.0, 1.0)], r"label='label' holds \[0\.0, 1\.0\]: write task_type="),
            ([{"text": "x", "label": True}], r"holds True: turn booleans into integers or strings"),
            ([{"text": "x", "label": [0, 1]}], r"one label of a text is a string or an integer"),
            ([{"text": "x", "label": None}], r"holds None .*write one of task_type='classification'"),
            ([{"text": "x", "label": str(i)} for i in range(40)], r"40 different strings .*task_type='classification'"),
        ],
    )
    def test_what_is_open_raises_and_shows_the_columns(self, rows, message):
        with pytest.raises(ValueError, match=message):
            mvp.make_task(rows)

    def test_ratings_as_numbers_and_as_classes(self):
        rows = [{"text": f"film {i}", "stars": 1 + i % 5} for i in range(20)]
        numbers = mvp.make_task(rows, label="stars", task_type="regression")
        classes = mvp.make_task(rows, label="stars", labels=[1, 2, 3, 4, 5])
        assert numbers.num_labels == 1 and classes.labels == ["1", "2", "3", "4", "5"]
        kept = dict(zip(classes.examples["train"]["text"], classes.examples["train"]["stars"], strict=True))
        assert all(kept[row["text"]] == row["stars"] - 1 for row in rows if row["text"] in kept)

    def test_names_of_a_class_label_of_words(self):
        names = ["O", "B-PER", "B-THING", "B-BIRD"]
        features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
        rows = [{**row, "ner_tags": [names.index(tag) for tag in row["ner_tags"]]} for row in TAGGED]
        task = mvp.make_task(Dataset.from_list(rows, features=features), rows[:3])
        assert task.labels == names and task.examples["train"]["ner_tags"][0] == [1, 0, 0, 3] and task.metric == "f1"
        strings = mvp.make_task(pd.DataFrame(TAGGED), TAGGED[:3], labels=names)
        assert strings.examples == task.examples
        assert mvp.make_task(TAGGED).labels == ["B-BIRD", "B-PER", "B-THING", "O"]


class TestHeldOut:
    def test_a_tenth_by_a_seed_and_the_repr_says_so(self):
        task, same, other = (mvp.make_task(TOPICS, seed=seed) for seed in (0, 0, 1))
        assert (task.size("train"), task.size("validation")) == (86, 10)
        assert task.examples == same.examples != other.examples
        assert repr(task) == (
            "Task('data', classification, 86 train, 10 validation examples; reads 'text', predicts 'label'; validation "
            "is held out of train with seed 0)"
        )

    @pytest.mark.parametrize("data", [TOPICS, TAGGED], ids=["texts", "words"])
    def test_a_text_is_on_one_side(self, data):
        task = mvp.make_task(data * 3, holdout=0.3)
        column = task.text_columns[0]
        sides = [set(map(str, task.examples[split][column])) for split in task.splits]
        assert not sides[0] & sides[1] and task.size("validation") == round(0.3 * 3 * len(data))

    @pytest.mark.parametrize("holdout", [0, 96, 1.0, 0.0, "a", True])
    def test_bad_fractions(self, holdout):
        with pytest.raises(ValueError, match=rf"holdout={holdout!r}: must be .*fraction"):
            mvp.make_task(TOPICS, holdout=holdout)


GOOD = TOPICS[::8]


def with_row(**changes):
    """Ten examples, the last but one changed."""
    rows = [dict(row) for row in GOOD[:10]]
    rows[8] |= changes
    return rows


WRONG = {
    "label of None": (with_row(label=None), {}, r"^train, example 8 \(from 0\), column 'label': None is not a label"),
    "label of NaN": (pd.DataFrame(with_row(label=float("nan"))), {}, "example 8 .* nan is not a label"),
    "label of another type": (with_row(label=1), {}, "example 8 .* 1 is not a label .*'animal'.*left out"),
    "text of None": (with_row(text=None), {}, "example 8 .*'text': None is not a text"),
    "text of NaN": (pd.DataFrame(with_row(text=float("nan"))), {"text": "text"}, "example 8 .* is not a text"),
    "text of bytes": (with_row(text=b"a"), {}, "example 8 .*b'a' is not a text"),
    "missing column": ([*GOOD, {"text": "a"}], {}, r"example 12 .* lacks the column 'label' \(found: text\)"),
    "not a dict": ([*GOOD, "text"], {}, r"example 12 .* is 'text': must be a dict"),
    "label not among labels": (GOOD, {"labels": ["animal", "bird"]}, r"is not a label \('animal', 'bird'; .*labels="),
    "label out of range": (with_row(label=4), {"labels": NAMES}, "is not a label"),
    "labels twice": (GOOD, {"labels": ["a", "a"]}, r"labels=\['a', 'a'\]: must be a list of at least two different"),
    "labels as a string": (GOOD, {"labels": "ab"}, "labels='ab': must be a list"),
    "one label": ([{"text": "a", "label": "x"}] * 4, {}, "holds one label alone, 'x'"),
    "text is no column": (GOOD, {"text": "body"}, r"text='body' is no column; train has the columns 'text' \(text\)"),
    "three texts": (GOOD, {"text": ("a", "b", "c")}, "must be the name of a column or a pair"),
    "label is the text": (GOOD, {"text": "text", "label": "text"}, "label='text' is a text column too"),
    "task type": (GOOD, {"task_type": "multi-label"}, "task_type='multi-label': must be one of 'classification', 'reg"),
    "metric": (GOOD, {"metric": "bleu"}, "metric='bleu': classification has 'accuracy', 'macro_f1'"),
    "f1 of four": (GOOD, {"metric": "f1"}, "f1 is of two classes"),
    "metric as a function": (GOOD, {"metric": len}, "goes with a DataLoader alone"),
    "labels of numbers": (GOOD, {"labels": NAMES, "task_type": "regression"}, "a regression task has none"),
    "strings as numbers": (GOOD, {"task_type": "regression"}, r"'animal' is not a finite number"),
    "infinity": ([{"text": "a", "label": y} for y in (0.5, float("inf"))], {}, "example 1 .* inf is not a finite"),
    "equal numbers": ([{"text": "a", "label": 0.5}] * 4, {}, "every label is 0.5"),
    "windows": (GOOD, {"doc_stride": 8}, "doc_stride=8: only a span task has windows"),
    "length": (GOOD, {"max_length": 4}, "max_length=4: must be an integer of at least 8"),
    "optional": (GOOD, {"optional": True}, "optional=True: only answers of a span task"),
    "empty": ([], {}, "^train has no examples"),
    "one example": (GOOD[:1], {"labels": NAMES}, r"one example, .*give validation=\.\.\."),
    "empty validation": (GOOD, {"validation": []}, "^validation has no examples"),
    "bad validation": (GOOD, {"validation": with_row(label="x")}, r"^validation, example 8 .*'x' is not a label"),
    "two validations": ({"train": GOOD, "test": GOOD}, {"validation": GOOD}, "give the splits, or train alone"),
    "holdout besides": (GOOD, {"validation": GOOD, "holdout": 3}, r"holdout=3: there is a validation split already"),
    "no train": ({"text": ["a"], "label": ["b"]}, {}, r"needs the key 'train'; datasets\.Dataset\.from_dict"),
    "unread split": ({"train": GOOD, "dev": GOOD}, {}, r"write make_task\(splits\['train'\], splits\['dev'\]\)"),
    "tags of another length": ([*TAGGED, {"tokens": ["a"], "ner_tags": []}], {}, "example 48 .*not a list of 1 tags"),
    "an unknown tag": (TAGGED, {"labels": ["O", "B-PER"]}, r"holds 'B-BIRD' at word 3 \(from 0\), which is not a tag"),
    "words in one string": ([{"tokens": "a b", "label": ["O", "O"]}], {}, "write text="),
    "no words": ([*TAGGED, {"tokens": [], "ner_tags": []}], {}, "holds no words"),
    "columns twice": (pd.DataFrame([["a", "b"]], columns=["text", "text"]), {}, "must be distinct strings; rename"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_misuse_is_named(case):
    data, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        mvp.make_task(data, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", ["text", None, 3, iter(GOOD), np.zeros(3), Dataset.from_list(GOOD).to_iterable_dataset()]
)
def test_other_types_raise(data):
    with pytest.raises(TypeError, match=r"train=\w+: must be a datasets\.Dataset, .* or a pandas DataFrame"):
        mvp.make_task(data)
    with pytest.raises(TypeError, match=r"validation=dict: must be a datasets\.Dataset, a list of dicts or"):
        mvp.make_task(GOOD, {"train": GOOD})


def test_an_argument_that_is_not_there():
    with pytest.raises(TypeError, match="stratify"):
        mvp.make_task(GOOD, stratify=True)


class TestTags:
    def test_entities_as_conlleval_finds_them(self):
        assert entities("B-X I-X O B-Y".split()) == {(0, 2, "X"), (3, 4, "Y")}
        assert entities("B-X B-X".split()) == {(0, 1, "X"), (1, 2, "X")}
        assert entities("O I-X I-X I-Y".split()) == {(1, 3, "X"), (3, 4, "Y")}  # I- after O or another type begins one
        assert entities("B-X I-Y I-Y O".split()) == {(0, 1, "X"), (1, 3, "Y")}
        assert entities(["O"]) == entities([]) == set()
        assert entities("B-X-1 I-X-1".split()) == {(0, 2, "X-1")}

    def test_f1_by_hand(self):
        expected = ["B-X I-X O B-Y".split(), "O B-X".split()]
        predicted = ["B-X I-X O B-X".split(), "B-X B-X".split()]  # right: 2 of 4 found and of 3 there are
        assert entity_f1(expected, predicted) == pytest.approx(100 * 2 * 2 / (4 + 3))
        assert entity_f1([["O"]], [["O"]]) == 0.0

    @pytest.fixture
    def encoded(self):
        """One word in pieces, a word of no token, and a text of more words than tokens fit."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        ids = {piece: i for i, piece in enumerate("[PAD] [UNK] [CLS] [SEP] ann went to new ##er york".split())}
        core = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        core.normalizer, core.pre_tokenizer = normalizers.Replace("\u200d", ""), pre_tokenizers.Whitespace()
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=core, model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]"
        )
        rows = [
            {"words": ["ann", "newer", "york", "\u200d"], "tags": ["B-P", "B-L", "I-L", "O"]},
            {"words": ["ann"] * 9, "tags": ["B-P", *["O"] * 7, "B-P"]},
        ]
        task = mvp.make_task(rows, rows, labels=["O", "B-P", "B-L", "I-L"], max_length=8)
        return task.encode(tokenizer)

    def test_the_first_token_of_a_word_is_labeled(self, encoded):
        (batch,) = encoded.batches("validation", 2)
        long, short = batch["labels"].tolist()
        assert batch["input_ids"][1].tolist() == [2, 4, 7, 8, 9, 3, 0, 0]
        assert short == [-100, 1, 2, -100, 3, -100, -100, -100]
        assert long == [-100, 1, 0, 0, 0, 0, 0, -100]  # three words do not fit

    def test_truncated_words_count_as_missed(self, encoded):
        def says(input_ids, attention_mask, labels, **batch):
            logits = torch.nn.functional.one_hot(labels.clamp(min=0), 4).float()
            return SimpleNamespace(logits=logits, loss=torch.zeros(()))

        class Perfect(torch.nn.Linear):
            def forward(self, **batch):
                return says(**batch)

        scores = encoded.evaluate(Perfect(1, 1))
        # 3 entities of the 4 are found, none is false; of 13 words 3 are truncated and one has no token
        assert scores == pytest.approx({"score": 600 / 7, "f1": 600 / 7, "accuracy": 900 / 13, "loss": 0.0})

    def test_a_constant_answer_by_hand(self, encoded):
        # B-P for every word: 13 entities, of which 3 are right, and 4 there are
        assert encoded.baseline() == (pytest.approx(100 * 2 * 3 / (13 + 4)), 2)

    def test_other_tags_have_an_accuracy_alone(self):
        rows = [{"tokens": ["ann", "sat"], "pos_tags": ["NOUN", "VERB"]}] * 2
        assert mvp.make_task(rows, rows).metric == "accuracy"
        with pytest.raises(ValueError, match=r"f1 of entities needs the tags O, B-… and I-…"):
            mvp.make_task(rows, rows, metric="f1")


class TestModelsAndRuns:
    def test_words(self, device):
        task = mvp.make_task(TAGGED)
        model = mvp.load_model("toy", task)
        assert type(model).__name__ == "BertForTokenClassification"
        assert model.config.id2label == dict(enumerate(task.labels))
        result = mvp.fine_prune(model, task, "movement", 0.5, steps=60, batch_size=8, lr=1e-3, progress=False)
        assert set(result.metrics) == {"score", "loss", "f1", "accuracy"}
        assert result.score == result.metrics["f1"] > 90  # each word has one tag, so that any model can learn it
        teacher = mvp.fine_prune(
            mvp.load_model("toy", task), task, steps=2, batch_size=8, teacher=result.model, density=0.5, progress=False
        )
        assert teacher.history["loss"].notna().all()

    def test_the_head_of_another_task(self):
        words, texts = mvp.make_task(TAGGED), mvp.make_task(TOPICS)
        assert words.num_labels == texts.num_labels
        for made_for, used_on in ((words, texts), (texts, words)):
            with pytest.raises(ValueError, match=rf"does not fit 'data' \({used_on.task_type}, 4 outputs\)"):
                mvp.fine_prune(mvp.load_model("toy", made_for), used_on, steps=1, batch_size=4, progress=False)

    def test_numbers_of_any_scale_are_learned_alike(self):
        """With labels of 1000 s + m the loss is 1000² times as large, and so learned as well as with labels of s."""
        mean = np.mean([row["price"] for row in PRICES])
        small = [{**row, "price": (row["price"] - mean) / 1e3} for row in PRICES]
        results = [
            quick(data, {"label": "price", "validation": data}, steps=40, method="dense", density=1.0)
            for data in (small, PRICES)
        ]
        assert results[0].score > 80 and results[1].score > 80
        assert results[1].metrics["loss"] < 0.3 * np.var([row["price"] for row in PRICES])
        model = mvp.load_model("toy", mvp.make_task(PRICES, PRICES, label="price"))
        assert float(model.classifier.bias.detach()) == pytest.approx(mean)

    def test_a_trained_head_is_not_scaled_again(self, tmp_path):
        task = mvp.make_task(PRICES, PRICES, label="price", metric="pearson")
        model = mvp.load_model("toy", task, seed=3)
        model.save_pretrained(tmp_path)
        assert torch.equal(mvp.load_model(tmp_path, task).classifier.weight, model.classifier.weight)
        scores = task.encode(mvp.tokenizer_for(mvp.load_model("toy", task))).evaluate(model)
        assert set(scores) == {"score", "loss", "spearman", "pearson"} and scores["score"] == scores["pearson"]

    def test_pearson_and_macro_f1_by_hand(self):
        from mvp_lite.tasks.evaluation import _classification_scores, _correlations

        x, y = np.array([1.0, 2.0, 4.0]), np.array([0.0, 5.0, 1.0])
        assert _correlations(x, y, ("pearson",))["pearson"] == pytest.approx(100 * np.corrcoef(x, y)[0, 1])
        scores = _classification_scores(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3.0]), ("macro_f1", "accuracy"))
        assert scores == pytest.approx({"accuracy": 50.0, "macro_f1": 100 * (2 / 3 + 2 / 3 + 0 + 0) / 4})

    def test_spans_with_columns_of_other_names(self):
        rows = [{"ask": "who ?", "passage": f"{who} washed the car", "reply": {"text": [who], "answer_start": [0]}}
                for who in "ann ben cara dan eva finn".split()]  # fmt: skip
        options = {"text": ("ask", "passage"), "label": "reply", "task_type": "span", "max_length": 32}
        result = quick(rows, options, steps=2, batch_size=2)
        assert set(result.metrics) == {"score", "loss", "f1", "exact_match"}
        nothing = [*rows, {**rows[0], "reply": {"text": [], "answer_start": []}}]
        with pytest.raises(ValueError, match="holds no answer"):
            mvp.make_task(nothing, **options)
        assert mvp.make_task(nothing, optional=True, **options).spec.optional


def write(folder: Path, name: str, text: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class TestFolders:
    def test_every_format_gives_the_same(self, tmp_path):
        frame, expected = pd.DataFrame(TOPICS), mvp.make_task(TOPICS, TOPICS[:9]).examples
        texts = {
            ".jsonl": lines(TOPICS), ".jsonl.gz": lines(TOPICS), ".json": json.dumps(TOPICS),
            ".csv": frame.to_csv(index=False), ".tsv": frame.to_csv(index=False, sep="\t"),
        }  # fmt: skip
        for suffix, text in texts.items():
            folder = write(write(tmp_path / suffix, f"train{suffix}", text), "validation.jsonl", lines(TOPICS[:9]))
            for name in (folder, str(folder)):
                assert mvp.load_task(name).examples == expected
        assert mvp.load_task(folder, limit=9, labels=NAMES).size("train") == 9

    def test_lines_blank_and_with_a_mark_and_of_windows(self, tmp_path):
        bad = lines(GOOD[2:4]).replace("\n", "\r\n") + "\r\n  \r\n" + '{"text": "a", "label": null}\r\n'
        write(tmp_path, "train.jsonl", b"\xef\xbb\xbf" + bad.encode())
        with pytest.raises(ValueError, match=r"train\.jsonl, line 5, column 'label': None is not a label"):
            mvp.load_task(tmp_path)
        write(tmp_path, "train.jsonl", b"\xef\xbb\xbf" + bad.replace("null", '"bird"').encode() + b"\r\n")
        assert mvp.load_task(tmp_path).size("train") == 2
        for split in ("train", "validation"):
            write(
                tmp_path / "sst2", f"{split}.jsonl", '\ufeff{"sentence": "a", "label": 0}\r\n\r\n{"sentence": "b"}\r\n'
            )
        with pytest.raises(ValueError, match=r"train\.jsonl, line 3 lacks the column 'label'"):
            mvp.load_task("sst2", tmp_path / "sst2")

    def test_types_of_csv(self, tmp_path):
        """NA is a text, an empty field is missing, and a label is a number only if all are."""
        write(tmp_path, "train.csv", 'text,label\nNA,0\n"a\nb, ""c""",1\nnull,0\n')
        task = mvp.load_task(tmp_path, labels=["no", "yes"], holdout=1)
        texts = task.examples["train"]["text"] + task.examples["validation"]["text"]
        assert sorted(texts) == ["NA", 'a\nb, "c"', "null"]
        write(tmp_path, "train.csv", "text,label\na,0\nb,1\nc,x\n")
        assert mvp.load_task(tmp_path).labels == ["0", "1", "x"]
        write(tmp_path, "train.csv", "text,label\na,0.5\nb,1\nc,2\n")
        assert mvp.load_task(tmp_path).task_type == "regression"
        write(tmp_path, "train.csv", 'text,label\n"a\nb",0\nb,1\nc,\n')
        with pytest.raises(ValueError, match=r"train\.csv, line 5, column 'label': None is not a label"):
            mvp.load_task(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("text,label\na,0\nb,1,2\n", "line 3 has 3 fields, the header has 2"),
            ('text,label\n"a" b,0\n', "line 2 is not CSV: .*quotation mark"),
            ('text,label\na,0\n"a,1\n', "line 3 is not CSV"),
            ("text,text\na,0\n", "must be distinct names of columns"),
            ("text,label\n", "has no examples"),
            ("", "has no examples"),
            (b"text,label\n\xff,0\n", "its encoding must be UTF-8"),
        ],
    )
    def test_broken_csv(self, text, message, tmp_path):
        with pytest.raises(ValueError, match=rf"train\.csv.*{message}"):
            mvp.load_task(write(tmp_path, "train.csv", text))

    def test_test_only_where_validation_is_not(self, tmp_path):
        folder = write(write(tmp_path, "train.jsonl", lines(TOPICS)), "test.jsonl", lines(TOPICS[:5]))
        assert (
            "; validation is the file test" in repr(mvp.load_task(folder))
            and mvp.load_task(folder).size("validation") == 5
        )
        write(folder, "validation.csv", pd.DataFrame(TOPICS[:7]).to_csv(index=False))
        assert mvp.load_task(folder).size("validation") == 7 and "file test" not in repr(mvp.load_task(folder))

    def test_what_is_not_there_or_twice(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"lacks train\{\.jsonl,.*found: test\.jsonl"):
            mvp.load_task(write(tmp_path, "test.jsonl", ""))
        write(write(tmp_path, "train.jsonl", lines(TOPICS)), "train.csv", "")
        with pytest.raises(ValueError, match=r"has train\.jsonl and train\.csv: leave one"):
            mvp.load_task(tmp_path)
        folder = write(write(tmp_path / "dev", "train.jsonl", lines(TOPICS)), "dev.jsonl", "")
        with pytest.raises(FileNotFoundError, match=r"has dev\.jsonl and no validation file: rename it"):
            mvp.load_task(folder)
        folder = write(write(tmp_path / "mnli", "train.jsonl", lines(TOPICS)), "validation_matched.jsonl", "")
        with pytest.raises(FileNotFoundError, match=r"has validation_matched\.jsonl and no validation file"):
            mvp.load_task(folder)
        for wrong in (tmp_path / "nowhere", "nowhere", None, 3, [1], ""):
            with pytest.raises(ValueError, match="is not a task, nor a folder; tasks are: toy/sentiment"):
                mvp.load_task(wrong)
        with pytest.raises(ValueError, match="is a file: give its folder"):
            mvp.load_task(folder / "train.jsonl")

    @pytest.mark.parametrize("option", ["lable", "validation", "train"])
    def test_an_option_that_a_folder_does_not_have(self, option, tmp_path):
        with pytest.raises(TypeError, match=rf"{option}='x': of a folder load_task takes text, label, .*limit"):
            mvp.load_task(write(tmp_path, "train.jsonl", lines(TOPICS)), **{option: "x"})

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("toy/qa", {"data_dir": "x"}, "data_dir='x': 'toy/qa' comes from the package"),
            ("sst2", {"text": "a"}, r"text='a': 'sst2' has its own; load_task\(folder, text=\.\.\.\)"),
            ("sst2", {"doc_stride": 8}, "doc_stride=8: only a span task"),
            (Path(), {"data_dir": "x"}, "data_dir='x': .*is a folder already"),
        ],
    )
    def test_no_option_is_ignored(self, name, options, message):
        with pytest.raises(ValueError, match=message):
            mvp.load_task(name, **options)


@pytest.fixture(scope="module")
def task():
    return mvp.make_task(TOPICS, TOPICS[:20])


class TestLoaders:
    @pytest.fixture
    def loaders(self, task):
        tokenizer = mvp.tokenizer_for(mvp.load_model("toy", task))
        sets = []
        for split in task.splits:
            columns = tokenizer(task.examples[split]["text"], padding="max_length", max_length=8)
            sets.append(Dataset.from_dict({**columns, "labels": task.examples[split]["label"]}).with_format("torch"))
        return DataLoader(sets[0], batch_size=16, shuffle=True), DataLoader(sets[1], batch_size=16)

    @staticmethod
    def accuracy(model, batches):
        assert not model.training and not torch.is_grad_enabled() and len(batches) == 2
        found = [(model(**batch).logits.argmax(-1) == batch["labels"]).float() for batch in batches]
        return 100 * torch.cat(found).mean()

    def test_a_run_is_three_passes_and_comes_from_the_seed(self, task, loaders):
        def run(seed, metric=self.accuracy):
            return mvp.fine_prune(
                mvp.load_model("toy", task), loaders[0], "dense", validation=loaders[1], metric=metric, lr=1e-3,
                seed=seed, progress=False,
            )  # fmt: skip

        state = torch.get_rng_state()
        first, other = run(0), run(1)
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(123)
        same = run(0, lambda model, batches: {"score": self.accuracy(model, batches), "extra": 1})
        assert len(first.history) == 3 * 6 and first.settings["batch_size"] == 16
        assert first.history["loss"].tolist() == pytest.approx(same.history["loss"].tolist(), rel=1e-6)
        assert first.history["loss"].tolist() != pytest.approx(other.history["loss"].tolist(), rel=1e-3)
        assert same.metrics == {"score": pytest.approx(first.score), "extra": 1.0}
        assert first.score == pytest.approx(
            task.encode(mvp.tokenizer_for(mvp.load_model("toy", task))).evaluate(first.model)["accuracy"]
        )

    def test_every_pass_has_every_example(self, loaders):
        from mvp_lite.tasks.loaders import LoaderTask

        encoded = LoaderTask(*loaders, self.accuracy).encode(None)
        batches = list(encoded.batches("train", 1, seed=0, steps=12, device=torch.device("cpu")))
        passes = [torch.cat([batch["input_ids"] for batch in batches[i : i + 6]]).tolist() for i in (0, 6)]
        assert sorted(passes[0]) == sorted(passes[1]) and passes[0] != passes[1] and len(batches) == 12

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"validation": None}, TypeError, "validation=None: a DataLoader as task needs another one"),
            ({"metric": None}, TypeError, r"metric=None: .*function metric\(model, batches\)"),
            ({"metric": "accuracy"}, TypeError, "metric='accuracy': "),
            ({"metric": lambda model, batches: {"f1": 1.0}}, TypeError, "metric returned .*'score'"),
            ({"tokenizer": object()}, ValueError, "tokenizer=object: .*leave it out"),
            ({"task": DataLoader([])}, ValueError, "task=DataLoader without a batch"),
            ({"task": DataLoader([1, 2])}, TypeError, "yields a Tensor: must be a dict .*collate_fn"),
            ({"task": DataLoader([{"input_ids": 1, "y": 0}])}, ValueError, r"no labels \(found: input_ids, y\)"),
            ({"task": TOPICS}, ValueError, "goes with a DataLoader alone|must be"),
        ],
    )  # fmt: skip
    def test_misuse(self, change, error, message, task, loaders):
        arguments = {"task": loaders[0], "validation": loaders[1], "metric": self.accuracy} | change
        if arguments["task"] is TOPICS:
            arguments["validation"] = TOPICS
        with pytest.raises(error, match=message):
            mvp.fine_prune(mvp.load_model("toy", task), **arguments, method="dense", steps=1, progress=False)

    def test_an_iterable_without_length_needs_steps(self, task, loaders):
        class Endless(torch.utils.data.IterableDataset):
            def __iter__(self):
                return iter(loaders[0].dataset)

        endless = DataLoader(Endless(), batch_size=4)
        settings = {"validation": loaders[1], "metric": self.accuracy, "progress": False, "method": "dense"}
        with pytest.raises(ValueError, match="steps=None: this DataLoader has no length"):
            mvp.fine_prune(mvp.load_model("toy", task), endless, **settings)
        assert len(mvp.fine_prune(mvp.load_model("toy", task), endless, steps=2, **settings).history) == 2

    def test_arguments_that_a_task_would_ignore(self, task):
        for option in ({"validation": TOPICS}, {"metric": "accuracy"}):
            with pytest.raises(ValueError, match=rf"{next(iter(option))}=.*: goes with data or a DataLoader"):
                mvp.fine_prune(mvp.load_model("toy", task), task, **option, progress=False)


def test_the_task_types_and_metrics_in_the_page() -> None:
    from pages import rows_of

    from mvp_lite.tasks.specs import METRICS

    rows = {row[0].strip('`"'): row for row in rows_of("data.md", "| `task_type` |")}
    assert list(rows) == list(METRICS)
    assert all(re.findall(r'"(\w+)"', row[-1]) == list(METRICS[name]) for name, row in rows.items())


def test_labels_of_two_types_are_named():
    rows = [{"text": f"a {i}", "label": i} for i in (1, 5, 9)] + [{"text": "b", "label": "1"}]
    with pytest.raises(ValueError, match=r"label='label' holds .*'1'"):
        mvp.make_task(rows, rows)

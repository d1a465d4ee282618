"""Twelve tasks, one interface: four in the toy language, eight real ones from the hub or from a local folder."""

import gzip
import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvp_lite.paths import data_path
from mvp_lite.tasks.spans import answer_problem, answer_tokens, best_spans, squad_scores

SPLITS = ("train", "validation")
WINDOW = 50  # batches sorted by length together, as in the usual length-grouped sampler
CHUNK = 4096  # rows tokenised at once; bounds the memory of the tokenizer's Python lists

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class TaskSpec:
    """What has to be known about a task before its rows are read; `group` is the text that rows may share.

    With `labels` it is classification, with a `scale` (lowest and highest label) regression, else answers are spans;
    `optional` ones may be missing.
    """

    text_columns: tuple[str, ...]
    group: str
    labels: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    optional: bool = False
    metrics: tuple[str, ...] = ("accuracy",)
    hub: tuple[str, ...] = ()
    validation: str = "validation"
    max_length: int = 128
    doc_stride: int = 0

    @property
    def task_type(self) -> str:
        return "classification" if self.labels else "regression" if self.scale else "span"

    @property
    def label_column(self) -> str:
        return "answers" if self.task_type == "span" else "label"

    @property
    def columns(self) -> tuple[str, ...]:
        return (*(("id",) if self.task_type == "span" else ()), *self.text_columns, self.label_column)


_SENTIMENT = TaskSpec(("sentence",), "sentence", ("negative", "positive"), hub=("stanfordnlp/sst2",))
_INFERENCE = TaskSpec(
    ("premise", "hypothesis"),
    "premise",
    ("entailment", "neutral", "contradiction"),
    hub=("nyu-mll/glue", "mnli"),
    validation="validation_matched",
)
_PARAPHRASE = TaskSpec(
    ("question1", "question2"),
    "question1",
    ("not_duplicate", "duplicate"),
    metrics=("accuracy", "f1"),
    hub=("nyu-mll/glue", "qqp"),
)
_SPAN = TaskSpec(
    ("question", "context"),
    "context",
    metrics=("f1", "exact_match"),
    hub=("rajpurkar/squad",),
    max_length=384,
    doc_stride=128,
)
_TWO = ("sentence1", "sentence2")


def _glue(name: str, text_columns: tuple[str, ...], **options: Any) -> TaskSpec:
    return TaskSpec(text_columns, text_columns[0], hub=("nyu-mll/glue", name), **options)


def _toy(spec: TaskSpec, **changes: Any) -> TaskSpec:
    return replace(spec, hub=(), validation="validation", max_length=32, **changes)


SPECS: dict[str, TaskSpec] = {
    "toy/sentiment": _toy(_SENTIMENT),
    "toy/inference": _toy(_INFERENCE),
    "toy/paraphrase": _toy(_PARAPHRASE, labels=("different", "same")),
    "toy/qa": _toy(_SPAN, doc_stride=8),
    "sst2": _SENTIMENT,
    "mnli": _INFERENCE,
    "qqp": _PARAPHRASE,
    "mrpc": _glue("mrpc", _TWO, labels=("not_equivalent", "equivalent"), metrics=("accuracy", "f1")),
    "qnli": _glue("qnli", ("question", "sentence"), labels=("entailment", "not_entailment")),
    "stsb": _glue("stsb", _TWO, scale=(0.0, 5.0), metrics=("spearman",)),
    "squad": _SPAN,
    "squad_v2": replace(_SPAN, hub=("rajpurkar/squad_v2",), optional=True),
}
TASKS = tuple(SPECS)


@dataclass(frozen=True, repr=False, eq=False)
class Task:
    """Rows of a task, read and checked but not yet tokenised.

    `rows[split][column]` is a list; `splits` are "train" and "validation". `metric` is what `score` means:
    "accuracy", "f1" or "spearman". Tokenise with `encode`; take a slice for tuning out of train with `holdout`.
    """

    name: str
    spec: TaskSpec
    rows: dict[str, Columns]
    max_length: int
    doc_stride: int
    tokenizer: Any = None
    _encoded: dict[str, "EncodedTask"] = field(default_factory=dict)

    splits = SPLITS

    @property
    def task_type(self) -> str:
        """What is predicted: "classification" (one label), "regression" (a number) or "span" (an answer's ends)."""
        return self.spec.task_type

    @property
    def labels(self) -> list[str]:
        """Names of the classes in the order of their numbers; empty where there are no classes."""
        return list(self.spec.labels)

    @property
    def num_labels(self) -> int:
        """Outputs of the head: one per class, 1 for regression, 2 (start and end) for a span task."""
        return len(self.spec.labels) or (1 if self.task_type == "regression" else 2)

    @property
    def metric(self) -> str:
        return self.spec.metrics[0]

    @property
    def text_columns(self) -> tuple[str, ...]:
        return self.spec.text_columns

    @property
    def label_column(self) -> str:
        return self.spec.label_column

    def recipe(self, batch_size: int) -> tuple[int, float]:
        """(optimizer steps, learning rate) where none are given: the toy's, or 3 epochs at the papers' 3e-5."""
        if self.name.startswith("toy/"):
            from mvp_lite.tasks.toy import LR, STEPS

            return STEPS, LR
        return 3 * self.size("train") // batch_size, 3e-5

    def size(self, split: str) -> int:
        """Number of rows of a split."""
        return len(self.rows[_split(split)][self.label_column])

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.size(split):,} {split}" for split in SPLITS)
        return f"Task({self.name!r}, {self.task_type}, {counts} rows)"

    def encode(self, tokenizer: Any = None) -> "EncodedTask":
        """Tokenise lazily, once per tokenizer: two tokenizers with the same content share the work.

        Without an argument the `tokenizer` given to `load_task` is used. Needs a fast tokenizer with a pad token.
        """
        tokenizer = self.tokenizer if tokenizer is None else tokenizer
        if tokenizer is None:
            raise ValueError("tokenizer=None: give encode() or load_task() one, for instance tokenizer_for(model)")
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(f"tokenizer={type(tokenizer).__name__}: a fast one (of the tokenizers library) is needed")
        if tokenizer.pad_token_id is None:
            raise ValueError(f"tokenizer={type(tokenizer).__name__} has no pad token: set tokenizer.pad_token first")
        key = _fingerprint(tokenizer)
        if key not in self._encoded:
            self._encoded[key] = EncodedTask(self, tokenizer)
        return self._encoded[key]

    def holdout(self, n: int, seed: int) -> "Task":
        """The same task with `n` rows of train as its validation split, for tuning; the real one is not in it.

        Rows that share a text (SQuAD: the context; else the first, as MNLI's premise) stay on one side: those
        that share one with the last rows taken leave train too, so train shrinks by `n` rows or a few more.
        """
        total = self.size("train")
        if not isinstance(n, int) or not 1 <= n < total:
            raise ValueError(f"n={n!r}: a holdout needs an integer from 1 to {total - 1} (train has {total} rows)")
        _, group = np.unique(np.array(self.rows["train"][self.spec.group], dtype=object), return_inverse=True)
        rank = np.random.default_rng(seed).permutation(int(group.max()) + 1)[group]
        order = np.argsort(rank, kind="stable")
        keep = np.sort(order[rank[order] > rank[order[n - 1]]])
        if not keep.size:
            raise ValueError(f"n={n}: nothing would be left to train on, since rows that share a text stay together")
        parts = {"train": keep, "validation": np.sort(order[:n])}
        train = self.rows["train"]
        rows = {split: {c: [train[c][i] for i in index] for c in train} for split, index in parts.items()}
        return replace(self, rows=rows, _encoded={})


def load_task(
    name: str,
    data_dir: str | Path | None = None,
    *,
    max_length: int | None = None,
    doc_stride: int | None = None,
    tokenizer: Any = None,
    limit: int | None = None,
) -> Task:
    """Read one of `TASKS`: a toy task from the package, a real one from the hub or from `data_dir`.

    `data_dir` is a folder of JSON lines, `train.jsonl` and `validation.jsonl` (MNLI: `validation_matched.jsonl`), each
    perhaps gzipped (`.jsonl.gz`), with the hub's column names. `max_length` is in tokens (128; SQuAD 384; toy 32) and
    never more than the tokenizer allows. `doc_stride` is the number of context tokens two neighbouring SQuAD windows
    share (128; toy 8). `limit` keeps the first rows of each split.

    Raises ValueError for an unknown name, a missing column, a label out of range (as the -1 of GLUE's test rows), or an
    answer that is not in its context (naming folder, file and the first such row); FileNotFoundError for a missing
    file; OSError for a hub data set that cannot be reached.
    """
    if name not in SPECS:
        raise ValueError(f"name={name!r} is not a task; there are: {', '.join(TASKS)}")
    spec = SPECS[name]
    max_length = spec.max_length if max_length is None else max_length
    doc_stride = spec.doc_stride if doc_stride is None else doc_stride
    _check_count("limit", limit if limit is not None else 1)
    if not isinstance(max_length, int) or max_length < 8:
        raise ValueError(f"max_length={max_length!r}: an integer of at least 8 tokens is needed")
    if not isinstance(doc_stride, int) or not 0 <= doc_stride < max_length:
        raise ValueError(f"doc_stride={doc_stride!r}: must be an integer from 0 to max_length - 1 = {max_length - 1}")
    rows = {}
    for split in SPLITS:
        stem = spec.validation if split == "validation" else split
        if data_dir is None and spec.hub:
            where, columns = f"{'/'.join(spec.hub)}, split {stem}", _read_hub(name, spec, stem, limit)
        else:
            folder = data_path(*name.split("/")) if data_dir is None else Path(data_dir).expanduser()
            where, columns = _read_folder(name, folder, stem, spec, limit)
        _check_rows(where, spec, columns)
        rows[split] = columns
    return Task(name, spec, rows, max_length, doc_stride, tokenizer)


def _read_folder(name: str, folder: Path, stem: str, spec: TaskSpec, limit: int | None) -> tuple[str, Columns]:
    paths = [folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz"]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        found = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
        remake = "; `python -m mvp_lite toy build` makes the toy's" if name.startswith("toy/") else ""
        raise FileNotFoundError(
            f"data_dir={str(folder)!r} lacks {paths[0].name} or {paths[1].name} (found: {found or 'nothing'}){remake}"
        )
    columns: Columns = {column: [] for column in spec.columns}
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            lines = list(islice(file, limit))
    except (EOFError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read, is it truncated? ({error})") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        for column in spec.columns:
            if not isinstance(row, dict) or column not in row:
                found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
                raise ValueError(f"{path}, line {number} lacks the column {column!r} (found: {found})")
            columns[column].append(row[column])
    return str(path), columns


def _read_hub(name: str, spec: TaskSpec, split: str, limit: int | None) -> Columns:
    import datasets

    try:
        data = datasets.load_dataset(*spec.hub, split=split)
    except (OSError, ValueError) as error:
        files = " and ".join(f"{stem}.jsonl[.gz]" for stem in ("train", spec.validation))
        raise OSError(
            f"the hub data set {'/'.join(spec.hub)!r} cannot be reached ({error}). Offline, "
            f"load_task({name!r}, data_dir=...) reads a folder with {files}, one JSON object a line with the keys "
            f"{', '.join(spec.columns)}; the toy tasks ({', '.join(n for n in TASKS if n[:4] == 'toy/')}) need nothing"
        ) from error
    missing = [column for column in spec.columns if column not in data.column_names]
    if missing:
        found = ", ".join(data.column_names)
        raise ValueError(f"{'/'.join(spec.hub)}, split {split} lacks the column {missing[0]!r} (found: {found})")
    data = data if limit is None else data.select(range(min(limit, len(data))))
    return {column: list(data[column]) for column in spec.columns}


def _check_rows(where: str, spec: TaskSpec, columns: Columns) -> None:
    def bad(row: int, column: str, problem: str) -> ValueError:
        value = repr(columns[column][row])
        shown = value if len(value) <= 80 else value[:77] + "..."
        return ValueError(f"{where}, row {row} (from 0), column {column!r}: {shown} {problem}")

    if not columns[spec.label_column]:
        raise ValueError(f"{where} has no rows")
    for column in spec.text_columns:
        for row, text in enumerate(columns[column]):
            if not isinstance(text, str):
                raise bad(row, column, "is not a text")
    for row, label in enumerate(columns[spec.label_column]):
        if spec.labels:
            if type(label) is not int or not 0 <= label < len(spec.labels):
                names = ", ".join(f"{i} {text}" for i, text in enumerate(spec.labels))
                raise bad(row, "label", f"is not a label ({names}; rows without one must be left out)")
        elif spec.scale:
            low, high = spec.scale
            if type(label) not in (int, float) or not low <= label <= high:
                raise bad(row, "label", f"is not a number from {low:g} to {high:g} (rows without one must be left out)")
        elif (problem := answer_problem(label, columns["context"][row], spec.optional)) is not None:
            raise bad(row, "answers", problem)


def _check_count(argument: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{argument}={value!r}: must be an integer of at least 1")


def _split(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(SPLITS)}")
    return split


def _fingerprint(tokenizer: Any) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # Calling a tokenizer leaves its last truncation and padding in this state.
    state.update(truncation=None, padding=None, outside=[tokenizer.pad_token_id, tokenizer.model_input_names])
    state["outside"].append(tokenizer.model_max_length)
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


@dataclass(frozen=True)
class _Part:
    """A tokenised split, ragged: sequence i is `ids[begin[i]:begin[i + 1]]`, made from row `row[i]` of the task."""

    begin: np.ndarray
    row: np.ndarray
    ids: np.ndarray
    types: np.ndarray | None
    targets: dict[str, np.ndarray]
    spans: np.ndarray | None = None  # (tokens, 2): characters in the context, -1 for a token outside it

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.begin)

    def padded(self, flat: np.ndarray, index: np.ndarray, width: int, fill: int) -> np.ndarray:
        """(len(index), width, ...) from a flat array over tokens."""
        position = self.begin[index, None] + np.arange(width)
        outside = position >= self.begin[index + 1, None]
        values = flat[np.where(outside, 0, position)]
        values[outside] = fill
        return values


class EncodedTask:
    """A task under one tokenizer; splits are tokenised when first used. Made by `Task.encode`."""

    def __init__(self, task: Task, tokenizer: Any) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.max_length = min(task.max_length, tokenizer.model_max_length)
        self._parts: dict[str, _Part] = {}

    def size(self, split: str) -> int:
        """Number of sequences of a split: its rows, or for a span task the windows cut from them."""
        return len(self._part(split).row)

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int | None = None,
        steps: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Iterator[dict[str, Tensor]]:
        """Batches ready for `model(**batch)`: (rows, width) integers, and labels or start and end positions (rows,).

        Labels are integers, for regression float32; where there is no answer both its positions are 0.

        With a `seed`: endless reshuffled epochs (exactly `steps` batches if given) in which rows of similar length
        share a batch; the rows that do not fill the last batch of an epoch wait for the next epoch's shuffle. Without:
        one pass over all rows, longest first. Width is the longest row's, rounded up to a multiple of 8 but not past
        `max_length`. The global random state is neither read nor changed.
        """
        part = self._part(split)
        _check_count("batch_size", batch_size)
        if seed is None:
            if steps is not None:
                raise ValueError(f"steps={steps!r} needs a seed: a pass without one is in order of length")
            order = _in_order(part.lengths, batch_size)
        else:
            if steps is not None and (not isinstance(steps, int) or steps < 0):
                raise ValueError(f"steps={steps!r}: must be an integer of at least 0")
            if batch_size > len(part.row):
                raise ValueError(f"batch_size={batch_size}: the {split} split has only {len(part.row)} sequences")
            order = islice(_shuffled(part.lengths, batch_size, np.random.default_rng(seed)), steps)
        return (self._batch(part, index, device) for index in order)

    def evaluate(
        self,
        model: torch.nn.Module,
        split: str = "validation",
        batch_size: int = 128,
        device: torch.device | str | None = None,
    ) -> dict[str, float]:
        """Scores in per cent: "score" (the task's metric), "loss" (mean over sequences), and each metric by name.

        Classification: "accuracy", for paraphrase tasks also "f1" of the duplicates. Regression: "spearman", 100 times
        the correlation of the ranks, ties sharing theirs; 0 if all predictions are equal. Span: "f1" and "exact_match"
        as SQuAD defines them, from the best span over all windows of a row (20 starts x 20 ends, at most 30 tokens).
        Where answers are optional, none is predicted if its score, that of token 0 in the window where it is lowest,
        is above the best span's: the usual rule with a threshold of 0, which is not tuned.
        Batches go to `device`, by default where the model is. Modes of the modules are restored.
        """
        self.check_head(model)
        part = self._part(split)
        _check_count("batch_size", batch_size)
        device = next(model.parameters()).device if device is None else device
        modes = [(module, module.training) for module in model.modules()]
        order = list(_in_order(part.lengths, batch_size))
        losses, outputs = [], []
        model.eval()
        try:
            with torch.no_grad():
                for index in order:
                    batch = self._batch(part, index, device)
                    result = model(**batch)
                    losses.append(result.loss.double() * len(index))
                    if part.spans is None:
                        regression = self.task.task_type == "regression"
                        outputs.append(result.logits if regression else result.logits.argmax(-1)[:, None])
                    else:
                        width = batch["input_ids"].shape[1]
                        inside = torch.from_numpy(part.padded(part.spans[:, 0], index, width, -1) >= 0).to(device)
                        outputs.append(best_spans(result.start_logits.float(), result.end_logits.float(), inside))
        finally:
            for module, mode in modes:
                module.training = mode
        rank = np.argsort(np.concatenate(order))
        predicted = torch.cat(outputs).cpu().double().numpy()[rank]
        score = {"classification": self._classified, "regression": self._ranked, "span": self._answered}[
            self.task.task_type
        ]
        scores = score(split, part, predicted)
        loss = float(torch.stack(losses).sum()) / len(part.row)
        return {"score": scores[self.task.metric], "loss": loss, **scores}

    def _classified(self, split: str, part: _Part, predicted: np.ndarray) -> dict[str, float]:
        truth, guess = part.targets["labels"], predicted[:, 0].astype(int)
        scores = {"accuracy": 100 * float((truth == guess).mean())}
        if "f1" in self.task.spec.metrics:
            positives = int((truth == 1).sum() + (guess == 1).sum())
            scores["f1"] = 200 * float(((truth == 1) & (guess == 1)).sum()) / max(positives, 1)
        return scores

    def _ranked(self, split: str, part: _Part, predicted: np.ndarray) -> dict[str, float]:
        from torchmetrics.functional.regression import spearman_corrcoef

        truth, guess = torch.from_numpy(part.targets["labels"]).double(), torch.from_numpy(predicted[:, 0])
        return {"spearman": 100 * float(spearman_corrcoef(guess, truth))}

    def _answered(self, split: str, part: _Part, predicted: np.ndarray) -> dict[str, float]:
        assert part.spans is not None
        rows = self.task.rows[split]
        texts = [""] * self.task.size(split)
        best, none = np.full(len(texts), -np.inf), np.full(len(texts), np.inf)
        for window, (score, start, end, without) in enumerate(predicted):
            row = part.row[window]
            none[row] = min(none[row], without)
            if score > best[row]:
                first, last = part.spans[part.begin[window] + int(start)], part.spans[part.begin[window] + int(end)]
                best[row], texts[row] = score, rows["context"][row][first[0] : last[1]]
        if self.task.spec.optional:
            texts = ["" if none[row] > best[row] else text for row, text in enumerate(texts)]
        return squad_scores(texts, rows["answers"])

    def check_head(self, model: torch.nn.Module) -> None:
        """Raise ValueError if the model's head is not this task's, in kind or number of outputs."""
        inner: Any = getattr(model, "module", model)
        config = getattr(inner, "config", None)
        outputs = getattr(config, "num_labels", self.task.num_labels)
        wanted = "start_positions" if self.task.task_type == "span" else "labels"
        if outputs != self.task.num_labels or not _takes(inner, wanted):
            raise ValueError(
                f"model={type(inner).__name__} has a head with {outputs} outputs that does not fit {self.task.name!r} "
                f"({self.task.task_type}, {self.task.num_labels} outputs): make one with load_model(name_or_path, task)"
            )

    def _batch(self, part: _Part, index: np.ndarray, device: torch.device | str) -> dict[str, Tensor]:
        lengths = part.lengths[index]
        width = min(-(-int(lengths.max()) // 8) * 8, self.max_length)
        arrays = {
            "input_ids": part.padded(part.ids, index, width, self.tokenizer.pad_token_id),
            "attention_mask": np.arange(width) < lengths[:, None],
        }
        if part.types is not None:
            arrays["token_type_ids"] = part.padded(part.types, index, width, self.tokenizer.pad_token_type_id)
        arrays |= {name: values[index] for name, values in part.targets.items()}
        kinds = {name: np.float32 if values.dtype.kind == "f" else np.int64 for name, values in arrays.items()}
        return {name: torch.from_numpy(values.astype(kinds[name])).to(device) for name, values in arrays.items()}

    def _part(self, split: str) -> _Part:
        if _split(split) not in self._parts:
            self._parts[split] = self._tokenise(self.task.rows[split])
        return self._parts[split]

    def _tokenise(self, rows: Columns) -> _Part:
        task, names = self.task, self.tokenizer.model_input_names
        options: dict[str, Any] = {"truncation": True, "max_length": self.max_length, "return_attention_mask": False}
        if task.task_type == "span":
            options |= {"truncation": "only_second", "stride": task.doc_stride}
            options |= {"return_overflowing_tokens": True, "return_offsets_mapping": True}
        ids, types, spans = [], [], []
        counts: list[int] = []
        row: list[int] = []
        ends: list[tuple[int, int]] = []
        for first in range(0, len(rows[task.label_column]), CHUNK):
            texts = [rows[column][first : first + CHUNK] for column in task.text_columns]
            try:
                encoded = self.tokenizer(*texts, **options)
            except Exception as error:  # the tokenizers library panics with classes of its own
                raise ValueError(
                    f"max_length={self.max_length} and doc_stride={task.doc_stride} leave a question of {task.name!r} "
                    f"no room for its context, or the tokenizer failed otherwise: {error}"
                ) from error
            sequences = encoded["input_ids"]
            counts += [len(sequence) for sequence in sequences]
            ids.append(_flat(sequences))
            if "token_type_ids" in names:
                types.append(_flat(encoded["token_type_ids"]))
            if task.task_type != "span":
                row += range(first, first + len(sequences))
                continue
            for window, sample in enumerate(encoded["overflow_to_sample_mapping"]):
                in_context = np.array([part == 1 for part in encoded.sequence_ids(window)])
                span = np.where(in_context[:, None], np.array(encoded["offset_mapping"][window], dtype=np.int32), -1)
                spans.append(span.astype(np.int32))
                ends.append(answer_tokens(span, rows["answers"][first + sample]))
                row.append(first + sample)
        if task.task_type != "span":
            targets = {
                "labels": np.array(rows["label"], dtype=np.float32 if task.task_type == "regression" else np.int64)
            }
        else:
            targets = dict(zip(("start_positions", "end_positions"), np.array(ends).T, strict=True))
        return _Part(
            begin=np.concatenate([[0], np.cumsum(counts)]),
            row=np.array(row),
            ids=np.concatenate(ids),
            types=np.concatenate(types) if types else None,
            targets=targets,
            spans=np.concatenate(spans) if spans else None,
        )


def _flat(sequences: list[list[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(sequences), dtype=np.int32)


def _takes(module: Any, argument: str) -> bool:
    parameters = inspect.signature(module.forward).parameters
    return argument in parameters or "input_ids" not in parameters  # a wrapper's signature says nothing


def _in_order(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    order = np.argsort(-lengths, kind="stable")
    return (order[at : at + batch_size] for at in range(0, len(order), batch_size))


def _shuffled(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    whole = len(lengths) // batch_size * batch_size
    while True:
        order = rng.permutation(len(lengths))[:whole]
        for at in range(0, whole, WINDOW * batch_size):
            window = order[at : at + WINDOW * batch_size]
            order[at : at + WINDOW * batch_size] = window[np.argsort(lengths[window], kind="stable")]
        batches = order.reshape(-1, batch_size)
        yield from batches[rng.permutation(len(batches))]

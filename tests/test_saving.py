"""Saved models work elsewhere: the same scores in a process without this package, with a card that names no path."""

import copy
import json
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pandas as pd
import pytest
import torch
from nets import Net

import mvp_lite as mvp
from mvp_lite.report import common_prefix
from mvp_lite.storage import folder as storage

#: a process that cannot import this package
PIPELINE = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mvp_lite":
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
from transformers import pipeline

classify = pipeline("text-classification", sys.argv[1], top_k=None, device="cpu")
found = classify(json.loads(sys.argv[2]))
print(json.dumps([{entry["label"]: entry["score"] for entry in scores} for scores in found]))
"""


@pytest.fixture(scope="module")
def task():
    return mvp.load_task("toy/sentiment", limit=300)


@pytest.fixture(scope="module")
def encoder(task):
    return mvp.load_model("toy", task)


@pytest.fixture(scope="module")
def result(encoder, task):
    settings = {"steps": 30, "lr": 1e-3, "batch_size": 16, "progress": False, "schedule": "linear"}
    return mvp.fine_prune(copy.deepcopy(encoder), task, "magnitude", 0.5, **settings)


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("models") / "deep" / "pruned")


def card_of(folder):
    return json.loads((folder / "card.json").read_text())


def test_the_same_scores_without_this_package(result, saved, task):
    texts = task.examples["validation"]["sentence"][:4]
    code = [sys.executable, "-c", PIPELINE, str(saved), json.dumps(texts)]
    done = subprocess.run(code, capture_output=True, text=True, cwd=saved)
    assert done.returncode == 0, done.stderr
    model = copy.deepcopy(result.model).cpu().eval()
    with torch.no_grad():
        batch = result.tokenizer(texts, return_tensors="pt", padding=True)
        expected = model(**batch).logits.softmax(-1)
    labels = model.config.id2label
    found = torch.tensor([[scores[labels[i]] for i in range(2)] for scores in json.loads(done.stdout)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found[0] - found[1:]).abs().max() > 1e-3  # an empty tokenizer would give every text the same scores


def test_the_card_says_how_it_was_made(result, saved, task):
    card = card_of(saved)
    assert card["task"]["name"] == "toy/sentiment" and card["task"]["fingerprint"] == task.fingerprint()
    assert card["task"]["train"] == 300 and card["base_model"]["name"] == "toy" and card["base_model"]["seed"] == 0
    assert card["arguments"]["steps"] == 30 and card["arguments"]["schedule"] == "linear"
    assert card["not_recorded"] == {} and card["settings"]["lr"] == 1e-3 and card["settings"]["warmup_steps"] == 3
    assert card["score"] == result.score and card["verdict"] == result.diagnosis.verdict
    assert card["standard_error"] == result.diagnosis.standard_error and card["baseline"] == result.diagnosis.baseline
    assert {name: layer["kept"] for name, layer in card["layers"].items()} == dict(
        zip(result.report.layer, result.report.kept, strict=True)
    )
    assert card["versions"]["torch"] == torch.__version__ and card["hardware"] and card["seconds"] > 0
    assert card["files"] == sorted(path.name for path in saved.iterdir())
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= set(card["files"])


def test_the_readme_is_a_card_of_the_hub(saved):
    card = huggingface_hub.ModelCard.load(saved / "README.md")
    assert card.data.pipeline_tag == "text-classification" and card.data.library_name == "transformers"
    assert card.data.base_model is None  # the toy is not on the Hub
    assert "| 3 | 50.00 | 50.00 |" in card.text and 'pipeline("text-classification", "pruned")' in card.text


def test_a_real_task_and_model_are_named_as_on_the_hub(result):
    record = result.record | {"base_model": {"name": "me/encoder"}}
    record["task"] = record["task"] | {"name": "mnli", "hub": ["nyu-mll/glue", "mnli"]}
    object.__setattr__(other := copy.copy(result), "record", record)
    data = huggingface_hub.ModelCard(storage.make_readme(other.card(), "me/small")).data
    assert data.base_model == "me/encoder" and data.datasets == "nyu-mll/glue" and data.model_name == "small"
    assert data.eval_results[0].metric_value == round(result.score, 2)
    assert data.eval_results[0].dataset_config == "mnli" and data.eval_results[0].metric_type == "accuracy"


def test_no_path_of_the_machine_is_in_it(encoder, task, tmp_path):
    home = tmp_path / "home"
    encoder.save_pretrained(home / "base")
    tokenizer = mvp.tokenizer_for(encoder)
    tokenizer.save_pretrained(home / "base")
    model = mvp.load_model(home / "base", task)
    saved = mvp.fine_prune(model, task, "dense", steps=2, progress=False).save(home / "out")
    assert card_of(saved)["base_model"]["name"] == "local folder base" and card_of(saved)["density"] == 1.0
    for path in saved.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_a_saved_folder_is_replaced_and_another_is_not(result, saved, tmp_path, monkeypatch):
    folder = result.save(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    result.save(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"folder=.*model' holds files .*\(notes\.txt\).*overwrite=True"):
        result.save(folder)
    result.save(folder, overwrite=True)
    assert not (folder / "notes.txt").exists()
    result.model.save_pretrained(tmp_path / "base")
    with pytest.raises(FileExistsError, match=r"config\.json, model\.safetensors"):
        result.save(tmp_path / "base")
    (tmp_path / "empty").mkdir()
    result.save(tmp_path / "empty")
    with pytest.raises(FileExistsError, match="is a file"):
        result.save(folder / "README.md")
    monkeypatch.chdir(folder)
    with pytest.raises(FileExistsError, match="current or the home folder"):
        result.save("..", overwrite=True)


def test_a_failure_leaves_the_old_folder(result, tmp_path, monkeypatch):
    folder = result.save(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(storage, "make_readme", full)
    with pytest.raises(OSError, match="no space left"):
        result.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_loop_of_ones_own(encoder, task, tmp_path):
    model = copy.deepcopy(encoder)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    pruner = mvp.Pruner(model, "magnitude", density=0.3, total_steps=4).attach(optimizer)
    for batch in task.encode(mvp.tokenizer_for(model)).batches("train", 8, seed=0, steps=4):
        model(**batch).loss.backward()
        optimizer.step()
    for given in ({}, {"pruner": pruner}):
        with pytest.raises(ValueError, match=r"model=\w+: must be plain, .* finalize\(early=True\)"):
            mvp.save_pruned(model, tmp_path / "own", tokenizer=None, **given)
    with pytest.raises(ValueError, match=r"pruner=Pruner\(\.\.\.\): must be finalized: .* finalize\(early=True\)"):
        mvp.save_pruned(copy.deepcopy(encoder), tmp_path / "own", tokenizer=None, pruner=pruner)
    pruner.finalize()
    for name, value in (("score", "61"), ("score", True), ("settings", [1])):
        with pytest.raises(TypeError, match=rf"{name}=.*: must be a (number|mapping) or None"):
            mvp.save_pruned(model, tmp_path / "own", tokenizer=None, **{name: value})
    with pytest.raises(TypeError, match=r"tokenizer= is missing: .*tokenizer_for\(model\).*tokenizer=None"):
        mvp.save_pruned(model, tmp_path / "own")
    tokenizer = mvp.tokenizer_for(model)
    options = {"pruner": pruner, "task": task, "score": 61.0, "settings": {"lr": 1e-2, "loop": print}}
    folder = mvp.save_pruned(model, tmp_path / "own", tokenizer=tokenizer, **options)
    card = card_of(folder)
    assert card["density"] == pytest.approx(0.3, abs=1e-3) and card["score"] == 61.0 and len(card["layers"]) == 24
    assert card["settings"]["lr"] == 1e-2 and card["settings"]["loop"] == "print" and card["examples"] == 300
    assert "arguments" not in card and "replay" not in (folder / "README.md").read_text()
    assert mvp.tokenizer_for(mvp.load_model(folder, task)).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(ValueError, match="trained in another loop"):
        mvp.replay(folder)


def test_what_cannot_be_saved_is_named(encoder, tmp_path):
    with pytest.raises(TypeError, match=r"model=Net has no save_pretrained"):
        mvp.save_pruned(Net(), tmp_path / "x", tokenizer=None)
    adapted = SimpleNamespace(save_pretrained=None, peft_config={})
    with pytest.raises(ValueError, match="merge_and_unload"):
        mvp.save_pruned(adapted, tmp_path / "x", tokenizer=None)
    tokenizer = copy.deepcopy(mvp.tokenizer_for(encoder))
    tokenizer.add_tokens(["zebra"])
    empty = SimpleNamespace(vocab_size=5, all_special_ids=range(5))
    with pytest.raises(ValueError, match=r"tokenizer=SimpleNamespace has 5 tokens, the model 99"):
        mvp.save_pruned(encoder, tmp_path / "x", tokenizer=empty)
    assert list(tmp_path.iterdir()) == []
    bare = mvp.save_pruned(encoder, tmp_path / "bare", tokenizer=None)
    assert not (bare / "tokenizer.json").exists()
    with pytest.raises(ValueError, match="the tokenizer there has 5 tokens, the model 99"):
        mvp.tokenizer_for(mvp.load_model(bare, mvp.load_task("toy/sentiment", limit=9)))


def test_a_shrunk_model_says_how_to_load_it(result, tmp_path):
    uneven = copy.deepcopy(result.model)
    uneven.bert.encoder.layer[0].output.dense.weight.data[:, :7] = 0.0  # seven neurons of one layer alone
    small = mvp.shrink(uneven)
    folder = mvp.save_pruned(small, tmp_path / "small", tokenizer=result.tokenizer)
    assert card_of(folder)["load"] == "mvp_lite.load_shrunk(folder)"
    assert 'mvp.load_shrunk("small")' in (folder / "README.md").read_text()
    assert mvp.load_shrunk(folder).num_parameters() == small.num_parameters()


def test_a_sparse_folder_says_how_to_load_it(result, tmp_path):
    folder = result.save(tmp_path / "small", sparse=True)
    assert card_of(folder)["load"] == "mvp_lite.load_sparse(folder)"
    assert 'mvp.load_sparse("small")' in (folder / "README.md").read_text()
    again = mvp.load_sparse(folder).state_dict()
    assert all(torch.equal(again[name], value) for name, value in result.model.state_dict().items())
    assert mvp.tokenizer_for(mvp.load_sparse(folder))
    result.save(folder)  # replaces it
    assert not (folder / "sparse.safetensors").exists()


def test_push_to_hub(result, monkeypatch):
    calls = []

    class Api:
        def __init__(self, token):
            calls.append(("token", token))

        def create_repo(self, repo_id, **options):
            calls.append((repo_id, options))
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))
            assert '"me/small"' in (folder_path / "README.md").read_text()

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert result.push_to_hub("me/small", private=True, token="t") == "https://huggingface.co/me/small"
    assert calls[:2] == [("token", "t"), ("me/small", {"private": True, "exist_ok": True})]
    assert calls[2][0] == "me/small" and "model.safetensors" in calls[2][1] and "card.json" in calls[2][1]


def test_fingerprints_tell_data_apart(task):
    same = mvp.load_task("toy/sentiment", limit=300)
    assert task.fingerprint() == same.fingerprint() and len(task.fingerprint()) == 64
    others = (task.subset("train", range(299)), task.subset("train", [1, 0, *range(2, 300)]))
    assert len({one.fingerprint() for one in (task, *others)}) == 3


def test_reports_fit_into_80_columns(result):
    text = repr(result.report)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].split() == ["bert.encoder.layer.", "shape", "kept", "density", "empty"]
    assert text.splitlines()[1].split()[0] == "0.attention.self.query" and "0.5000" in text and "..." not in text
    assert result.report.layer[0] == "bert.encoder.layer.0.attention.self.query"
    assert isinstance(result.report[["kept"]].sum(), pd.Series) and "kept" in repr(result.report[["kept"]])
    assert "\n" not in repr(result)
    longest = [f"decoder.block.{i}.layer.1.EncDecAttention.q" for i in (0, 23)] + ["encoder.block.0.layer.1.x"]
    wide = type(result.report)({
        "layer": longest, "shape": [(1024, 4096)] * 3, "kept": 123456, "density": 0.0312345, "empty": False,
    })  # fmt: skip
    assert max(map(len, repr(wide).splitlines())) <= 80
    assert common_prefix(["a.b.c", "a.b.d"]) == "a.b." and common_prefix(["ab", "ac"]) == ""


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        (mvp.groups.blocks(4, 8), "blocks(height=4, width=8)"),
        (mvp.groups.n_of_m(4), "n_of_m(m=4)"),
        (
            mvp.groups.mixed(mvp.groups.blocks(4, 4), "neurons"),
            "mixed(attention=blocks(height=4, width=4), ffn='neurons')",
        ),
        (mvp.groups.mixed(mvp.groups.heads), "mixed(attention='heads')"),
        (mvp.groups.rows, "rows"),
        ("columns", "columns"),
    ],
)  # fmt: skip
def test_groups_from_their_description(encoder, groups, text):
    assert mvp.groups.describe(groups) == text
    again = mvp.groups.find_described(text)
    assert mvp.groups.describe(again) == text
    shapes = [
        [group.mask.shape for group in mvp.Pruner(encoder, "magnitude", density=0.5, total_steps=9, groups=one).groups]
        for one in (groups, again)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "text", ["print('x')", "blocks(4, 4", "__import__('os')", "heads()", "blocks.x(1)", "rows + 1"]
)
def test_a_description_is_not_evaluated(text):
    with pytest.raises(ValueError, match="groups="):
        mvp.groups.find_described(text)


def test_groups_of_ones_own_have_no_description():
    def own(model, matrices):
        return mvp.groups.rows(model, matrices)

    assert mvp.groups.describe(own) is None and mvp.groups.describe(mvp.groups.mixed(own)) is None

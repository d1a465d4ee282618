"""Kills, damage and hostile folders in short form, and what docs/deploy.md says of the long one."""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from fuzzing import little_memory, totals
from pages import ROOT, said, table, text
from robustness import FILES, KILLED, PARTS, POINTS, PROPERTIES, RECORD
from test_checkpoints import SAVE, Parity, check_same, interrupted, run
from test_pruning_callback import make
from test_replay import changed
from test_shrunk_files import pruned
from transformers.trainer_utils import get_last_checkpoint

import mvp_lite as mvp
from mvp_lite import checkpoints

# --- runs that are killed ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs processes that fork")
def test_killed_runs_end_as_if_nobody_had_killed_them():
    command = [sys.executable, str(ROOT / "tests" / "kill.py"), "--points", "3", "--ways", "l0"]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["points"] == counts["close"] == 3 and counts["resumed"] >= 1


def test_a_kill_that_loses_something_is_noticed(tmp_path, monkeypatch):
    """The comparison itself: without the random state of the checkpoint, the outcome is another."""
    kill = import_module("kill")
    task = mvp.load_task("toy/inference", limit=24)
    found = []
    for restored in (True, True, False):
        folder = tmp_path / str(len(found))
        options = {"method": "l0", "density": 0.1, "steps": 4, "batch_size": 8, "lr": 1e-3, "progress": False}
        model = kill.with_dropout(mvp.load_model("toy", task))
        mvp.fine_prune(model, task, output_dir=folder, save_steps=2, **options)
        (folder / "checkpoint-4.pt").unlink()
        if not restored:
            monkeypatch.setattr(torch, "set_rng_state", lambda state: torch.manual_seed(99))
        model = kill.with_dropout(mvp.load_model("toy", task))
        result = mvp.fine_prune(model, task, output_dir=folder, resume=True, **options)
        found.append(kill.tensors(result.model, result.masters, result.scores))
    assert kill.same(found[0], found[1], kill.close) and not kill.same(found[0], found[2], kill.close)


def test_a_part_of_a_checkpoint_stops_the_trainer(tmp_path):
    """It writes `trainer_state.json` last; without that folder the run goes on from the one before."""
    trainer, _ = make(tmp_path, save_strategy="steps", save_steps=6)
    trainer.train()
    newest = Path(get_last_checkpoint(str(tmp_path)))
    (newest / "trainer_state.json").unlink()
    again, _ = make(tmp_path, save_strategy="steps", save_steps=6)
    with pytest.raises(FileNotFoundError, match=r"trainer_state\.json"):
        again.train(resume_from_checkpoint=True)
    shutil.rmtree(newest)
    again, _ = make(tmp_path, save_strategy="steps", save_steps=6)
    again.train(resume_from_checkpoint=True)
    one, two = (x.model.state_dict() for x in (trainer, again))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "count"), [("checkpoints", 60), ("shrunk", 108), ("sparse", 400), ("cards", 30)])
def test_damaged_files_are_refused_or_read_right(part, count, tmp_path):
    counts, problems = import_module(f"fuzz_{part}").run_all(count, 0, tmp_path)
    assert not problems, problems[:3]
    found = totals(counts)
    assert sum(found.values()) == count and found["refused"] > count / 3


def test_a_renamed_checkpoint_is_passed_over(tmp_path):
    """Its name would say that the run is further than it is."""
    interrupted(tmp_path)
    (tmp_path / "checkpoint-8.pt").rename(tmp_path / "checkpoint-12.pt")
    with pytest.warns(UserWarning, match=r"checkpoint-12\.pt is damaged \(it holds 8 steps, not those of its name\)"):
        check_same(run(), run(output_dir=tmp_path, save_steps=SAVE, resume=True))


@pytest.mark.parametrize("content", [{"model": {}}, [1, 2], torch.ones(3)])
def test_a_checkpoint_of_another_loop_is_no_checkpoint(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint-8.pt")
    with (
        pytest.warns(UserWarning, match="not a checkpoint of fine_prune"),
        pytest.raises(OSError, match="none of its 1"),
    ):
        run(output_dir=tmp_path, resume=True)


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be flushed")
def test_a_name_is_on_the_disk_before_older_checkpoints_go(tmp_path, monkeypatch):
    calls = []
    replace, flush, unlink = Path.replace, checkpoints._flush_names, Path.unlink
    monkeypatch.setattr(Path, "replace", lambda *a: (calls.append("rename"), replace(*a))[1])
    monkeypatch.setattr(checkpoints, "_flush_names", lambda *a: (calls.append("flush"), flush(*a))[1])
    monkeypatch.setattr(Path, "unlink", lambda *a, **k: (calls.append("delete"), unlink(*a, **k))[1])
    run(task=Parity(), output_dir=tmp_path, save_steps=8)
    assert calls == ["rename", "flush", "rename", "flush", "rename", "flush", "delete"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A shrunk model for `load_shrunk`, and one that stock transformers reads too."""
    found = {"uneven": {"heads": (2, 1, 3)}, "even": {"heads": (4,), "neurons": (6,), "num_labels": 3}}
    for name, options in found.items():
        found[name] = tmp_path_factory.mktemp(name)
        mvp.shrink(pruned("bert", **options).float()).save_pretrained(found[name])
    return found


def loaders():
    task = mvp.load_task("toy/inference", limit=8)
    return {"uneven": mvp.load_shrunk, "even": lambda folder: mvp.load_model(folder, task)}


@pytest.mark.parametrize("name", ["uneven", "even"])
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"hidden_size": 2**16}, "parameters, the file "),
        ({"vocab_size": 2**30}, "parameters, the file "),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 is too large"),
        ({"num_hidden_layers": 900}, r"many more than the \d+ tensors of the file"),
        ({"num_labels": 10**9}, "num_labels=1000000000 is too large"),
    ],
)
def test_a_configuration_cannot_ask_for_all_memory(folders, name, entries, message, tmp_path):
    folder = shutil.copytree(folders[name], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | entries
    (folder / "config.json").write_text(json.dumps(config))
    with little_memory(), pytest.raises(ValueError, match=message) as error:
        loaders()[name](folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("name", ["uneven", "even"])
def test_damage_is_noticed_by_both_loaders(folders, name, tmp_path):
    folder = shutil.copytree(folders[name], tmp_path / "model")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="damaged") as error:
        loaders()[name](folder)
    assert str(folder) in str(error.value)


def test_nobody_is_asked_whether_code_may_run(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders["even"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "x",
        "auto_map": {"AutoConfig": "code.C"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise AssertionError('executed')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on standard input"))
    with pytest.raises(ValueError, match=r"name_or_path=.*cannot be loaded"):
        loaders()["even"](folder)


def test_shrunk_models_are_never_read_from_pickles(folders, tmp_path):
    folder = shutil.copytree(folders["uneven"], tmp_path / "model")
    torch.save(mvp.load_shrunk(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights in model\.safetensors"):
        mvp.load_shrunk(folder)


@pytest.mark.parametrize("place", ["../outside.safetensors", "{outside}", "model.bin"])
def test_an_index_names_files_of_its_folder_alone(folders, place, tmp_path):
    folder = shutil.copytree(folders["uneven"], tmp_path / "model")
    outside = tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    index = {"weight_map": {"classifier.bias": place.format(outside=outside)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json .*is not the name of a safetensors file"):
        mvp.load_shrunk(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    task = mvp.load_task("toy/sentiment", limit=16)
    result = mvp.fine_prune(
        mvp.load_model("toy", task), task, density=0.4, steps=2, lr=1e-3, batch_size=8, progress=False
    )
    folder = tmp_path_factory.mktemp("card")
    (folder / "card.json").write_text(json.dumps(result.card()))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["arguments"].update(output_dir="runs"), "arguments='output_dir': must be arguments of"),
        (lambda card: card["not_recorded"].update(model="Bert"), "arguments='model'"),
        (lambda card: card.pop("task"), "task=None: must be an object"),
        (lambda card: card.update(score="x"), "score='x': must be an integer or a number"),
        (lambda card: card["settings"].update(steps=1.5), r"settings.steps=1\.5: must be an integer"),
        (lambda card: card["base_model"].update(name=["toy"]), r"base_model\.name=\['toy'\]: must be a string or null"),
        (lambda card: card["task"].pop("train"), "lacks 'train'"),
        (lambda card: card["arguments"].update(scope=[]), "scope"),
    ],
)
def test_a_card_with_odd_entries_is_named(saved, change, message, tmp_path):
    path = changed(saved, tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        mvp.replay(path, progress=False)
    assert str(path) in str(error.value) and not (tmp_path / "runs").exists()


def test_a_folder_whose_card_lists_odd_files_is_left_alone(saved, tmp_path):
    path = changed(saved, tmp_path, lambda card: card.update(files=[["x"], {}, 3]))
    task = mvp.load_task("toy/sentiment", limit=16)
    with pytest.raises(FileExistsError, match=r"holds files that are not of a saved model \(card\.json\)"):
        mvp.save_pruned(mvp.load_model("toy", task), path.parent, tokenizer=None)


# --- what docs/deploy.md says --------------------------------------------------------------------------------------


def record():
    return json.loads(RECORD.read_text())


def test_the_table_of_robustness():
    found = record()
    assert list(found) == PARTS
    kills = [found[name] for name in KILLED]
    assert [one["way"] for one in kills] == list(import_module("kill").WAYS)
    for one in kills:
        assert one["points"] == one["close"] == one["equal"] == POINTS
    total = {name: sum(one[name] for one in kills) for name in ("points", "in a write", "resumed", "equal")}
    rows = [
        ["runs killed by SIGKILL and started again", f"{total['points']}", f"{total['equal']} end bit for bit equal"]
    ]
    labels = {
        "checkpoints": "newest checkpoint damaged",
        "shrunk": "folders of shrunk models damaged",
        "sparse": "sparse files damaged",
        "cards": "cards changed",
    }
    for part, label in labels.items():
        one = found[part]
        assert one["refused"] + one["read right"] == one["files"] == FILES[part] and not one["wrong"]
        assert one["ways"] == len(import_module(f"fuzz_{part}").WAYS)
        refused = "passed over for the one before" if part == "checkpoints" else "refused"
        rows.append([label, f"{one['files']:,}", f"{one['refused']:,} {refused}, {one['read right']:,} read right"])
    cases = {name: sum(found[part][name] for part in PROPERTIES) for name in ("properties", "same", "thorough")}
    assert cases["properties"] == len(import_module("test_properties").PROPERTIES)
    rows.append([f"cases of {cases['properties']} properties", f"{cases['thorough']:,}", "all hold"])
    assert table(["what", "how many", "outcome"], rows) in text("deploy.md")
    one = found["shrunk"]
    made = one["versions"]
    assert all({**other["versions"], "mvp_lite": ""} == {**made, "mvp_lite": ""} for other in found.values())
    assert {(other["date"], other["hardware"]) for other in found.values()} == {(one["date"], one["hardware"])}
    where = f"Recorded on {one['date']}, on {one['hardware']}, with Python {made['python']}, torch {made['torch']} "
    said("deploy.md", re.escape(f"{where}and transformers {made['transformers']}"))
    said("deploy.md", f"{total['in a write']} of the kills came while a checkpoint was being written")
    said("deploy.md", f"every run of the tests checks {cases['same']:,} fixed cases")

"""A saved card repeats its run, and says what differs; what it cannot hold has to be given."""

import copy
import json
import re
import shutil

import pytest

import mvp_lite as mvp
from mvp_lite.__main__ import main


def run(task, model=None, **options):
    settings = {"steps": 12, "lr": 1e-3, "batch_size": 8, "progress": False, **options}
    return mvp.fine_prune(model or mvp.load_model("toy", task, seed=3), task, **settings)


@pytest.fixture(scope="module")
def task():
    return mvp.load_task("toy/sentiment", limit=40)


@pytest.fixture(scope="module")
def saved(task, tmp_path_factory):
    groups = mvp.groups.mixed(mvp.groups.blocks(4, 4), "rows")
    result = run(task, method="movement", density=0.4, groups=groups, warmup_steps=1, initial_density=0.9)
    return result.save(tmp_path_factory.mktemp("replay") / "model")


def changed(saved, tmp_path, change):
    """A copy of the card with some entries changed."""
    card = json.loads((saved / "card.json").read_text())
    change(card)
    (tmp_path / "card.json").write_text(json.dumps(card))
    return tmp_path / "card.json"


def test_the_same_run_agrees(saved, capsys):
    assert main(["replay", str(saved / "card.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"score: .* in the card, .* now: (equal|within the standard error of .*)", lines[0])
    assert re.fullmatch(r"density: 0\.\d+ in the card, 0\.\d+ now: equal", lines[1])
    assert lines[2:] == [
        "data: the same",
        "starting weights: the same",
        "settings: the same",
        "versions: the same",
        "the run agrees with its card",
    ]


def test_what_differs_is_said(saved, task, tmp_path, capsys):
    def change(card):
        card["score"] = 100.0 - card["score"] + 30
        card["standard_error"] = 0.0
        card["settings"]["threshold"] = 0.3
        card["versions"]["torch"] = "1.0"

    assert main(["replay", str(changed(saved, tmp_path, change))]) == 1
    text = capsys.readouterr().out
    assert "more than the standard error of 2.50" in text and "settings: different: threshold (0.3, now 0.1)" in text
    assert "versions: different: torch (1.0, now " in text and "the run differs from its card" in text
    other = task.subset("train", [*range(1, 40), 0])
    outcome = mvp.replay(saved, task=other, model=mvp.load_model("toy", task, seed=4), progress=False)
    assert not outcome.agrees and outcome.comparison["data"] == "different"
    assert outcome.comparison["starting weights"].startswith("different: weights (")


@pytest.mark.parametrize(("factor", "agrees"), [(1.01, True), (1.03, False)])
def test_another_density(saved, factor, agrees, tmp_path):
    path = changed(saved, tmp_path, lambda card: card.update(density=factor * card["density"]))
    outcome = mvp.replay(path, progress=False)
    assert outcome.agrees is agrees and outcome.comparison["density"].endswith("equal" if agrees else "different")


def test_within_the_standard_error(saved, tmp_path):
    path = changed(saved, tmp_path, lambda card: card.update(score=card["score"] + 1.0, standard_error=5.0))
    outcome = mvp.replay(path, progress=False)
    assert outcome.agrees and "within the standard error of 5.00" in str(outcome)


def test_data_and_model_of_ones_own(saved, task, tmp_path):
    for split in task.splits:
        lines = (json.dumps({"sentence": s, "label": label}) for s, label in zip(
            task.examples[split]["sentence"], task.examples[split]["label"], strict=True))  # fmt: skip
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    shutil.copytree(mvp.data_path("toy", "encoder"), tmp_path / "base")

    def change(card):
        card["base_model"]["name"] = "local folder base"
        card["task"]["name"] = "sst2"  # the same columns and labels

    path = changed(saved, tmp_path, change)
    with pytest.raises(ValueError, match=r"the card's model is local folder base: give .* model="):
        mvp.replay(path, data_dir=tmp_path)
    outcome = mvp.replay(path, model=tmp_path / "base", data_dir=tmp_path, progress=False)
    assert outcome.comparison["data"] == outcome.comparison["starting weights"] == "the same"


def test_what_a_card_cannot_hold_is_given_again(task, tmp_path):
    def even(progress):
        return 1.0 - progress

    dense = mvp.load_model("toy", task, seed=1)
    tokenizer = copy.deepcopy(mvp.tokenizer_for(dense))
    tokenizer.model_max_length = 16
    folder = run(task, density=0.5, schedule=even, teacher=dense, tokenizer=tokenizer).save(tmp_path / "model")
    assert json.loads((folder / "card.json").read_text())["not_recorded"] == {
        "schedule": "even",
        "teacher": "BertForSequenceClassification",
        "tokenizer": "TokenizersBackend",
    }
    assert str(tmp_path) not in (folder / "card.json").read_text()
    message = r"cannot hold teacher \(it was BertFor.*\), schedule \(it was even\): give"
    with pytest.raises(ValueError, match=message):
        mvp.replay(folder)
    with pytest.raises(ValueError, match=r"density=0\.3: the card has this argument"):
        mvp.replay(folder, density=0.3)
    outcome = mvp.replay(folder, schedule=even, teacher=dense, progress=False)
    assert outcome.comparison["settings"] == outcome.comparison["data"] == "the same"
    shutil.copy(folder / "card.json", tmp_path)
    with pytest.raises(ValueError, match=r"cannot hold tokenizer \(it was Tok"):
        mvp.replay(tmp_path, schedule=even, teacher=dense)


def test_dense_runs_replay(task, tmp_path):
    folder = run(task, method="dense", steps=3).save(tmp_path / "model")
    assert mvp.replay(folder, progress=False).comparison["settings"] == "the same"


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("{}", "is not a card of a saved model"), ('{"format": "mvp_lite card 1"}', "another loop")],
)
def test_what_is_not_a_card(text, message, tmp_path, capsys):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(tmp_path)])
    assert stopped.value.code == 2 and re.search(message, capsys.readouterr().err)


def test_a_task_of_ones_own_has_to_be_given(saved, tmp_path):
    path = changed(saved, tmp_path, lambda card: card["task"].update(name="mine"))
    with pytest.raises(
        ValueError, match=r"task 'mine' is not one of load_task's: give .* data_dir= .* replay\(path, task="
    ):
        mvp.replay(path)


def test_a_folder_of_ones_own(task, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for split in task.splits:
        columns = task.examples[split]
        lines = (
            json.dumps({"review": text, "liked": ["no", "yes"][label]})
            for text, label in zip(columns["sentence"], columns["label"], strict=True)
        )
        (data / f"{split}.jsonl").write_text("\n".join(lines))
    own = mvp.load_task(data, text="review", label="liked")
    card = run(own, method="magnitude", density=0.5).save(tmp_path / "saved")
    outcome = mvp.replay(card, data_dir=data, progress=False)
    assert outcome.agrees and outcome.comparison["data"] == "the same"

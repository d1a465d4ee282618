"""Kill runs by SIGKILL at random moments, run the same program again, and compare with a run that nobody killed.

`python tests/kill.py --points 20` does so 20 times for each way of training and prints what came out. Half of the
moments are spread over the run; the others are while a checkpoint is being written. tests/test_robustness.py runs a
few of each. Every run is a process of its own, forked so that imports are paid once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import mvp_lite as mvp
from mvp_lite.checkpoints import Checkpoints

STEPS, SAVE = 20, 2
#: longest that a run of some seconds may take on a machine with other work
PATIENCE = 120.0
WAYS: dict[str, dict[str, Any]] = {
    "movement": {"method": "movement"},
    "soft_movement": {"method": "soft_movement", "penalty": "feedback"},
    "l0": {"method": "l0"},
    "magnitude": {"method": "magnitude"},
    "movement with a teacher": {"method": "movement", "teacher": 3},
    "movement under the Trainer": {"method": "movement"},
}


# --- the programs that are killed ----------------------------------------------------------------------------------


def with_fine_prune(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    task = mvp.load_task("toy/inference", limit=120)
    given = dict(options)
    if "teacher" in given:
        given["teacher"] = mvp.load_model("toy", task, seed=given["teacher"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*holds no checkpoint to resume")
        result = mvp.fine_prune(
            with_dropout(mvp.load_model("toy", task)), task, density=0.1, steps=STEPS, lr=1e-3, batch_size=8,
            eval_steps=6, progress=False, output_dir=folder, save_steps=SAVE, resume=True, **given,
        )  # fmt: skip
    found = {"history": result.history.to_numpy().tolist(), "evaluations": result.evaluations.to_numpy().tolist()}
    found["score"] = result.score
    return found | tensors(result.model, result.masters, result.scores)


def with_dropout(model: Any) -> Any:
    """The toy has none; with it, a run depends on the random state too."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    return model


def with_the_trainer(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    from transformers import PrinterCallback, Trainer, TrainingArguments

    task = mvp.load_task("toy/inference", limit=120)
    model = with_dropout(mvp.load_model("toy", task))
    columns = task.examples["train"]
    tokenizer = mvp.tokenizer_for(model)
    encoded = tokenizer(columns["premise"], columns["hypothesis"], padding="max_length", max_length=32, truncation=True)
    labels = columns["label"]
    examples = [{name: encoded[name][i] for name in encoded} | {"label": labels[i]} for i in range(len(labels))]
    arguments = TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=8, learning_rate=1e-3, save_steps=SAVE,
        save_total_limit=2, logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, max_grad_norm=0,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=examples)
    trainer.remove_callback(PrinterCallback)
    callback = mvp.PruningCallback(trainer, density=0.1, max_norm=1.0, **options)
    trainer.train(resume_from_checkpoint=last_complete(folder))
    history = [[log["step"], log["loss"], log["density"]] for log in trainer.state.log_history if "loss" in log]
    masters = {matrix.name: matrix.master for matrix in callback.pruner.matrices}
    scores = {group.name: group.scores for group in callback.pruner.groups}
    return {"history": history, "evaluations": [], "score": 0.0} | tensors(trainer.model, masters, scores)


def last_complete(folder: Path) -> str | None:
    """The last checkpoint of the Trainer that is complete: it writes `trainer_state.json` at the end."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2])):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return str(path)
        except (OSError, ValueError):
            continue
    return None


def tensors(model: Any, masters: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    parts = {"model": model.state_dict(), "masters": masters, "scores": scores}
    return {name: {key: x.detach().clone() for key, x in part.items()} for name, part in parts.items()}


def train(way: str, folder: Path, outcome: Path) -> None:
    """The program: it goes on from what is in the folder, and writes its outcome at the end."""
    torch.set_num_threads(1)
    program = with_the_trainer if "Trainer" in way else with_fine_prune
    torch.save(program(folder, WAYS[way]), outcome)


# --- killing it ----------------------------------------------------------------------------------------------------


def import_all() -> None:
    """What a run imports on its way, once for all processes; no gradient, since threads do not survive a fork."""
    from transformers import Trainer  # noqa: F401

    torch.set_num_threads(1)
    task = mvp.load_task("toy/inference", limit=2)
    model = mvp.load_model("toy", task)
    task.encode(mvp.tokenizer_for(model))
    mvp.Pruner(model, density=0.5, total_steps=9).attach(torch.optim.AdamW(model.parameters()))


def start(way: str, folder: Path, outcome: Path) -> Any:
    process = multiprocessing.get_context("fork").Process(target=train, args=(way, folder, outcome))
    process.start()
    return process


def finish(process: Any) -> None:
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0, f"the run ended with {process.exitcode}"


def is_being_written(folder: Path) -> bool:
    """Is there a checkpoint of which a part is missing?"""
    if any(folder.glob("checkpoint-*.partial")):
        return True
    return any(path.is_dir() and not (path / "trainer_state.json").is_file() for path in folder.glob("checkpoint-*"))


def kill(way: str, folder: Path, outcome: Path, seconds: float, rng: random.Random, in_write: bool) -> None:
    """Start the program and kill it: within so many seconds, or while it writes one of its checkpoints."""
    step = SAVE * rng.randint(1, STEPS // SAVE)
    names = [folder / f"checkpoint-{step}.partial", folder / f"checkpoint-{step}"]
    delay, latest = rng.uniform(0.0, seconds), time.monotonic() + PATIENCE
    process = start(way, folder, outcome)
    if in_write:
        while process.is_alive() and not any(name.exists() for name in names) and time.monotonic() < latest:
            time.sleep(1e-4)
        delay = rng.uniform(0.0, 0.02) if "Trainer" in way else rng.uniform(0.0, 0.002)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)


def same(one: Any, two: Any, equal: Callable[[torch.Tensor, torch.Tensor], bool]) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name], equal) for name in one)
    return equal(torch.as_tensor(one), torch.as_tensor(two))


def close(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Equal but for rounding: a mask may then differ in an entry or two at its threshold."""
    if one.shape != two.shape:
        return False
    far = ~torch.isclose(one.double(), two.double(), rtol=1e-3, atol=1e-5)
    return float(far.double().mean() if far.numel() else 0.0) <= 1e-3


def check(way: str, points: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill and resume `points` times; counts of what happened."""
    began = time.monotonic()
    finish(start(way, folder / "never killed", folder / "expected.pt"))
    seconds = time.monotonic() - began
    expected = torch.load(folder / "expected.pt")
    counts = dict.fromkeys(("points", "in a write", "before a checkpoint", "resumed", "close", "equal"), 0)
    for point in range(points):
        rng = random.Random(f"{seed} {way} {point}")
        while True:  # a run that ends before its kill does not count
            runs, outcome = folder / f"runs {point} {rng.random()}", folder / f"outcome {point} {rng.random()}"
            kill(way, runs, outcome, seconds, rng, in_write=point % 2 == 0)
            if not outcome.exists():
                break
            seconds *= 0.9
        steps, history = saved(way, runs)
        counts["points"] += 1
        counts["in a write"] += is_being_written(runs)
        counts["before a checkpoint"] += not steps
        finish(start(way, runs, outcome))
        found = torch.load(outcome)
        assert found["history"][:steps] == history, f"{way}, point {point}: the rows of the checkpoint are not there"
        counts["resumed"] += steps > 0
        counts["close"] += same(found, expected, close)
        counts["equal"] += same(found, expected, torch.equal)
    return counts


def saved(way: str, folder: Path) -> tuple[int, list[list[float]]]:
    """How many steps the last checkpoint that is complete has, and what it says of them."""
    if "Trainer" in way:
        last = last_complete(folder) if folder.is_dir() else None
        state = json.loads((Path(last) / "trainer_state.json").read_text()) if last else {"log_history": []}
        rows = [[log["step"], log["loss"], log["density"]] for log in state["log_history"]]
    else:
        files = Checkpoints(folder, resume=True).files() if folder.is_dir() else []
        rows = [list(map(float, row)) for row in torch.load(files[0])["history"]] if files else []
    return len(rows), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    wrong = False
    import_all()
    for way in args.ways:
        with tempfile.TemporaryDirectory() as folder:
            counts = check(way, args.points, args.seed, Path(folder))
        print(json.dumps({"way": way, **counts}), flush=True)
        wrong |= counts["close"] < args.points
    raise SystemExit(wrong)


if __name__ == "__main__":
    main()

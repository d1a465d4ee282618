"""Change cards of saved models, at random and on purpose: `replay` must refuse them in words, or run and compare.

`python tests/fuzz_cards.py 1000` prints how often each of the two happened, for each way; tests/test_robustness.py
runs some of them. Runs are of at most three steps, whatever a card asks for.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import transformers as hf
from fuzzing import ODD, change_bytes, command, fuzz, shorten

import mvp_lite as mvp
from mvp_lite import replaying

CARD = "card.json"
#: a run of these takes as long as the card says
STEPS = 3


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CARD).read_text())


def write(folder: Path, card: Any) -> None:
    (folder / CARD).write_text(json.dumps(card))


def change_an_entry(folder: Path, rng: random.Random) -> None:
    card = read(folder)
    key = rng.choice([*card, "x"])
    if rng.random() < 0.2:
        card.pop(key, None)
    else:
        card[key] = rng.choice(ODD)
    write(folder, rng.choice(ODD) if rng.random() < 0.05 else card)


def change_an_entry_inside(folder: Path, rng: random.Random) -> None:
    card = read(folder)
    at = card[rng.choice(["base_model", "task", "settings", "metrics", "versions", "not_recorded"])]
    key = rng.choice([*at, "x"])
    if rng.random() < 0.2:
        at.pop(key, None)
    else:
        at[key] = rng.choice([*ODD, "toy/qa", "toy/sentiment", "sst2", "local folder x", [1, 2]])
    write(folder, card)


def change_an_argument(folder: Path, rng: random.Random) -> None:
    """Those of the run, with odd values; and those that no card has."""
    card = read(folder)
    inside = str(folder.parent / "ran")
    if rng.random() < 0.3:
        name = rng.choice(["output_dir", "model", "task", "validation", "metric", "device", "options", "x", "resume"])
        card["arguments"][name] = rng.choice([inside, True, {"output_dir": inside}])
    else:
        name = rng.choice(sorted(card["arguments"]))
        card["arguments"][name] = rng.choice(
            [*ODD, f"__import__('os').mkdir({inside!r})", "blocks(height=1, width=10**9)"]
        )
    write(folder, card)


def flip_bytes(folder: Path, rng: random.Random) -> None:
    change_bytes(folder / CARD, rng)


def truncate(folder: Path, rng: random.Random) -> None:
    shorten(folder / CARD, rng)


def nest(folder: Path, rng: random.Random) -> None:
    """As deep as no reader can go."""
    (folder / CARD).write_text('{"x":' * 10**5 + "1" + "}" * 10**5)


WAYS = (change_an_entry, change_an_entry_inside, change_an_argument, flip_bytes, truncate, nest)


def run_all(count: int, seed: int, folder: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    hf.utils.logging.set_verbosity_error()
    task = mvp.load_task("toy/sentiment", limit=24)
    options = {"method": "soft_movement", "density": 0.4, "steps": STEPS, "lr": 1e-3, "batch_size": 8, "seed": 1}
    result = mvp.fine_prune(
        mvp.load_model("toy", task), task, groups=mvp.groups.blocks(4, 4), progress=False, **options
    )
    intact = folder / "intact"
    intact.mkdir()
    write(intact, result.card())
    card, original = read(intact), replaying.fine_prune

    def short(model: Any, task: Any, **given: Any) -> Any:
        steps = given.pop("steps")
        return original(model, task, steps=min(steps, STEPS) if type(steps) is int else steps, **given)

    short.__signature__ = replaying.inspect.signature(original)

    def replayed(damaged: Path, which: int) -> bool:
        outcome = mvp.replay(damaged, progress=False)
        changed = read(damaged)
        near = abs(changed["score"] - card["score"]) < 30
        near = near and abs(changed["density"] - card["density"]) <= 0.02 * changed["density"]
        return near or not outcome.agrees

    def named(damaged: Path, message: str) -> bool:
        return any(part in message for part in (str(damaged), "name_or_path=", "load_task("))

    replaying.fine_prune = short
    try:
        return fuzz(count, seed, folder, [intact], WAYS, replayed, named)
    finally:
        replaying.fine_prune = original


if __name__ == "__main__":
    command(run_all, 1000, __doc__)

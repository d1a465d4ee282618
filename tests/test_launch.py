"""The scripts of guide and README under `accelerate launch`, on two processes of the CPU."""

import os
import re
import socket
import subprocess
import sys

import pytest
import torch
from pages import README, ROOT, python_blocks

BEFORE = """
import functools, sys
import mvp_lite as mvp
from transformers import TrainingArguments
import transformers
transformers.TrainingArguments = functools.partial(TrainingArguments, disable_tqdm=True, save_strategy="no")
mvp.load_task = functools.partial(mvp.load_task, limit=200)
task, found = mvp.load_task("toy/inference"), {}
"""
AFTER = """
found["{name}"] = [{model}.state_dict(), pruner.density, scheduler.get_last_lr()[0], pruner.steps_done]
"""
SAVE = """
import torch.distributed as dist
assert dist.get_world_size() == 2
import torch
torch.save(found, sys.argv[1] + f"/rank{dist.get_rank()}.pt")
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Both scripts in one launch, on few steps; what each process ended with."""
    (loop,) = (code for code in python_blocks("guide.md") if "Accelerator()" in code)
    (trainer,) = (code for code in python_blocks(README) if "from transformers import Trainer," in code)
    folder = tmp_path_factory.mktemp("launch")
    ends = AFTER.format(name="loop", model="model"), AFTER.format(name="trainer", model="trainer.model")
    trainer = "import torch\n" + trainer + "scheduler, pruner = trainer.lr_scheduler, callback.pruner\n"
    script = re.sub(r"\b300\b", "20", BEFORE + loop + ends[0] + trainer + ends[1] + SAVE)
    (folder / "script.py").write_text(script)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes=2",
        "--num_machines=1",
    ]
    command += ["--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={port}", "script.py", str(folder)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    # With --cpu, accelerate starts a single process; this is how it starts two without GPUs.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "density"), [("loop", 0.1), ("trainer", 0.03)])
def test_both_processes_end_with_the_same_pruned_model(name, density, ranks):
    (weights, kept, lr, steps), (other, *rest) = (rank[name] for rank in ranks)
    assert rest == [kept, lr, steps]
    assert steps == 20 and lr == 0.0 and kept == pytest.approx(density, abs=0.01)
    assert weights.keys() == other.keys() and all(torch.equal(weights[key], other[key]) for key in weights)
    if name == "loop":
        matrices = [weight for key, weight in weights.items() if "encoder" in key and weight.ndim == 2]
        assert sum(int(m.count_nonzero()) for m in matrices) == round(kept * sum(m.numel() for m in matrices))

"""Two gloo processes under torchrun and DistributedDataParallel, against one process with the same global batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ddp_worker import CASES, DENSITY, train

WORKER = Path(__file__).with_name("ddp_worker.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, device):
    """What both ranks found, all cases in one launch."""
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master-addr=127.0.0.1"]
    command += [f"--master-port={port}", str(WORKER), str(folder), device]
    path = os.pathsep.join([str(WORKER.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_ranks_end_identical(case, ranks):
    """They started from different weights: masters, scores and masks follow rank 0 too."""
    first, second = (rank[case] for rank in ranks)
    assert first.keys() == second.keys()
    assert [name for name in first if name != "losses" and not torch.equal(first[name], second[name])] == []
    assert not torch.equal(first["losses"], second["losses"]), "each rank sees rows of its own"


# The first forward pass of "l0_other_noise" saw different noise: identical from the first step on, but another run.
@pytest.mark.parametrize("case", [case for case in CASES if case != "l0_other_noise"])
def test_equal_to_one_process(case, ranks, device):
    two = ranks[0][case]
    one = train(case, 0, device)
    assert 0.1 < one["density"] < 0.9, "the run must really prune"
    if CASES[case][0] in ("movement", "magnitude", "random"):
        assert one["density"].item() == pytest.approx(DENSITY, abs=2e-3)
    assert [name for name in one if name.startswith("mask ") and not close(one[name], two[name])] == []
    # The attention key's bias has no gradient but rounding (softmax is blind to it), which AdamW scales up.
    compared = [name for name in one if name != "losses" and not name.endswith("key.bias")]
    assert [name for name in compared if not close(one[name], two[name])] == []
    torch.testing.assert_close((two["losses"] + ranks[1][case]["losses"]) / 2, one["losses"], rtol=1e-10, atol=0)


def close(a, b):
    if not a.is_floating_point():
        return torch.equal(a, b)
    return bool((a - b).abs().max() <= 1e-10 * max(1.0, a.abs().max().item()))


def test_sharded_weights_are_refused(ranks):
    for rank in ranks:
        made, attached, stepped, held, hold = rank["sharded"]
        assert made.startswith("0.weight is sharded (FSDP") and hold.startswith("0.weight is sharded (FSDP")
        assert attached.startswith("the weights of 0 were replaced after the Pruner was made (by fully_shard?)")
        assert stepped.startswith("0.weight was replaced (by fully_shard?) or changed its dtype after attach()")
        assert held.startswith("0.weight was replaced (by fully_shard?) after hold_zeros()")


def test_held_zeros(ranks):
    first, second = (rank["held"] for rank in ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for i in (0, 1):
        weight = first[f"bert.encoder.layer.{i}.output.dense.weight"]
        assert not weight[::2].any() and bool(weight[1::2].all())

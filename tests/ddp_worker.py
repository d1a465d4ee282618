"""One rank of the data-parallel runs of `test_ddp`; started by torchrun: `ddp_worker.py FOLDER DEVICE`."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from nets import layers, used
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import BertConfig, BertForSequenceClassification

import mvp_lite as mvp

STEPS, DENSITY = 16, 0.3
#: name -> (method, options); starts and thresholds within reach of a few steps
CASES = {
    "movement": ("movement", {}),
    "movement_global": ("movement", {"scope": "global", "min_density": 0.05}),
    "magnitude": ("magnitude", {"initial_density": 0.8}),  # masks differ between ranks until the first step
    "soft_fixed": ("soft_movement", {"penalty": 1.0, "threshold": 0.45}),
    "soft_feedback": ("soft_movement", {"threshold": 0.45}),
    "l0": ("l0", {"score_init": -2.0}),
    "random": ("random", {}),
    "l0_other_noise": ("l0", {"score_init": -2.0}),
}
OWN_SEEDS = ("random", "l0_other_noise")  # each rank gives a seed of its own: rank 0's counts


def make_model(seed):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=24, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=8, num_labels=2, initializer_range=0.3, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config).double()


def make_batch(step):
    ids = torch.randint(4, 24, (16, 8), generator=torch.Generator().manual_seed(100 + step))
    return {"input_ids": ids, "labels": (ids[:, 1] > 13).long()}


def train(case, seed, device, rank=0, world=1, wrap=lambda model: model):
    """Train on this rank's share of every global batch; returns everything, on the CPU, by name."""
    method, options = CASES[case]
    model = make_model(seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    pruner = mvp.Pruner(
        model,
        method,
        density=DENSITY,
        total_steps=STEPS,
        warmup_steps=2,
        cooldown_steps=4,
        **used(method, score_lr=0.1),
        seed=seed if case in OWN_SEEDS else 0,
        **options,
    ).attach(optimizer)
    wrapped = wrap(model)
    losses = []
    for step in range(STEPS):
        share = {key: value[rank::world].to(device) for key, value in make_batch(step).items()}
        loss = wrapped(**share).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    found = {f"weight {name}": value for name, value in model.named_parameters()}
    for layer in layers(pruner):
        found |= {f"master {layer.name}": layer.master, f"mask {layer.name}": layer.mask}
        if layer.scores is not None:
            found[f"scores {layer.name}"] = layer.scores
    found["losses"], found["penalty"] = torch.tensor(losses, dtype=torch.float64), torch.tensor(pruner.penalty)
    found["density"] = torch.tensor(pruner.density)
    return {name: value.detach().cpu() for name, value in found.items()}


def sharded(device):
    """What is said to weights sharded before the constructor, before attach, after it, and while zeros are held."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    options = {"density": DENSITY, "total_steps": STEPS, "target": "0"}
    messages = []

    def refused(call, *arguments, **given):
        try:
            call(*arguments, **given)
            messages.append("accepted")
        except ValueError as error:
            messages.append(str(error))

    net = nn.Sequential(nn.Linear(4, 4))
    fully_shard(net, mesh=mesh)
    refused(mvp.Pruner, net, **options)
    net = nn.Sequential(nn.Linear(4, 4))
    pruner = mvp.Pruner(net, **options)
    fully_shard(net, mesh=mesh)
    refused(pruner.attach, torch.optim.SGD(net.parameters(), lr=0.1))
    net = nn.Sequential(nn.Linear(4, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    mvp.Pruner(net, **options).attach(optimizer)
    fully_shard(net, mesh=mesh)
    net(torch.ones(1, 4, device=device)).sum().backward()
    refused(optimizer.step)
    net = nn.Sequential(nn.Linear(4, 4))
    net[0].weight.data[0] = 0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    mvp.hold_zeros(net, optimizer, "0")
    fully_shard(net, mesh=mesh)
    refused(optimizer.step)
    refused(mvp.hold_zeros, net, optimizer, "0")
    return messages


def held(device, rank, world):
    """Training on after finalize() with the zeros held: the density and every weight."""
    model = make_model(rank).to(device)
    wrapped = DistributedDataParallel(model)
    for layer in model.bert.encoder.layer:
        layer.output.dense.weight.data[::2] = 0
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-2)
    mvp.hold_zeros(wrapped, optimizer)
    for step in range(4):
        batch = {key: value[rank::world].to(device) for key, value in make_batch(step).items()}
        wrapped(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.detach().cpu() for name, value in model.named_parameters()}


def main(folder, device):
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    results = {}
    for case in CASES:
        # Other weights on each rank: DistributedDataParallel makes them those of rank 0.
        results[case] = train(case, rank, device, rank, world, wrap=DistributedDataParallel)
    results["held"] = held(device, rank, world)
    results["sharded"] = sharded(device)
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])

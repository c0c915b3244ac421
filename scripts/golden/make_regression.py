#!/usr/bin/env python3
"""Writes tests/golden/regression.json: ten steps of linear regression under each loss, as PyTorch takes them.

    python scripts/golden/make_regression.py        (needs torch)

Every number is a 32-bit float, which JSON holds exactly."""

import json
from pathlib import Path

import torch
from torch.nn import functional as F

torch.manual_seed(3)
STEPS, BATCH = 10, 8
LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": lambda y, t: F.huber_loss(y, t, delta=0.7)}


def train(loss_of):
    model = torch.nn.Linear(3, 1)
    rule = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x = torch.randn(STEPS, BATCH, 3)
    t = x @ torch.tensor([1.0, -2.0, 0.5]) + 3 + torch.randn(STEPS, BATCH) / 4
    start = [model.weight.flatten().tolist(), model.bias.tolist()]
    losses = []
    for step in range(STEPS):
        rule.zero_grad()
        loss = loss_of(model(x[step]).squeeze(1), t[step])
        loss.backward()
        rule.step()
        losses.append(loss.item())
    end = [model.weight.flatten().tolist(), model.bias.tolist()]
    flat = lambda v: [row.flatten().tolist() for row in v]
    return {"start": start, "x": flat(x), "targets": flat(t), "losses": losses, "end": end}


found = {name: train(loss) for name, loss in LOSSES.items()}
path = Path(__file__).parents[2] / "tests/golden/regression.json"
path.write_text(json.dumps(found) + "\n")

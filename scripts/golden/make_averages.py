#!/usr/bin/env python3
"""Writes tests/golden/averages.json: averages of parameters and steps with penalties, as PyTorch makes them.

    python scripts/golden/make_averages.py        (needs torch)

Every number is a 32-bit float, which JSON holds exactly."""

import json
from pathlib import Path

import torch
from torch.optim import swa_utils

torch.manual_seed(11)
STEPS, WIDTH = 12, 5


def averages(function):
    """The average after each of some steps, as `AveragedModel` keeps it."""
    model = torch.nn.Linear(WIDTH, 1, bias=False)
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=function)
    values, found = [], []
    for _ in range(STEPS):
        with torch.no_grad():
            model.weight.add_(torch.randn(1, WIDTH))
        averaged.update_parameters(model)
        values.append(model.weight.flatten().tolist())
        found.append(averaged.module.weight.flatten().tolist())
    return {"values": values, "averages": found}


def penalties(optimizer, l1, l2):
    """Steps down loss + l1 · Σ|w| + l2 · Σw², where the gradient of the loss is given; clipped to norm 1."""
    start = torch.randn(WIDTH)
    start[1] = 0.0
    weight = torch.nn.Parameter(start.clone())
    rule = optimizer([weight])
    grads, values, norms = [], [], []
    for _ in range(STEPS):
        grad = torch.randn(WIDTH) / 2
        rule.zero_grad()
        ((weight * grad).sum() + l1 * weight.abs().sum() + l2 * (weight**2).sum()).backward()
        norms.append(torch.nn.utils.clip_grad_norm_([weight], 1.0).item())
        rule.step()
        grads.append(grad.tolist())
        values.append(weight.tolist())
    return {"start": start.tolist(), "grads": grads, "values": values, "norms": norms, "l1": l1, "l2": l2}


found = {
    "ema": averages(swa_utils.get_ema_multi_avg_fn(0.9)),
    "swa": averages(swa_utils.get_swa_multi_avg_fn()),
    "sgd": penalties(lambda p: torch.optim.SGD(p, lr=0.1), 0.03, 0.2),
    "adamw": penalties(lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1), 0.05, 0.01),
}
path = Path(__file__).parents[2] / "tests/golden/averages.json"
path.write_text(json.dumps(found) + "\n")

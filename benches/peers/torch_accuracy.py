"""PyTorch DDP with the recipe of a card of ours: how long until the test accuracy is reached?

    torch_accuracy.py CARD TARGET SEED        with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT set

Reads learning rate, momentum, weight decay, batch, epochs and normalisation from the card, so that both
sides train alike: SGD, cosine schedule by step, Glorot weights, a shuffle of its own for each epoch,
evaluation after each. Rank 0 prints RESULT {json} with `seconds` since LAUNCHED (null if the target was
never reached), `epoch` and the `accuracies`.
"""
import json
import math
import os
import pathlib
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import mnist
from torch_models import LeNet5, glorot


def read_card(path):
    card = json.loads(pathlib.Path(path).read_text())
    kinds = [card[part]["kind"] for part in ("model", "optimizer", "schedule")] + [card["model"]["init"]]
    if kinds != ["lenet5", "sgd", "cosine", "glorot"]:
        sys.exit(f"{path}: this script knows LeNet-5, SGD, cosine and Glorot only, not {kinds}")
    return card


def tensors(part, normalize):
    images, labels = mnist.load(part)
    x = torch.from_numpy(images.copy()).unsqueeze(1).float().div_(255)
    return x.sub_(normalize["mean"]).div_(normalize["std"]), torch.from_numpy(labels.copy()).long()


def accuracy(model, x, y):
    """Over all ranks, each with its part of the samples."""
    rank, world = dist.get_rank(), dist.get_world_size()
    right = torch.zeros(1)
    with torch.no_grad():
        for pixels, labels in zip(x[rank::world].split(500), y[rank::world].split(500)):
            right += (model(pixels).argmax(1) == labels).sum()
    dist.all_reduce(right)
    return float(right) / len(y)


def main():
    card, target, seed = read_card(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    launched = float(os.environ.get("LAUNCHED", time.time()))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    x, y = tensors("train", card["data"]["normalize"])
    test = tensors("t10k", card["data"]["normalize"])
    torch.manual_seed(seed)
    model = LeNet5()
    glorot(model)
    rule = card["optimizer"]
    optimizer = torch.optim.SGD(model.parameters(), lr=rule["lr"], momentum=rule["momentum"],
                                weight_decay=rule["weight_decay"], fused=True)
    net = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    batch, epochs = card["train"]["global_batch"], card["train"]["epochs"]
    last = epochs * math.ceil(len(y) / batch) - 1
    step, reached, accuracies = 0, None, []
    for _ in range(epochs):
        for part in torch.randperm(len(y)).split(batch):  # the same permutation on all ranks
            optimizer.param_groups[0]["lr"] = rule["lr"] * 0.5 * (1 + math.cos(math.pi * step / last))
            mine = part[rank::world]
            optimizer.zero_grad()
            F.cross_entropy(net(x[mine]), y[mine]).backward()
            optimizer.step()
            step += 1
        accuracies.append(accuracy(model, *test))
        if accuracies[-1] >= target:
            reached = time.time() - launched
            break
    if rank == 0:
        result = {"seconds": reached, "epoch": len(accuracies), "accuracies": accuracies}
        print("RESULT " + json.dumps(result), flush=True)
    dist.barrier()
    os._exit(0)  # see Ddp.end in torch_train.py


if __name__ == "__main__":
    main()

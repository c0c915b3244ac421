"""PyTorch as a peer: training speed of one process, of DDP over gloo, or of Horovod.

Started with RANK and WORLD_SIZE (and MASTER_ADDR, MASTER_PORT) in the environment, by torchrun, or by
mpirun with --horovod. Rank 0 prints RESULT {json}: `rate` in samples (gpt: tokens) per second over all
ranks, median of the epochs after the first, and `first_step_s` since LAUNCHED (seconds of the epoch).

Made as fast as we know how: fused Adam, gradients as bucket views, data indexed from memory.
"""
import argparse
import json
import os
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

import mnist
from torch_models import MODELS, Gpt


class Solo:
    """One process."""

    rank, world = 0, 1

    def wrap(self, model, optimizer):
        return model, optimizer

    def barrier(self):
        pass

    def highest(self, value):
        return value

    def end(self):
        pass


class Ddp(Solo):
    """DistributedDataParallel over gloo."""

    def __init__(self):
        import torch.distributed as dist

        dist.init_process_group("gloo")
        self.dist, self.rank, self.world = dist, dist.get_rank(), dist.get_world_size()

    def wrap(self, model, optimizer):
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True), optimizer

    def barrier(self):
        self.dist.barrier()

    def highest(self, value):
        value = torch.tensor([value], dtype=torch.float64)
        self.dist.all_reduce(value, self.dist.ReduceOp.MAX)
        return float(value)

    def end(self):
        # gloo's threads end some processes with SIGABRT when the interpreter takes itself apart, after
        # everything is done and printed.
        self.barrier()
        sys.stdout.flush()
        os._exit(0)


class Horovod(Solo):
    """Horovod's own optimizer wrapper."""

    def __init__(self):
        import horovod.torch as hvd

        hvd.init()
        self.hvd, self.rank, self.world = hvd, hvd.rank(), hvd.size()

    def wrap(self, model, optimizer):
        self.hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        named = model.named_parameters()
        return model, self.hvd.DistributedOptimizer(optimizer, named_parameters=named)

    def barrier(self):
        self.hvd.allreduce(torch.zeros(1))

    def highest(self, value):
        return float(self.hvd.allgather(torch.tensor([value], dtype=torch.float64)).max())

    def end(self):
        self.hvd.shutdown()


def image_batches(args, job):
    """Returns a function of the epoch: this rank's batches, disjoint from the other ranks'."""
    images, labels = mnist.load("train")
    x = torch.from_numpy(images[: args.samples].copy()).unsqueeze(1)
    y = torch.from_numpy(labels[: args.samples].copy()).long()
    if not args.bytes:
        x = x.float().div_(255)
    shuffle = torch.Generator().manual_seed(123)

    def batches(_epoch):
        mine = torch.randperm(args.samples, generator=shuffle)[job.rank :: job.world]
        for part in mine.split(args.batch):
            pixels = x[part]
            yield (pixels.float().div_(255) if args.bytes else pixels), y[part]

    return batches


def token_batches(args, job):
    """As image_batches, with made-up tokens: input and the next tokens."""
    random = torch.Generator().manual_seed(1 + job.rank)
    length = Gpt.CONTEXT + 1
    text = torch.randint(0, Gpt.VOCABULARY, (1 << 16,), generator=random)

    def batches(_epoch):
        for _ in range(args.samples // job.world // args.batch):
            starts = torch.randint(0, text.numel() - length, (args.batch,), generator=random)
            window = torch.stack([text[i : i + length] for i in starts.tolist()])
            yield window[:, :-1], window[:, 1:]

    return batches


def train(args, job, launched):
    """Trains; returns seconds of each epoch, seconds to the first step, and the sum of the weights."""
    torch.manual_seed(0)
    batches = (token_batches if args.model == "gpt" else image_batches)(args, job)
    model = MODELS[args.model]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    net, optimizer = job.wrap(model, optimizer)
    epochs, first = [], None
    for epoch in range(args.epochs):
        start = time.time()
        for x, y in batches(epoch):
            optimizer.zero_grad()
            out = net(x)
            loss = F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))
            loss.backward()
            optimizer.step()
            first = first or time.time() - launched
            if args.first_step:
                break
        job.barrier()  # an epoch ends when the slowest rank ends
        epochs.append(time.time() - start)
    return epochs, first, float(sum(p.detach().abs().double().sum() for p in model.parameters()))


def main():
    launched = float(os.environ.get("LAUNCHED", time.time()))
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="lenet", choices=MODELS)
    parser.add_argument("--batch", type=int, default=64, help="of each rank")
    parser.add_argument("--samples", type=int, default=25600, help="in an epoch, over all ranks")
    parser.add_argument("--epochs", type=int, default=4, help="the first one is the warm-up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bytes", action="store_true", help="keep the data as bytes: less memory")
    parser.add_argument("--first-step", action="store_true", help="stop each epoch after one step")
    parser.add_argument("--horovod", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    world = int(os.environ.get("WORLD_SIZE", 1))
    job = Horovod() if args.horovod else Ddp() if world > 1 else Solo()
    epochs, first, weights = train(args, job, launched)
    apart = job.highest(weights) + job.highest(-weights)  # highest − lowest
    if apart != 0:
        sys.exit(f"the ranks' weights differ by {apart} in sum")
    if job.rank == 0:
        units = args.samples * (Gpt.CONTEXT if args.model == "gpt" else 1)
        rate = units / statistics.median(epochs[1:] or epochs)
        print("RESULT " + json.dumps({"rate": rate, "first_step_s": first, "epochs_s": epochs}), flush=True)
    job.end()


if __name__ == "__main__":
    main()

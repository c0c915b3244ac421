"""All-reduce of float32 sums, in place, by size: gloo through torch.distributed, or Horovod.

    torch_allreduce.py gloo|horovod MILLISECONDS BYTES…

Prints and measures as mpi_allreduce.c does.
"""
import json
import os
import sys
import time

import torch


def gloo():
    import torch.distributed as dist

    dist.init_process_group("gloo")
    end = lambda: (dist.barrier(), sys.stdout.flush(), os._exit(0))  # see Ddp.end in torch_train.py

    def highest(value):
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    return dist.get_rank(), dist.get_world_size(), dist.all_reduce, dist.barrier, highest, end


def horovod():
    import horovod.torch as hvd

    hvd.init()
    # A name for each size, so that Horovod's cache of agreed tensors works as in training.
    reduce = lambda data: hvd.allreduce_(data, op=hvd.Sum, name=f"sum{data.numel()}")
    barrier = lambda: hvd.allreduce(torch.zeros(1), name="barrier")
    highest = lambda value: hvd.allgather(value.view(1, -1), name=f"h{value.numel()}").max(0).values
    return hvd.rank(), hvd.size(), reduce, barrier, highest, hvd.shutdown


def main():
    kind, budget, sizes = sys.argv[1], float(sys.argv[2]) / 1e3, [int(s) for s in sys.argv[3:]]
    torch.set_num_threads(1)
    rank, ranks, reduce, barrier, highest, end = {"gloo": gloo, "horovod": horovod}[kind]()

    def timed(data, calls):
        barrier()
        start = time.perf_counter()
        for _ in range(calls):
            reduce(data)
        return (time.perf_counter() - start) / calls

    rows = []
    for size in sizes:
        plain = torch.arange(size // 4).remainder(97).float()
        data = plain + rank
        reduce(data)
        if not torch.equal(data, plain * ranks + ranks * (ranks - 1) / 2):
            sys.exit(f"wrong sum of {size} bytes")
        data.zero_()
        once = float(highest(torch.tensor([timed(data, 3)], dtype=torch.float64))[0])
        calls = int(1e-3 / once) + 1 if once < 1e-3 else 1
        batches = min(max(int(budget / (once * calls)), 5), 1000)
        taken = torch.tensor([timed(data, calls) for _ in range(batches)], dtype=torch.float64)
        rows.append([size, round(float(highest(taken).sort().values[batches // 2]) * 1e6, 3)])
    if rank == 0:
        print("RESULT " + json.dumps({"rows": rows}), flush=True)
    end()


if __name__ == "__main__":
    main()

"""The comparisons: for each workload, our side and one peer's, as jobs and how to read their results.

A side is a function of the round's number that returns a job and a reader; the reader turns the outcome
into {label: number}. Most have one number under the label "".
"""
import dataclasses
import json
import re
from collections.abc import Callable

import ours
from tools import ROOT

RATE, SECONDS, MIB, MICROSECONDS = "samples/s", "s", "MiB", "µs"
SAMPLES = 25_600  # of an epoch of LeNet-5: 50 or more steps at every batch
TARGET = 0.99
CARD = str(ROOT / "configs/lenet-mnist.json")
# Float32 all-reduces, in bytes; 138,488 are LeNet-5's gradients, 80,150,568 the MLP's.
SIZES = [8, 1 << 10, 16 << 10, 64 << 10, 138_488, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 80_150_568]
MILLISECONDS = 300  # for each size


@dataclasses.dataclass
class Comparison:
    name: str
    unit: str
    needs: tuple[str, ...]
    ours: Callable | None
    peer: Callable
    """Without `ours`, one job whose reader returns both sides' numbers."""

    @property
    def more_is_better(self):
        return self.unit in (RATE, "tokens/s")


def all_of(tools):
    """Every comparison, in the order of the table."""
    return [*_lenet(tools), *_one_rank(tools), *_mlp(tools), *_gpt(tools), *_start(tools), *_memory(tools),
            *_accuracy(tools), *_allreduce(tools)]


def _figure(key):
    return lambda outcome: {"": outcome.result()[key]}


def _peak(outcome):
    return {"": outcome.peak_mib}


def _ours_training(tools, name, ranks, batch, read=None, sets=(), **job):
    """LeNet-5 with Adam and no evaluation, unless `sets` says otherwise."""
    folder = tools.work / "runs" / name.replace("/", "-")
    adam = ['optimizer={"kind":"adam","lr":0.001}', 'schedule={"kind":"constant"}', "data.test=null",
            f"train.global_batch={ranks * batch}", f"data.train_limit={SAMPLES}", "train.epochs=4"]
    options = [part for value in (*adam, *sets) for part in ("--set", value)]

    def side(_round):
        arguments = ["train", CARD, "--out", str(folder), *options]
        reader = read or (lambda _outcome: {"": ours.rate(folder, ranks * batch)})
        return tools.annulus(ranks, *arguments, files=[folder / "metrics.jsonl"], **job), reader

    return side


def _lenet(tools):
    for batch in (32, 64, 256):
        name = f"lenet-b{batch}"
        mine = _ours_training(tools, name, 2, batch)
        arguments = ["--batch", batch, "--samples", SAMPLES]

        def torch(_round, tcmalloc, arguments=arguments):
            return tools.processes(tools.torch, 2, "torch_train.py", *arguments, tcmalloc=tcmalloc), _figure("rate")

        def horovod(_round, arguments=arguments):
            return tools.horovod("torch_train.py", "--horovod", *arguments), _figure("rate")

        def mirrored(_round, arguments=arguments):
            options = [*arguments, "--mode", "mirrored", "--inter", 2]
            return tools.processes(tools.tensorflow, 1, "tf_train.py", *options, threads=2), _figure("rate")

        def multiworker(_round, arguments=arguments):
            options = [*arguments, "--mode", "multiworker"]
            return tools.processes(tools.tensorflow, 2, "tf_train.py", *options, workers=True), _figure("rate")

        plain = lambda number, torch=torch: torch(number, False)
        tcmalloc = lambda number, torch=torch: torch(number, True)
        yield Comparison(f"{name}/ddp", RATE, ("torch",), mine, plain)
        yield Comparison(f"{name}/ddp-tcmalloc", RATE, ("torch", "tcmalloc"), mine, tcmalloc)
        yield Comparison(f"{name}/horovod-tcmalloc", RATE, ("torch", "tcmalloc", "openmpi", "horovod"), mine, horovod)
        yield Comparison(f"{name}/tf-mirrored", RATE, ("tensorflow",), mine, mirrored)
        yield Comparison(f"{name}/tf-multiworker", RATE, ("tensorflow",), mine, multiworker)


def _one_rank(tools):
    for batch in (32, 64, 256):
        name = f"lenet-1rank-b{batch}"
        mine = _ours_training(tools, name, 1, batch)

        def single(_round, python, script, tcmalloc, batch=batch):
            arguments = ["--batch", batch, "--samples", SAMPLES]
            return tools.processes(python, 1, script, *arguments, tcmalloc=tcmalloc), _figure("rate")

        torch = lambda number, single=single: single(number, tools.torch, "torch_train.py", True)
        tensorflow = lambda number, single=single: single(number, tools.tensorflow, "tf_train.py", False)
        yield Comparison(f"{name}/pytorch-tcmalloc", RATE, ("torch", "tcmalloc"), mine, torch)
        yield Comparison(f"{name}/tf", RATE, ("tensorflow",), mine, tensorflow)
    yield Comparison("lenet-1rank-b64/candle", RATE, ("cargo",), None, lambda _round: (tools.bench("step"), _candle))


def _candle(outcome):
    """Both sides take turns within one process (benches/step.rs)."""
    both = re.search(r"median ([\d.]+) and ([\d.]+)", outcome.text)
    return {"": float(both[1])}, {"": float(both[2])}


def _mlp(tools):
    sets = ['model={"kind":"mlp","hidden":[4096,4096]}', "data.train_limit=2560"]
    mine = _ours_training(tools, "mlp", 2, 64, sets=sets)
    arguments = ["--model", "mlp", "--samples", 2560]

    def horovod(_round):
        return tools.horovod("torch_train.py", "--horovod", *arguments), _figure("rate")

    def ddp(_round):
        return tools.processes(tools.torch, 2, "torch_train.py", *arguments, tcmalloc=True), _figure("rate")

    def threads(_round):
        # The same global batch on the same two cores.
        options = [*arguments, "--batch", 128, "--threads", 2]
        return tools.processes(tools.torch, 1, "torch_train.py", *options, tcmalloc=True, threads=2), _figure("rate")

    yield Comparison("mlp-b64/horovod-tcmalloc", RATE, ("torch", "tcmalloc", "openmpi", "horovod"), mine, horovod)
    yield Comparison("mlp-b64/ddp-tcmalloc", RATE, ("torch", "tcmalloc"), mine, ddp)
    yield Comparison("mlp-b64/pytorch-2-threads", RATE, ("torch", "tcmalloc"), mine, threads)


def _gpt(tools):
    file = tools.work / "runs" / "gpt.json"

    def read(_outcome):
        return {"": json.loads(file.read_text())["rows"][0]["per_s"]}

    def mine(_round):
        arguments = ["bench", "step", "--model", "gpt", "--batch", "4", "--json", str(file)]
        return tools.annulus(2, *arguments, files=[file]), read

    def ddp(_round):
        arguments = ["--model", "gpt", "--batch", 4, "--samples", 32]
        return tools.processes(tools.torch, 2, "torch_train.py", *arguments, tcmalloc=True), _figure("rate")

    yield Comparison("gpt-b4/ddp-tcmalloc", "tokens/s", ("torch", "tcmalloc"), mine, ddp)


def _start(tools):
    """From the launch to the end of the first step, the reading of 60,000 images included."""
    folder = tools.work / "runs" / "start"
    mine = _ours_training(tools, "start", 2, 64, sets=["train.max_steps=1", "data.train_limit=60000"],
                          read=lambda outcome: {"": outcome.seen_s})

    def ours_side(number):
        job, read = mine(number)
        job.seen = ours.Follower(folder, "step")
        return job, read

    torch = ["torch_train.py", "--samples", 60_000, "--epochs", 1, "--first-step"]
    tensorflow = ["tf_train.py", "--samples", 60_000, "--epochs", 1, "--mode"]
    first = _figure("first_step_s")
    sides = {
        "torchrun-ddp": lambda _: (tools.torchrun(*torch), first),
        "ddp": lambda _: (tools.processes(tools.torch, 2, *torch, tcmalloc=True), first),
        "tf-mirrored": lambda _: (
            tools.processes(tools.tensorflow, 1, *tensorflow, "mirrored", "--inter", 2, threads=2), first),
        "tf-multiworker": lambda _: (
            tools.processes(tools.tensorflow, 2, *tensorflow, "multiworker", workers=True), first),
    }
    for name, side in sides.items():
        needs = ("tensorflow",) if name.startswith("tf") else ("torch", "tcmalloc")
        yield Comparison(f"start/{name}", SECONDS, needs, ours_side, side)


def _memory(tools):
    """The rank with most memory, all 60,000 images kept, as bytes on all sides."""
    mine = _ours_training(tools, "memory", 2, 64, sets=["data.train_limit=60000", "train.epochs=1"],
                          read=_peak, memory=True)
    options = ["--samples", 60_000, "--epochs", 1, "--bytes"]

    def ddp(_round):
        return tools.processes(tools.torch, 2, "torch_train.py", *options, memory=True), _peak

    def horovod(_round):
        return tools.horovod("torch_train.py", "--horovod", *options, memory=True), _peak

    def multiworker(_round):
        arguments = [*options, "--mode", "multiworker"]
        return tools.processes(tools.tensorflow, 2, "tf_train.py", *arguments, workers=True, memory=True), _peak

    yield Comparison("memory/ddp", MIB, ("torch",), mine, ddp)
    yield Comparison("memory/horovod-tcmalloc", MIB, ("torch", "tcmalloc", "openmpi", "horovod"), mine, horovod)
    yield Comparison("memory/tf-multiworker", MIB, ("tensorflow",), mine, multiworker)


def _accuracy(tools):
    """Launch to the evaluation that first reaches 99 % of the MNIST test images, seed 42, 43, … by round."""
    folder = tools.work / "runs" / "accuracy"

    def mine(number):
        arguments = ["train", CARD, "--out", str(folder), "--set", f"seed={42 + number}"]
        reached = ours.Follower(folder, "eval", lambda line: line["accuracy"] >= TARGET)
        job = tools.annulus(2, *arguments, files=[folder / "metrics.jsonl"], seen=reached, look_s=0.02)
        return job, lambda outcome: {"": outcome.seen_s}

    def ddp(number):
        arguments = [CARD, TARGET, 42 + number]
        return tools.processes(tools.torch, 2, "torch_accuracy.py", *arguments, tcmalloc=True), _figure("seconds")

    yield Comparison("accuracy-99/ddp-tcmalloc", SECONDS, ("torch", "tcmalloc"), mine, ddp)


def _allreduce(tools):
    def mine(mpi):
        file = tools.work / "runs" / f"allreduce-{mpi}.json"
        arguments = ["bench", "allreduce", "--algorithms", "ours", "--sizes", ",".join(map(str, SIZES)),
                     "--seconds", str(MILLISECONDS / 1e3), "--json", str(file)]

        def read(_outcome):
            rows = json.loads(file.read_text())["rows"]
            return {_bytes(row["bytes"]): row["ours_us"] for row in rows}

        return lambda _round: (tools.annulus(2, *arguments, mpi=mpi, files=[file]), read)

    def peer(outcome):
        return {_bytes(size): microseconds for size, microseconds in outcome.result()["rows"]}

    budget = [str(MILLISECONDS), *map(str, SIZES)]
    script = "torch_allreduce.py"
    library = lambda mpi: str(tools.work / f"bin/allreduce-{mpi}")
    yield Comparison("allreduce/gloo", MICROSECONDS, ("torch",), mine("openmpi"),
                     lambda _: (tools.processes(tools.torch, 2, script, "gloo", *budget), peer))
    yield Comparison("allreduce/horovod", MICROSECONDS, ("torch", "tcmalloc", "openmpi", "horovod"), mine("openmpi"),
                     lambda _: (tools.horovod(script, "horovod", *budget), peer))
    yield Comparison("allreduce/openmpi", MICROSECONDS, ("openmpi",), mine("openmpi"),
                     lambda _: (tools.open_mpi(library("openmpi"), *budget), peer))
    yield Comparison("allreduce/mpich", MICROSECONDS, ("mpich",), mine("mpich"),
                     lambda _: (tools.mpich(library("mpich"), *budget), peer))


def _bytes(size):
    """1 KiB, 80,150,568 B."""
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size % scale == 0:
            return f"{size // scale} {unit}"
    return f"{size:,} B"

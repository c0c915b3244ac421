"""Where the programs of both sides are, and how ranks of each kind are started: two of them, or one,
each pinned to a core of its own, with one thread."""
import json
import os
import pathlib
import shutil
import socket
import subprocess

import measure

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# What scripts/bench_peers.sh can install, and how to see that it is there.
NEEDS = ("torch", "tensorflow", "horovod", "tcmalloc", "openmpi", "mpich", "cargo")


class Tools:
    def __init__(self, work):
        self.work = pathlib.Path(work).resolve()
        self.cores = measure.cores()
        self.torch = self.work / "torch/bin/python"
        self.tensorflow = self.work / "tf/bin/python"
        self.probe = self.work / "bin/c2c"
        self.mpirun = shutil.which("mpirun.openmpi") or shutil.which("mpirun")
        self.tcmalloc = os.environ.get("TCMALLOC") or _library("libtcmalloc_minimal.so.4")
        self.binaries = {
            "openmpi": (os.environ.get("ANNULUS", "target/release/annulus"), os.environ.get("ANNULUS_MPIRUN", "mpirun")),
            "mpich": (os.environ.get("ANNULUS_MPICH", "target/mpich/release/annulus"), "mpirun.mpich"),
        }
        for folder in ("log", "runs"):
            (self.work / folder).mkdir(parents=True, exist_ok=True)

    def missing(self, needs):
        """Why a comparison with these needs cannot be run, or None."""
        for need in needs:
            note = self.work / f"failed-{need}"
            if note.exists():
                return f"{need} could not be installed: {note.read_text().strip()}"
            if not self._has(need):
                return f"{need} is not installed"
        return None

    def _has(self, need):
        return {
            "torch": self.torch.exists,
            "tensorflow": self.tensorflow.exists,
            "horovod": (self.work / "torch/bin/horovodrun").exists,
            "tcmalloc": lambda: self.tcmalloc is not None,
            "openmpi": (self.work / "bin/allreduce-openmpi").exists,
            "mpich": (self.work / "bin/allreduce-mpich").exists,
            "cargo": lambda: shutil.which("cargo") is not None,
        }[need]()

    # Our side.

    def annulus(self, ranks, *arguments, mpi="openmpi", **job):
        binary, mpirun = self.binaries[mpi]
        # HYDRA_BINDING: MPICH's launcher pins no rank unless told to, Open MPI's script does.
        environment = {"ANNULUS": str(ROOT / binary), "ANNULUS_MPIRUN": mpirun, "HYDRA_BINDING": "core"}
        argv = [str(ROOT / "scripts/launch_local.sh"), str(ranks), *arguments]
        return measure.Job([(argv, environment)], **job)

    def bench(self, name, **job):
        """One of the crate's own benchmarks, on one core."""
        argv = [*self._pinned(self.cores[:1]), "cargo", "bench", "--locked", "--bench", name,
                "--manifest-path", str(ROOT / "Cargo.toml")]
        return measure.Job([(argv, {})], **job)

    # The peers'.

    def _environment(self, tcmalloc, threads=1):
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
        if tcmalloc:
            environment["LD_PRELOAD"] = self.tcmalloc
        return environment

    def _pinned(self, cores):
        return ["taskset", "-c", ",".join(map(str, cores))]

    def processes(self, python, ranks, script, *arguments, tcmalloc=False, threads=1, workers=False, **job):
        """Ranks started directly, rank i on core i; `workers` adds TensorFlow's TF_CONFIG."""
        ports = _free_ports(ranks)
        commands = []
        for rank in range(ranks):
            environment = self._environment(tcmalloc, threads) | {
                "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0]),
            }
            if workers:
                addresses = [f"127.0.0.1:{port}" for port in ports]
                task = {"type": "worker", "index": rank}
                environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            mine = self.cores[rank : rank + 1] if ranks > 1 else self.cores[:threads]
            argv = [*self._pinned(mine), str(python), str(HERE / script), *map(str, arguments)]
            commands.append((argv, environment))
        return measure.Job(commands, **job)

    def torchrun(self, script, *arguments, **job):
        argv = [*self._pinned(self.cores[:2]), str(self.torch), "-m", "torch.distributed.run",
                "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(_free_ports(1)[0]),
                str(HERE / script), *map(str, arguments)]
        return measure.Job([(argv, self._environment(tcmalloc=True))], **job)

    def horovod(self, script, *arguments, **job):
        """Two Horovod ranks over MPI, with tcmalloc."""
        return self.open_mpi(str(self.torch), str(HERE / script), *map(str, arguments), tcmalloc=True, **job)

    def open_mpi(self, *argv, tcmalloc=False, **job):
        allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        argv = [self.mpirun, "-n", "2", "--bind-to", "core", *argv]
        environment = self._environment(tcmalloc) | allowed | {"HOROVOD_CPU_OPERATIONS": "MPI"}
        return measure.Job([(argv, environment)], **job)

    def mpich(self, *argv, **job):
        return measure.Job([(["mpirun.mpich", "-n", "2", "-bind-to", "core", *argv], {})], **job)


def _library(name):
    """The path of a shared library that the linker knows, or None."""
    linker = shutil.which("ldconfig") or "/sbin/ldconfig"
    known = subprocess.run([linker, "-p"], capture_output=True, text=True, check=False).stdout
    paths = [line.split("=> ")[1] for line in known.splitlines() if line.strip().startswith(name + " ")]
    return paths[0] if paths else None


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports

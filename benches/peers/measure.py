"""Runs one measured job: some processes started at once, and what the machine did meanwhile."""
import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A job gave no result; the text says why, in one line."""


@dataclasses.dataclass
class Job:
    """Commands that are started at once, each with its additions to the environment."""

    commands: list[tuple[list[str], dict[str, str]]]
    timeout: float = 240
    memory: bool = False
    """Whether to watch the memory of all processes."""
    seen: Callable[[], bool] | None = None
    """Asked again and again until it says yes; the time of that is kept."""
    look_s: float = 0.001
    """Seconds between two questions."""
    files: list = dataclasses.field(default_factory=list)
    """Files that the job writes; removed before it starts."""


@dataclasses.dataclass
class Outcome:
    text: str
    """What the first command printed."""
    wall_s: float
    seen_s: float | None
    """Seconds from the start until `seen` said yes."""
    peak_mib: float
    """Most resident memory of any one process."""
    foreign_share: float
    """CPU time of other processes meanwhile, as a share of all cores."""

    def result(self):
        """The object after the word RESULT."""
        start = self.text.find("RESULT {")
        if start < 0:
            raise Failed("it ended without a result")
        # mpirun may glue another rank's line to the end.
        return json.JSONDecoder().raw_decode(self.text, start + len("RESULT "))[0]


def busy_seconds():
    """CPU seconds that all processes of the machine have used."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def family(roots):
    """The process ids of `roots` and all their descendants."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(name))
    found, todo = [], list(roots)
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def peak_mib(pids):
    """The most resident memory that any one of these processes had at any time (VmHWM)."""
    peak = 0.0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as status:
                lines = [line for line in status if line.startswith("VmHWM")]
        except OSError:
            continue
        peak = max([peak] + [int(line.split()[1]) / 1024 for line in lines])
    return peak


class _Running:
    """The processes of a job, from start to end."""

    def __init__(self, job, log):
        self.job, self.outputs = job, []
        self.busy, self.start = busy_seconds(), time.time()
        self.own, self.peak, self.seen, self.codes, self.ids = 0.0, 0.0, None, {}, []
        for number, (argv, additions) in enumerate(job.commands):
            output = open(f"{log}.{number}.txt", "w+", errors="replace")
            environment = {**os.environ, **additions, "LAUNCHED": repr(self.start), "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT)
            self.outputs.append(output)
            self.ids.append(process.pid)
            process.returncode = 0  # wait4 below takes the real one, with the CPU time

    def reap(self):
        for pid in self.ids:
            if pid not in self.codes:
                done, status, usage = os.wait4(pid, os.WNOHANG)
                if done:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
                    self.own += usage.ru_utime + usage.ru_stime

    def wait(self):
        """Until all have ended, one has failed, or time is over; the reason of a failure or None."""
        next_look = 0.0
        while len(self.codes) < len(self.ids):
            if self.job.seen and self.seen is None and self.job.seen():
                self.seen = time.time() - self.start
            if self.job.memory and time.time() > next_look:
                self.peak = max(self.peak, peak_mib(family(self.ids)))
                next_look = time.time() + 0.1
            self.reap()
            if any(self.codes.values()):
                break
            if time.time() - self.start > self.job.timeout:
                return f"not done after {self.job.timeout:.0f} s"
            time.sleep(self.job.look_s if self.job.seen and self.seen is None else 0.005)
        if self.job.seen and self.seen is None and self.job.seen():
            self.seen = time.time() - self.start
        failed = [code for code in self.codes.values() if code]
        return f"exit code {failed[0]}" if failed else None

    def end(self):
        """Ends whatever of the job still runs."""
        for number, wait in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            left = family(pid for pid in self.ids if pid not in self.codes)
            for pid in left:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            until = time.time() + wait
            while len(self.codes) < len(self.ids) and time.time() < until:
                self.reap()
                time.sleep(0.01)

    def read(self):
        texts = []
        for output in self.outputs:
            output.seek(0)
            texts.append(output.read())
            output.close()
        return texts


def run(job, log):
    """Runs a job to its end; what each command printed stays in LOG.0.txt, LOG.1.txt, …"""
    for file in job.files:
        file.unlink(missing_ok=True)
    try:
        running = _Running(job, log)
    except OSError as error:
        raise Failed(str(error)) from error
    try:
        reason = running.wait()
    finally:
        running.end()
    wall = time.time() - running.start
    foreign = busy_seconds() - running.busy - running.own
    texts = running.read()
    if reason:
        raise Failed(f"{reason}: {_last_words(texts)} (see {log}.*.txt)")
    share = max(0.0, foreign / wall / (os.cpu_count() or 1))
    return Outcome(texts[0], wall, running.seen, running.peak, share)


def _last_words(texts):
    """The line that most likely says what went wrong."""
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip(" -=*\t")]
    telling = [line for line in lines if "rror" in line]
    return (telling or lines or ["it printed nothing"])[-1][:160]


def cores():
    """The first logical core of each physical core that this process may use."""
    found = {}
    for core in sorted(os.sched_getaffinity(0)):
        try:
            with open(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") as siblings:
                key = siblings.read()
        except OSError:
            key = core
        found.setdefault(key, core)
    return sorted(found.values())


def core_to_core_ns(probe, pair):
    """Nanoseconds one way between two cores, or None where that cannot be measured."""
    try:
        done = subprocess.run([probe, *map(str, pair)], capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None

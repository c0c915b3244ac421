"""Measures annulus beside its peers, workload by workload, in turn, and prints one table of ratios.

scripts/bench_peers.sh prepares what this needs and calls it. Every round runs our side and the peer's
directly one after the other, in the order A B, B A, A B, …, with the distance of the two cores probed
before, between and after; other processes' CPU time is watched, and a round with much of it is marked.
All comparisons take their first round before any takes its second, so that slow changes of the machine
spread over all.

The JSON has `machine` and `comparisons`; each of these `name`, `unit`, `rounds` (`order`, `ours` and
`peer` by label, `core_to_core_ns`, `foreign_share`, `disturbed`, `failed`), `summary` by label, or
`missing` with the reason. It is written after every round.
"""
import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import platform
import re
import sys

import measure
import report
import workloads
from tools import Tools


def arguments():
    parser = argparse.ArgumentParser(prog="bench_peers.sh", description=__doc__.split("\n")[0])
    parser.add_argument("--work", default="peers-work", metavar="DIR", help="where the peers are installed")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison [default: 5]")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--only", default="", metavar="REGEX", help="names of comparisons to run, as --list shows them")
    parser.add_argument("--list", action="store_true", help="show the comparisons and stop")
    parser.add_argument("--json", default=None, metavar="FILE", help="[default: DIR/peers.json]")
    parser.add_argument("--lock", default=None, metavar="FILE", help="hold this lock (flock) while a round runs")
    parser.add_argument("--needs", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.rounds = 1 if args.quick else args.rounds
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    try:
        args.only = re.compile(args.only)
    except re.error as error:
        parser.error(f"--only: {error}")
    return args


@contextlib.contextmanager
def locked(path):
    """Holds a lock file, if one is named."""
    if path is None:
        yield
        return
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def take_round(comparison, number, tools):
    """Runs both sides once."""
    order = ["ours", "peer"] if number % 2 == 0 else ["peer", "ours"]
    if comparison.ours is None:
        order = ["peer"]
    probe = lambda: measure.core_to_core_ns(tools.probe, tools.cores[:2])
    record = {"order": order, "core_to_core_ns": [probe()], "foreign_share": 0.0}
    for side in order:
        try:
            job, read = getattr(comparison, side)(number)
            log = tools.work / "log" / f"{comparison.name.replace('/', '-')}-{side}"
            outcome = measure.run(job, log)
            record["foreign_share"] = max(record["foreign_share"], outcome.foreign_share)
            numbers = read(outcome)
        except measure.Failed as error:
            record["failed"] = f"{'annulus' if side == 'ours' else 'peer'}: {error}"
            break
        except (LookupError, TypeError, ValueError, OSError) as error:
            record["failed"] = f"{side}: its result cannot be read: {error!r} (see {log}.*.txt)"
            break
        if comparison.ours is None:
            record["ours"], record["peer"] = numbers
        else:
            record[side] = numbers
        record["core_to_core_ns"].append(probe())
    record["disturbed"] = record["foreign_share"] > report.UNDISTURBED
    return record


def hopeless(rounds):
    """Whether the first round failed: no sense in the others."""
    return bool(rounds) and "failed" in rounds[0]


def tell(entry):
    record = entry["rounds"][-1]
    said = record.get("failed") or ", ".join(
        f"{label} {figures['ratio']:.2f}".strip()
        for label, figures in report.summarize([record], entry["more_is_better"]).items())
    apart = "/".join("?" if ns is None else f"{ns:.0f}" for ns in record["core_to_core_ns"])
    disturbed = " disturbed" if record["disturbed"] else ""
    print(f"  {entry['name']}: {said or 'no result'}  [{apart} ns, others {record['foreign_share']:.0%}{disturbed}]",
          file=sys.stderr, flush=True)


def machine():
    """What ratios depend on: libraries choose their code by the vector instructions."""
    with open("/proc/cpuinfo") as info:
        lines = [line.split(":", 1) for line in info if ":" in line]
    said = {key.strip(): value.strip() for key, value in lines}
    flags = said.get("flags", "").split()
    vectors = [flag for flag in ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if flag in flags]
    cpu = said.get("model name") or platform.processor()
    family = f"family {said.get('cpu family', '?')} model {said.get('model', '?')}"
    return {"cpu": f"{cpu}, {family}", "vectors": vectors, "cores": os.cpu_count(), "system": platform.platform()}


def main():
    args = arguments()
    tools = Tools(args.work)
    chosen = [c for c in workloads.all_of(tools) if args.only.search(c.name)]
    if args.list:
        print("\n".join(c.name for c in chosen))
        return
    if args.needs:
        print(" ".join(sorted({need for c in chosen for need in c.needs})))
        return
    if not chosen:
        sys.exit("--only: no comparison has such a name; --list shows them")
    if len(tools.cores) < 2:
        sys.exit("this needs two cores: one for each of two ranks")
    entries = [{"name": c.name, "unit": c.unit, "more_is_better": c.more_is_better, "rounds": [], "summary": {},
                "missing": tools.missing(c.needs)} for c in chosen]
    file = pathlib.Path(args.json or tools.work / "peers.json")
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
        for comparison, entry in zip(chosen, entries):
            if entry["missing"] or hopeless(entry["rounds"]):
                continue
            with locked(args.lock):
                entry["rounds"].append(take_round(comparison, number, tools))
            entry["summary"] = report.summarize(entry["rounds"], comparison.more_is_better)
            tell(entry)
            text = json.dumps({"machine": machine(), "comparisons": entries}, indent=1, ensure_ascii=False)
            file.write_text(text + "\n")
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, {' '.join(here['vectors'])}\n")
    print("\n".join(report.table(entries)))
    print(f"\nall figures: {file}")


if __name__ == "__main__":
    main()

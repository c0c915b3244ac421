#!/usr/bin/env python3
"""A large text with planted faults, and what people do with such a text in Python. See prepare_text.sh.

    prepare_text.py make FILE MEGABYTES WORDS    (needs numpy; FILE.json tells what was planted)
    prepare_text.py prepare FILE FOLDER          (needs pandas and datasketch)
    prepare_text.py check FILE FOLDER            FOLDER, prepared from FILE, is without what was planted
    prepare_text.py compare ANNULUS WORDS        makes both prepare in turn, and compares
"""

import csv
import hashlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time


def make(file, megabytes, words):
    """Lines of JSON, 900 words each in the mean, as often as in a language; of 1000 documents in the mean 20 come again with
    other white space, 20 with one word changed, 5 are broken, 5 are short, 10 are in Windows-1252."""
    import numpy as np

    words = sorted(set(re.findall(r"[a-z]+", pathlib.Path(words).read_text().lower())))
    rng = np.random.default_rng(2026)
    rng.shuffle(words)
    words = np.array(words)
    share = 1 / (np.arange(len(words)) + 10)
    share = np.cumsum(share / share.sum())
    planted = {"duplicate": {}, "near-duplicate": {}, "broken line": [], "too short": [], "repaired": []}
    earlier, number, size = [], 0, 0
    with open(file, "wb") as out:
        while size < megabytes * 1e6:
            number += 1
            kind = rng.random()
            of = int(rng.integers(len(earlier))) if len(earlier) > 10 else None
            if kind < 0.04 and of is not None:
                first, old = earlier[of]
                old = list(old)
                if kind < 0.02:
                    text = "  ".join(old[:50]) + "\n" + " ".join(old[50:])
                    planted["duplicate"][number] = first
                else:
                    old[int(rng.integers(len(old)))] = "changed"
                    text = " ".join(old)
                    planted["near-duplicate"][number] = first
                line = json.dumps({"id": number, "text": text}).encode()
            elif kind < 0.045:
                planted["broken line"].append(number)
                line = b'{"id": 1, "text": "this line ends too'
            elif kind < 0.05:
                planted["too short"].append(number)
                line = json.dumps({"id": number, "text": f"no. {number}"}).encode()
            else:
                count = int(rng.integers(300, 1500))
                chosen = words[np.searchsorted(share, rng.random(count))]
                # A thousand are remembered, evenly spread, to come again.
                if kind < 0.06:
                    planted["repaired"].append(number)
                    line = f'{{"id": {number}, "text": "{" ".join(chosen)} caf\xe9"}}'.encode("cp1252")
                else:
                    line = f'{{"id": {number}, "text": "{" ".join(chosen)}"}}'.encode()
                    if len(earlier) < 1000:
                        earlier.append((number, chosen))
                    else:
                        earlier[int(rng.integers(1000))] = (number, chosen)
            out.write(line + b"\n")
            size += len(line) + 1
    planted["documents"] = number
    pathlib.Path(f"{file}.json").write_text(json.dumps(planted))
    print(f"{file}: {number} lines, {size / 1e6:.0f} MB")


def prepare(file, folder):
    """The same in Python: clean, drop equal and nearly equal documents, split, count, write."""
    import pandas as pd
    from datasketch import MinHash, MinHashLSH

    odd = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
    rows, dropped = [], []
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line = line.decode()
            except UnicodeDecodeError:
                line = line.decode("cp1252")
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError):
                dropped.append((number, "broken line"))
                continue
            text = odd.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).rstrip()
            if len(text) < 20:
                dropped.append((number, "too short"))
                continue
            hash = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=32).hexdigest()
            rows.append((number, hash, text))
    frame = pd.DataFrame(rows, columns=["number", "hash", "text"])
    del rows
    again = frame.duplicated("hash")
    dropped += [(number, "duplicate") for number in frame.number[again]]
    frame = frame[~again]
    index, signatures, near = MinHashLSH(threshold=0.8, num_perm=128), {}, []
    for number, text in zip(frame.number, frame.text):
        words = re.findall(r"\w+", text.lower())
        runs = {" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))}
        signature = MinHash(num_perm=128)
        signature.update_batch(runs)
        found = [other for other in index.query(signature) if signatures[other].jaccard(signature) >= 0.8]
        if found:
            near.append(number)
            continue
        index.insert(number, signature)
        signatures[number] = signature
    dropped += [(number, "near-duplicate") for number in near]
    frame = frame[~frame.number.isin(near)].sort_values("hash")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    n = len(frame)
    parts = {"test": frame[: n // 10], "val": frame[n // 10 : n // 5], "train": frame[n // 5 :]}
    for name, part in parts.items():
        with open(folder / f"{name}.txt", "w") as out:
            for text in part.sort_values("number").text:
                out.write(text + "\n")
    train = parts["train"].text
    counts = {"documents": len(train), "characters": int(train.str.len().sum())}
    (folder / "report.json").write_text(json.dumps({"train": counts, "dropped": [list(map(str, d)) for d in dropped]}))


def check(file, folder):
    """What was planted is what was removed or repaired, and by the right document."""
    planted = json.loads(pathlib.Path(f"{file}.json").read_text())
    expected = {}
    for kind in ["duplicate", "near-duplicate"]:
        expected |= {int(number): (kind, of) for number, of in planted[kind].items()}
    for kind in ["broken line", "too short"]:
        expected |= {number: (kind, None) for number in planted[kind]}
    # The same change at the same place of one document makes an equal one.
    found, repaired, count = {}, [], 0
    with open(pathlib.Path(folder) / "samples.csv", newline="") as rows:
        for number, row in enumerate(csv.DictReader(rows), 1):
            count += 1
            if row["removed"]:
                kind = re.split(" of |:", row["removed"])[0]
                of = re.search(r" of \S+?:(\d+)", row["removed"])
                found[number] = (kind, int(of[1]) if of else None)
            if row["repaired"]:
                repaired.append(number)
    same = {n for n in found if found[n][0] == "duplicate" and expected.get(n, ("",))[0] == "near-duplicate"}
    for number in same:
        assert expected[found[number][1]] == expected[number], number
    wrong = {n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n)} - same
    assert not wrong, [(n, found.get(n), expected.get(n)) for n in sorted(wrong)[:5]]
    assert repaired == planted["repaired"], "repaired"
    assert count == planted["documents"], count
    print(f"all of {len(expected)} planted faults and {len(repaired)} repairs found, and nothing else")


# A process counts the memory of the one that started it as its own, so a small one does that.
WATCH = """import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid, 0)
print(status, usage.ru_maxrss)"""


def run(command):
    """Seconds and peak MB of a command that must succeed."""
    start = time.monotonic()
    watched = subprocess.run([sys.executable, "-S", "-c", WATCH, *command], check=True, capture_output=True, text=True)
    seconds = time.monotonic() - start
    status, peak = watched.stdout.split()
    assert status == "0", watched.stderr
    return seconds, int(peak) / 1024


def compare(annulus, words):
    large, small, sample = (int(os.environ.get(n, d)) for n, d in [("MB", 500), ("SMALL", 125), ("PYTHON_MB", 25)])
    rounds = int(os.environ.get("ROUNDS", 3))
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        files = {mb: work / f"{mb}.jsonl" for mb in [large, small, sample]}
        for mb, file in files.items():
            make(file, mb, words)
        sizes = {mb: file.stat().st_size / 1e6 for mb, file in files.items()}
        ratios, same, peaks, speeds, fast = [], [], {large: [], small: [], "python": []}, [], []
        for i in range(rounds):
            def ours(mb, ranks=1):
                out = work / f"ours-{mb}-{i}-{ranks}"
                launch = [] if ranks == 1 else ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
                seconds, peak = run([*launch, annulus, "prepare", str(files[mb]), "--out", str(out)])
                check(files[mb], out)
                if ranks == 1 and mb in peaks:
                    peaks[mb].append(peak)
                return sizes[mb] / seconds

            full, of_sample = ours(large), ours(sample)
            script = [sys.executable, __file__, "prepare", str(files[sample]), str(work / f"python-{i}")]
            seconds, peak = run(script)
            theirs = sizes[sample] / seconds
            peaks["python"].append(peak)
            ours(small)
            two = ours(large, 2)
            ratios.append(full / theirs)
            same.append(of_sample / theirs)
            speeds.append((full, theirs))
            fast.append(two / full)
            print(f"round {i + 1}: annulus {full:.1f} MB/s ({two:.1f} with 2 ranks), Python {theirs:.2f} MB/s", flush=True)

        def told(values):
            return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"

        print(f"throughput, annulus on {large} MB over Python on {sample} MB: {told(ratios)}")
        print(f"the same, both on {sample} MB, with start and end of the process: {told(same)}")
        print(f"2 ranks over 1 rank of annulus: {told(fast)}")
        most = {name: max(values) for name, values in peaks.items()}
        print(f"peak memory: annulus {most[small]:.0f} MB on {small} MB, {most[large]:.0f} MB on {large} MB; "
              f"Python {most['python']:.0f} MB on {sample} MB")
        documents = json.loads(pathlib.Path(f"{files[large]}.json").read_text())["documents"]
        documents -= json.loads(pathlib.Path(f"{files[small]}.json").read_text())["documents"]
        each = (most[large] - most[small]) * 1e6 / documents
        print(f"that is {each:.0f} bytes for each further document, of {1e6 * (sizes[large] - sizes[small]) / documents:.0f} bytes")
        assert each < 1200, "memory grows with the texts"
        assert statistics.median(ratios) > 1, "slower than Python"


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "make":
        arguments[1] = float(arguments[1])
    {"make": make, "prepare": prepare, "check": check, "compare": compare}[name](*arguments)

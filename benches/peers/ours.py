"""What a run folder of annulus says: speed, first step, test accuracy."""
import json
import statistics


def lines(folder, kind):
    """The complete lines of one kind in metrics.jsonl, which may still grow."""
    try:
        text = (folder / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return []
    complete = text[: text.rfind("\n") + 1].splitlines()
    return [line for line in map(json.loads, complete) if line["kind"] == kind]


def rate(folder, batch):
    """Samples a second: the median epoch after the first, as the peers count. A step's line times the
    step alone, so the share of the run that passed between steps is taken off."""
    epochs = {}
    for line in lines(folder, "step"):
        epochs.setdefault(line["epoch"], []).append(batch / line["samples_per_s"])
    seconds = [sum(steps) for _, steps in sorted(epochs.items())]
    rates = [batch * len(steps) / sum(steps) for _, steps in sorted(epochs.items())]
    total = lines(folder, "summary")[0]["seconds"]
    return statistics.median(rates[1:] or rates) * min(1.0, sum(seconds) / total)


class Follower:
    """Called again and again, says whether a line of a growing metrics.jsonl has been accepted.

    It reads only what is new: it runs beside the job that it watches."""

    def __init__(self, folder, kind, accept=lambda line: True):
        self.path, self.kind, self.accept = folder / "metrics.jsonl", f'"kind":"{kind}"'.encode(), accept
        self.at = 0

    def __call__(self):
        try:
            with open(self.path, "rb") as file:
                file.seek(self.at)
                new = file.read()
        except FileNotFoundError:
            return False
        complete = new[: new.rfind(b"\n") + 1]
        self.at += len(complete)
        found = (json.loads(line) for line in complete.splitlines() if self.kind in line)
        return any(self.accept(line) for line in found)

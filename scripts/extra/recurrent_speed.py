"""Training steps of a recurrent language model in turn: ours (benches/recurrent.rs) and PyTorch's.

    python recurrent_speed.py BENCH_PROGRAM lstm|gru [ROUNDS]

BENCH_PROGRAM is what `cargo bench --bench recurrent --no-run` names. Both use one thread; each round is one step
of each, so that a machine that slows down harms both alike. Prints the medians of both and of the rounds' ratios,
of wall time and of processor time, which counts where other processes take turns on the cores. Needs torch.
"""
import pathlib
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

BATCH, WINDOW, VOCABULARY, WIDTH = 16, 128, 65, 256


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.te = nn.Embedding(VOCABULARY, WIDTH)
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](WIDTH, WIDTH, 2)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens):  # (time, batch): the faster of PyTorch's two orders
        return self.head(self.rnn(self.te(tokens))[0])


def main():
    program, kind = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    torch.set_num_threads(1)
    model = Model(kind)
    rule = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens, labels = torch.randint(0, VOCABULARY, (2, WINDOW, BATCH))
    ours = subprocess.Popen([program, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def their_step():
        times = [time.perf_counter()]
        loss = F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
        times.append(time.perf_counter())
        rule.zero_grad()
        loss.backward()
        times.append(time.perf_counter())
        rule.step()
        times.append(time.perf_counter())
        return [1e3 * (b - a) for a, b in zip(times, times[1:])]

    def our_step():
        print("step", file=ours.stdin, flush=True)
        return [float(part) for part in ours.stdout.readline().split()]

    def on_processor(step, pid):
        """Wall times of a step's parts, and the milliseconds that the process was on a processor."""
        since = [float(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0])]
        parts = step()
        since.append(float(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]))
        return parts, (since[1] - since[0]) / 1e6

    pairs = []
    for turn in range(rounds + 5):
        sides = [lambda: on_processor(our_step, ours.pid), lambda: on_processor(their_step, "self")]
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        taken = {side: sides[side]() for side in order}
        pairs.append((taken[0], taken[1]))
    pairs = pairs[5:]
    for name, side in (("annulus", 0), ("PyTorch", 1)):
        parts = [statistics.median(pair[side][0][i] for pair in pairs) for i in range(3)]
        cpu = statistics.median(pair[side][1] for pair in pairs)
        print(name, "forward %.1f, backward %.1f, AdamW %.1f ms" % tuple(parts), f"(on the processor {cpu:.1f})")
    for what, cost in (("wall time", lambda side: sum(side[0])), ("processor time", lambda side: side[1])):
        ratios = sorted(cost(theirs) / cost(mine) for mine, theirs in pairs)
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        print(f"PyTorch's {what} over ours: median {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")
    ours.stdin.close()
    ours.wait()


if __name__ == "__main__":
    main()

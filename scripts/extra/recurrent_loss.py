"""Trains the recurrent language model of a card in PyTorch and prints the loss a token on the held-out text.

    python recurrent_loss.py CARD [SEED] [MAX_STEPS]

The recipe is the card's: windows, held-out share, batch, AdamW, warm-up and cosine, clipping, dropout. Initial
values and the order of the windows come from PyTorch's generator, so compare the figure with those of
`annulus train` over several seeds (`--set seed=…`). One thread. Needs torch.
"""
import json
import math
import pathlib
import sys

import torch
from torch import nn
from torch.nn import functional as F

IGNORED = -100


class Model(nn.Module):
    def __init__(self, card, classes):
        super().__init__()
        width, layers, self.share = card["width"], card["layers"], card.get("dropout", 0.0)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[card["kind"]]
        self.te = nn.Embedding(classes, width)
        self.rnn = kind(width, width, layers, dropout=self.share if layers > 1 else 0.0, batch_first=True)
        self.head = nn.Linear(width, classes)
        for p in (self.te.weight, self.head.weight):
            nn.init.uniform_(p, -0.1, 0.1)
        nn.init.zeros_(self.head.bias)
        if card.get("tied"):
            self.head.weight = self.te.weight

    def forward(self, tokens):
        return self.head(F.dropout(self.rnn(self.te(tokens))[0], self.share, self.training)).flatten(0, 1)


def read(card, folder):
    """The tokens of the card's one file."""
    (name,) = card["data"]["train"]["files"]
    data = (folder / name).read_bytes()
    if card["data"]["text"].get("vocabulary", "bytes") == "bytes":
        return torch.tensor(list(data))
    text = data.decode()
    number = {c: i for i, c in enumerate(sorted(set(text)))}
    return torch.tensor([number[c] for c in text])


def windows(tokens, context):
    """Inputs and labels (windows, context); what the last window has too much has no label."""
    count = -(-(len(tokens) - 1) // context)
    x = torch.zeros(count * context, dtype=torch.long)
    y = torch.full_like(x, IGNORED)
    x[: len(tokens) - 1], y[: len(tokens) - 1] = tokens[:-1], tokens[1:]
    return x.view(count, context), y.view(count, context)


def rate(step, total, card):
    """As src/train/schedule.rs: linear warm-up, then a cosine whose end is the last step."""
    warmup = card["schedule"].get("warmup_steps", 0)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup - 1))))


def evaluate(model, x, y, batch):
    model.eval()
    with torch.no_grad():
        parts = [F.cross_entropy(model(a), b.flatten(), reduction="sum") for a, b in zip(x.split(batch), y.split(batch))]
    model.train()
    return (sum(parts) / (y != IGNORED).sum()).item()


def main():
    path = pathlib.Path(sys.argv[1])
    card = json.loads(path.read_text())
    torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else card["seed"])
    torch.set_num_threads(1)
    assert card["schedule"]["kind"] == "cosine" and card["optimizer"]["kind"] == "adamw"
    tokens, text, train = read(card, path.parent), card["data"]["text"], card["train"]
    held = int(text["holdout"] * len(tokens))
    x, y = windows(tokens[: len(tokens) - held], text["context"])
    test = [part[: card["data"].get("test_limit")] for part in windows(tokens[len(tokens) - held :], text["context"])]
    steps = math.ceil(len(x) / train["global_batch"])
    total = min(train.get("epochs", 10**9) * steps, train.get("max_steps", 10**12))
    total = int(sys.argv[3]) if len(sys.argv) > 3 else total
    model = Model(card["model"], card["data"]["classes"])
    o = card["optimizer"]
    rule = torch.optim.AdamW(
        model.parameters(), lr=o["lr"], weight_decay=o.get("weight_decay", 0), betas=o.get("betas", (0.9, 0.999))
    )
    for step in range(total):
        if step % steps == 0:
            order = torch.randperm(len(x))
        rows = order[step % steps * train["global_batch"] :][: train["global_batch"]]
        rule.param_groups[0]["lr"] = o["lr"] * rate(step, total, card)
        loss = F.cross_entropy(model(x[rows]), y[rows].flatten())
        rule.zero_grad()
        loss.backward()
        if "clip_norm" in train:
            nn.utils.clip_grad_norm_(model.parameters(), train["clip_norm"])
        rule.step()
    print(f"PyTorch: loss {evaluate(model, *test, train.get('eval_batch', 32)):.4f} a token after {total} steps")


if __name__ == "__main__":
    main()

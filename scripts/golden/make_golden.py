#!/usr/bin/env python3
"""Writes the golden numbers that tests/golden.rs compares annulus with: what PyTorch computes.

    python scripts/golden/make_golden.py [FOLDER]        (needs torch and safetensors)

One file per case, about 0.8 MB in all. Everything is made from fixed seeds; another version of
PyTorch may differ in the last bits, the tests allow for 1e-5 (layers) and 1e-6 (optimizers).
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

STEPS = 10
OPTIMIZERS = {
    "sgd": dict(kind="sgd", lr=0.1),
    "sgd_decay": dict(kind="sgd", lr=0.1, weight_decay=0.05),
    "sgd_momentum": dict(kind="sgd", lr=0.05, momentum=0.9, weight_decay=0.01),
    "sgd_nesterov": dict(kind="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": dict(kind="adam", lr=0.01),
    "adam_decay": dict(kind="adam", lr=0.01, weight_decay=0.1, betas=[0.8, 0.95], eps=1e-6),
    "adamw": dict(kind="adamw", lr=0.01, weight_decay=0.1),
    "adamw_betas": dict(kind="adamw", lr=0.02, weight_decay=0.01, betas=[0.85, 0.98], eps=1e-5),
    "rmsprop": dict(kind="rmsprop", lr=0.01),
    "rmsprop_momentum": dict(kind="rmsprop", lr=0.01, momentum=0.9, alpha=0.95, eps=1e-6, weight_decay=0.05),
    "lion": dict(kind="lion", lr=0.01, weight_decay=0.1),
    "lamb": dict(kind="lamb", lr=0.02, weight_decay=0.01),
    "lars": dict(kind="lars", lr=2.0, momentum=0.9, weight_decay=0.01, trust=0.01),
}


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al. (2023), of PyTorch's operations."""

    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.0, foreach=False):
        super().__init__(params, dict(lr=lr))
        self.betas, self.decay = betas, weight_decay

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                update = (self.betas[0] * m + (1 - self.betas[0]) * p.grad).sign()
                p.mul_(1 - group["lr"] * self.decay).sub_(group["lr"] * update)
                m.mul_(self.betas[1]).add_((1 - self.betas[1]) * p.grad)


class Lamb(torch.optim.Optimizer):
    """Algorithm 2 of You et al. (2020) with bias correction."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, foreach=False):
        super().__init__(params, dict(lr=lr))
        self.betas, self.eps, self.decay, self.t = betas, eps, weight_decay, 0

    @torch.no_grad()
    def step(self):
        self.t += 1
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                m.mul_(self.betas[0]).add_((1 - self.betas[0]) * p.grad)
                v.mul_(self.betas[1]).add_((1 - self.betas[1]) * p.grad**2)
                corrected = [x / (1 - b**self.t) for x, b in zip([m, v], self.betas)]
                r = corrected[0] / (corrected[1].sqrt() + self.eps) + self.decay * p
                trust = p.norm() / r.norm() if p.norm() > 0 and r.norm() > 0 else 1.0
                p.sub_(group["lr"] * trust * r)


class Lars(torch.optim.Optimizer):
    """You, Gitman and Ginsburg (2017), the rate of each tensor inside the momentum."""

    def __init__(self, params, lr, momentum=0.0, trust=1e-3, eps=1e-8, weight_decay=0.0, foreach=False):
        super().__init__(params, dict(lr=lr))
        self.momentum, self.trust, self.eps, self.decay = momentum, trust, eps, weight_decay

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                b = self.state[p].setdefault("b", torch.zeros_like(p))
                values, gradient = p.norm(), p.grad.norm()
                own = self.trust * values / (gradient + self.decay * values + self.eps)
                b.mul_(self.momentum).add_(own * (p.grad + self.decay * p))
                p.sub_(group["lr"] * b)


CLASSES = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "lion": Lion,
    "lamb": Lamb,
    "lars": Lars,
}


def save(path, tensors, about):
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"card": json.dumps(about), "torch": torch.__version__})
    print(f"{path}: {path.stat().st_size} bytes")


def optimizer(parameters, card):
    arguments = {key: value for key, value in card.items() if key != "kind"}
    return CLASSES[card["kind"]](parameters, foreach=False, **arguments)


def trajectory(path, card):
    """Two parameters under given gradients of very different sizes; the rate falls each step."""
    torch.manual_seed(1)
    parameters = [nn.Parameter(torch.randn(17)), nn.Parameter(torch.randn(3, 2))]
    tensors = {f"p{i}.start": p.detach().clone() for i, p in enumerate(parameters)}
    rule = optimizer(parameters, card)
    for step in range(STEPS):
        rule.param_groups[0]["lr"] = card["lr"] * (1 - 0.05 * step)
        for i, p in enumerate(parameters):
            p.grad = torch.randn(p.shape) * 10.0 ** (torch.rand(p.shape) * 4 - 3)
            tensors[f"p{i}.grad.{step}"] = p.grad.clone()
        rule.step()
        for i, p in enumerate(parameters):
            tensors[f"p{i}.value.{step}"] = p.detach().clone()
    save(path, tensors, card)


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(256, 120)
        self.fc2 = nn.Linear(120, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(144, 24)
        self.fc2 = nn.Linear(24, 16)
        self.fc3 = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


class Residual(nn.Module):
    """A block of He et al. (2016) with group normalisation; no parameters in the shortcut (option A)."""

    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.more, self.stride = width - before, stride

    def forward(self, x):
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.GroupNorm(8, 16)
        before = 16
        for stage, width in enumerate([16, 32, 64], 1):
            blocks = [Residual(before if i == 0 else width, width, 1 + (i == 0 < stage - 1)) for i in range(n)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            before = width
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def by_formula(model):
    """Sets all parameters to values that tests/golden.rs can make itself; nothing is at a special value."""
    with torch.no_grad():
        for p in model.parameters():
            places = torch.arange(p.numel(), dtype=torch.int64) * 2654435761 % 2**32
            values = places.double() / 2**31 - 1
            fan_in = p[0].numel()
            values = values * (6 / fan_in) ** 0.5 if p.dim() > 1 else 1 + values / 2
            p.copy_(values.view(p.shape))


def thinned(name, tensor):
    """Of a large gradient or parameter of a model that starts by formula, every n-th value."""
    every = -(-tensor.numel() // 2000) | 1
    large = name.startswith(("grad.", "end.")) and every > 1
    return tensor.flatten()[::every] if large else tensor


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.o = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.u, self.v = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        batch, time, width = x.shape
        qkv = self.qkv(self.ln1(x)).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, time, width))
        return x + self.v(F.gelu(self.u(self.ln2(x))))


class Gpt(nn.Module):
    def __init__(self, vocab, context, width, layers, heads):
        super().__init__()
        self.te, self.pe = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.bl = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln = nn.LayerNorm(width)
        for p in self.parameters():  # far from the initial values, so that every term counts
            nn.init.normal_(p, 0, 0.4)

    def forward(self, tokens):
        x = self.te(tokens) + self.pe(torch.arange(tokens.shape[1]))
        for block in self.bl:
            x = block(x)
        return F.linear(self.ln(x), self.te.weight)


def language_model(path):
    """Logits, loss and gradients of a tiny GPT."""
    torch.manual_seed(3)
    model = Gpt(vocab=11, context=8, width=16, layers=2, heads=2)
    tokens, targets = torch.randint(0, 11, (2, 3, 8))
    tensors = {"tokens": tokens.to(torch.uint8), "targets": targets.to(torch.uint8)}
    tensors |= {f"start.{name}": p.detach().clone() for name, p in model.named_parameters()}
    logits = model(tokens).view(-1, 11)
    loss = F.cross_entropy(logits, targets.view(-1))
    loss.backward()
    tensors |= {"logits": logits, "loss": loss.view(1)}
    tensors |= {f"grad.{name}": p.grad for name, p in model.named_parameters()}
    save(path, tensors, {})


class TokenModel(nn.Module):
    """A language model of recurrent layers; batches are (batch, time)."""

    def __init__(self, rnn, vocab, tied):
        super().__init__()
        self.te, self.rnn = nn.Embedding(vocab, rnn.hidden_size), rnn
        self.head = nn.Linear(rnn.hidden_size, vocab)
        if tied:
            self.head.weight = self.te.weight

    def forward(self, tokens):
        return self.head(self.rnn(self.te(tokens))[0]).flatten(0, 1)


class RowClassifier(nn.Module):
    """Reads an image row by row and decides on the last state of each direction."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(rnn.hidden_size * (1 + rnn.bidirectional), 10)

    def forward(self, x):
        h = self.rnn(x.squeeze(1))[1]
        h = h[0] if isinstance(h, tuple) else h
        return self.head(torch.cat(list(h[-1 - self.rnn.bidirectional :]), 1))


def recurrent_text(path, model, vocab, card):
    """Ten steps of a language model; logits and gradients of the first."""
    with torch.no_grad():  # larger than at the start, so that every term counts
        for p in model.parameters():
            p.mul_(2.0)
    batch, time = 3, 8
    tokens, targets = torch.randint(0, vocab, (2, STEPS * batch, time))
    tensors = {"tokens": tokens.to(torch.uint8), "labels": targets.to(torch.uint8)}
    tensors |= {f"start.{name}": p.detach().clone() for name, p in model.named_parameters()}
    rule, losses = optimizer(list(model.parameters()), card), []
    for step in range(STEPS):
        rows = slice(step * batch, (step + 1) * batch)
        logits = model(tokens[rows])
        loss = F.cross_entropy(logits, targets[rows].flatten())
        rule.zero_grad()
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            tensors["logits"] = logits.detach()
            tensors |= {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}
        rule.step()
    tensors["losses"] = torch.stack(losses)
    tensors |= {f"end.{name}": p.detach().clone() for name, p in model.named_parameters()}
    save(path, tensors, card)


def recurrent(folder):
    card = dict(kind="sgd", lr=0.2, momentum=0.9)
    torch.manual_seed(5)
    rnn = nn.LSTM(8, 8, 2, batch_first=True)
    recurrent_text(folder / "lstm_text.safetensors", TokenModel(rnn, 11, False), 11, card)
    rnn = nn.GRU(8, 8, 2, batch_first=True)
    recurrent_text(folder / "gru_text.safetensors", TokenModel(rnn, 11, True), 11, card)
    rnn = nn.LSTM(12, 6, 2, batch_first=True, bidirectional=True)
    training(folder / "lstm_rows.safetensors", RowClassifier(rnn), 12, 8, card)
    rnn = nn.GRU(12, 6, 2, batch_first=True, bidirectional=True)
    training(folder / "gru_rows.safetensors", RowClassifier(rnn), 12, 8, card)


def batch_norm(path):
    """Two training passes and one in evaluation mode; the gradients of the second training pass."""
    torch.manual_seed(4)
    layer = nn.BatchNorm2d(3)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    tensors = {"start.bn.weight": layer.weight.clone(), "start.bn.bias": layer.bias.clone()}
    for i in range(2):
        x = (2 * torch.randn(4, 3, 5, 6) + 3).requires_grad_()
        mix = torch.randn(x.shape)
        layer.zero_grad()
        y = layer(x)
        (y * mix).sum().backward()
        tensors |= {f"x.{i}": x, f"mix.{i}": mix, f"y.{i}": y, f"dx.{i}": x.grad}
    tensors |= {"grad.bn.weight": layer.weight.grad, "grad.bn.bias": layer.bias.grad}
    tensors |= {"mean": layer.running_mean.clone(), "var": layer.running_var.clone()}
    layer.eval()
    tensors["y.eval"] = layer(tensors["x.1"])
    save(path, tensors, {})


def images(side, count):
    """A bright noisy square on a dark border, its place given by the label."""
    labels = torch.randint(0, 10, (count,))
    x = torch.zeros(count, 1, side, side)
    half = side // 2
    x[:, :, 2:-2, 2:-2] = torch.randint(1, 100, (count, 1, side - 4, side - 4)).float()
    for image, label in zip(x, labels.tolist()):
        row, column = 2 + (label // 4) * (half - 4) // 2, 2 + (label % 4) * (half - 4) // 3
        image[:, row : row + half, column : column + half] += 120
    return x.to(torch.uint8), labels.to(torch.uint8)


def training(path, model, side, batch, card, formula=False):
    x, labels = images(side, STEPS * batch)
    tensors = {"images": x, "labels": labels}
    if formula:
        by_formula(model)
    else:
        tensors |= {f"start.{name}": p.detach().clone() for name, p in model.named_parameters()}
    rule = optimizer(list(model.parameters()), card)
    losses = []
    for step in range(STEPS):
        rows = slice(step * batch, (step + 1) * batch)
        logits = model(x[rows].float() / 255)
        loss = F.cross_entropy(logits, labels[rows].long())
        rule.zero_grad()
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            tensors |= {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}
        rule.step()
    tensors["losses"] = torch.stack(losses)
    tensors |= {f"end.{name}": p.detach().clone() for name, p in model.named_parameters()}
    if formula:
        tensors = {name: thinned(name, tensor) for name, tensor in tensors.items()}
    save(path, tensors, card)


def main():
    default = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, card in OPTIMIZERS.items():
        trajectory(folder / f"optimizer_{name}.safetensors", card)
    torch.manual_seed(2)
    card = dict(kind="sgd", lr=0.05, momentum=0.9)
    training(folder / "lenet5.safetensors", LeNet5(), 28, 8, card)
    training(folder / "mlp.safetensors", Mlp(), 12, 8, card)
    card = dict(kind="sgd", lr=0.01, momentum=0.9)
    training(folder / "resnet8.safetensors", ResNet(1), 14, 8, card, formula=True)
    language_model(folder / "gpt.safetensors")
    batch_norm(folder / "batch_norm.safetensors")
    recurrent(folder)


if __name__ == "__main__":
    main()

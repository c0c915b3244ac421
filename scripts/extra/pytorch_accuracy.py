"""Loads a model that annulus trained into PyTorch and counts its right answers on the MNIST test set.

    python pytorch_accuracy.py RUN/model.safetensors DATA_FOLDER

Prints `9917/10000`, to be compared with what `annulus eval` prints. Needs torch and safetensors.
"""
import gzip
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(256, 120), nn.Linear(120, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def idx(path, offset):
    return np.frombuffer(gzip.open(path).read(), np.uint8, offset=offset)


model_path, data = sys.argv[1], pathlib.Path(sys.argv[2])
model = LeNet5()
model.load_state_dict(load_file(model_path))
images = idx(data / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
labels = torch.from_numpy(idx(data / "t10k-labels-idx1-ubyte.gz", 8).astype(np.int64))
x = (torch.from_numpy(images.astype(np.float32)) / 255 - 0.1307) / 0.3081
with torch.no_grad():
    right = (model(x).argmax(1) == labels).sum().item()
print(f"{right}/{len(labels)}")

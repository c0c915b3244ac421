"""MNIST from the IDX files of this repository, for the peers' scripts. Needs numpy."""
import gzip
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "data" / "mnist"


def _idx(name, header):
    return np.frombuffer(gzip.open(FOLDER / name).read(), np.uint8, offset=header)


def load(part):
    """Images (n, 28, 28) and labels (n) of "train" or "t10k", as bytes."""
    images = _idx(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return images, _idx(f"{part}-labels-idx1-ubyte.gz", 8)

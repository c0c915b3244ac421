#!/usr/bin/env python3
"""Writes tests/golden/metrics.json: outputs of no model at all and what scikit-learn says of them.

    pip install numpy==2.* scikit-learn==1.*; python scripts/golden/make_metrics.py

Outputs are multiples of 1/64 (exact in JSON and in 32 bits). Class 4 of `classes` occurs neither as label nor
as prediction. `ties` has scores in steps of 1/4, so that many are equal."""

import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn import metrics as sk

random = np.random.default_rng(20)


def rounded(values, step):
    return np.round(np.asarray(values) / step) * step


def classes():
    labels = random.integers(0, 4, 150)
    outputs = rounded(random.normal(0, 1, (150, 6)), 1 / 64)
    outputs[:, 4] = -9
    outputs[np.arange(150), labels] += 1
    # scikit-learn puts the last of equal outputs first, we the first: no row may have two.
    keep = [len(set(row)) == 6 for row in outputs]
    labels, outputs = labels[keep], outputs[keep]
    predicted = outputs.argmax(1)
    zero = {"zero_division": 0}
    each = sk.precision_recall_fscore_support(labels, predicted, labels=range(6), **zero)
    mean = sk.precision_recall_fscore_support(labels, predicted, average="macro", **zero)
    return {
        "labels": labels.tolist(),
        "outputs": outputs.tolist(),
        "confusion": sk.confusion_matrix(labels, predicted, labels=range(6)).tolist(),
        "precision": each[0].tolist(),
        "recall": each[1].tolist(),
        "f1": each[2].tolist(),
        "macro": [float(v) for v in mean[:3]],
        "top_2": sk.top_k_accuracy_score(labels, outputs, k=2, labels=range(6)),
        "top_3": sk.top_k_accuracy_score(labels, outputs, k=3, labels=range(6)),
    }


def auc():
    """One against the rest, of three classes, and of two."""
    labels = random.integers(0, 3, 120)
    outputs = rounded(random.normal(0, 1, (120, 3)), 1 / 4)
    outputs[np.arange(120), labels] += 0.75
    # The logarithm of the odds, in 32 bits: in the order of the softmax, but for its rounding.
    others = [np.logaddexp(outputs[:, (k + 1) % 3], outputs[:, (k + 2) % 3]) for k in range(3)]
    odds = (outputs - np.stack(others, 1)).astype(np.float32)
    each = [sk.roc_auc_score(labels == c, odds[:, c]) for c in range(3)]
    two = labels > 0
    return {
        "labels": labels.tolist(),
        "outputs": outputs.tolist(),
        "macro": float(np.mean(each)),
        "two": sk.roc_auc_score(two, outputs[:, 1] - outputs[:, 0]),
    }


def numbers():
    wanted = rounded(random.normal(2, 3, 90), 1 / 64)
    said = rounded(wanted + random.normal(0, 1, 90), 1 / 64)
    return {
        "wanted": wanted.tolist(),
        "said": said.tolist(),
        "mae": sk.mean_absolute_error(wanted, said),
        "mse": sk.mean_squared_error(wanted, said),
        "rmse": sk.root_mean_squared_error(wanted, said),
        "r2": sk.r2_score(wanted, said),
    }


found = {"scikit_learn": sklearn.__version__, "classes": classes(), "auc": auc(), "numbers": numbers()}
path = Path(__file__).parents[2] / "tests/golden/metrics.json"
path.write_text(json.dumps(found) + "\n")

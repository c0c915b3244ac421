#!/usr/bin/env python3
"""Writes line-train.csv and line-test.csv: generated numbers, not measured ones.

    python data/generated/make.py        (needs Python alone)

y = 3 − 2a + 0.5b + noise, with a and b uniform in −2..2 and normal noise of standard deviation 0.2."""

import pathlib
import random

random.seed(7)
folder = pathlib.Path(__file__).parent
for name, rows in (("line-train", 800), ("line-test", 200)):
    lines = ["a,b,y"]
    for _ in range(rows):
        a, b = (round(random.uniform(-2, 2), 4) for _ in range(2))
        lines.append(f"{a},{b},{round(3 - 2 * a + 0.5 * b + random.gauss(0, 0.2), 4)}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")

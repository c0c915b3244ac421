"""A table with planted faults, and what `annulus prepare` does with it done by pandas and by polars.

make FILE ROWS             writes the table
pandas|polars TABLE OUT    prepares it; prints the counts
check TABLE OUT            compares our statistics with those of pandas
race FOLDER ANNULUS ROUNDS runs ours and both in turn; prints ratios, peak memory, and whether all agree
"""

import json
import os
import statistics
import subprocess
import sys
import time

NUMBERS = ["age", "income", "score", "height", "weight", "a", "b", "c"]
CATEGORIES = ["city", "colour"]
SPLIT = [0.8, 0.1, 0.1]
CLIP = [0.01, 0.99]
SHARD = 8192


def make(path, rows):
    """Numbers with 2 % missing and 0.1 % far out, categories with 1 % missing, 1 % exact copies of other rows
    (but for their id), 0.1 % without a label."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(7)
    rows = int(rows)
    copies = rows // 100
    n = rows - copies
    data = {
        "age": rng.integers(0, 100_000, n) / 1000,
        "income": np.round(rng.lognormal(10, 1, n), 2),
        "score": np.round(rng.normal(0, 1, n), 6),
        "height": np.round(rng.normal(175, 10, n), 3),
        "weight": np.round(rng.normal(75, 12, n), 3),
        "a": np.round(rng.uniform(-1, 1, n), 6),
        "b": np.round(rng.exponential(3, n), 6),
        "c": rng.integers(0, 1_000_000_000, n).astype(float),
    }
    for values in data.values():
        values[rng.random(n) < 0.001] *= 1000
        values[rng.random(n) < 0.02] = np.nan
    cities = np.array([f"city {i:02}" for i in range(30)])
    colours = np.array(["red", "green", "blue", "grey", 'so-called "plum", dark'])
    data["city"] = cities[rng.integers(0, 30, n)].astype(object)
    data["colour"] = colours[rng.integers(0, 5, n)].astype(object)
    for name in CATEGORIES:
        data[name][rng.random(n) < 0.01] = None
    label = np.array(["common", "less", "rare"])[np.minimum(rng.geometric(0.75, n) - 1, 2)].astype(object)
    label[rng.random(n) < 0.001] = None
    frame = pd.DataFrame(data | {"label": label})
    frame = pd.concat([frame, frame.iloc[rng.integers(0, n, copies)]])
    frame = frame.iloc[rng.permutation(rows)].reset_index(drop=True)
    frame.insert(0, "id", range(rows))
    frame.to_csv(path, index=False)
    print(f"{rows} rows, {os.path.getsize(path) >> 20} MiB")


def shares(n):
    """Samples of training, validation and test among n."""
    test = int(SPLIT[2] * n + 0.5)
    val = min(int(SPLIT[1] * n + 0.5), n - test)
    return [n - val - test, val, test]


def finish(out, counts, statistics_, weights):
    with open(f"{out}/manifest.json", "w") as file:
        json.dump({"counts": counts, "statistics": statistics_, "class_weights": weights}, file)
    print(json.dumps(counts))


def with_pandas(table, out):
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(1)
    frame = pd.read_csv(table)
    features = NUMBERS + CATEGORIES
    unlabelled = frame["label"].isna()
    copy = frame.duplicated(features) & ~unlabelled
    fate = pd.Series(np.where(unlabelled, "missing value", np.where(copy, "duplicate", "")), index=frame.index)
    kept = frame[fate == ""]
    part = pd.Series("", index=frame.index)
    for _, of_class in kept.groupby("label", sort=True):
        order = rng.permutation(of_class.index.to_numpy())
        train, val, _ = shares(len(order))
        part[order[:train]] = "train"
        part[order[train : train + val]] = "val"
        part[order[train + val :]] = "test"
    train = kept[part[kept.index] == "train"]
    at = [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
    quantiles = train[NUMBERS].quantile(at)
    low, high = quantiles.loc[CLIP[0]], quantiles.loc[CLIP[1]]
    clipped = train[NUMBERS].clip(low, high, axis=1)
    mean, std, fill = clipped.mean(), clipped.std(ddof=0), clipped.median()
    values = {name: [""] + sorted(train[name].dropna().unique()) for name in CATEGORIES}
    labels = sorted(kept["label"].unique())
    weights = {name: len(train) / (len(labels) * n) for name, n in train["label"].value_counts().items()}
    counts = {"found": len(frame), "missing value": int(unlabelled.sum()), "duplicate": int(copy.sum())}
    for name in ["train", "val", "test"]:
        rows = kept[part[kept.index] == name]
        rows = rows.iloc[rng.permutation(len(rows))]
        numbers = ((rows[NUMBERS].clip(low, high, axis=1).fillna(fill) - mean) / std).to_numpy(np.float32)
        hot = [
            pd.get_dummies(pd.Categorical(rows[c].fillna(""), categories=values[c]), dtype=np.float32).to_numpy()
            for c in CATEGORIES
        ]
        images = np.concatenate([numbers, *hot], axis=1)
        targets = pd.Categorical(rows["label"], categories=labels).codes.astype(np.int64)
        for i, start in enumerate(range(0, len(rows), SHARD)):
            np.savez(f"{out}/{name}-{i:05}.npz", images=images[start : start + SHARD], labels=targets[start : start + SHARD])
        counts[name] = {c: int((targets == i).sum()) for i, c in enumerate(labels)}
    pd.DataFrame({"id": frame["id"], "class": frame["label"], "part": part, "removed": fate}).to_csv(
        f"{out}/samples.csv", index=False
    )
    finish(out, counts, quantiles.to_dict(), weights)


def with_polars(table, out):
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(1)
    frame = pl.read_csv(table, infer_schema_length=None).with_row_index("row")
    features = NUMBERS + CATEGORIES
    labelled = frame.filter(pl.col("label").is_not_null())
    kept = labelled.unique(subset=features, keep="first", maintain_order=True)
    kept = kept.with_columns(pl.Series("draw", rng.random(len(kept)))).sort("label", "draw")
    part = []
    for n in kept.group_by("label", maintain_order=True).len()["len"]:
        train, val, test = shares(n)
        part += ["train"] * train + ["val"] * val + ["test"] * test
    kept = kept.with_columns(pl.Series("part", part))
    train = kept.filter(pl.col("part") == "train")
    at = [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
    quantiles = {
        name: list(
            train.select(pl.col(name).quantile(q, "linear").alias(str(q)) for q in at).row(0)
        )
        for name in NUMBERS
    }
    clip = {name: (quantiles[name][1], quantiles[name][7]) for name in NUMBERS}
    clipped = train.select(pl.col(name).clip(*clip[name]) for name in NUMBERS)
    mean, std = clipped.mean().row(0), clipped.std(ddof=0).row(0)
    fill = clipped.median().row(0)
    values = {name: [""] + sorted(train[name].drop_nulls().unique()) for name in CATEGORIES}
    labels = sorted(kept["label"].unique())
    weights = {name: len(train) / (len(labels) * n) for name, n in train["label"].value_counts().iter_rows()}
    missing = len(frame) - len(labelled)
    counts = {"found": len(frame), "missing value": missing, "duplicate": len(labelled) - len(kept)}
    numbers = [
        ((pl.col(name).clip(*clip[name]).fill_null(fill[i]) - mean[i]) / std[i]).cast(pl.Float32)
        for i, name in enumerate(NUMBERS)
    ]
    hot = [
        (pl.col(name).fill_null("") == value).cast(pl.Float32).alias(f"{name}={value}")
        for name in CATEGORIES
        for value in values[name]
    ]
    for name in ["train", "val", "test"]:
        rows = kept.filter(pl.col("part") == name)
        rows = rows.sample(fraction=1.0, shuffle=True, seed=1)
        images = rows.select(numbers + hot).to_numpy()
        targets = np.searchsorted(labels, rows["label"].to_numpy()).astype(np.int64)
        for i, start in enumerate(range(0, len(rows), SHARD)):
            np.savez(f"{out}/{name}-{i:05}.npz", images=images[start : start + SHARD], labels=targets[start : start + SHARD])
        counts[name] = {c: int((targets == i).sum()) for i, c in enumerate(labels)}
    fates = frame.select("row", "id", "label").join(kept.select("row", "part"), on="row", how="left")
    fates = fates.with_columns(
        pl.when(pl.col("label").is_null())
        .then(pl.lit("missing value"))
        .when(pl.col("part").is_null())
        .then(pl.lit("duplicate"))
        .otherwise(pl.lit(""))
        .alias("removed")
    )
    fates.write_csv(f"{out}/samples.csv")
    finish(out, counts, quantiles, weights)


def run(command, env=None):
    """Runs a command; gives its output, its seconds, those of the processor, and the most MiB of one process."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} failed: {status}")
    return text, time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def counts_of(manifest):
    """Ours in the words of the other two."""
    items = manifest["items"]
    counts = {"found": items["found"]} | items["reasons"]
    for part in ["train", "val", "test"]:
        counts[part] = {c["name"]: c[part] for c in manifest["classes"]}
    return counts


def check(table, out):
    """Our statistics are those that pandas computes of the rows that we put into the training part."""
    import numpy as np
    import pandas as pd

    frame, samples = pd.read_csv(table), pd.read_csv(f"{out}/samples.csv", low_memory=False)
    assert len(frame) == len(samples)
    manifest = json.load(open(f"{out}/manifest.json"))
    of_part = {part: frame[(samples["part"] == part).to_numpy()] for part in ["train", "val", "test"]}
    train = of_part["train"]
    columns = {c["name"]: c for c in manifest["statistics"]["columns"]}
    close = lambda a, b, what: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=what)
    for name in NUMBERS:
        ours, values = columns[name], train[name]
        close(ours["quantiles"], values.quantile(manifest["statistics"]["quantiles_at"]), name)
        low, high = values.quantile(CLIP)
        clipped = values.clip(low, high)
        close([ours["mean"], ours["std"]], [clipped.mean(), clipped.std(ddof=0)], name)
        close(ours["fill"], clipped.median(), name)
        beyond = [int(((f[name] < low) | (f[name] > high)).sum()) for f in of_part.values()]
        assert ours["clipped"] == beyond, (name, ours["clipped"], beyond)
        assert ours["missing"] == [int(f[name].isna().sum()) for f in of_part.values()], name
    for name in CATEGORIES:
        ours = dict(zip(columns[name]["values"], columns[name]["counts"]))
        assert ours == train[name].fillna("").value_counts().to_dict(), name
    weights = [len(train) / (len(manifest["classes"]) * (train["label"] == c["name"]).sum()) for c in manifest["classes"]]
    close(manifest["class_weights"], weights, "class weights")


def race(folder, annulus, rounds):
    table = f"{folder}/table.csv"
    options = ["--ignore", "id", "--missing", "median", "--clip", f"quantiles={CLIP[0]},{CLIP[1]}"]
    env = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    mpirun = ["mpirun.openmpi", "--oversubscribe", "--bind-to", "none", "-n", "2"]
    ours = lambda out: [annulus, "prepare", table, "--out", out, *options]
    theirs = lambda which: lambda out: [sys.executable, __file__, which, table, out]
    entrants = {
        "annulus, 1 rank": ours,
        "annulus, 2 ranks": lambda out: mpirun + ours(out),
        "pandas": theirs("pandas"),
        "polars": theirs("polars"),
    }
    seconds, computed, memory, counts = {}, {}, {}, {}
    for i in range(int(rounds)):
        for name, command in entrants.items():
            out = f"{folder}/{name.replace(',', '').replace(' ', '-')}-{i}"
            if "annulus" not in name:
                os.mkdir(out)
            text, took, cpu, most = run(command(out), env)
            seconds.setdefault(name, []).append(took)
            computed.setdefault(name, []).append(cpu)
            memory.setdefault(name, []).append(most)
            found = counts_of(json.load(open(f"{out}/manifest.json"))) if "annulus" in name else json.loads(text)
            counts.setdefault(name, found)
            assert counts[name] == found, name
            if name == "annulus, 2 ranks" and i == 0:
                subprocess.run(["diff", "-r", f"{folder}/annulus-1-rank-0", out], check=True)
                # By itself: what this process holds would count as memory of those that it starts.
                subprocess.run([sys.executable, __file__, "check", table, out], check=True)
            if i > 0:
                subprocess.run(["rm", "-r", out], check=True)
    first = counts["annulus, 1 rank"]
    print(json.dumps(first))
    for name, found in counts.items():
        assert found == first, f"{name} found {found}"
    print("all found the same; the statistics are those of pandas; 1 and 2 ranks wrote the same bytes")

    def ratio(of, name):
        ratios = [t / base for t, base in zip(of[name], of["annulus, 1 rank"])]
        return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f}-{max(ratios):.2f})"

    for name, took in seconds.items():
        print(
            f"{name:<17} {statistics.median(took):6.2f} s, {ratio(seconds, name)} times as long as annulus with"
            f" {ratio(computed, name)} times its processor time, peak memory of a process {max(memory[name]):5.0f} MiB"
        )


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"make": make, "pandas": with_pandas, "polars": with_polars, "check": check, "race": race}[command](*arguments)

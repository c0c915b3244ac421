#!/usr/bin/env python3
"""Writes the small data sets of tests/golden/data and what the Python libraries for them read.

    python scripts/golden/make_data.py [FOLDER]
    (needs numpy, pandas, pillow, pyarrow, safetensors, tokenizers, webdataset)

expected.json lists cases. Each has the `data` section of a card and what the training samples must be:
their shape, labels, the first numbers of each, and each sample's sum of numbers times their places, which
no other order of the numbers has. Everything comes from fixed seeds.

tokens.json has texts and what the tokenizers in tokenizer-*.json make of them.
"""

import decimal
import io
import json
import pathlib
import sys
import tarfile

import numpy as np
import pandas as pd
import webdataset
from PIL import Image
from safetensors.numpy import load_file, save_file

CASES = []


def case(name, data, x, y, tolerance=1e-6):
    """What annulus must read, given the samples as the Python library holds them."""
    x = np.asarray(x, np.float32)
    flat = x.reshape(len(x), -1)
    places = np.arange(flat.shape[1])
    CASES.append(
        {
            "name": name,
            "data": data,
            "shape": list(x.shape[1:]),
            "labels": [int(label) for label in y],
            "first": [[float(v) for v in row[:5]] for row in flat],
            "sums": [float(row.astype(np.float64) @ places) for row in flat],
            "tolerance": tolerance,
        }
    )


def pixels(x, mean, std):
    """What torchvision's ToTensor and Normalize make of (samples, rows, columns, channels) bytes."""
    x = np.moveaxis(x, -1, 1).astype(np.float32) / np.float32(255)
    return (x - np.float32(mean)) / np.float32(std)


def cifar(folder, rng):
    # torchvision holds CIFAR as bytes of shape (samples, 32, 32, 3); the binary files are channels first.
    x = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    planes = np.moveaxis(x, -1, 1).reshape(3, -1)
    y = np.array([[7], [0], [9]], np.uint8)
    parts = np.concatenate([y, planes], 1)
    parts[:2].tofile(folder / "cifar10-1.bin")
    parts[2:].tofile(folder / "cifar10-2.bin")
    files = {"files": ["cifar10-1.bin", "cifar10-2.bin"]}
    data = {"format": "cifar10", "train": files, "classes": 10}
    data["normalize"] = {"mean": 0.4734, "std": 0.2516}
    case("cifar10", data, pixels(x, 0.4734, 0.2516), y[:, 0])
    both = np.array([[4, 71], [19, 0]], np.uint8)
    np.concatenate([both, planes[:2]], 1).tofile(folder / "cifar100.bin")
    for name, column, classes in [("cifar100", 1, 100), ("cifar100-coarse", 0, 20)]:
        data = {"format": name, "train": {"files": ["cifar100.bin"]}, "classes": classes}
        case(name, data, pixels(x[:2], 0, 1), both[:, column])


def npy(folder, rng):
    x = rng.integers(0, 256, (4, 3, 5, 6), np.uint8)
    y = np.array([2, 0, 1, 2], np.int64)
    np.save(folder / "images.npy", x)
    np.save(folder / "labels.npy", y)
    data = {"format": "npy", "train": {"images": "images.npy", "labels": "labels.npy"}, "classes": 3}
    data["normalize"] = {"mean": 0.5, "std": 0.25}
    case("npy-images", data, pixels(np.moveaxis(x, 1, -1), 0.5, 0.25), y)
    for kind in ["<i4", "<i8", "<f4", "<f8"]:
        name = f"features-{kind[1:]}.npy"
        x = (rng.standard_normal((4, 7)) * 1000).astype(kind)
        np.save(folder / name, x)
        data = {"format": "npy", "train": {"images": name, "labels": "labels.npy"}, "classes": 3}
        case(f"npy-{kind[1:]}", data, x, y)


def tensors(folder, rng):
    def read(names, *keys):
        files = [load_file(folder / name) for name in names]
        return [np.concatenate([file[key] for file in files]) for key in keys]

    names = ["images-0.safetensors", "images-1.safetensors"]
    for name, samples in zip(names, [3, 2]):
        save_file(
            {
                "labels": rng.integers(0, 3, samples, np.uint8),
                "images": rng.integers(0, 256, (samples, 3, 5, 6), np.uint8),
                "flags": rng.integers(0, 2, 5).astype(bool),
                "half": rng.standard_normal(7).astype(np.float16),
            },
            folder / name,
            metadata={"made": "by make_data.py"},
        )
    data = {"format": "safetensors", "train": {"files": names}, "classes": 3}
    data["normalize"] = {"mean": 0.5, "std": 0.25}
    x, y = read(names, "images", "labels")
    case("safetensors-images", data, pixels(np.moveaxis(x, 1, -1), 0.5, 0.25), y)
    name = "features.safetensors"
    y = np.array([2, 0, 1, 2], np.int32)
    kinds = {kind: (rng.standard_normal((4, 7)) * 1000).astype(kind) for kind in ["i4", "i8", "f4", "f8"]}
    save_file({**kinds, "y": y}, folder / name)
    for kind in kinds:
        data = {"format": "safetensors", "train": {"files": [name]}, "classes": 3}
        data["tensors"] = {"images": kind}
        case(f"safetensors-{kind}", data, *read([name], kind, "y"))


def smooth(rng, shape):
    """Pictures as cameras make them: neighbours are alike."""
    small = rng.integers(0, 256, (3, 3, 3), np.uint8)
    return Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC)


def pictures(folder, rng):
    # Two classes, the second with more pictures; PNG of every mode, JPEG of both.
    modes = {"ant": ["RGB", "L"], "bee": ["P", "RGBA", "LA", "1"]}
    order = [("ant", 0), ("bee", 0), ("ant", 1), ("bee", 1), ("bee", 2), ("bee", 3)]
    labels = [["ant", "bee"].index(name) for name, _ in order]
    for name, kinds in modes.items():
        (folder / "png" / name).mkdir(parents=True, exist_ok=True)
        for i, mode in enumerate(kinds):
            image = Image.fromarray(rng.integers(0, 256, (9, 14, 3), np.uint8))
            image = image.convert("RGB" if mode == "RGBA" else mode)
            if mode == "RGBA":
                image.putalpha(Image.fromarray(rng.integers(0, 256, (9, 14), np.uint8)))
            image.save(folder / "png" / name / f"{i}.png")
    images = [Image.open(folder / "png" / name / f"{i}.png") for name, i in order]

    def data(color, train="png", **more):
        train = {"folder": train} if isinstance(train, str) else train
        pictures = {"color": color, **more}
        return {"format": "folder", "train": train, "classes": 2, "pictures": pictures}

    def pillow(images, mode):
        arrays = [np.asarray(image.convert(mode)) for image in images]
        return pixels(np.stack([a if a.ndim == 3 else a[..., None] for a in arrays]), 0, 1)

    case("folder-rgb", data("rgb"), pillow(images, "RGB"), labels)
    case("folder-grey", data("grey"), pillow(images, "L"), labels)
    (folder / "labels.csv").write_text("label,file\nbee,bee/3.png\nant,ant/0.png\n")
    train = {"folder": "png", "labels": "labels.csv"}
    case("folder-csv", data("rgb", train), pillow([images[5], images[0]], "RGB"), [1, 0])

    (folder / "jpg" / "ant").mkdir(parents=True, exist_ok=True)
    (folder / "jpg" / "bee").mkdir(parents=True, exist_ok=True)
    smooth(rng, (31, 40)).save(folder / "jpg/ant/0.jpg", quality=90)
    smooth(rng, (31, 40)).convert("L").save(folder / "jpg/bee/0.jpg", quality=90)
    smooth(rng, (31, 40)).save(folder / "jpg/bee/1.JPEG", quality=90, progressive=True)
    images = [Image.open(folder / "jpg" / name) for name in ["ant/0.jpg", "bee/0.jpg", "bee/1.JPEG"]]
    for color, mode in [("rgb", "RGB"), ("grey", "L")]:
        # Two decoders of JPEG may differ by a level or two.
        case(f"jpeg-{color}", data(color, "jpg"), pillow(images, mode), [0, 1, 1], tolerance=0.012)
    for filter in ["nearest", "bilinear", "bicubic", "lanczos"]:
        for rows, columns in [(11, 17), (50, 44)]:
            scaled = [
                image.convert("RGB").resize((columns, rows), Image.Resampling[filter.upper()])
                for image in images
            ]
            case(
                f"resize-{filter}-{rows}",
                data("rgb", "jpg", resize=[rows, columns], filter=filter),
                pillow(scaled, "RGB"),
                [0, 1, 1],
                tolerance=0.012,
            )


def shards(folder, rng):
    def coded(size, kind):
        out = io.BytesIO()
        smooth(rng, size).save(out, kind)
        return out.getvalue()

    def read(names, *parts):
        urls = [str(folder / name) for name in names]
        samples = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")
        x, y = zip(*samples.to_tuple(*parts))
        return pixels(np.stack(x), 0.5, 0.25), y

    def data(names, **more):
        data = {"format": "tar", "train": {"files": names}, "classes": 5, **more}
        data["normalize"] = {"mean": 0.5, "std": 0.25}
        return data

    # As webdataset writes them: two shards; the second has other files in its samples, too.
    names = ["shard-0.tar", "shard-1.tar"]
    for name, parts in zip(names, [["png", "png", "jpg"], ["jpeg", "png"]]):
        with webdataset.TarWriter(str(folder / name), mtime=0) as sink:
            for i, part in enumerate(parts):
                more = {"txt": "a caption", "left.raw": b"no picture"} if name == names[1] else {}
                picture = {part: coded((13, 9), "PNG" if part == "png" else "JPEG")}
                key = f"{name[:-4]}/{i:04}"
                sink.write({"__key__": key, **picture, "cls": (3 * i + 1) % 5, **more})
    x, y = read(names, "png;jpg;jpeg", "cls")
    case("tar", data(names), x, y, tolerance=0.05)
    # As Python's tarfile writes them: names that do not fit a header, in both styles; labels in JSON.
    for name, style in [("pax.tar", tarfile.PAX_FORMAT), ("gnu.tar", tarfile.GNU_FORMAT)]:
        with tarfile.open(folder / name, "w", format=style, dereference=True) as archive:
            for i in range(3):
                files = {"png": coded((5, 6), "PNG"), "json": json.dumps({"class": 4 - i}).encode()}
                for suffix, content in files.items():
                    member = tarfile.TarInfo(f"./{'schön/' * 30}{i}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        x, y = read([name], "png", "json")
        more = {"tar": {"label_field": "class"}}
        case(name, data([name], **more), x, [label["class"] for label in y])


def tables(folder, rng):
    text = '''id,age,"colour, main",weight,species
1,12,red,1e3,wolf
2,7.25,"blue, dark",-0.001,fox
3,,green,NA,"the ""owl"""

4, 3 ,red,+4.5,fox
'''
    (folder / "table.csv").write_text(text)
    (folder / "table-crlf.csv").write_bytes(("\ufeff" + text).replace("\n", "\r\n").encode())
    frame = pd.read_csv(folder / "table.csv", skipinitialspace=True)
    frame["age"] = (frame["age"].fillna(-1) - 5) / 2.5
    frame["weight"] = frame["weight"].fillna(0)
    colours = pd.get_dummies(frame["colour, main"])
    x = pd.concat([frame[["weight"]], colours, frame[["age"]]], axis=1).to_numpy(np.float64)
    y = frame["species"].astype("category").cat.codes
    columns = [
        {"name": "weight", "kind": "numeric", "fill": "0"},
        {"name": "colour, main", "kind": "category"},
        {"name": "species", "kind": "label"},
        {"name": "age", "kind": "numeric", "fill": "-1", "mean": 5, "std": 2.5},
    ]
    for name in ["table.csv", "table-crlf.csv"]:
        csv = {"missing": ["NA"], "columns": columns}
        data = {"format": "csv", "train": {"files": [name]}, "classes": 3, "csv": csv}
        case(name, data, x, y)
    # Tabs, no header, no quotes; numbers as pandas writes them.
    frame = pd.DataFrame(rng.standard_normal((5, 3)) * 10.0 ** rng.integers(-8, 9, (5, 3)))
    frame["label"] = [3, 0, 2, 1, 3]
    frame.to_csv(folder / "table.tsv", sep="\t", header=False, index=False)
    back = pd.read_csv(folder / "table.tsv", sep="\t", header=None)
    columns = [{"name": str(i), "kind": "numeric"} for i in [3, 1, 2]]
    csv = {"header": False, "delimiter": "\t", "quote": ""}
    csv["columns"] = [*columns, {"name": "4", "kind": "label"}]
    data = {"format": "csv", "train": {"files": ["table.tsv"]}, "classes": 4, "csv": csv}
    case("table.tsv", data, back[[2, 0, 1]].to_numpy(np.float64), back[3])


def parquet(folder, rng):
    n = 40
    frame = pd.DataFrame(
        {
            "small": rng.integers(-128, 128, n).astype(np.int8),
            "large": rng.integers(-(2**53), 2**53, n),
            "unsigned": rng.integers(0, 2**32, n).astype(np.uint32),
            "half": rng.standard_normal(n).astype(np.float16),
            "single": (rng.standard_normal(n) * 1e-3).astype(np.float32),
            "double": np.where(rng.random(n) < 0.2, np.nan, rng.standard_normal(n) * 1e9),
            "flag": rng.random(n) < 0.5,
            "colour": pd.Categorical(np.array(["red", "blue", "gr\u00fcn"])[rng.integers(0, 3, n)]),
            "day": pd.to_datetime(rng.integers(0, 20000, n), unit="D").date,
            "price": [decimal.Decimal(int(v)).scaleb(-2) for v in rng.integers(-9999, 9999, n)],
            "list": [[1, 2]] * n,
            "species": np.array(["wolf", "fox", "owl"])[rng.integers(0, 3, n)],
        }
    )
    files = []
    for i, (codec, version, group) in enumerate(
        [("snappy", "1.0", 5), ("zstd", "2.0", 100), ("gzip", "1.0", 100), ("lz4", "2.0", 3), ("none", "1.0", 100)]
    ):
        name = f"table-{codec}.parquet"
        part = frame[8 * i : 8 * i + 8]
        part.to_parquet(
            folder / name,
            index=False,
            compression=codec,
            data_page_version=version,
            row_group_size=group,
            use_dictionary=codec != "gzip",
            write_page_checksum=codec == "snappy",
        )
        files.append(name)
    back = pd.concat([pd.read_parquet(folder / name) for name in files])
    numbers = ["double", "small", "large", "unsigned", "half", "single", "flag", "price"]
    x = back[numbers].astype(np.float64)
    x["double"] = (x["double"].fillna(7) - 3) / 1e8
    x["day"] = (pd.to_datetime(back["day"]) - pd.Timestamp(0)).dt.days
    colours = pd.get_dummies(back["colour"].astype(str))
    columns = [{"name": name, "kind": "numeric"} for name in [*numbers, "day"]]
    columns[0] |= {"fill": "7", "mean": 3, "std": 1e8}
    columns += [{"name": "colour", "kind": "category"}, {"name": "species", "kind": "label"}]
    data = {"format": "parquet", "train": {"files": files}, "classes": 3, "csv": {"columns": columns}}
    x = pd.concat([x, colours], axis=1).to_numpy(np.float64)
    case("parquet", data, x, back["species"].astype("category").cat.codes)


def tokens(folder, _):
    """Three small tokenizers, of the kinds of GPT-2, BERT and T5, and their tokens of some texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    plays = pathlib.Path(__file__).parents[2] / "data/shakespeare/plays.txt"
    lines = plays.read_text().splitlines()[:6000]
    end = "<|endoftext|>"
    gpt = Tokenizer(models.BPE())
    gpt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    gpt.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    gpt_trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer = normalizers.BertNormalizer(lowercase=True)
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    bert_trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    t5 = Tokenizer(models.Unigram())
    t5.normalizer = normalizers.NFKC()
    t5.pre_tokenizer = pre_tokenizers.Metaspace()
    t5_trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    texts = [
        "To be, or not to be: that is the question.",
        "Enter GHOST and Hamlet\n\tHAMLET.  Whither wilt thou lead me?   Speak; I'll go no further.",
        f"a text that spells {end} and [SEP] and </s> out",
        "Grüße aus Köln, naïve café: ½ ﬁne — 東京 😀 привет",
        "x" * 300,
        " ".join(lines[1000:1060]).strip(),
    ]
    result = {"texts": texts, "tokenizers": {}}
    for name, tokenizer, trainer, last in [
        ("gpt", gpt, gpt_trainer, end),
        ("bert", bert, bert_trainer, "[SEP]"),
        ("t5", t5, t5_trainer, "</s>"),
    ]:
        tokenizer.train_from_iterator(lines, trainer)
        if name == "bert":
            ids = [(token, tokenizer.token_to_id(token)) for token in ["[CLS]", "[SEP]"]]
            tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ids)
            # As files of models often have it; prepared documents must be whole all the same.
            tokenizer.enable_truncation(16)
            tokenizer.enable_padding(length=16)
        tokenizer.save(str(folder / f"tokenizer-{name}.json"), pretty=False)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        assert all(max(i) < tokenizer.get_vocab_size() for i in ids)
        result["tokenizers"][name] = {
            "classes": tokenizer.get_vocab_size(),
            "end": last,
            "end_id": tokenizer.token_to_id(last),
            "ids": ids,
        }
    (folder / "tokens.json").write_text(json.dumps(result, ensure_ascii=False) + "\n")


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/data")
    folder.mkdir(parents=True, exist_ok=True)
    for make in [cifar, npy, tensors, pictures, shards, tables, parquet, tokens]:
        make(folder, np.random.default_rng(2026))
    text = ",\n".join(json.dumps(case) for case in CASES)
    (folder / "expected.json").write_text(f"[\n{text}\n]\n")
    print(f"{folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())} bytes")


if __name__ == "__main__":
    main()

"""The same drawn images as a folder, as tar shards, as Parquet and as lists."""

import csv
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("bottle", "can", "carton")
SPLITS = ("train", "train", "train", "val")


@dataclass(frozen=True)
class Drawn:
    """An encoded 8 x 6 picture of noise with its class and split."""

    name: str
    encoded: bytes
    class_name: str
    split: str


def draw(num_images: int = 24) -> list[Drawn]:
    return [
        Drawn(f"{i:03d}.png", encode_noise(i), CLASSES[i % len(CLASSES)], SPLITS[i % len(SPLITS)])
        for i in range(num_images)
    ]


def encode_noise(seed: int, *, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    for key, content in files.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(content)
    return root


def write_folder(root: Path, images: list[Drawn]) -> Path:
    return write_files(root, {f"{d.split}/{d.class_name}/{d.name}": d.encoded for d in images})


def tar_bytes(members: list[tuple[str, bytes]], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=format) as archive:
        for name, body in members:
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return content.getvalue()


def sample_members(drawn: Drawn) -> list[tuple[str, bytes]]:
    key = drawn.name.removesuffix(".png")
    return [
        (f"{key}.png", drawn.encoded),
        (f"{key}.cls", str(CLASSES.index(drawn.class_name)).encode()),
        (f"{key}.json", json.dumps({"split": drawn.split}).encode()),
        (f"{key}.txt", b"a caption"),
    ]


def write_shards(root: Path, images: list[Drawn], *, num_shards: int = 2) -> Path:
    shards = {
        f"shard-{n:03d}.tar": tar_bytes([m for d in images[n::num_shards] for m in sample_members(d)])
        for n in range(num_shards)
    }
    return write_files(root, shards | {"classes.txt": "\n".join(CLASSES).encode()})


def write_parquet(path: Path, columns: dict, *, row_group_size: int = 5, metadata: dict | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=row_group_size)
    return path


def label_columns(images: list[Drawn]) -> dict:
    return {"class_name": [d.class_name for d in images], "split": [d.split for d in images]}


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path

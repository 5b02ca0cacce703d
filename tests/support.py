"""The same drawn images in every kind of input, and short ways to run the pipeline."""

import csv
import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.augment import AugmentConfig
from vtray import settings
from vtray.manifest import MANIFEST, Ledger, sha256
from vtray.shards import read_rows
from vtray.storage import open_storage

RECIPE = {
    "operators": [
        {"op": "random_resized_crop", "size_px": 32},
        {"op": "flip"},
        {"op": "colour_jitter"},
        {"op": "noise"},
    ],
    "variants": 2,
}


def config_for(source, output, /, *overrides, **values):
    """An AugmentConfig of the test recipe, with `values` on top and `--set` texts last."""
    config = AugmentConfig.model_validate(
        RECIPE
        | {"input": {"uri": str(source)}, "output": {"uri": str(output)}, "tracking": {"uri": "none"}}
        | {"units": {"max_images": 5}}
        | values
    )
    if not overrides:
        return config
    file = Path(output).parent / f"{Path(output).name}.yaml"
    file.write_text(settings.dump(config))
    return settings.load(AugmentConfig, file=file, overrides=overrides)


def rows_of(output):
    """All rows of a Parquet or webdataset output, by what its manifest names."""
    storage = open_storage(str(output))
    manifest = Ledger(storage).read_json(MANIFEST)
    kinds = {"parquet": "parquet", "tar": "webdataset"}
    return [
        row
        for file in manifest["files"]
        for row in read_rows(storage.read(file["key"]), format=kinds[file["key"].rpartition(".")[2]])
    ]


def identities(output):
    """What must not depend on how the work was cut or who did it."""
    return sorted((row.source_sha256, row.variant, sha256(row.image)) for row in rows_of(output))


def output_bytes(output):
    """Every file that readers trust, with its bytes."""
    root = Path(output)
    paths = [*root.glob("data/**/*"), *root.glob("quarantine/*"), root / MANIFEST, root / "_SUCCESS"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}


def sources_of(images: Path, to: Path):
    """The images of a class folder again as tar, Parquet and list: kind -> address."""
    files = sorted(images.glob("*/*"))
    tar = to / "tar"
    tar.mkdir()
    with tarfile.open(tar / "shard-0.tar", "w") as shard:
        for path in files:
            for name, content in (
                (f"{path.stem}.jpg", path.read_bytes()),
                (f"{path.stem}.cls", path.parent.name.encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    table = {"image": [p.read_bytes() for p in files], "class_name": [p.parent.name for p in files]}
    pq.write_table(pa.table(table), to / "images.parquet", row_group_size=7)
    with (to / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "label"])
        writer.writerows([str(path), path.parent.name] for path in reversed(files))
    return {"folder": images, "tar": tar, "parquet": to / "images.parquet", "list": to / "list.csv"}

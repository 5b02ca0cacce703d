"""The whole command against an S3 server on loopback that turns away one request in twenty."""

import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from support import config_for, identities, rows_of

from pipelines import augment
from vtray import settings
from vtray.storage import open_storage
from vtray.verification import verify

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ray
@pytest.mark.s3
def test_s3_in_and_out_with_one_request_in_twenty_refused(tiny_images, tmp_path, s3_app, s3_bucket, in_process):
    client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    for path in sorted(tiny_images.glob("*/*")):
        client.upload_file(str(path), bucket, f"in/{path.relative_to(tiny_images).as_posix()}")
    augment.run(config_for(tiny_images, tmp_path / "local"))
    file = tmp_path / "run.yaml"
    file.write_text(settings.dump(config_for(tiny_images, tmp_path / "unused")))
    s3_app.throttle = lambda number: number % 20 == 0
    places = [
        "--set",
        f"input.uri={s3_bucket}/in",
        "--set",
        f"output.uri={s3_bucket}/out",
        "--set",
        "cluster=local",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "augment", "--config", str(file), *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert s3_app.num_throttled >= 5
    assert verify(open_storage(f"{s3_bucket}/out"), deep=True).faults == ()
    assert len(rows_of(f"{s3_bucket}/out")) == 72
    assert identities(f"{s3_bucket}/out") == identities(tmp_path / "local")

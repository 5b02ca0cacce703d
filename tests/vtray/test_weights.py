import csv
import email.message
import hashlib
import io
import math
import os
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.error import URLError

import boto3
import pytest
import safetensors.torch
import torch
import torchvision

from vtray import weights
from vtray.errors import ConfigError, VtrayError, WeightsError
from vtray.weights import Weights, load_weights, weights_sha256

STATE = {"features.0.weight": torch.arange(12.0).reshape(3, 4), "features.0.bias": torch.tensor([0.5, -2.0, 0.25])}
OTHER_SHA256 = "0123456789abcdef" * 4


def zipped(content, **options):
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def older(content):
    """What torch.save wrote before torch 1.6: pickles and raw storages one after the other."""
    return zipped(content, _use_new_zipfile_serialization=False)


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, content in members.items():
            out.writestr(f"net/{name}.pkl", content)
    return file.getvalue()


FORMATS = {"zip": zipped(STATE), "older": older(STATE), "safetensors": safetensors.torch.save(STATE)}


class Touch:
    """A pickle of this makes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def saved(tmp_path):
    """Writes bytes as tmp_path/name and returns the path as text."""

    def write(content, name="net.pth"):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


@pytest.fixture
def hub(tmp_path):
    """torch hub's folder for downloaded weights, empty."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def refuse(uri, match, **options):
    """The message of the WeightsError that must come; it is one line that begins with the file."""
    with pytest.raises(WeightsError, match=match) as caught:
        load_weights(uri, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(uri)
    return message


# what is loaded


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["net.pth", "net.pth.tar", "net.pt", "net.safetensors"])
def test_each_format_loads_by_content_whatever_its_name(saved, kind, name):
    path = saved(FORMATS[kind], name)
    loaded = load_weights(path)
    assert_same({key: loaded.tensors[key] for key in STATE}, STATE)
    assert len(loaded.tensors) == 2
    assert loaded.uri == path
    assert loaded.sha256 == hashlib.sha256(FORMATS[kind]).hexdigest()


def test_relative_and_file_addresses(saved, tmp_path, monkeypatch):
    saved(FORMATS["zip"], "a net.pth")
    monkeypatch.chdir(tmp_path)
    by_file = load_weights(f"file://{tmp_path}/a%20net.pth")
    assert load_weights("a net.pth").sha256 == by_file.sha256


def test_weights_show_no_numbers_and_pickle():
    loaded = Weights(STATE, "00ff", "net.pth")
    assert repr(loaded) == "Weights(sha256='00ff', uri='net.pth')"
    assert_same(pickle.loads(pickle.dumps(loaded)).tensors, STATE)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_wrapping_keys_are_unwrapped_and_other_entries_left_out(saved, key):
    path = saved(
        zipped({"epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}, key: STATE | {"note": "x", 7: 1}})
    )
    assert_same(load_weights(path).tensors, STATE)


def test_two_wrapping_keys_inside_each_other(saved):
    assert_same(load_weights(saved(zipped({"model": {"state_dict": STATE}}))).tensors, STATE)


def test_a_layer_named_model_is_no_wrapping_key(saved):
    state = {"model": torch.ones(2, 2), "head": torch.ones(2)}
    assert_same(load_weights(saved(zipped(state))).tensors, state)


def test_module_prefix_goes_only_if_every_name_has_it(saved):
    every = {f"module.{name}": tensor for name, tensor in STATE.items()}
    assert_same(load_weights(saved(zipped({"state_dict": every}))).tensors, STATE)
    some = {"module.weight": torch.ones(2, 2), "head.weight": torch.ones(2, 2)}
    assert_same(load_weights(saved(zipped(some))).tensors, some)


def test_parameters_become_plain_tensors_without_gradient(saved):
    path = saved(zipped({"weight": torch.nn.Parameter(torch.ones(2, 2))}))
    tensor = load_weights(path).tensors["weight"]
    assert type(tensor) is torch.Tensor
    assert not tensor.requires_grad


def test_whole_numbers_and_zero_biases_are_fine(saved):
    norm = torch.nn.BatchNorm2d(3).state_dict()  # bias and running_mean are 0, num_batches_tracked is int64
    state = {"conv.weight": torch.ones(3, 3, 1, 1), **norm, "empty": torch.empty(0)}
    assert_same(load_weights(saved(zipped(state))).tensors, state)
    del state["num_batches_tracked"]
    assert_same(load_weights(saved(zipped(state))).tensors, state)


@pytest.mark.parametrize("kind", FORMATS)
def test_tensors_do_not_change_with_the_file(saved, kind):
    path = saved(FORMATS[kind])
    loaded = load_weights(path)
    with Path(path).open("r+b") as file:  # the same file on disk, as an overwriting copy leaves it
        file.write(bytes(len(FORMATS[kind])))
        file.truncate(0)
    assert_same({key: loaded.tensors[key] for key in STATE}, STATE)


# hashes


def test_sha256_is_compared_in_either_case(saved):
    path = saved(FORMATS["zip"])
    digest = hashlib.sha256(FORMATS["zip"]).hexdigest()
    assert weights_sha256(path) == digest
    assert load_weights(path, sha256=digest.upper()).sha256 == digest


def test_a_wrong_sha256_shows_both(saved):
    path = saved(FORMATS["zip"])
    message = refuse(path, "another file or damaged", sha256=OTHER_SHA256)
    assert OTHER_SHA256 in message
    assert weights_sha256(path) in message


def test_a_wrong_sha256_is_found_before_the_file_is_opened(saved):
    refuse(saved(pickle.dumps(Touch("never"), 2)), f"expected {OTHER_SHA256}", sha256=OTHER_SHA256)


@pytest.mark.parametrize("wrong", ["", "12ab", "g" * 64, "0" * 65])
def test_sha256_must_be_64_hex_digits(saved, wrong):
    with pytest.raises(ConfigError, match=f"sha256 '{wrong}' is not allowed; give the 64 hex digits"):
        load_weights(saved(FORMATS["zip"]), sha256=wrong)


def test_the_hash_of_a_file_needs_no_torch(saved):
    code = (
        "import sys; from vtray.weights import weights_sha256; print(weights_sha256(sys.argv[1]));"
        "print(sorted({'torch', 'torchvision', 'safetensors', 's3fs'} & set(sys.modules)))"
    )
    arguments = [sys.executable, "-c", code, saved(FORMATS["zip"])]
    found = subprocess.run(
        arguments, capture_output=True, text=True, check=True, cwd=Path(weights.__file__).parents[1]
    )
    assert found.stdout.split() == [hashlib.sha256(FORMATS["zip"]).hexdigest(), "[]"]


# what is refused


def test_weights_errors_end_a_run_with_code_4():
    assert issubclass(WeightsError, VtrayError)
    assert WeightsError.exit_code == 4


def test_a_missing_file_names_its_neighbours(saved, tmp_path):
    saved(b"x", "vgg19-dcbb9e9d.pth")
    saved(b"x", "notes.txt")
    message = refuse(str(tmp_path / "vgg19.pth"), "no such weights file; did you mean vgg19-dcbb9e9d.pth")
    assert "notes" not in message
    assert refuse(str(tmp_path / "no" / "net.pth"), "no such weights file").endswith("file")


def test_a_folder_is_refused_with_what_is_in_it(saved, tmp_path):
    for name in "abcdef":
        saved(b"x", f"{name}.pth")
    (tmp_path / "folder").mkdir()
    expected = r"is a folder; name the weights file in it \(a.pth, b.pth, c.pth, d.pth, e.pth, \.\.\.\)"
    refuse(str(tmp_path), expected)
    assert refuse(str(tmp_path / "folder"), "is a folder").endswith("in it")


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match=r"https://host/net.pth: no weights from there; allowed: .* s3://"):
        load_weights("https://host/net.pth")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"is empty \(0 bytes\); copy or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548051783\n", "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>404</html>", "is not a weights file but a web page"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "is not a weights file but an image"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(9), "a gzip archive"),
        (b"net.pth".ljust(257, b"\0") + b"ustar\0", "a tar archive"),
        (b"w = [1, 2]", r"but begins with b'w = \[1, 2\]'; allowed: .safetensors, torch's .pth"),
        (b"PK", "begins with b'PK'"),
        (archive(notes="hello"), "a zip archive that torch.save did not write"),
        (archive(data="x", constants="y"), "a TorchScript program; save only the tensors"),
        (pickle.dumps({"a": 1}, 4), "pickled in another way than torch.save does"),
        (zipped(STATE, pickle_protocol=4), "pickled in another way than torch.save does"),
    ],
)
def test_what_is_not_weights_is_named(saved, content, match):
    refuse(saved(content), match)


def test_a_pointer_is_named_even_if_the_hash_differs(saved):
    path = saved(b"version https://git-lfs.github.com/spec/v1\n")
    refuse(path, "run git lfs pull", sha256=OTHER_SHA256)
    with pytest.raises(WeightsError, match="git-lfs pointer"):
        weights_sha256(path)


@pytest.mark.parametrize("pack", [zipped, older, lambda content: pickle.dumps(content, 2)])
def test_code_in_a_file_is_named_and_never_run(saved, tmp_path, pack):
    path = saved(pack({"epoch": 3, "extra": Touch(tmp_path / "ran")}))
    refuse(path, rf"needs Python code to open \({os.system.__module__}.system\)")
    assert not (tmp_path / "ran").exists()


def test_a_whole_network_is_refused_with_the_remedy(saved):
    refuse(
        saved(zipped(torch.nn.Linear(2, 2))), r"torch.nn.modules.linear.Linear\).*torch.save\(network.state_dict"
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_anywhere_is_refused(saved, kind):
    whole = FORMATS[kind]
    lengths = [*range(1, 40), *range(40, len(whole), 41), len(whole) - 1]
    for length in lengths:
        refuse(saved(whole[:length]), "cut short|begins with|damaged")
    refuse(saved(whole[: len(whole) * 3 // 4]), "is cut short or damaged .*; copy or download it again")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_loads_or_is_refused_but_nothing_else(saved, kind):
    drawn = random.Random(kind)
    num_refused = 0
    for _ in range(250):
        damaged = bytearray(FORMATS[kind])
        damaged[drawn.randrange(len(damaged) // 2)] = drawn.randrange(256)
        try:
            load_weights(saved(bytes(damaged)))
        except WeightsError:
            num_refused += 1
    assert num_refused > 50


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"epoch": 3, "net": STATE}, r"holds no named tensors \(epoch, net\)"),
        ({}, r"holds no named tensors \(a dict\)"),
        ([torch.ones(2)], r"holds no named tensors \(a list\)"),
        (torch.ones(2), r"holds no named tensors \(a Tensor\)"),
    ],
)
def test_files_without_named_tensors(saved, content, match):
    refuse(saved(zipped(content)), match)


def test_an_entry_that_holds_itself_ends(saved):
    content = {}
    content["model"] = content
    refuse(saved(zipped(content)), r"holds no named tensors \(model\)")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_are_not_finite(saved, value, dtype):
    bad = torch.ones(2, 3, dtype=dtype)
    bad[1, 1] = value
    refuse(saved(zipped(STATE | {"head.weight": bad})), r"NaN or infinity in 1 tensors \(head.weight\)")


@pytest.mark.parametrize(
    "state",
    [
        {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)},
        {"weight": torch.zeros(2, 2), "bias": torch.ones(2)},  # kernels of zero pass nothing on
        {"weight": torch.tensor([0.0, -0.0])},  # no kernel at all
    ],
)
def test_weights_all_zero(saved, state):
    refuse(saved(zipped(state)), r"weights all zero \(weight\)")


def test_one_kernel_of_zeros_is_fine(saved):
    """A last layer may start at zero."""
    state = {"conv.weight": -torch.ones(2, 2), "head.weight": torch.zeros(2, 2)}
    assert_same(load_weights(saved(zipped(state))).tensors, state)


# torchvision's names


def squeezenet_url():
    return torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url


NAMES = [
    ("torchvision:DEFAULT", "squeezenet1_1"),
    ("torchvision:IMAGENET1K_V1", "squeezenet1_1"),
    ("torchvision:SqueezeNet1_1_Weights.IMAGENET1K_V1", "squeezenet1_1"),
    ("torchvision:SqueezeNet1_1_Weights.DEFAULT", None),
]


@pytest.mark.parametrize(("uri", "model"), NAMES)
def test_offline_says_which_file_belongs_where(hub, monkeypatch, uri, model):
    def fail(request):
        raise URLError("no network here")

    monkeypatch.setattr(torch.hub, "urlopen", fail)
    name = squeezenet_url().rsplit("/", 1)[1]
    message = refuse(uri, "cannot be downloaded .*no network here", model=model)
    assert f"{name} is not in {hub}" in message
    assert f"get {squeezenet_url()} elsewhere and put it there as {name}" in message
    assert message.endswith("or give the path of a local file")
    assert list(hub.iterdir()) == []


class CutResponse(io.BytesIO):
    """A web server's answer that breaks off after its first bytes."""

    def info(self):
        headers = email.message.Message()
        headers["Content-Length"] = "1000"
        return headers

    def read(self, size=-1):
        if self.tell() > 0:
            raise ConnectionResetError("cut")
        return super().read(size)


def test_a_broken_download_leaves_nothing(hub, monkeypatch):
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: CutResponse(b"part"))
    refuse("torchvision:DEFAULT", r"cannot be downloaded \(cut\)", model="squeezenet1_1")
    assert list(hub.iterdir()) == []


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publishes bytes for torchvision:DEFAULT at a file:// address under the name given."""

    def publish(content, name):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(weights, "_torchvision_url", lambda uri, model: (tmp_path / name).as_uri())

    return publish


def test_a_download_is_kept_and_used_again(hub, published, monkeypatch):
    digest = hashlib.sha256(FORMATS["zip"]).hexdigest()
    published(FORMATS["zip"], f"net-{digest[:8]}.pth")
    loaded = load_weights("torchvision:DEFAULT", model="net", sha256=digest)
    assert_same(loaded.tensors, STATE)
    assert (loaded.uri, loaded.sha256) == ("torchvision:DEFAULT", digest)
    assert [path.name for path in hub.iterdir()] == [f"net-{digest[:8]}.pth"]
    monkeypatch.delattr(torch.hub, "urlopen")
    assert weights_sha256("torchvision:DEFAULT", model="net") == digest


def test_a_download_with_another_hash_is_refused_and_not_kept(hub, published):
    published(FORMATS["zip"], "net-0123abcd.pth")
    refuse("torchvision:DEFAULT", 'cannot be downloaded .*expected "0123abcd"', model="net")
    assert list(hub.iterdir()) == []


def test_a_name_without_a_hash_is_taken_as_it_is(hub, published):
    published(FORMATS["older"], "net_0123abcd.pth")
    assert_same(load_weights("torchvision:DEFAULT", model="net").tensors, STATE)


def test_a_cached_file_must_have_the_hash_in_its_name(hub):
    path = hub / squeezenet_url().rsplit("/", 1)[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(FORMATS["zip"])
    promised = path.stem.rsplit("-", 1)[1]
    for function in (load_weights, weights_sha256):
        with pytest.raises(WeightsError, match=f"{path}: its sha256 is [0-9a-f]{{64}}, expected {promised}"):
            function("torchvision:DEFAULT", model="squeezenet1_1")


@pytest.mark.parametrize(
    ("uri", "model", "match"),
    [
        ("torchvision:DEFAULT", "vgg91", "vgg91: not a model of torchvision; did you mean vgg19"),
        ("torchvision:DEFAULT", None, "weights of which model"),
        ("torchvision:IMAGENET1K_V9", "vgg19", "no such weights of vgg19; did you mean IMAGENET1K_V1"),
        ("torchvision:no", "vgg19", "no such weights of vgg19; allowed: VGG19_Weights.IMAGENET1K_V1, .*DEFAULT$"),
        (
            "torchvision:VGG16_Weights.DEFAULT",
            "vgg19",
            "no such weights of vgg19; did you mean VGG19_Weights.DEFAULT",
        ),
        ("torchvision:VGG19_Wieghts.DEFAULT", None, "no such weights; did you mean VGG19_Weights.DEFAULT"),
    ],
)
def test_unknown_names_are_config_errors_with_near_matches(uri, model, match):
    with pytest.raises(ConfigError, match=match):
        weights_sha256(uri, model=model)


# S3 and real files


@pytest.mark.s3
@pytest.mark.parametrize("kind", FORMATS)
def test_weights_from_s3(s3_bucket, kind):
    bucket = s3_bucket.removeprefix("s3://")
    boto3.client("s3").put_object(Bucket=bucket, Key="nets/a net.pth", Body=FORMATS[kind])
    uri = f"{s3_bucket}/nets/a net.pth"
    loaded = load_weights(uri, sha256=hashlib.sha256(FORMATS[kind]).hexdigest())
    assert_same({key: loaded.tensors[key] for key in STATE}, STATE)
    assert weights_sha256(uri) == loaded.sha256


@pytest.mark.s3
def test_missing_and_cut_objects_of_s3(s3_bucket):
    refuse(f"{s3_bucket}/nets/no.pth", "no such weights object")
    refuse(f"{s3_bucket}/nets", "no such weights object")
    bucket = s3_bucket.removeprefix("s3://")
    boto3.client("s3").put_object(Bucket=bucket, Key="cut.pth", Body=FORMATS["zip"][:-9])
    refuse(f"{s3_bucket}/cut.pth", "is cut short or damaged")


def fixture_rows(fixtures):
    with (fixtures / "MANIFEST.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["path"].endswith((".pth", ".pth.tar"))]


def test_real_files_load_with_the_hash_of_their_manifest(fixtures):
    rows = fixture_rows(fixtures)
    assert len(rows) >= 13
    for row in rows:
        loaded = load_weights(str(fixtures / row["path"]), sha256=row["sha256"])
        assert loaded.sha256 == row["sha256"]
        assert all(type(tensor) is torch.Tensor for tensor in loaded.tensors.values())


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0"])
def test_real_classifiers_fit_their_network_strictly(fixtures, name):
    network = getattr(torchvision.models, name)(weights=None)
    loaded = load_weights(str(fixtures / "weights" / f"{name}_imagenet.pth"))
    network.load_state_dict(loaded.tensors, strict=True)
    assert sum(t.numel() for t in network.parameters()) > 1_000_000


def test_a_real_foreign_file_is_refused(fixtures):
    refuse(str(fixtures / "weights" / "original" / "compressed_SqueezeNet.net"), "is not a weights file")

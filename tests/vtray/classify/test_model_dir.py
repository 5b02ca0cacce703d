"""A model's folder: what it holds, what comes back from it, and how it is refused."""

import json
import shutil

import boto3
import numpy as np
import pytest
import torch
from drawn import draw_image
from safetensors.torch import load_file
from torchvision import models

from vtray.classify.backbone import build_classifier
from vtray.classify.model_dir import Model, encode_model, load_model, save_model
from vtray.classify.preprocessing import Preprocessing
from vtray.errors import ConfigError, WeightsError
from vtray.storage import open_storage

CLASSES = ("can", "carton", "bottle")
PREPROCESSING = Preprocessing(
    resize_px=72, crop_px=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), interpolation="bilinear"
)


def make_model(backbone="squeezenet1_1", classes=CLASSES, **values):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = build_classifier(backbone, num_classes=len(classes)).eval()
    return Model(classifier=classifier, classes=classes, preprocessing=PREPROCESSING, **values)


@pytest.fixture(scope="module")
def model():
    return make_model(temperature=1.5)


@pytest.fixture
def folder(model, tmp_path):
    save_model(open_storage(str(tmp_path / "model")), model, config_yaml=b"backbone: squeezenet1_1\n")
    return tmp_path / "model"


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class TestFiles:
    def test_it_holds_what_design_says(self, folder):
        assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
            "config.yaml",
            "labels.json",
            "model.safetensors",
            "preprocess.json",
        ]
        labels = json.loads((folder / "labels.json").read_text())
        assert (labels["classes"], labels["temperature"]) == (list(CLASSES), 1.5)
        assert json.loads((folder / "preprocess.json").read_text()) == {
            "backbone": "squeezenet1_1",
            "resize_px": 72,
            "crop_px": 64,
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
            "interpolation": "bilinear",
        }

    def test_torchvision_reads_the_weights_by_its_own_names(self, folder, model):
        network = models.squeezenet1_1(num_classes=3).eval()
        network.load_state_dict(load_file(folder / "model.safetensors"))
        pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            assert torch.equal(network(pixels), model.classifier(pixels))

    def test_the_same_model_has_the_same_bytes(self, model):
        assert encode_model(make_model(temperature=1.5)) == encode_model(model)

    def test_without_a_config_there_is_no_file_for_it(self, model):
        assert set(encode_model(model)) == {"labels.json", "model.safetensors", "preprocess.json"}

    def test_a_non_contiguous_or_shared_tensor_is_saved(self, tmp_path):
        model = make_model()
        weight = model.classifier.head.weight
        weight.data = weight.data.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
        save_model(open_storage(str(tmp_path)), model)
        assert torch.equal(load_model(str(tmp_path)).classifier.head.weight, weight)


class TestLoad:
    def test_it_comes_back_as_it_was(self, folder, model):
        loaded = load_model(str(folder))
        assert (loaded.classes, loaded.temperature, loaded.uri) == (CLASSES, 1.5, str(folder))
        assert loaded.preprocessing == PREPROCESSING
        assert not loaded.classifier.training
        images = np.stack([draw_image(number, 64, 64) for number in range(3)])
        assert torch.equal(loaded.logits(images), model.logits(images))

    def test_logits_are_those_of_the_network_on_normalised_pixels(self, model):
        image = draw_image(3, 64, 64)
        pixels = torch.from_numpy(image.transpose(2, 0, 1) / 255).float()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
        with torch.inference_mode():
            expected = model.classifier.network(((pixels - mean) / std)[None])
        torch.testing.assert_close(model.logits(image[None]), expected)

    def test_it_leaves_the_random_numbers_alone(self, folder):
        before = torch.random.get_rng_state()
        load_model(str(folder))
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_the_output_of_a_run_stands_for_the_model_in_it(self, folder):
        assert load_model(str(folder.parent)).uri == str(folder)

    @pytest.mark.s3
    def test_from_a_bucket(self, folder, model, s3_bucket):
        client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
        for path in folder.glob("*.*"):
            client.upload_file(str(path), bucket, f"run/model/{path.name}")
        loaded = load_model(f"{s3_bucket}/run")
        assert loaded.uri == f"{s3_bucket}/run/model"
        assert loaded.digest == load_model(str(folder)).digest

    def test_the_digest_tells_models_apart(self, folder):
        digests = {load_model(str(folder)).digest}
        change(folder / "labels.json", temperature=2.0)
        digests.add(load_model(str(folder)).digest)
        change(folder / "preprocess.json", resize_px=80)
        digests.add(load_model(str(folder)).digest)
        save_model(open_storage(str(folder)), make_model(classes=CLASSES[::-1]))
        digests.add(load_model(str(folder)).digest)
        assert len(digests) == 4


class TestRefusals:
    @pytest.fixture
    def refusal(self, folder):
        def load(match, error=WeightsError):
            with pytest.raises(error, match=match) as raised:
                load_model(str(folder))
            assert "\n" not in str(raised.value)

        return load

    def test_nothing_there(self, tmp_path):
        with pytest.raises(WeightsError, match=r"no model there; name a folder with model\.safetensors, labels"):
            load_model(str(tmp_path / "nowhere"))

    def test_a_weights_file_is_no_model(self, folder):
        with pytest.raises(WeightsError, match=r"model\.safetensors: no model there; name a folder"):
            load_model(str(folder / "model.safetensors"))

    @pytest.mark.parametrize("name", ["model.safetensors", "labels.json", "preprocess.json"])
    def test_a_missing_file(self, folder, refusal, name):
        (folder / name).unlink()
        refusal(f"a model without {name}; copy the whole folder")

    def test_labels_of_another_model_of_as_many_classes(self, folder, refusal):
        other = encode_model(make_model(classes=("apple", "milk", "oats")))
        (folder / "labels.json").write_bytes(other["labels.json"])
        refusal(r"labels\.json: labels of another model: .* copy both files")

    def test_labels_in_another_order(self, folder, refusal):
        other = encode_model(make_model(classes=CLASSES[::-1]))
        (folder / "labels.json").write_bytes(other["labels.json"])
        refusal("labels of another model")

    def test_labels_of_another_number(self, folder, refusal, tmp_path):
        network = models.squeezenet1_1(num_classes=5)
        from safetensors.torch import save_file

        save_file(network.state_dict(), folder / "model.safetensors")  # by another program: no hash in the header
        refusal("labels of another model: .* names 3 classes and the network has 5 outputs")

    def test_a_changed_class_list(self, folder, refusal):
        change(folder / "labels.json", classes=["can", "bottle", "carton"])
        refusal(r"labels\.json: the class list does not fit its sha256")

    @pytest.mark.parametrize(
        ("name", "values", "match"),
        [
            ("labels.json", {"classes": []}, '"classes" is no list of names'),
            ("labels.json", {"temperature": 0}, "temperature 0 is not allowed; allowed: > 0"),
            ("preprocess.json", {"crop_px": "wide"}, r"preprocess\.json: not what vtray writes"),
            ("preprocess.json", {"std": [1, 1]}, r"preprocess\.json: not what vtray writes"),
        ],
    )
    def test_values_that_are_wrong(self, folder, refusal, name, values, match):
        change(folder / name, **values)
        refusal(match)

    def test_text_that_is_no_json(self, folder, refusal):
        (folder / "labels.json").write_text("can, carton")
        refusal("not valid JSON")

    def test_weights_cut_short(self, folder, refusal):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        refusal("cut short or damaged")

    def test_weights_of_another_backbone(self, folder, refusal):
        change(folder / "preprocess.json", backbone="squeezenet1_0")
        refusal(r"no weights of squeezenet1_0: .* fit squeezenet1_1")

    def test_an_unknown_backbone(self, folder, refusal):
        change(folder / "preprocess.json", backbone="squeezenet1_2")
        refusal("squeezenet1_1", error=ConfigError)


@pytest.mark.fixtures
def test_real_weights_survive_the_folder(fixtures, tmp_path):
    """mobilenet_v2 with ImageNet's names: the best class of a hot dog is the same from the folder."""
    from vtray.classify.backbone import load_weights_into
    from vtray.classify.preprocessing import decode_for
    from vtray.classify.published import class_names_of, preprocessing_of
    from vtray.weights import load_weights

    uri = str(fixtures / "weights/mobilenet_v2_imagenet.pth")
    classifier = build_classifier("mobilenet_v2", num_classes=1000).eval()
    load_weights_into(classifier, load_weights(uri).tensors, uri=uri, head=True)
    preprocessing, names = preprocessing_of("mobilenet_v2"), class_names_of("mobilenet_v2")
    save_model(
        open_storage(str(tmp_path)),
        Model(classifier=classifier, classes=names, preprocessing=preprocessing),
    )
    shutil.copytree(tmp_path, tmp_path / "moved" / "model")
    loaded = load_model(str(tmp_path / "moved"))
    image = decode_for(loaded.preprocessing, (fixtures / "content/hot_dog.jpg").read_bytes(), 10**8)
    assert loaded.classes[int(loaded.logits(image[None]).argmax())] == "hotdog"

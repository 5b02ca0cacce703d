"""What onnxruntime computes from the exported file is what torch computes from the model."""

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from classify_support import CLASSES, PREPROCESSING, write_model
from drawn import draw_image

from vtray.classify.backbone import build_classifier
from vtray.classify.model_dir import Model
from vtray.classify.onnx_export import export_onnx
from vtray.errors import ConfigError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(model):
    return export_onnx(model)


def session_of(encoded):
    return onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])


def images(number):
    return np.stack([draw_image(n, 48, 48) for n in range(number)])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_number_of_images(model, exported, batch):
    crops = images(batch)
    pixels = PREPROCESSING.pixels(torch.tensor(crops).permute(0, 3, 1, 2)).numpy()
    logits, probabilities = session_of(exported).run(["logits", "probabilities"], {"pixels": pixels})
    expected = model.logits(crops)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(probabilities, (expected / 2.0).softmax(1), atol=1e-5)
    assert len(set(logits.argmax(1))) == batch, "the network takes all for one class"


def test_names_and_shapes(exported):
    session = session_of(exported)
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("pixels", "tensor(float)", [3, 48, 48])
    assert isinstance(taken.shape[0], str)
    assert [output.name for output in session.get_outputs()] == ["logits", "probabilities"]


def test_the_file_says_how_to_use_it(model, exported):
    onnx.checker.check_model(onnx.load_from_string(exported), full_check=True)
    notes = session_of(exported).get_modelmeta().custom_metadata_map
    assert tuple(json.loads(notes["classes"])) == CLASSES
    assert json.loads(notes["preprocessing"])["crop_px"] == 48
    assert json.loads(notes["preprocessing"])["backbone"] == "squeezenet1_1"
    assert (json.loads(notes["temperature"]), notes["sha256"]) == (2.0, model.sha256)


def test_with_preprocessing_it_takes_bytes(model):
    session = session_of(export_onnx(model, with_preprocessing=True))
    crops = images(3)
    (logits,) = session.run(["logits"], {"images": crops.transpose(0, 3, 1, 2)})
    assert session.get_inputs()[0].type == "tensor(uint8)"
    np.testing.assert_allclose(logits, model.logits(crops), rtol=1e-5, atol=1e-4)


def test_tokens_keep_the_number_of_images_open():
    """A transformer reshapes by the number of images, which a tracer easily takes for a constant."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = build_classifier("vit_b_32", num_classes=3).eval()
    del classifier.network.encoder.layers[1:]  # one block shows it as well as twelve
    preprocessing = PREPROCESSING.from_json(PREPROCESSING.to_json() | {"resize_px": 224, "crop_px": 224})
    encoded = export_onnx(Model(classifier=classifier, classes=("a", "b", "c"), preprocessing=preprocessing))
    pixels = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    (logits,) = session_of(encoded).run(["logits"], {"pixels": pixels.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(logits, classifier.network(pixels), atol=1e-4)


def test_without_the_extra_it_says_what_to_install(model, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "vtray.classify.onnx_export.find_spec", lambda name: None if name == "onnxscript" else find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"export needs onnxscript; install them: pip install 'vtray\[onnx\]'"):
        export_onnx(model)

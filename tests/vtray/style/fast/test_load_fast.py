"""Fast models: the folder that train-style writes, published files with old keys, and what is refused."""

import json

import pytest
import torch
from fast_networks import UpstreamMsgNet, content, old_tensors, tiny_msgnet, tiny_transformer
from safetensors.torch import load_file

from vtray.errors import ConfigError, WeightsError
from vtray.storage import open_storage
from vtray.style.fast.load import FastModel, load_fast
from vtray.style.fast.save import encode_fast, save_fast

STYLES = ("night", "storm")


def model_of(engine):
    if engine == "feedforward":
        return FastModel(engine=engine, network=tiny_transformer(), styles=STYLES[:1], config={"size_px": 64})
    network = tiny_msgnet()
    grams = {name: network.style_gram(content(seed=n)) for n, name in enumerate(STYLES)}
    return FastModel(engine=engine, network=network, styles=STYLES, grams=grams)


def saved(engine, folder):
    model = model_of(engine)
    thumbnails = dict.fromkeys(model.styles, b"png")
    save_fast(open_storage(str(folder)), encode_fast(model, thumbnails=thumbnails, preview=b"sheet"))
    return model


def result(model):
    return model.network(content(), *list(model.grams.values())[-1:])


@pytest.mark.parametrize("engine", ["feedforward", "msgnet"])
class TestFolder:
    def test_a_model_comes_back_the_same(self, engine, tmp_path):
        model = saved(engine, tmp_path / "model")
        for uri in (tmp_path / "model", tmp_path):  # the folder itself, and the output of a run
            loaded = load_fast(str(uri))
            assert (loaded.engine, loaded.styles) == (engine, model.styles)
            assert torch.equal(result(loaded), result(model))
            assert loaded.grams.keys() == model.grams.keys()
            assert not loaded.network.training
        assert loaded.config.get("size_px") == model.config.get("size_px")

    def test_it_holds_its_files(self, engine, tmp_path):
        model = saved(engine, tmp_path)
        names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
        expected = {"model.safetensors", "config.json", "preview.png"}
        expected |= {f"thumbnails/{name}.png" for name in model.styles}
        assert names == expected | ({"grams.safetensors"} if engine == "msgnet" else set())

    def test_the_same_network_gives_the_same_bytes(self, engine, tmp_path):
        first, second = (encode_fast(model_of(engine), thumbnails={}) for _ in range(2))
        assert first == second

    def test_weights_of_another_model_are_refused(self, engine, tmp_path):
        saved(engine, tmp_path)
        path = tmp_path / "model.safetensors"
        damaged = bytearray(path.read_bytes())
        damaged[-1] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="belongs to another model"):
            load_fast(str(tmp_path))

    def test_a_wrong_hash_is_refused(self, engine, tmp_path):
        saved(engine, tmp_path)
        with pytest.raises(WeightsError, match="expected 0000"):
            load_fast(str(tmp_path), "0" * 64)


class TestRefused:
    def test_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(WeightsError, match="no fast style model there"):
            load_fast(str(tmp_path))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not valid JSON"),
            ("[]", "no JSON object"),
            ('{"engine": "optimize", "styles": ["a"]}', "allowed: feedforward, msgnet"),
            ('{"engine": "msgnet", "styles": []}', "no list of names"),
        ],
    )
    def test_a_broken_config(self, tmp_path, text, message):
        saved("msgnet", tmp_path)
        (tmp_path / "config.json").write_text(text)
        with pytest.raises((WeightsError, ConfigError), match=message):
            load_fast(str(tmp_path))

    def test_the_network_of_another_engine(self, tmp_path):
        saved("msgnet", tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"engine": "feedforward"}))
        with pytest.raises(WeightsError, match="is the network of engine msgnet"):
            load_fast(str(tmp_path))

    def test_a_style_without_its_gram(self, tmp_path):
        saved("msgnet", tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"styles": ["night", "dawn"]}))
        with pytest.raises(WeightsError, match="style 'dawn' is missing"):
            load_fast(str(tmp_path))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t.pop("in3.bias"), "in3.bias is missing"),
            (lambda t: t.update({"in9.bias": torch.ones(2)}), "in9.bias is none of its keys"),
            (lambda t: t.update({"in3.bias": torch.ones(2)}), r"in3.bias has shape \(2,\), expected \(16,\)"),
            (lambda t: t.pop("conv1.conv2d.weight"), "no fast style network"),
            (lambda t: t.update({"conv1.conv2d.weight": torch.ones(())}), r"conv1.conv2d.weight has shape \(\)"),
        ],
    )
    def test_tensors_that_do_not_fit(self, tmp_path, change, message):
        tensors = dict(tiny_transformer().state_dict())
        change(tensors)
        torch.save(tensors, tmp_path / "style.pth")
        with pytest.raises(WeightsError, match=message):
            load_fast(str(tmp_path / "style.pth"))

    def test_one_name_with_two_values(self, tmp_path):
        tensors = dict(UpstreamMsgNet(tiny_msgnet()).state_dict())
        tensors["ins.weight"] = tensors["ins.weight"] + 1
        torch.save(tensors, tmp_path / "msg.pth")
        with pytest.raises(WeightsError, match="stands there twice"):
            load_fast(str(tmp_path / "msg.pth"))

    def test_no_file(self, tmp_path):
        with pytest.raises(WeightsError, match="no such weights file"):
            load_fast(str(tmp_path / "style.pth"))


class TestPublished:
    @pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
    def test_an_old_transformer_net(self, tmp_path, wrapper):
        network = tiny_transformer()
        tensors = old_tensors(network)
        assert len(tensors) == 62 + 2 * 15
        torch.save({wrapper: tensors} if wrapper else tensors, tmp_path / "mosaic.pth")
        loaded = load_fast(str(tmp_path / "mosaic.pth"))
        assert (loaded.engine, loaded.styles) == ("feedforward", ("mosaic",))
        assert torch.equal(loaded.network(content()), network(content()))

    def test_an_old_msg_net_works_on_bgr(self, tmp_path):
        ours = tiny_msgnet()
        tensors = old_tensors(UpstreamMsgNet(ours))
        assert {"module.model1.0.conv2d.weight", "module.ins.weight", "module.model.1.weight"} <= tensors.keys()
        torch.save(tensors, tmp_path / "21styles.model")
        loaded = load_fast(str(tmp_path / "21styles.model"))
        pixels, style = content(), content(seed=9)
        expected = ours(pixels.flip(1), ours.style_gram(style.flip(1))).flip(1)
        found = loaded.network(pixels, loaded.network.style_gram(style))
        assert loaded.styles == ()
        assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))

    def test_a_safetensors_file(self, tmp_path):
        saved("feedforward", tmp_path)
        assert load_fast(str(tmp_path / "model.safetensors")).styles == ("model",)
        assert len(load_file(tmp_path / "model.safetensors")) == 62

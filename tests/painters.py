"""Small fast networks with random weights, the published ones, and work for each of them."""

from pathlib import Path

import torch
from style_networks import stripes, style_of

from vtray.images import encode
from vtray.storage import open_storage
from vtray.style.fast.load import FastModel
from vtray.style.fast.msgnet import MsgNet
from vtray.style.fast.save import encode_fast, save_fast
from vtray.style.fast.transformer import TransformerNet
from vtray.style.work import FastSpec, FastWork, WeightsFile

ENGINES = ("feedforward", "msgnet", "adain", "microast")
STYLES = ("across", "along")


def feedforward_model(folder: Path, *, width: int = 8) -> str:
    torch.manual_seed(1)
    network = _lively(TransformerNet(width))
    return _saved(FastModel(engine="feedforward", network=network, styles=STYLES[:1]), folder)


def msgnet_model(folder: Path, *, filters: int = 8, width: int = 16) -> str:
    torch.manual_seed(2)
    network = _lively(MsgNet(filters, width=width, num_blocks=2))
    pictures = [torch.from_numpy(stripes(turn)).permute(2, 0, 1)[None].float() for turn in (1, 0)]
    with torch.inference_mode():
        grams = dict(zip(STYLES, map(network.style_gram, pictures), strict=True))
    return _saved(FastModel(engine="msgnet", network=network, styles=STYLES, grams=grams), folder)


def _lively(network):
    """Random weights whose output spans the range of pixels."""
    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(60)
        last.bias.fill_(120)
    return network.eval().requires_grad_(requires_grad=False)


def _saved(model: FastModel, folder: Path) -> str:
    pictures = {"across": stripes(1), "along": stripes(0)}
    thumbnails = {name: encode(pictures[name], format="png") for name in model.styles}
    save_fast(open_storage(str(folder)), encode_fast(model, thumbnails=thumbnails, preview=thumbnails["across"]))
    return str(folder)


def weights_of(engine: str, folder: Path, fixtures: Path) -> tuple[WeightsFile, ...]:
    """The files of an engine: models made in `folder`, published weights of the fixtures."""
    if engine == "adain":
        place = fixtures / "style/vgg_normalised"
        files = {"encoder": "vgg_normalised_conv3_1.pth", "decoder": "feature_invertor_conv3_1.pth"}
    elif engine == "microast":
        place = fixtures / "style/MicroAST"
        parts = ("content_encoder", "style_encoder", "modulator", "decoder")
        files = {part: f"{part}_iter_160000.pth.tar" for part in parts}
    else:
        make = feedforward_model if engine == "feedforward" else msgnet_model
        return (WeightsFile(part="model", uri=make(folder / engine), sha256=""),)
    return tuple(WeightsFile(part=part, uri=str(place / name), sha256="") for part, name in files.items())


def fast_work(engine: str, folder: Path, fixtures: Path, *styles, **options) -> FastWork:
    named = engine in ("feedforward", "msgnet") and not styles
    styles = styles or ((style_of(stripes(), name="along"),) if engine != "feedforward" else ())
    spec = FastSpec(engine=engine, weights=weights_of(engine, folder, fixtures), **({"style_px": 64} | options))
    return FastWork(styles=styles, fast=spec, named=named)

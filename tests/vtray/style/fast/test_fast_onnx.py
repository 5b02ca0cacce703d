"""Fast networks by onnxruntime paint what torch paints, in any size and batch."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from painters import ENGINES, fast_work
from style_networks import picture

from vtray.errors import ConfigError
from vtray.style.engines.engine import engine_for
from vtray.style.engines.stylized import Request
from vtray.style.fast import onnx as fast_onnx
from vtray.style.fast.onnx import export_painter, onnx_painter
from vtray.style.fast.painter import load_painter


@pytest.mark.parametrize("engine", ENGINES)
def test_onnxruntime_paints_the_same(engine, tmp_path, fixtures):
    painter = load_painter(fast_work(engine, tmp_path, fixtures))
    paint = onnx_painter(painter, threads=1)
    for shape in ((1, 3, 16, 90), (3, 3, 67, 50)):
        pixels = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = painter(pixels)
        assert (paint(pixels) - expected).abs().max() < 1e-3


def test_the_engine_runs_it_and_tiles_with_torch(tmp_path, fixtures):
    work = fast_work("feedforward", tmp_path, fixtures)
    engine = engine_for(replace(work, fast=replace(work.fast, runtime="onnxruntime")))
    images = [picture(1, 48, 64), picture(2, 33, 40)]
    for one, other in zip(
        *(each.stylize([Request(image=image) for image in images]) for each in (engine, engine_for(work))),
        strict=True,
    ):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1


def test_the_file_says_its_inputs_and_outputs(tmp_path, fixtures):
    model = onnx.load_from_string(export_painter(load_painter(fast_work("feedforward", tmp_path, fixtures))))
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["pixels", "stylized"]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [bool(axis.dim_param) for axis in shape] == [True, False, True, True]


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(fast_onnx, "find_spec", lambda name: None if name == "onnxruntime" else True)
    with pytest.raises(ConfigError, match=r"needs onnxruntime; install them: pip install 'vtray\[onnx\]'"):
        fast_onnx.require_onnxruntime()

"""A painter as an ONNX program of any size and batch, and a painter that runs it with onnxruntime.

B images, H rows, W columns. The style is inside the file; pixels are RGB 0 to 1, not clamped at the end.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from vtray.errors import ConfigError
from vtray.style.fast.painter import Painter

NEEDED = ("onnx", "onnxscript", "onnxruntime")
PIXELS, STYLIZED = "pixels", "stylized"
OPSET = 18
EXAMPLE_PX = (64, 80)


def export_painter(painter: Painter) -> bytes:
    """The program: `pixels`, float32 (B, 3, H, W), to `stylized` of the same shape, for any B, H and W.

    Raises: ConfigError if the packages of the extra are not installed.
    """
    require_onnxruntime()
    axes = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("height", min=16),
        3: torch.export.Dim("width", min=16),
    }
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torch's exporter warns about its own insides
        program = torch.onnx.export(
            painter,
            (torch.rand(2, 3, *EXAMPLE_PX),),
            input_names=[PIXELS],
            output_names=[STYLIZED],
            dynamic_shapes=(axes,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    encoded: bytes = program.model_proto.SerializeToString()
    return encoded


def onnx_painter(painter: Painter, *, threads: int) -> Callable[[Tensor], Tensor]:
    """What paints like `painter`, by onnxruntime on the CPU. Raises: ConfigError as `export_painter`."""
    encoded = export_painter(painter)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])

    def paint(pixels: Tensor) -> Tensor:
        (stylized,) = session.run([STYLIZED], {PIXELS: pixels.numpy()})
        return torch.from_numpy(stylized)

    return paint


def require_onnxruntime() -> None:
    """Raises: ConfigError if a package is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"engine.runtime=onnxruntime needs {' and '.join(missing)}; install them: pip install 'vtray[onnx]'"
        )

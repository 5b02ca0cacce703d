"""`vtray export`: a model as one file for other runtimes."""

from pathlib import Path

from vtray.classify.model_dir import load_model
from vtray.classify.onnx_export import export_onnx, require_onnx
from vtray.errors import ConfigError
from vtray.report.numbers import bytes_text


def export(model: str, *, to: Path, with_preprocessing: bool) -> None:
    """Write MODEL as ONNX and say what it takes and gives. Raises: ConfigError, WeightsError, StorageError."""
    if to.suffix != ".onnx":
        raise ConfigError(f"--to {to}: ONNX is what vtray writes; give a name that ends in .onnx")
    require_onnx()
    loaded = load_model(model)
    encoded = export_onnx(loaded, with_preprocessing=with_preprocessing)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(encoded)
    side = loaded.preprocessing.crop_px
    inputs = "images, uint8" if with_preprocessing else "pixels, float32"
    lines = {
        "file": f"{to}, {bytes_text(len(encoded))}",
        "input": f"{inputs} (batch, 3, {side}, {side})",
        "outputs": f"logits and probabilities, float32 (batch, {len(loaded.classes)})",
        "metadata": "classes, preprocessing, temperature",
    }
    print("\n".join(f"  {name:<10}{value}" for name, value in lines.items()))

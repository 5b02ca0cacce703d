"""What torch's functions do when a network's `forward` gets a field in place of a tensor.

Signatures are torch's own. A function that is not here raises NotImplementedError with its name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vtray.style.fast.field import Field, Pointwise, Statistics, added
from vtray.style.fast.windows import Convolved, Padded, Pooled, Upsampled


def _multiply(one: Any, other: Any) -> Field:
    return Pointwise(torch.mul, one, other)


def _pad(source: Field, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Field:
    if mode != "reflect":
        raise NotImplementedError(f"padding of mode {mode} is not known for fields")
    return Padded(source, pad)


def _conv2d(
    source: Field,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Field:
    stride, padding, dilation = (
        each if isinstance(each, int) else each[0] for each in (stride, padding, dilation)
    )
    if padding != 0 or dilation != 1:
        raise NotImplementedError("padded and dilated convolutions are not known for fields")
    return Convolved(source, weight, bias, stride=stride, groups=groups)


def _relu(source: Field, inplace: bool = False) -> Field:  # torch's own signature
    return Pointwise(torch.relu, source)


def _interpolate(source: Field, *, scale_factor: float, mode: str, **_: Any) -> Field:
    if scale_factor != 2:
        raise NotImplementedError(f"scale factor {scale_factor} is not known for fields")
    return Upsampled(source, mode)


def _max_pool2d(source: Field, kernel_size: int, stride: int | None = None, **options: Any) -> Field:
    if (kernel_size, stride) != (2, 2) or not options.get("ceil_mode"):
        raise NotImplementedError("only 2 x 2 pooling with ceil_mode is known for fields")
    return Pooled(source)


def _instance_norm(
    source: Field, *, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, **_: Any
) -> Field:
    """As one scale and one shift of each channel, in fp32 as torch does it inside."""
    variance, mean = source.canvas.statistics(source)
    scale = (variance + eps).rsqrt()
    shift = -mean * scale
    if weight is not None and bias is not None:
        gain = weight.view(1, -1, 1, 1).float()
        scale, shift = scale * gain, shift * gain + bias.view(1, -1, 1, 1).float()

    def normalise(window: Tensor) -> Tensor:
        return torch.addcmul(shift, window.float(), scale).to(window.dtype)

    return Pointwise(normalise, source)


def _var_mean(source: Field, dim: Sequence[int], *, correction: int, keepdim: bool) -> Statistics:
    assert tuple(dim) == (2, 3)
    assert keepdim
    variance, mean = source.canvas.statistics(source)
    count = source.shape[-2] * source.shape[-1]
    return variance * (count / (count - correction)), mean


OPERATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    functional.pad: _pad,
    torch.conv2d: _conv2d,
    functional.relu: _relu,
    torch.relu: _relu,
    functional.interpolate: _interpolate,
    functional.max_pool2d: _max_pool2d,
    functional.instance_norm: _instance_norm,
    torch.var_mean: _var_mean,
    torch.Tensor.add: added,
    torch.Tensor.mul: _multiply,
}

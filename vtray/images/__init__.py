"""Encoded bytes to uint8 HWC RGB and back; every file ends as pixels or as one `ImageError` with a reason."""

from vtray.images.codec import FORMATS, MAX_PIXELS, DecodedImage, ImageFormat, decode, encode

__all__ = ["FORMATS", "MAX_PIXELS", "DecodedImage", "ImageFormat", "decode", "encode"]

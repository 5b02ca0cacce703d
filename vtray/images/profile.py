"""ICC profiles: what they describe, and the way to sRGB for pixels that are not RGB.

Source: ICC.1:2022, section 7.2. Intent and black point as image editors have them by default: relative
colorimetric with black point compensation.
"""

import io

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

from vtray.images.modes import Pixels

_HEADER = 128  # bytes
_SRGB = ImageCms.createProfile("sRGB")


def colour_space(profile: bytes) -> str:
    """What a profile describes: "RGB", "GRAY", "CMYK", "Lab" and others.

    Raises:
        ValueError: not an ICC profile.
    """
    if len(profile) <= _HEADER or profile[36:40] != b"acsp":
        raise ValueError(f"not an ICC profile ({len(profile)} bytes)")
    return profile[16:20].decode("latin-1").strip()


def to_srgb(image: Pillow.Image, profile: bytes) -> Pixels:
    """A grey or CMYK image as its profile means it -> uint8 (H, W, 3) sRGB.

    Raises:
        ValueError: the profile is damaged or for other pixels.
    """
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _SRGB,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(f"the profile cannot be applied: {error}") from error
    return np.array(converted)

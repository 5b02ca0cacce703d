"""One photograph of one product: pose, place, light and camera, all drawn from one generator.

`MACHINE` is the setting in which training pictures were taken; `SHOWROOM` is where the product is met later: warm
lamps, little light, a polished desk that mirrors, glare on the pack.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from vtray.demo.backgrounds import STAGES, Backdrop
from vtray.demo.camera import MARGIN, Exposure, Image, Limits, developed, framed
from vtray.demo.cutout import Cutout, Pose
from vtray.demo.light import Light, Pixels, dimmed, softened
from vtray.demo.products import Product, product

_SUPERSAMPLING = 1.35


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a picture is drawn from.

    Names of stages; where the product stands (share of the size below the middle); how large it is (1 fills the
    frame); exposure; strength of glare on the product.
    """

    stages: tuple[str, ...]
    foot: Limits
    scale: Limits
    exposure: Exposure
    glare: float


MACHINE = Setting(
    stages=("shelf", "coil", "glass", "metal", "wood"),
    foot=(0.355, 0.385),
    scale=(0.86, 1.04),
    exposure=Exposure(kelvin=(5200, 7400), gain=(0.95, 1.3), noise=(0.003, 0.013), blur=(0.0, 0.0022)),
    glare=0.0,
)
SHOWROOM = Setting(
    stages=("polished_desk",),
    foot=(0.24, 0.31),
    scale=(0.74, 0.9),
    exposure=Exposure(kelvin=(2700, 3300), gain=(0.45, 0.75), noise=(0.008, 0.022), blur=(0.001, 0.003)),
    glare=0.9,
)


def photograph(class_name: str, rng: np.random.Generator, *, setting: Setting, size_px: int) -> Image:
    """A new picture of that product, uint8 (size_px, size_px, 3) RGB.

    Raises:
        ValueError: no product of that name.
    """
    item = product(class_name)
    canvas = round(size_px * (1 + 2 * MARGIN))
    stage = setting.stages[int(rng.integers(len(setting.stages)))]
    backdrop = STAGES[stage](rng, canvas)
    light = Light.drawn(rng, floor=cv2.mean(backdrop.behind[-canvas // 4 :])[:3])
    pose = _drawn_pose(item, rng, height_px=rng.uniform(*setting.scale) * size_px)
    foot = (canvas / 2 + rng.uniform(-0.09, 0.09) * size_px, canvas / 2 + rng.uniform(*setting.foot) * size_px)
    shown = _rendered(item, pose, light).placed(canvas, foot)
    scene = backdrop.behind
    if backdrop.gloss > 0.1:
        scene = _mirrored_in_floor(scene, _reflection(item, pose, light).placed(canvas, foot), backdrop=backdrop)
    scene = shown.over(dimmed(scene, _shadow(shown, pose, light=light)))
    if setting.glare:
        scene = scene + _glare(shown, rng, strength=setting.glare)
    if backdrop.veil:
        scene = backdrop.veil[0] + backdrop.veil[1] * scene
    scene = framed(dimmed(scene, _falloff(rng, canvas)), rng, size_px=size_px)
    return developed(scene, rng, exposure=setting.exposure)


def _drawn_pose(item: Product, rng: np.random.Generator, *, height_px: float) -> Pose:
    """A pose, tall products larger than short ones, though less than they are."""
    share = 0.4 + 0.0205 * item.height
    return Pose(yaw=rng.uniform(-0.75, 0.75), tilt=rng.uniform(0.07, 0.24), height_px=share * height_px)


def _rendered(item: Product, pose: Pose, light: Light) -> Cutout:
    large = Pose(yaw=pose.yaw, tilt=pose.tilt, height_px=pose.height_px * _SUPERSAMPLING)
    return item.render(large, light).reduced(_SUPERSAMPLING)


def _reflection(item: Product, pose: Pose, light: Light) -> Cutout:
    """The product as the floor sees it: from as far below as the camera is above, upside down."""
    below = Pose(yaw=pose.yaw, tilt=-pose.tilt, height_px=pose.height_px)
    return item.render(below, light).upside_down()


def _mirrored_in_floor(scene: Pixels, image: Cutout, *, backdrop: Backdrop) -> Pixels:
    """The floor with the mirrored product in it, weaker and softer away from the contact."""
    size_px = scene.shape[0]
    rows = np.arange(size_px, dtype=np.float32)[:, None, None] - image.foot[1]
    fading = np.exp(-np.maximum(rows, 0) / (0.35 * size_px))
    strength = backdrop.gloss * fading
    sent, hidden = (softened(plane, backdrop.haze * size_px) for plane in (image.light, image.cover))
    return np.asarray(scene * (1 - strength * hidden[..., None]) + strength * sent, np.float32)


def _shadow(shown: Cutout, pose: Pose, *, light: Light) -> Pixels:
    """How much light is left around the product: a dark seam at its base and a soft shadow behind it, (H, W)."""
    size_px = shown.light.shape[0]
    x, y = shown.foot
    half_width = float((shown.cover.max(axis=0) > 0.1).sum()) / 2
    seam = np.zeros((size_px, size_px), np.uint8)
    axes = (max(2, round(half_width)), max(2, round(half_width * max(math.sin(pose.tilt), 0.1))))
    cv2.ellipse(seam, (round(x), round(y)), axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
    lean, squash = -0.75 * math.sin(light.key_azimuth), 0.28
    onto_floor = np.array([[1, -lean, lean * y], [0, squash, y - squash * y]], np.float32)
    cast = cv2.warpAffine(shown.cover, onto_floor, (size_px, size_px))
    close, wide = (softened(seam.astype(np.float32), share * size_px) / 255 for share in (0.012, 0.05))
    soft = softened(cast, 0.03 * size_px)
    left = (1 - 0.6 * close) * (1 - 0.35 * wide) * (1 - 0.4 * light.key_strength * soft)
    return np.asarray(left, np.float32)


def _glare(shown: Cutout, rng: np.random.Generator, *, strength: float) -> Pixels:
    """One or two lamps mirrored as bright soft patches on the product, (H, W, 1)."""
    size_px = shown.light.shape[0]
    patch = np.zeros((size_px, size_px), np.float32)
    tall = float((shown.cover.max(axis=1) > 0.1).sum())
    for _ in range(int(rng.integers(1, 3))):
        at = (shown.foot[0] + rng.normal(0, 0.12) * tall, shown.foot[1] - rng.uniform(0.25, 0.95) * tall)
        axes = (rng.uniform(0.04, 0.12) * tall, rng.uniform(0.1, 0.3) * tall)
        lamp = np.zeros((size_px, size_px), np.uint8)
        cv2.ellipse(lamp, (at, (2 * axes[0], 2 * axes[1]), rng.uniform(-25, 25)), 255, -1, cv2.LINE_AA)
        soft = softened(lamp.astype(np.float32), rng.uniform(0.012, 0.04) * size_px) / 255
        patch += rng.uniform(0.35, 1.0) * soft
    return (strength * patch * (0.12 + 0.88 * shown.cover))[..., None]


def _falloff(rng: np.random.Generator, size_px: int) -> Pixels:
    """Light that weakens to one side and to the corners, (H, W), about 1 on average."""
    axis = np.linspace(-1, 1, size_px, dtype=np.float32)
    across, down = rng.uniform(-0.18, 0.18), rng.uniform(-0.2, 0.05)
    slope = 1 + across * axis[None, :] + down * axis[:, None]
    corner = 1 - rng.uniform(0.05, 0.2) * (axis[None, :] ** 2 + axis[:, None] ** 2) / 2
    return np.asarray(slope * corner, np.float32)

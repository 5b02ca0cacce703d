import numpy as np
from numpy.typing import NDArray

# The box of `image` as a picture of size (width, height) in `out`; contiguous 8-bit RGB both.
# Raises: ValueError for a box outside of the image or an `out` of another size.
def resize(
    image: NDArray[np.uint8],
    image_width: int,
    box: tuple[int, int, int, int],
    out: NDArray[np.uint8],
    size: tuple[int, int],
    columns_first: bool,
    /,
) -> None: ...

"""Images inside a document: PNG as text that a page shows without asking anyone."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from lifelong_cvae import figures


def png(images: Any) -> str:
    """Images side by side, as the address of a picture that holds it (`data:image/png;base64,...`).

    Args:
        images: `[n, h, w, c]`, uint8 or float in [0, 1]; 3 channels are colour, of any other number the mean
            is shown in grey, light on black.
    """
    pixels = np.rint(255 * figures.mosaic({"": images})).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"

"""Classifies image files with an exported network, without stepwise-jax: needs jax, flatbuffers and opencv-python.

    python launch.py export runs/photos --out photos.stablehlo
    python examples/exported_network.py photos.stablehlo photo.jpg ...

`read_image` decodes and scales exactly as training and `predict` do, so the probabilities agree with those of
`python launch.py predict`.
"""

import json
import sys
from pathlib import Path

import cv2
import jax.export
import numpy as np

REDUCTIONS = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
"""By how much a JPEG may be reduced while it is decoded."""


def read_image(path: str, size: int) -> np.ndarray:
    """Decode an image to uint8 RGB [size, size, 3], upright and scaled as "resizing" in the description says."""
    encoded = np.fromfile(path, np.uint8)
    shorter = min(_decode(path, encoded, cv2.IMREAD_COLOR).shape[:2])
    reductions = [n for n in REDUCTIONS if shorter >= n * size and encoded[:2].tobytes() == b"\xff\xd8"]
    image = _decode(path, encoded, REDUCTIONS[max(reductions)] if reductions else cv2.IMREAD_COLOR)
    by_area = not reductions and shorter >= size
    scaled = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if by_area else cv2.INTER_LINEAR)
    return scaled[..., ::-1]


def _decode(path: str, encoded: np.ndarray, flags: int) -> np.ndarray:
    image = cv2.imdecode(encoded, flags)
    if image is None:
        raise ValueError(f"{path}: truncated, damaged, or no image")
    return image


def main(network: str, paths: list[str]) -> None:
    """Print the most probable class of each image file."""
    classify = jax.export.deserialize(bytearray(Path(network).read_bytes()))
    about = json.loads(Path(network).with_suffix(".json").read_text())
    images = np.stack([read_image(path, about["image_size"]) for path in paths])
    for path, probabilities in zip(paths, np.asarray(classify.call(images)), strict=True):
        print(f"{path}: {about['classes'][probabilities.argmax()]} {100 * probabilities.max():.2f} %")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python exported_network.py NETWORK.stablehlo IMAGE...")
    main(sys.argv[1], sys.argv[2:])

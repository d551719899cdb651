"""Your own data set, described as plain data and prepared once: discs and squares, drawn here.

python examples/own_dataset.py --data-dir DATA
python launch.py train configs/digits.py --data.name stepwise_shapes --data.data_dir DATA --workdir runs/shapes
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from stepwise_jax.cli.display import make_display
from stepwise_jax.data.prepared import writing
from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.errors import StepwiseError

CLASSES = ("disc", "square")
SIDE = 16


def draw(name: str) -> np.ndarray:
    """The image of an id such as "train/7", uint8 [16, 16, 3]: a shape of its class at a random position, on noise."""
    split, _, row = name.partition("/")
    generator = np.random.default_rng([split == "train", int(row)])
    image = generator.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE] - generator.integers(4, SIDE - 4, (2, 1, 1))
    inside = np.hypot(y, x) <= 4 if int(row) % 2 == 0 else np.maximum(abs(y), abs(x)) <= 3
    image[inside] += generator.integers(50, 150, 3, dtype=np.uint8)
    return image


def split(name: str, examples: int) -> SourceSplit:
    """The ids and labels of a split; discs and squares alternate."""
    rows = range(examples)
    return SourceSplit(ids=tuple(f"{name}/{row}" for row in rows), labels=tuple(row % 2 for row in rows))


def shapes(train: int, test: int) -> Source:
    """The data set; if images are files, `read` returns their encoded bytes and `array_shape` is None."""
    return Source(
        name="shapes",
        version="1.0.0",
        class_names=CLASSES,
        origin="examples/own_dataset.py",
        splits={"train": split("train", train), "test": split("test", test)},
        read=draw,
        array_shape=(SIDE, SIDE, 3),
        size_bytes=(train + test) * SIDE * SIDE * 3,
    )


def main() -> int:
    """Prepares the data set under --data-dir, unless it is already there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="where prepared data sets are kept")
    options = parser.parse_args()
    display = make_display()
    try:
        writing.prepare(shapes(train=2000, test=500), options.data_dir, display.show_progress)
    except StepwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    finally:
        display.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())

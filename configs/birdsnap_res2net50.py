"""Table III, first half: Res2Net-50 on Birdsnap from scratch, A, B, C, D, O with b, 2b, 3b, 4b, b.

    python launch.py train configs/birdsnap_res2net50.py --workdir runs/birdsnap_res2net50
    python launch.py train configs/birdsnap_res2net50.py:baseline --workdir runs/birdsnap_res2net50_baseline
    python launch.py compare configs/birdsnap_res2net50.py --strategies rows --seeds 3 \
        --workdir runs/birdsnap_res2net50_rows

The paper reports top-1 62.14 % and top-5 85.15 %, and for the baseline 61.79 % and 83.38 %; none of them is a fraction
of the 2,443 test images. Prepare the images first, as described in docs/data.md.

Cost: 2,843,160 samples in 71,000 updates; baseline 4,738,600 samples in 197,400 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The last row of Table III's first half."""
    return _paper.experiment("III-Res2Net-50", "birdsnap", "res2net50_26w_4s")


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table III's first half, by name."""
    return _paper.rows(get_config())

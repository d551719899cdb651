"""Table VII, b = 24: Res2Net-50 on masked and bare faces from ImageNet weights, with and without varying lambda and b.

    mkdir -p weights
    python launch.py import-weights res2net50_26w_4s res2net50_26w_4s-06e79181.pth \
        --out weights/res2net50_26w_4s.safetensors
    python launch.py train configs/face_mask_res2net50_b24.py --workdir runs/face_mask_res2net50_b24
    python launch.py train configs/face_mask_res2net50_b24.py:baseline --workdir runs/face_mask_res2net50_b24_baseline
    python launch.py compare configs/face_mask_res2net50_b24.py --strategies rows --seeds 3 \
        --workdir runs/face_mask_res2net50_b24_rows

The paper reports top-1 100.00 % (row stepwise: lambda_i and b_i), and for the baseline 99.53 %; no top-5. With lambda_i
and a constant b (row constant_b) 97.97 %, with a constant lambda and b_i (constant_rate) 99.69 %, with both constant
(constant_rate_and_b) 99.69 %. Section IV-C adds A, C, O with b, 2b, b (row A-C-O), 99.53 %, and A, O with b, 2b (row
A-O), 98.44 %. The text does not specify b and Eq. 9 for these two rows; b = 24 and Eq. 9 are assumed.

The mask experiments belong to Section IV-C, whose runs start from ImageNet weights. Fetch
res2net50_26w_4s-06e79181.pth from the authors' repository (https://github.com/Res2Net/Res2Net-PretrainedModels);
import-weights checks it and writes it where this file looks for it, relative to the working directory. Use
--model.initial_weights FILE for another path. The classifier is initialized from the seed. Prepare the images first, as
described in docs/data.md.

Cost: 150,540 samples in 3,680 updates (6,200 with a constant b; A, C, O 90,320 samples in 3,100 updates; A, O 60,220 in
1,440); baseline 250,900 samples in 10,400 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """A, B, C, D, O with b, 2b, 3b, 4b, b and lambda_i: the row of Table VII that reaches 100 %."""
    return _paper.experiment("VII-b24", "face_mask", "res2net50_26w_4s", initial_weights=_paper.RES2NET_WEIGHTS)


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table VII with b = 24, by name, and the two splits of Section IV-C."""
    table = _paper.rows(
        get_config(),
        {
            "constant_b": {"batch_multipliers": (1.0,) * 5},
            "constant_rate": {"learning_rate_rule": "constant"},
            "constant_rate_and_b": {"learning_rate_rule": "constant", "batch_multipliers": (1.0,) * 5},
        },
    )
    splits = {
        "A-C-O": {"fractions": (0.2, 0.6, 1.0), "batch_multipliers": (1.0, 2.0, 1.0)},
        "A-O": {"fractions": (0.2, 1.0), "batch_multipliers": (1.0, 2.0)},
    }
    return table | {name: _paper.row(get_config(), f"masks/{name}", **plan) for name, plan in splits.items()}

"""Table VII, b = 16: Res2Net-50 on masked and bare faces from ImageNet weights, A, B, C, D, O with b, 2b, 3b, 4b, b.

    mkdir -p weights
    python launch.py import-weights res2net50_26w_4s res2net50_26w_4s-06e79181.pth \
        --out weights/res2net50_26w_4s.safetensors
    python launch.py train configs/face_mask_res2net50_b16.py --workdir runs/face_mask_res2net50_b16
    python launch.py train configs/face_mask_res2net50_b16.py:baseline --workdir runs/face_mask_res2net50_b16_baseline
    python launch.py compare configs/face_mask_res2net50_b16.py --strategies rows --seeds 3 \
        --workdir runs/face_mask_res2net50_b16_rows

The paper reports top-1 99.84 %, 99.67 % if the last stage uses 5b (row ends_5b), and 98.90 % for the baseline; no
top-5. The learning rate follows Eq. 9.

The mask experiments belong to Section IV-C, whose runs start from ImageNet weights. Fetch
res2net50_26w_4s-06e79181.pth from the authors' repository (https://github.com/Res2Net/Res2Net-PretrainedModels);
import-weights checks it and writes it where this file looks for it, relative to the working directory. Use
--model.initial_weights FILE for another path. The classifier is initialized from the seed. Prepare the images first, as
described in docs/data.md.

Cost: 150,540 samples in 5,600 updates (3,100 if the last stage uses 5b); baseline 250,900 samples in 15,600 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The second step-wise row of Table VII, which ends with b."""
    return _paper.experiment(
        "VII-b16", "face_mask", "res2net50_26w_4s", initial_weights=_paper.RES2NET_WEIGHTS, batch_size=16
    )


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table VII with b = 16, by name; `ends_5b` is the first step-wise row."""
    return _paper.rows(get_config(), {"ends_5b": {"batch_multipliers": (1.0, 2.0, 3.0, 4.0, 5.0)}})

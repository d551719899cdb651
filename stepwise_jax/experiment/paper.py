"""What the paper reports, row by row, under the keys that `ExperimentConfig.reproduces` takes.

Scores are per cent, as printed: slips are kept, and noted beside the rows that they concern. A key is a table, a figure
or what the text is about, and a row: `I/baseline`, `1b/b12`, `masks/A-O`. The rows of Figure 1 have no printed scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["RESULTS", "Result", "StageScore", "result"]


@dataclass(frozen=True)
class StageScore:
    """The score on the test set at the end of one stage, in per cent."""

    name: str
    """The set that the stage trains on: A, B, C, D or O."""
    top1: float
    top5: float | None = None


@dataclass(frozen=True)
class Result:
    """One reported row."""

    table: str
    """Where the paper reports it: `Table I`, `Section IV-C`, `Figure 1a`."""
    dataset: str
    network: str
    row: str
    """The row's title; n b over an arrow is the batch size of the stage that it leads into."""
    top1: float | None = None
    """Per cent, as printed; None where the paper gives none."""
    top5: float | None = None
    """Per cent, as printed; None where the paper gives none."""
    stages: tuple[StageScore, ...] = ()
    """The scores stage by stage, the last among them, where a table has them (IV to VII)."""
    notes: tuple[str, ...] = ()
    """What is wrong or missing in the paper about this row, each a sentence."""


def result(key: str) -> Result | None:
    """What the paper reports for a row, or None where it has no such row."""
    return RESULTS.get(key)


def _stages(letters: str, *scores: tuple[float, ...]) -> tuple[StageScore, ...]:
    return tuple(StageScore(letter, *score) for letter, score in zip(letters, scores, strict=True))


_BASELINE = "with set O (baseline)"

_STEPWISE = "with set A →2b B →3b C →4b D →b O"

_CIFAR = "CIFAR-100"

_I = ("Table I", _CIFAR, "ResNet-50")

_RES2NET = ("Section IV-B.2", _CIFAR, "Res2Net-50")

_RES2NET_V1B = ("Section IV-B.2", _CIFAR, "Res2Net-50 v1b")

_II_RESNEXT = ("Table II", _CIFAR, "ResNeXt-50")

_II_RES2NEXT = ("Table II", _CIFAR, "Res2NeXt-50")

_III_RES2NET = ("Table III", "Birdsnap", "Res2Net-50")

_III_RES2NEXT = ("Table III", "Birdsnap", "Res2NeXt-50")

_IV_SCRATCH = ("Table IV", "Food-101", "Res2Net-50")

_IV_IMAGENET = ("Table IV", "Food-101", "Res2Net-50 from ImageNet weights")

_V_B12 = ("Table V, b = 12", "Food-101", "Res2Net-50 from ImageNet weights")

_V_B16 = ("Table V, b = 16", "Food-101", "Res2Net-50 from ImageNet weights")

_VI = ("Table VI", "Food-101", "Res2Net-50 from ImageNet weights")

_VII_B16 = ("Table VII, b = 16", "COVID-19 mask / no mask", "Res2Net-50")

_VII_B24 = ("Table VII, b = 24", "COVID-19 mask / no mask", "Res2Net-50")

_MASKS = ("Section IV-C", "COVID-19 mask / no mask", "Res2Net-50")

_1A = ("Figure 1a", _CIFAR, "ResNet-18")

_1B = ("Figure 1b", _CIFAR, "ResNet-18")

_1C = ("Figure 1c", _CIFAR, "ResNet-18")

_SATURATES = (
    "The curve that is said to saturate after 30 epochs (Figure 4) does so where the baseline's rate first drops."
)

_SATURATES_31 = (
    "The curve that is said to saturate after 31 epochs (Figure 5) does so where the baseline's rate first drops."
)

_BIRDSNAP = "No score of Table III is a fraction of Birdsnap's 2,443 test images: the decimals are no target."

_GAINS = "Section IV-B.4 mixes the top-1 and top-5 gains of Table III."

_NO_FRACTION = "{} is no fraction of Food-101's 25,250 test images: the decimals are no target."

_SET_A_TWICE = "The same nominal run, set A for 20 epochs from scratch, is printed as 12.0832 and as 13.0218."

_SHARING = 'Section IV-C calls this row "without weight sharing": the weights are shared, it starts from scratch.'

_MASK_IMAGES = "The text says 539 test images; the scores and Figure 3 (264 + 375) show that it was 639."

_METHOD = (
    "Table VII's method column lost its subscripts: the order in Section IV-C tells which of the four forms it is."
)

_PRINTS_MULTIPLES = "The batch size is constant, and the row still prints 2b, 3b and 4b over its arrows."

_WHICH_SET = "The paper does not say on which set the runs of Figure 1c are trained."

_WHICH_B = "The paper does not say with which b, nor with which of the four forms of Eq. 10, this row is trained."

_CIFAR_ROWS = {
    "I/baseline": Result(*_I, _BASELINE, 64.94, 88.62, notes=(_SATURATES,)),
    "I/A": Result(*_I, "with set A", 35.79, 66.33),
    "I/B": Result(*_I, "with set B", 46.73, 77.47),
    "I/C": Result(*_I, "with set C", 52.52, 81.99),
    "I/D": Result(*_I, "with set D", 55.29, 84.35),
    "I/O": Result(*_I, "with set O", 57.28, 85.81),
    "I/stepwise": Result(*_I, _STEPWISE, 66.34, 90.72),
    "Res2Net-50/baseline": Result(*_RES2NET, _BASELINE, 66.65, 89.15, notes=(_SATURATES_31,)),
    "Res2Net-50/stepwise": Result(*_RES2NET, _STEPWISE, 67.04, 90.65),
    "Res2Net-50-v1b/baseline": Result(*_RES2NET_V1B, _BASELINE, 64.79),
    "Res2Net-50-v1b/stepwise": Result(*_RES2NET_V1B, _STEPWISE, 66.11),
    "II-ResNeXt-50/baseline": Result(*_II_RESNEXT, _BASELINE, 65.58, 88.67),
    "II-ResNeXt-50/stepwise": Result(*_II_RESNEXT, _STEPWISE, 66.80, 90.19),
    "II-Res2NeXt-50/baseline": Result(*_II_RES2NEXT, _BASELINE, 66.41, 88.74),
    "II-Res2NeXt-50/stepwise": Result(*_II_RES2NEXT, _STEPWISE, 66.98, 90.59),
}

_BIRDSNAP_ROWS = {
    "III-Res2Net-50/baseline": Result(*_III_RES2NET, _BASELINE, 61.7901, 83.3790, notes=(_BIRDSNAP,)),
    "III-Res2Net-50/stepwise": Result(*_III_RES2NET, _STEPWISE, 62.1391, 85.150, notes=(_BIRDSNAP, _GAINS)),
    "III-Res2NeXt-50/baseline": Result(*_III_RES2NEXT, _BASELINE, 61.9900, 84.0025, notes=(_BIRDSNAP,)),
    "III-Res2NeXt-50/stepwise": Result(*_III_RES2NEXT, _STEPWISE, 62.4611, 84.9875, notes=(_BIRDSNAP, _GAINS)),
}

_FOOD_ROWS = {
    "IV-scratch/baseline": Result(*_IV_SCRATCH, _BASELINE, 53.5584, 81.0297, notes=(_NO_FRACTION.format("53.5584"),)),
    "IV-scratch/A": Result(*_IV_SCRATCH, "with set A", 12.0832, 32.2733, notes=(_SET_A_TWICE,)),
    "IV-scratch/B": Result(*_IV_SCRATCH, "with set B", 15.7109, 38.2733),
    "IV-scratch/C": Result(*_IV_SCRATCH, "with set C", 17.0257, 40.8119),
    "IV-scratch/D": Result(*_IV_SCRATCH, "with set D", 18.2574, 42.7287),
    "IV-scratch/O": Result(*_IV_SCRATCH, "with set O", 37.8614, 67.5485),
    "IV-scratch/stepwise": Result(
        *_IV_SCRATCH,
        _STEPWISE,
        54.9901,
        81.5010,
        _stages(
            "ABCDO",
            (13.0218, 33.4020),
            (21.8970, 48.4634),
            (30.2851, 59.0416),
            (38.2772, 66.9782),
            (54.9901, 81.5010),
        ),
        (_SHARING, _SET_A_TWICE),
    ),
    "IV-imagenet/baseline": Result(*_IV_IMAGENET, _BASELINE, 85.7347, 96.8832),
    "IV-imagenet/A": Result(*_IV_IMAGENET, "with set A", 75.5881, 93.2198),
    "IV-imagenet/B": Result(*_IV_IMAGENET, "with set B", 80.2851, 95.1723),
    "IV-imagenet/C": Result(*_IV_IMAGENET, "with set C", 82.0371, 95.8020, notes=(_NO_FRACTION.format("82.0371"),)),
    "IV-imagenet/D": Result(*_IV_IMAGENET, "with set D", 83.9247, 96.6059),
    "IV-imagenet/O": Result(*_IV_IMAGENET, "with set O", 86.2574, 97.1406),
    "IV-imagenet/stepwise": Result(
        *_IV_IMAGENET,
        _STEPWISE,
        86.7089,
        97.2554,
        _stages(
            "ABCDO",
            (75.5881, 93.2198),
            (78.7247, 94.3842),
            (80.6337, 95.0416),
            (81.8614, 95.5762),
            (86.7089, 97.2554),
        ),
    ),
    "V-b12/baseline": Result(*_V_B12, _BASELINE, 84.6931, 96.5901),
    "V-b12/stepwise": Result(
        *_V_B12,
        _STEPWISE,
        85.9168,
        97.1129,
        _stages(
            "ABCDO",
            (75.2832, 92.9386),
            (81.5089, 95.5129),
            (83.3307, 96.2059),
            (84.1624, 96.4792),
            (85.9168, 97.1129),
        ),
    ),
    "V-b16/baseline": Result(*_V_B16, _BASELINE, 85.2356, 96.7050),
    "V-b16/stepwise": Result(
        *_V_B16,
        _STEPWISE,
        86.2653,
        96.9822,
        _stages(
            "ABCDO",
            (76.0119, 93.1248),
            (81.5327, 95.2752),
            (83.7109, 9.61069),
            (84.4554, 96.4356),
            (86.2653, 96.9822),
        ),
        ("The top-5 of stage C is printed as 9.61069: it is 96.1069 (24,267 of 25,250).",),
    ),
    "VI/baseline": Result(
        *_VI,
        _BASELINE,
        85.7347,
        96.2198,
        notes=(
            _NO_FRACTION.format("96.2198"),
            "The top-1 of these 60 epochs is the one that Table IV prints for 100 epochs.",
        ),
    ),
    "VI/stepwise": Result(
        *_VI,
        "with set A →2b C →b O",
        86.3723,
        97.1327,
        _stages("ACO", (75.5881, 93.2198), (83.5287, 96.1505), (86.3723, 97.1327)),
    ),
}

_MASK_ROWS = {
    "VII-b16/baseline": Result(*_VII_B16, _BASELINE, 98.90, notes=(_MASK_IMAGES,)),
    "VII-b16/stepwise": Result(
        *_VII_B16,
        _STEPWISE,
        99.84,
        stages=_stages("ABCDO", (97.50,), (98.75,), (99.06,), (98.90,), (99.84,)),
        notes=(_MASK_IMAGES, _METHOD),
    ),
    "VII-b16/ends_5b": Result(
        *_VII_B16,
        "with set A →2b B →3b C →4b D →5b O",
        99.67,
        stages=_stages("ABCDO", (97.50,), (98.75,), (99.06,), (98.90,), (99.67,)),
        notes=(
            _MASK_IMAGES,
            _METHOD,
            "99.67 is no fraction of 639 test images.",
            "The row's title ends with b, the scores beside it with 5b.",
        ),
    ),
    "VII-b24/baseline": Result(*_VII_B24, _BASELINE, 99.53, notes=(_MASK_IMAGES,)),
    "VII-b24/stepwise": Result(
        *_VII_B24,
        f"{_STEPWISE}, λ_i and b_i",
        100.0,
        stages=_stages("ABCDO", (97.65,), (97.18,), (97.34,), (97.50,), (100.0,)),
        notes=(_MASK_IMAGES, _METHOD),
    ),
    "VII-b24/constant_b": Result(
        *_VII_B24,
        "with set A → B → C → D → O, λ_i and constant b",
        97.97,
        stages=_stages("ABCDO", (97.65,), (97.65,), (97.81,), (98.28,), (97.97,)),
        notes=(_MASK_IMAGES, _METHOD, _PRINTS_MULTIPLES),
    ),
    "VII-b24/constant_rate": Result(
        *_VII_B24,
        f"{_STEPWISE}, constant λ and b_i",
        99.69,
        stages=_stages("ABCDO", (97.65,), (97.50,), (98.12,), (98.75,), (99.69,)),
        notes=(_MASK_IMAGES, _METHOD),
    ),
    "VII-b24/constant_rate_and_b": Result(
        *_VII_B24,
        "with set A → B → C → D → O, constant λ and b",
        99.69,
        stages=_stages("ABCDO", (97.66,), (98.44,), (99.22,), (99.37,), (99.69,)),
        notes=(_MASK_IMAGES, _METHOD, _PRINTS_MULTIPLES),
    ),
    "masks/A-C-O": Result(*_MASKS, "with set A →2b C →b O", 99.5305, notes=(_MASK_IMAGES, _WHICH_B)),
    "masks/A-O": Result(
        *_MASKS,
        "with set A →2b O",
        98.4351,
        notes=(_MASK_IMAGES, _WHICH_B, "The row ends at 2b, where every other but one ends at b."),
    ),
}

_FIGURE_ROWS = {
    "1a/A": Result(*_1A, "with set A"),
    "1a/B": Result(*_1A, "with set B"),
    "1a/C": Result(*_1A, "with set C"),
    "1a/D": Result(*_1A, "with set D"),
    "1a/O": Result(*_1A, "with set O"),
    "1b/b12": Result(*_1B, "with set A, b = 12"),
    "1b/b24": Result(*_1B, "with set A, b = 24"),
    "1b/b48": Result(*_1B, "with set A, b = 48"),
    "1b/b72": Result(*_1B, "with set A, b = 72"),
    "1b/b96": Result(*_1B, "with set A, b = 96"),
    "1c/rate0.1": Result(*_1C, "λ = 0.1", notes=(_WHICH_SET,)),
    "1c/rate0.01": Result(*_1C, "λ = 0.01", notes=(_WHICH_SET,)),
    "1c/rate0.001": Result(*_1C, "λ = 0.001", notes=(_WHICH_SET,)),
    "1c/rate0.0001": Result(*_1C, "λ = 0.0001", notes=(_WHICH_SET,)),
}

RESULTS: Mapping[str, Result] = MappingProxyType(_CIFAR_ROWS | _BIRDSNAP_ROWS | _FOOD_ROWS | _MASK_ROWS | _FIGURE_ROWS)
"""Every reported row by its key."""

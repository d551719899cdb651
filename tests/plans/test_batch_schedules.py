"""The schedules of the batch size against their closed forms, epoch by epoch."""

import itertools
import math

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage, learning_rate_at

M = 50_000
STAGED = 60 * M


def plan(strategy: str, examples: int = M, **fields) -> tuple[Stage, ...]:
    return make_plan(PlanConfig(strategy=strategy, **fields), examples)


def epochs(planned: tuple[Stage, ...]) -> list[tuple[int, float]]:
    """The batch size and the learning rate of each epoch."""
    assert {stage.examples for stage in planned} == {M}
    return [(stage.batch_size, learning_rate_at(stage, e)) for stage in planned for e in range(1, stage.epochs + 1)]


def stepped_rate(epoch: int) -> float:
    """Of 60 epochs of the baseline, cut from 100 with drops after 30, 60 and 90."""
    return 0.001 * 0.1 ** sum(epoch > end for end in (18, 36, 54))


def cosine_rate(epoch: int) -> float:
    return 0.001 * math.cos(math.pi * (epoch - 0.5) / 120) ** 2


def test_batch_growth_keeps_the_noise_scale_of_a_dropping_rate():
    """Smith et al.: only the ratio of rate to batch size matters, whether one drops or the other grows."""
    planned = epochs(plan("batch_growth"))
    assert [rate / size for size, rate in planned] == pytest.approx([stepped_rate(e) / 24 for e in range(1, 61)])
    # The batch is limited to a tenth of the training set; the rate drops by the rest.
    assert planned[::18] == [(24, 0.001), (240, 0.001), (2400, 0.001), (5000, pytest.approx(0.001 * 5000 / 24_000))]


def test_adabatch_doubles_the_batch_and_keeps_three_quarters_of_the_rate():
    planned = epochs(plan("adabatch"))
    assert planned == [(24 * 2**k, pytest.approx(0.001 * 0.75**k)) for k in (0, 1, 2, 3) for _ in range(18)][:60]
    # In place of a drop to 0.375 at a constant batch.
    scales = [rate / size for size, rate in planned[::18]]
    assert [after / before for before, after in itertools.pairwise(scales)] == pytest.approx([0.375] * 3)


def test_adabatch_takes_other_factors():
    planned = epochs(plan("adabatch:growth=3:decay=0.5"))
    assert planned[::18] == [(24 * 3**k, pytest.approx(0.001 * 0.5**k)) for k in (0, 1, 2, 3)]


def test_seesaw_turns_a_drop_by_a_tenth_into_its_root_and_ten_batches():
    planned = epochs(plan("seesaw"))
    assert planned[::18][:3] == [(24 * 10**k, pytest.approx(0.001 * math.sqrt(0.1) ** k)) for k in (0, 1, 2)]
    # The rate over the root of the batch is the curve's, also where the batch is limited.
    followed = [stepped_rate(epoch) / math.sqrt(24) for epoch in range(1, 61)]
    assert [rate / math.sqrt(size) for size, rate in planned] == pytest.approx(followed)


def test_seesaw_for_sgd_keeps_the_product_of_both_drops():
    planned = epochs(plan("seesaw:optimizer=sgd"))
    assert [size for size, _ in planned[::18]] == [24, round(24 * 10**0.5), 240, round(24 * 10**1.5)]
    followed = [stepped_rate(epoch) / 24 for epoch in range(1, 61)]
    assert [rate / size for size, rate in planned] == pytest.approx(followed)


def test_seesaw_steps_where_a_cosine_has_halved():
    stages = plan("seesaw:cosine")
    first = 1
    for stage in stages:
        drop = cosine_rate(first) / cosine_rate(1)
        assert stage.batch_size == min(round(24 / drop), 5000)
        assert stage.learning_rate / math.sqrt(stage.batch_size) == pytest.approx(cosine_rate(first) / math.sqrt(24))
        # Within the stage the curve has not halved; at its end it has.
        last = first + stage.epochs - 1
        assert cosine_rate(last) > cosine_rate(first) / 2
        assert last == 60 or cosine_rate(last + 1) <= cosine_rate(first) / 2
        first = last + 1
    assert first == 61


def test_seesaw_does_not_take_a_warm_up_for_a_drop():
    stages = plan("seesaw", warmup_epochs=3)
    assert [stage.batch_size for stage in stages] == [24, 240, 2400, 5000]
    assert [stage.warmup_epochs for stage in stages] == [3, 0, 0, 0]


def test_the_batch_doubles_at_given_shares_and_the_rate_grows_by_its_root():
    stages = plan("critical_batch_warmup:0.1+0.25+0.5")
    assert [(stage.batch_size, stage.epochs) for stage in stages] == [(24, 6), (48, 9), (96, 15), (192, 30)]
    planned = epochs(stages)
    expected = [stepped_rate(e) * math.sqrt(size / 24) for e, (size, _) in enumerate(planned, start=1)]
    assert [rate for _, rate in planned] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("critical", "sizes"), [(None, [24, 48, 96]), (95, [24, 48, 48]), (96, [24, 48, 96]), (9, [24] * 3)]
)
def test_the_batch_stays_below_the_measured_critical_one(critical, sizes):
    stages = plan("critical_batch_warmup", critical_batch=critical)
    assert [stage.batch_size for stage in stages] == sizes


def test_the_pilot_is_charged():
    free, charged = plan("critical_batch_warmup"), plan("critical_batch_warmup", pilot_samples=5 * M)
    assert sum(stage.samples for stage in free) == STAGED
    assert sum(stage.samples for stage in charged) == STAGED - 5 * M
    with pytest.raises(InputError, match=r"plan\.pilot_samples is 3000000: it must be below 3000000"):
        plan("critical_batch_warmup", pilot_samples=STAGED)


def test_cabs_has_the_rate_times_the_measured_ratio_for_an_equal_share():
    stages = plan("cabs:48000+10+96000", learning_rate=0.002)
    assert [(stage.batch_size, stage.epochs) for stage in stages] == [(96, 20), (24, 20), (192, 20)]
    assert {rate for _, rate in epochs(stages)} == {0.002}
    assert plan("cabs:1e9")[0].batch_size == M // 10
    charged = plan("cabs:48000+96000", pilot_samples=5 * M)
    assert sum(stage.samples for stage in charged) == STAGED - 5 * M
    with pytest.raises(InputError, match="ratios of cabs is"):
        plan("cabs:0")
    with pytest.raises(InputError, match="cabs needs ratios"):
        plan("cabs")


def test_a_linear_ramp_has_each_multiple_for_an_equal_share():
    planned = epochs(plan("linear_ramp"))
    assert [size for size, _ in planned] == [24 * k for k in (1, 2, 3, 4, 5) for _ in range(12)]
    assert [rate for _, rate in planned] == pytest.approx([stepped_rate(epoch) for epoch in range(1, 61)])
    assert [size for size, _ in epochs(plan("linear_ramp:largest=3"))][::20] == [24, 48, 72]


@pytest.mark.parametrize(
    ("strategy", "fields", "updates"),
    [
        ("adabatch", {}, 18 * (2083 + 1041 + 520) + 6 * 260),
        ("seesaw", {}, 18 * (2083 + 208 + 20) + 6 * 10),
        ("critical_batch_warmup", {}, 15 * (2083 + 1041) + 30 * 520),
        ("linear_ramp", {}, 12 * sum(M // (24 * k) for k in range(1, 6))),
    ],
)
def test_costs(strategy, fields, updates):
    stages = plan(strategy, **fields)
    assert sum(stage.samples for stage in stages) == STAGED
    assert sum(stage.updates for stage in stages) == updates


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("adabatch:growth=0.5", "growth of adabatch is 0.5: it must be at least 1"),
        ("adabatch:2:0", "decay of adabatch is 0.0: it must be above 0 and at most 1"),
        ("seesaw:cut=1", "cut of seesaw is 1.0: it must be between 0 and 1"),
        (
            "seesaw:cosin",
            "curve of seesaw is 'cosin': it must be one of 'equal_samples', 'cosine'; did you mean cosine?",
        ),
        ("critical_batch_warmup:0.5+0.25", "shares of critical_batch_warmup is (0.5, 0.25): it must be rising numbers"),
        ("linear_ramp:0", "largest of linear_ramp is 0: it must be from 1 to 1000"),
        ("linear_ramp:nan", "largest of linear_ramp is 'nan': it must be a whole number"),
        ("adabatch:nan", "growth of adabatch is nan: it must be at least 1"),
    ],
)
def test_parameters_out_of_range_are_refused(strategy, message):
    with pytest.raises(InputError) as caught:
        plan(strategy)
    assert message in str(caught.value)


def test_without_a_decay_nothing_grows():
    assert {stage.batch_size for stage in plan("seesaw", decay_factor=1.0)} == {24}
    assert {stage.batch_size for stage in plan("batch_growth", decay_factor=1.0)} == {24}
    assert sum(stage.epochs for stage in plan("seesaw", decay_factor=1.0)) == 60

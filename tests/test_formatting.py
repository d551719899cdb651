"""Numbers as people read them."""

from stepwise_jax import formatting


def test_numbers_as_people_read_them():
    assert [formatting.format_percent(value) for value in (0.97222, 1.0, 0, None)] == [
        "97.22 %",
        "100.00 %",
        "0.00 %",
        "–",
    ]
    assert [formatting.format_duration(value) for value in (0.4, 59.6, 3661, 360000)] == [
        "0:00:00",
        "0:01:00",
        "1:01:01",
        "100:00:00",
    ]

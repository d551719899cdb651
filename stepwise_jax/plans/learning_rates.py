"""Eq. 9: the learning rate of each stage, under each possible reading of the equation."""

from collections.abc import Sequence

from stepwise_jax.experiment.plan_config import LearningRateRule


def learning_rates(
    rule: LearningRateRule, learning_rate: float, batch_size: int, batch_sizes: Sequence[int]
) -> tuple[float, ...]:
    """Return lambda_i for each stage (Eq. 9), scaled for the mean gradient.

    Args:
      rule: a reading of Eq. 9, or one of the rules to compare it with. In Eq. 7, lambda' multiplies the *sum* of a
        batch's gradients. Its 1/b is therefore the mean that Optax already takes; `eq9` leaves it out.
      learning_rate: lambda.
      batch_size: b, the base batch size.
      batch_sizes: b_i of the n stages.
    """
    n = len(batch_sizes)
    if rule == "constant":
        return (learning_rate,) * n
    if rule == "linear_scaling":
        # Goyal et al., "Accurate, large minibatch SGD" (2017): the rate grows with the batch.
        return tuple(learning_rate * size / batch_sizes[0] for size in batch_sizes)
    if rule == "eq9_recursive":
        return _recursive_rates(learning_rate, n)
    eq9 = [learning_rate if i in (0, n - 1) else learning_rate / (10 * n) for i in range(n)]
    divisors = {"eq9": [1.0] * n, "eq9_literal": batch_sizes, "eq9_base_batch": [batch_size / b for b in batch_sizes]}
    return tuple(rate / divisor for rate, divisor in zip(eq9, divisors[rule], strict=True))


def _recursive_rates(learning_rate: float, n: int) -> tuple[float, ...]:
    """Eq. 9 with "lambda = lambda' for next i" taken literally: each stage divides the rate of the one before."""
    rates = [learning_rate / (10 * n) ** i for i in range(max(n - 1, 1))]
    return (*rates, rates[-1])[:n]

"""Kept for strategies that were written for version 0.1; new ones import from `stepwise_jax`."""

from stepwise_jax.plans.stage import Stage

__all__ = ["Stage"]

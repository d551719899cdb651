"""What devices can do at most, as their makers publish it.

Dense products (no sparsity), accumulated in float32. `float32` is what XLA makes of a float32 product by default: TF32
on NVIDIA GPUs that have it, plain float32 before them, one pass of bfloat16 on a TPU.

Sources: NVIDIA's data sheets "H200 Tensor Core GPU", "H100 Tensor Core GPU", "A100 Tensor Core GPU", "L4 Tensor Core
GPU" and "T4 Tensor Core GPU" (figures that are printed with sparsity are halved); Google Cloud's pages "TPU v4",
"TPU v5e", "TPU v5p" and "TPU v6e" (https://cloud.google.com/tpu/docs), by chip.
"""

from typing import NamedTuple


class Peak(NamedTuple):
    """Of one device."""

    bfloat16: float | None
    """Floating-point operations a second, or None where the device has no such unit."""
    float32: float
    """Floating-point operations a second."""
    bandwidth: float
    """Bytes a second between the device's memory and its cores."""

    def flops(self, precision: str) -> float | None:
        """Operations a second at "bfloat16" or "float32"."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


# The first name that a device's kind contains is its own: the longer names come first.
_PEAKS = {
    "H200": Peak(989e12, 494e12, 4.8e12),
    "H100 PCIe": Peak(756e12, 378e12, 2.0e12),
    "H100 NVL": Peak(835e12, 417e12, 3.9e12),
    "H100": Peak(989e12, 494e12, 3.35e12),
    "A100-SXM4-40GB": Peak(312e12, 156e12, 1.555e12),
    "A100-PCIE-40GB": Peak(312e12, 156e12, 1.555e12),
    "A100 80GB PCIe": Peak(312e12, 156e12, 1.935e12),
    "A100": Peak(312e12, 156e12, 2.039e12),
    "NVIDIA L4": Peak(121e12, 60e12, 300e9),
    "T4": Peak(None, 8.1e12, 300e9),
    "TPU v4": Peak(275e12, 275e12, 1.2e12),
    "TPU v5 lite": Peak(197e12, 197e12, 819e9),
    "TPU v5": Peak(459e12, 459e12, 2.765e12),
    "TPU v6 lite": Peak(918e12, 918e12, 1.64e12),
}
_LONGER = ("NVIDIA L40", "TPU v4 lite")
"""Kinds that contain a name above and are other devices."""


def find(device_kind: str) -> Peak | None:
    """The published peak of a device by `jax.Device.device_kind`, or None where this table does not have it."""
    if any(name in device_kind for name in _LONGER):
        return None
    return next((peak for name, peak in _PEAKS.items() if name in device_kind), None)

"""The options of XLA for compiling the steps."""

_GPU = {
    # Use the library's matrix products, as for convolutions. With XLA's own as candidates, a ResNet-50 took twice as
    # long to compile, and XLA 0.11.2 crashes on those of a strided 1x1 convolution.
    "xla_gpu_enable_triton_gemm": False,
}

_DETERMINISTIC_GPU = {
    # Excludes every operation that sums in the order in which threads happen to finish.
    "xla_gpu_deterministic_ops": True,
    # Chooses no algorithm by measuring which is fastest.
    "xla_gpu_autotune_level": 0,
}


def compiler_options(deterministic: bool, backend: str) -> dict[str, bool | int] | None:
    """Return XLA's options for the compiled steps on a backend ("cpu", "gpu", "tpu").

    CPU and TPU need none: two runs of an experiment on one machine are bit-identical without them.
    """
    if backend != "gpu":
        return None
    return {**_GPU, **(_DETERMINISTIC_GPU if deterministic else {})}

"""What XLA is asked for when the steps are compiled."""

_GPU = {
    # Matrix products are the library's, as convolutions are: with XLA's own beside them to choose from, a ResNet-50
    # took twice as long to compile, and XLA 0.11.2 does not survive those of a strided 1x1 convolution.
    "xla_gpu_enable_triton_gemm": False,
}

_DETERMINISTIC_GPU = {
    # Leaves out every operation whose sums come in the order in which threads happen to finish.
    "xla_gpu_deterministic_ops": True,
    # No algorithm is chosen by measuring which is the fastest today.
    "xla_gpu_autotune_level": 0,
}


def compiler_options(deterministic: bool, backend: str) -> dict[str, bool | int] | None:
    """XLA's options for the compiled steps on a backend ("cpu", "gpu", "tpu").

    CPU and TPU need none for two runs of an experiment on one machine to have the same bits.
    """
    if backend != "gpu":
        return None
    return {**_GPU, **(_DETERMINISTIC_GPU if deterministic else {})}

"""What `deterministic` asks of the compiler, so that two runs of an experiment on one machine have the same bits."""

_ON_GPU = {
    # Leaves out every operation whose sums come in the order in which threads happen to finish.
    "xla_gpu_deterministic_ops": True,
    # No algorithm is chosen by measuring which is the fastest today.
    "xla_gpu_autotune_level": 0,
}


def compiler_options(deterministic: bool, backend: str) -> dict[str, bool | int] | None:
    """XLA's options for the compiled steps on a backend ("cpu", "gpu", "tpu"); CPU and TPU need none."""
    return dict(_ON_GPU) if deterministic and backend == "gpu" else None

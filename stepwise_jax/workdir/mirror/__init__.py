"""A copy of a run's folder in another place, such as an object store, from which the run resumes on another machine."""

from stepwise_jax.workdir.mirror.copying import Mirror, copy_finished, stamp
from stepwise_jax.workdir.mirror.restoring import restore, restore_below
from stepwise_jax.workdir.mirror.store import Store, open_store

__all__ = ["Mirror", "Store", "copy_finished", "open_store", "restore", "restore_below", "stamp"]

import threading
import time
from concurrent.futures import CancelledError

import pytest

from stepwise_jax.runtime.threads import BackgroundWorker, is_busy


def test_pieces_are_done_one_after_another_beside_the_caller():
    worker, gate, order = BackgroundWorker("test"), threading.Event(), []

    def piece(number: int) -> int:
        gate.wait(10)
        order.append((number, threading.current_thread().name))
        return 2 * number

    futures = [worker.submit(lambda number=number: piece(number)) for number in range(3)]
    assert not order
    assert is_busy()
    gate.set()
    assert [future.result(10) for future in futures] == [0, 2, 4]
    assert order == [(number, "test") for number in range(3)]
    worker.close()


def test_a_worker_is_busy_while_it_has_work_and_not_merely_open():
    idle, busy, gate = BackgroundWorker("test"), BackgroundWorker("test"), threading.Event()
    idle.submit(lambda: None).result(10)
    future = busy.submit(lambda: gate.wait(10))
    assert is_busy()
    gate.set()
    assert future.result(10)
    busy.close()
    deadline = time.monotonic() + 10
    while is_busy() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_busy()
    idle.close()


def test_what_a_piece_raises_is_raised_to_who_asks():
    worker = BackgroundWorker("test")
    failed, fine = worker.submit(lambda: 1 // 0), worker.submit(lambda: 1)
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    assert fine.result(10) == 1
    worker.close()


def test_what_has_not_started_can_be_cancelled_and_is_dropped_at_the_end():
    worker, begun, gate = BackgroundWorker("test"), threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        gate.wait(10)
        return "done"

    futures = [worker.submit(first), worker.submit(lambda: "second"), worker.submit(lambda: "third")]
    assert begun.wait(10)
    assert not futures[0].cancel()
    assert futures[1].cancel()
    worker.close()
    gate.set()
    assert futures[0].result(10) == "done"
    # It is dropped when its turn comes.
    with pytest.raises(CancelledError):
        futures[2].result(10)
    assert futures[2].cancelled()


def test_a_worker_that_is_closed_ends():
    worker = BackgroundWorker("test")
    worker.submit(lambda: None).result(10)
    threads = [thread for thread in threading.enumerate() if thread.name == "test"]
    worker.close()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)

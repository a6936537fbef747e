"""Reading ahead: volumes of the next cases, in order, from processes that read while one scores."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from protoseg_fast.cohort.config import SweepConfig, SweepError
from protoseg_fast.cohort.layouts import Case
from protoseg_fast.cohort.volumes import CaseError, Volume, read_case

__all__ = ["volumes"]


def volumes(
    cases: Sequence[Case], config: SweepConfig
) -> Iterator[tuple[Case, Volume | Exception]]:
    """Yield every case, in order, and its volume or why it cannot be read.

    At most ``workers + 1`` volumes are held at a time. Arrays and functions given as cases are
    read here, since they cannot be sent to other processes.
    """
    if config.workers == 0 or not all(case.paths for case in cases):
        for case in cases:
            yield case, _read(case, config)
        return
    yield from _Ahead(config).volumes(cases)


def _read(case: Case, config: SweepConfig) -> Volume | Exception:
    try:
        return read_case(case, config)
    except SweepError:
        raise
    except Exception as error:
        return error


class _Ahead:
    """A pool that survives the death of its processes, which a corrupt file can bring about."""

    def __init__(self, config: SweepConfig) -> None:
        self.config = config

    def volumes(self, cases: Sequence[Case]) -> Iterator[tuple[Case, Volume | Exception]]:
        waiting = deque(cases)
        reading: deque[tuple[Case, Future[Volume | Exception]]] = deque()
        pool = self._pool()
        try:
            while waiting or reading:
                while waiting and len(reading) <= self.config.workers:
                    case = waiting.popleft()
                    reading.append((case, pool.submit(_read, case, self.config)))
                case, future = reading.popleft()
                try:
                    found = future.result()
                except BrokenProcessPool:
                    pool.shutdown(wait=False)
                    found = self._alone(case)
                    waiting.extendleft(c for c, _ in reversed(reading))
                    reading.clear()
                    pool = self._pool()
                yield case, found
                del found
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _alone(self, case: Case) -> Volume | Exception:
        """Read a case again in a process of its own: was it this one that the process died of?"""
        with self._pool() as pool:
            try:
                return pool.submit(_read, case, self.config).result()
            except BrokenProcessPool:
                return CaseError(
                    "reader",
                    "The process that read this case died, twice. If it dies for every case, the "
                    "script that calls protoseg_fast.sweep lacks `if __name__ == '__main__':`, or "
                    "use workers=0.",
                )

    def _pool(self) -> ProcessPoolExecutor:
        # Not forked: torch's threads do not survive it, and the lock of a part must not be shared.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.config.workers, context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

"""A lock is refused while another holds it, and acquired if it is released within the wait."""

import threading

import pytest
from filelock import FileLock

from umls_reranker.core import locks
from umls_reranker.core.errors import UserError


def test_what_the_workers_of_a_killed_process_hold_for_a_moment_is_waited_for(tmp_path):
    former = FileLock(tmp_path / "lock", thread_local=False).acquire()
    timer = threading.Timer(0.2, former.lock.release)
    timer.start()
    with locks.hold(tmp_path / "lock", "refused"):
        assert not former.lock.is_locked
    timer.join()


def test_a_lock_that_stays_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    with FileLock(tmp_path / "lock"), pytest.raises(UserError, match="refused"):
        locks.hold(tmp_path / "lock", "refused").__enter__()

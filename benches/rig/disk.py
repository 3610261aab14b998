"""What the disk itself takes: the physical limit of everything that is durable."""

import os
import statistics
import time

# The shape of a small commit in SQLite's log: a page and its head.
WRITE = bytes(4096 + 24)
FILE_BYTES = 4 << 20


def sync_seconds(folder, seconds=0.5, pause=0):
    """The median time of one small write and `fdatasync`, into a file that has its full size already: the least there is. With
    a `pause` in seconds between two of them, of a machine that is quiet."""
    return _median(folder, seconds, os.fdatasync, FILE_BYTES, pause)


def append_seconds(folder, seconds=0.5):
    """The same for a file that grows with each write, and `fsync`: what a log takes that is only appended to."""
    return _median(folder, seconds, os.fsync, 0, 0)


def _median(folder, seconds, sync, size, pause):
    folder.mkdir(parents=True, exist_ok=True)
    path, times = folder / "sync.probe", []
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(file, bytes(size))
        os.fsync(file)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not times:
            at = len(times) * len(WRITE)
            begun = time.perf_counter()
            os.pwrite(file, WRITE, at % (size - len(WRITE)) if size else at)
            sync(file)
            times.append(time.perf_counter() - begun)
            if pause:
                time.sleep(pause)
    finally:
        os.close(file)
        path.unlink()
    return statistics.median(times)

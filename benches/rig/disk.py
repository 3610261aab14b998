"""What the disk itself takes: the physical limit of everything that is durable."""

import os
import statistics
import time

# The shape of a small commit in SQLite's log: a page and its head.
WRITE = bytes(4096 + 24)
FILE_BYTES = 4 << 20


def sync_seconds(folder, seconds=0.5):
    """The median time of one small write and `fdatasync`, into a file that has its full size already."""
    folder.mkdir(parents=True, exist_ok=True)
    path, times = folder / "sync.probe", []
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(file, bytes(FILE_BYTES))
        os.fsync(file)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not times:
            begun = time.perf_counter()
            os.pwrite(file, WRITE, len(times) * len(WRITE) % (FILE_BYTES - len(WRITE)))
            os.fdatasync(file)
            times.append(time.perf_counter() - begun)
    finally:
        os.close(file)
        path.unlink()
    return statistics.median(times)

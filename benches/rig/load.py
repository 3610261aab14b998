"""Load from `wrk`, in interleaved rounds: A B C, A B C, …, so that what else the machine does hits all alike."""

import dataclasses
import os
import pathlib
import re
import resource
import statistics
import subprocess
import time

from rig.process import TICKS

SCALE_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclasses.dataclass
class Round:
    """What one run of `wrk` found. `cpu_us` is the server's CPU time a request; `resident` its largest VmRSS; `others`
    the share of the machine that went to neither of the two."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    resident: int
    others: float
    refused: int
    errors: str


@dataclasses.dataclass
class Series:
    """All rounds of one server."""

    name: str
    rounds: list

    def median(self, field):
        """The median over the rounds."""
        return statistics.median(getattr(each, field) for each in self.rounds)

    @property
    def rate(self):
        """Requests a second."""
        return self.median("rate")

    @property
    def resident(self):
        """The largest VmRSS of all rounds."""
        return max(each.resident for each in self.rounds)

    def as_json(self):
        """For the machine-readable report."""
        return {"name": self.name, "rounds": [dataclasses.asdict(each) for each in self.rounds]}


def wrk(url, server, connections=16, seconds=3, threads=1, may_refuse=False, script=None, env=None):
    """One run. One thread of `wrk` leaves the second core of a small machine to the server; it is the same for all."""
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s", url]
    command[1:1] = ["-s", str(script)] if script else []
    env = {**os.environ, **(env or {})}
    cpu, resident, load = server.cpu_seconds(), 0, wrk_seconds()
    busy, begun = busy_seconds(), time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    while child.poll() is None:
        resident = max(resident, server.resident_bytes())
        time.sleep(0.1)
    text = child.stdout.read()
    found = parse(text)
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    cpu = server.cpu_seconds() - cpu
    found.cpu_us, found.resident = cpu / max(requests, 1) * 1e6, resident
    spent = busy_seconds() - busy - cpu - (wrk_seconds() - load)
    found.others = max(0.0, spent / (time.perf_counter() - begun) / os.cpu_count())
    if (found.refused and not may_refuse) or found.errors:
        raise RuntimeError(f"{url}: {found.refused} answers were not 2xx; {found.errors or 'no socket errors'}")
    return found


def busy_seconds():
    """What all cores have worked since the machine started."""
    user, nice, system, _, _, irq, softirq = map(int, pathlib.Path("/proc/stat").read_text().split(None, 8)[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def wrk_seconds():
    """What children that have ended have worked: only `wrk` ends while `wrk` is waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def parse(text):
    """Reads what `wrk --latency` prints."""
    def latency(share):
        number, unit = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)$", text, re.M).groups()
        return float(number) * SCALE_MS[unit]

    rate = re.search(r"^Requests/sec:\s+([\d.]+)", text, re.M)
    if rate is None:
        raise RuntimeError(f"wrk: {text.strip()}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: (.*)", text)
    return Round(float(rate.group(1)), latency(50), latency(99), 0.0, 0, 0.0, int(refused.group(1)) if refused else 0,
                 errors.group(1) if errors else "")


def interleaved(servers, rounds, seconds, connections=16):
    """`servers` are (name, server, path). Each warms up for a second first."""
    series = [Series(name, []) for name, _, _ in servers]
    for _, server, path in servers:
        wrk(server.url + path, server, connections, 1)
    for _ in range(rounds):
        for each, (_, server, path) in zip(series, servers):
            each.rounds.append(wrk(server.url + path, server, connections, seconds))
    return series

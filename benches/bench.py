#!/usr/bin/env python3
"""Measures Marram beside its peers, in one run: `make bench`, or `make bench ONLY=fresh,js`.

Every row of the table has a file in `rows/`. Servers are measured in interleaved rounds and their medians are compared,
so that a ratio holds on a busy machine too; absolute numbers belong to the machine that is named beside them. Metering,
logs and trace context are on, as they are by default. It ends with 0 also where a target is missed, and says so; it ends
with 1 if a row could not be measured.
"""

import argparse
import os
import pathlib
import sys
import time

from rig import report
from rig.peers import Peers
from rig.process import raise_descriptor_limit
from rows import cold, deliver, events, flood, javascript, keys, mqtt, slow, start, thousand, throughput, up

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = {
    "fresh": throughput.fresh, "reused": throughput.reused, "p3": throughput.p3, "js": javascript.hello,
    "js-compute": javascript.compute, "up": up.run, "cold": cold.run, "start": start.run, "thousand": thousand.run,
    "idle": start.idle, "flood": flood.run, "events": events.publish, "mqtt": mqtt.durable, "mqtt-idle": mqtt.idle,
    "deliver": deliver.throughput, "latency": deliver.latency, "keys": keys.run, "idle-all": start.idle_all,
    "backlog": events.backlog, "slow": slow.run,
}


class Bench:
    """Where things are, and how long to measure."""

    def __init__(self, target, arguments):
        self.root, self.target, self.out = ROOT, target, target / "bench"
        self.marram = target / "dist/marram"
        self.bare_hyper, self.mqtt_load = target / "dist/examples/bare_hyper", target / "dist/examples/mqtt_load"
        self.guests = pathlib.Path(os.environ.get("MARRAM_GUESTS", target / "guests"))
        self.workers = ROOT / "benches/workers"
        self.rounds, self.seconds = arguments.rounds, arguments.seconds
        self.peers = Peers(self, target / "bench-peers")

    def say(self, text):
        """Progress, for who waits."""
        print(f"bench: {text}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"rows to measure, with commas between: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of load for each server (default: 5)")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of each round (default: 3)")
    arguments = parser.parse_args()
    only = [row for row in arguments.only.split(",") if row]
    if unknown := set(only) - set(ROWS):
        parser.error(f"no row {', '.join(sorted(unknown))}: there are {', '.join(ROWS)}")

    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    bench = Bench(target, arguments)
    raise_descriptor_limit()
    versions = {"marram": report.version_of(bench.marram, "--version"), **bench.peers.versions(report.version_of)}
    result = report.Report(report.machine(versions))
    for row in only or ROWS:
        bench.say(f"measuring {row}")
        begun = time.perf_counter()
        try:
            ROWS[row](bench, result)
        except Exception as error:  # A row that breaks must not hide the others.
            result.broken.append((row, f"{type(error).__name__}: {error}"))
            bench.say(f"{row} broke: {error}")
        bench.say(f"{row} took {time.perf_counter() - begun:.0f} s")
    print(result.markdown())
    for path in result.write(bench.out):
        bench.say(f"written to {path}")
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""JavaScript as source, beside the isolate of workerd that runs the same file."""

import contextlib

from rig.load import interleaved, wrk
from rig.marram import Node
from rig.report import Finding

CONNECTIONS = 16
RESIDENT_MB_MAX = 60


def hello(bench, report):
    """One answer of a few bytes: what the platform costs."""
    script = bench.workers / "hello.js"
    with contextlib.ExitStack() as servers:
        fresh = servers.enter_context(Node(bench, "marram-js-fresh"))
        fresh.deploy_one("/hello", script, 'instances = "fresh"')
        reused = servers.enter_context(Node(bench, "marram-js-reused"))
        reused.deploy_one("/hello", script)
        workerd = servers.enter_context(bench.peers.workerd_serve("workerd", script))
        found = interleaved([
            ("marram, fresh", fresh, "/hello"), ("marram, reused", reused, "/hello"),
            ("workerd, one warm isolate", workerd, "/")], bench.rounds, bench.seconds, CONNECTIONS)
        again = resident_after_restart(reused)
    fresh, reused, isolate = found
    tenth = isolate.median("p99_ms") / 10
    report.add("js", [
        Finding.ratio("js", "JavaScript, fresh, beside workerd", fresh.rate, isolate.rate, 0.6),
        Finding.ratio("js", "JavaScript, reused, beside workerd", reused.rate, isolate.rate, 1.3),
        Finding.at_most("js", "p99, fresh, to a tenth of workerd's", fresh.median("p99_ms"), round(tenth, 2), "ms", 2),
        Finding.at_most("js", "p99, reused, to a tenth of workerd's", reused.median("p99_ms"), round(tenth, 2), "ms", 2),
        Finding.at_most("js", "resident under load, fresh", fresh.resident / 1e6, RESIDENT_MB_MAX, "MB"),
        Finding.at_most("js", "resident under load, reused", reused.resident / 1e6, RESIDENT_MB_MAX, "MB"),
        Finding("js", "resident under load, reused, started with the engine compiled", f"{again / 1e6:.1f} MB"),
        Finding("js", "resident under load, workerd", f"{isolate.resident / 1e6:.1f} MB"),
    ], ["`benches/workers/hello.js`; reused is the default: 128 requests for each instance, 16 at once; `wrk -t1 -c16`."],
        found)


def resident_after_restart(node):
    """The node has compiled the engine, and memory that the compiler used may stay with the process. This is without."""
    node.stop()
    node.start()
    node.wait_ready()
    return wrk(node.url + "/hello", node, CONNECTIONS, 2).resident


def compute(bench, report):
    """A script that computes: an interpreter beside a compiler that specialises while it runs."""
    script = bench.workers / "compute.js"
    with contextlib.ExitStack() as servers:
        node = servers.enter_context(Node(bench, "marram-js-compute"))
        node.deploy_one("/compute", script)
        workerd = servers.enter_context(bench.peers.workerd_serve("workerd-compute", script))
        found = interleaved([("marram", node, "/compute"), ("workerd, one warm isolate", workerd, "/")],
                            min(bench.rounds, 3), bench.seconds, CONNECTIONS)
    mine, isolate = found
    report.add("js-compute", [
        Finding("js", "a script that computes, beside workerd", f"{mine.rate / isolate.rate:.3f} ×"),
        Finding("js", "its CPU time a request, beside workerd's",
                f"{mine.median('cpu_us') / isolate.median('cpu_us'):.1f} ×"),
    ], ["`benches/workers/compute.js`: QuickJS interprets, V8 compiles. `wrk -t1 -c16`."], found)

"""Requests a second of the hello components, in both standards of `wasi:http`."""

import contextlib

from rig.load import interleaved
from rig.marram import Node
from rig.report import Finding

CONNECTIONS = 16


def fresh(bench, report):
    """One fresh instance for each request."""
    component = bench.guests / "hello-p2.wasm"
    with contextlib.ExitStack() as servers:
        node = servers.enter_context(Node(bench, "marram-fresh"))
        node.deploy_one("/hello", component, 'instances = "fresh"')
        wasmtime = servers.enter_context(bench.peers.wasmtime_serve("wasmtime serve", component))
        workerd = servers.enter_context(bench.peers.workerd_serve("workerd", bench.workers / "hello.js"))
        hyper = servers.enter_context(bench.peers.bare_hyper())
        found = interleaved([
            ("marram, fresh", node, "/hello"), ("wasmtime serve", wasmtime, "/"),
            ("workerd, one warm isolate", workerd, "/"), ("bare hyper", hyper, "/")],
            bench.rounds, bench.seconds, CONNECTIONS)
        check_metered(node)
    mine, serve, isolate, bare = (each.rate for each in found)
    report.add("fresh", [
        Finding.ratio("fresh", "0.2, fresh, beside wasmtime serve", mine, serve, 3),
        Finding.ratio("fresh", "0.2, fresh, beside workerd", mine, isolate, 1.5),
        Finding.ratio("fresh", "0.2, fresh, beside bare hyper", mine, bare, 0.25),
    ], ["`guests/hello-p2`, one fresh instance for each request; `wrk -t1 -c16`."], found)


def reused(bench, report):
    """128 requests for each instance, one after the other."""
    component = bench.guests / "hello-p2.wasm"
    with contextlib.ExitStack() as servers:
        node = servers.enter_context(Node(bench, "marram-reused"))
        node.deploy_one("/hello", component, "instances = { reuse = 128 }")
        wasmtime = servers.enter_context(bench.peers.wasmtime_serve(
            "wasmtime serve reused", component, "--max-instance-reuse-count", "128"))
        hyper = servers.enter_context(bench.peers.bare_hyper())
        found = interleaved([
            ("marram, reused", node, "/hello"), ("wasmtime serve --max-instance-reuse-count 128", wasmtime, "/"),
            ("bare hyper", hyper, "/")], bench.rounds, bench.seconds, CONNECTIONS)
        check_metered(node)
    mine, serve, bare = (each.rate for each in found)
    report.add("reused", [
        Finding.ratio("reused", "0.2, reused, beside wasmtime serve", mine, serve, 1.3),
        Finding.ratio("reused", "0.2, reused, beside bare hyper", mine, bare, 0.45),
    ], ["`guests/hello-p2`, 128 requests for each instance; `wrk -t1 -c16`."], found)


def p3(bench, report):
    """The asynchronous standard, with the defaults of both: 128 requests for each instance, 16 at once."""
    component = bench.guests / "hello-p3.wasm"
    with contextlib.ExitStack() as servers:
        node = servers.enter_context(Node(bench, "marram-p3"))
        node.deploy_one("/hello", component)
        wasmtime = servers.enter_context(bench.peers.wasmtime_serve(
            "wasmtime serve p3", component, "-Scli", "-Sp3"))
        found = interleaved([
            ("marram, 0.3", node, "/hello"), ("wasmtime serve -Sp3", wasmtime, "/")],
            bench.rounds, bench.seconds, CONNECTIONS)
        check_metered(node)
    mine, serve = (each.rate for each in found)
    report.add("p3", [Finding.ratio("p3", "0.3, beside wasmtime serve with p3", mine, serve, 1.4)],
               ["`guests/hello-p3`, the defaults of both; `wrk -t1 -c16`."], found)


def check_metered(node):
    """What was measured was metered: an invocation without a record would be a shortcut."""
    if node.metric("faas_invocations_total") < 1000:
        raise RuntimeError(f"{node.name}: the metrics do not show the requests that it served")

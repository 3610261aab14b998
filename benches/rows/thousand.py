"""A thousand different functions on one node: how it boots, what it holds, and how fast any one answers."""

import hashlib
import time

from rig.client import Client
from rig.marram import Node, distinct
from rig.report import Finding, median_and_p99
from rows.start import settled

APPS, EACH = 4, 250
RESIDENT_MB_MAX, BOOT_S_MAX, ANSWER_MS_MAX = 100, 2, 5


def run(bench, report):
    """Boots the node with everything compiled, lets it settle, and asks each function once."""
    node = prepared(bench)
    node.start()
    try:
        node.url = node.said_value("http")
        ready = time.perf_counter() - node.started
        with Client(node.url) as client:
            client.get(path(0, 0))
            boot = time.perf_counter() - node.started
            resident, private = settled(node)
            answers, cold = [], node.metric("faas_coldstarts_total")
            for app in range(APPS):
                for function in range(EACH):
                    status, body, took = client.get(path(app, function))
                    if (status, body) != (200, b"Hello from Marram"):
                        raise RuntimeError(f"{path(app, function)} answered {status} {body!r}")
                    answers.append(took * 1e3)
            cold = node.metric("faas_coldstarts_total") - cold
    finally:
        node.stop()
    median, p99 = median_and_p99(answers)
    report.add("thousand", [
        Finding.at_most("thousand", "1,000 functions, idle, resident", resident / 1e6, RESIDENT_MB_MAX, "MB"),
        Finding.at_most("thousand", "1,000 functions, start to first answer", boot, BOOT_S_MAX, "s", 3),
        Finding.at_most("thousand", "first answer of any one, worst", max(answers), ANSWER_MS_MAX, "ms", 2),
        Finding("thousand", "first answer of any one, median; p99", f"{median:.2f} ms; {p99:.2f} ms"),
    ], [f"{APPS} apps of {EACH} functions, each with a component of its own (a custom section makes them differ). It says "
        f"where it serves after {ready:.3f} s. {cold:.0f} of the {len(answers)} first answers were cold starts. Of the "
        f"resident memory {private / 1e6:.1f} MB is not mapped from files."],
        raw={"first_answer_ms": answers, "boot_s": boot, "ready_s": ready})


def path(app, function):
    """Where a function is served."""
    return f"/a{app}/f{function}"


def prepared(bench):
    """A stopped node that has the functions in its state. Compiling a thousand takes a while, so the state is kept, for
    this binary and this component."""
    component = (bench.guests / "hello-p2.wasm").read_bytes()
    made_of = hashlib.sha256(bench.marram.read_bytes() + component + bytes([APPS, EACH])).hexdigest()
    stamp = bench.out / "state" / "marram-thousand.made-of"
    if stamp.exists() and stamp.read_text() == made_of:
        return Node(bench, "marram-thousand", keep_state=True)
    bench.say(f"compiling {APPS * EACH} functions")
    node = Node(bench, "marram-thousand")
    with node:
        for app in range(APPS):
            node.deploy(f"a{app}", [
                (f"f{number}", f'on = [{{ http = "{path(app, number)}" }}]\ninstances = "fresh"', "hello.wasm",
                 distinct(component, app * EACH + number)) for number in range(EACH)])
    stamp.write_text(made_of)
    return node

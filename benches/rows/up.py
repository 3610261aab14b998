"""The save-and-see loop: `marram up` from its start to the first answer, and from a save to the new answer."""

import contextlib
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import time

from rig.client import Client
from rig.process import Server
from rig.report import Finding

STARTS, SAVES = 7, 9
START_S_MAX = 0.5
# Between two questions of who waits for the new answer: enough to leave the cores to the build.
ASK_AGAIN_S = 0.005


class Language:
    """A template, the file of it that is saved, and the longest time from a save to the new answer."""

    def __init__(self, name, template, source, save_s_max):
        self.name, self.template, self.source, self.save_s_max = name, template, source, save_s_max


LANGUAGES = [Language("Rust", "http-rust", "src/lib.rs", 0.3), Language("JavaScript", "http-js", "src/index.js", 0.5),
             Language("Python", "http-python", "app.py", 1.0)]


def run(bench, report):
    """Each language by itself: a build of one must not take the time of another."""
    findings, notes, raw = [], [f"Medians of {STARTS} starts and {SAVES} saves; everything was built before."], {}
    for language in LANGUAGES:
        app = make(bench, language, "shop")
        up(bench, language, app, saves=1)
        starts = [up(bench, language, app)[0] for _ in range(STARTS)]
        _, saves = up(bench, language, app, saves=SAVES)
        raw[language.name] = {"start_s": starts, "save_s": saves}
        findings.append(Finding.at_most("up", f"{language.name}: start to first answer", statistics.median(starts),
                                        START_S_MAX, "s", 3))
        save = statistics.median(saves)
        what = f"{language.name}: save to new answer"
        if language.name == "Rust":
            cargo = cargo_alone(bench, language)
            raw[language.name]["cargo_s"] = cargo
            notes.append(f"Rust: {save:.3f} s from the save to the new answer, of which cargo alone takes "
                         f"{statistics.median(cargo):.3f} s after the same change.")
            save, what = save - statistics.median(cargo), f"{what}, over cargo's own time"
        findings.append(Finding.at_most("up", what, save, language.save_s_max, "s", 3))
    report.add("up", findings, notes, raw=raw)


def make(bench, language, name):
    """A new app from the template, built."""
    folder = bench.out / "apps" / f"{name}-{language.name.lower()}"
    shutil.rmtree(folder / ".marram", ignore_errors=True)
    # What cargo has built before stays: the template's dependencies are not what is measured.
    for stale in folder.glob("*"):
        if stale.name != "target":
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = [bench.marram, "new", fresh, "--template", language.template, "--name", name]
    subprocess.run(command, check=True, capture_output=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(fresh, folder, dirs_exist_ok=True)
    shutil.rmtree(fresh)
    subprocess.run([bench.marram, "build"], cwd=folder, env=environment(), check=True, capture_output=True)
    return folder


def environment():
    """The app's own target folder, not that of the repository."""
    return {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}


def up(bench, language, app, saves=0):
    """Runs `marram up`. Returns the seconds to the first answer, and those from each save to its answer."""
    command = [bench.marram, "up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    server = Server("marram up", command, bench.out / "log" / f"up-{language.name.lower()}.log", cwd=app,
                    env=environment())
    server.start()
    try:
        server.url = server.said_value("http")
        with contextlib.closing(Client(server.url).socket):
            pass
        with Client(server.url) as client:
            status, body, _ = client.get("/")
            started = time.perf_counter() - server.started
            if status != 200:
                raise RuntimeError(f"{language.name}: the first answer is {status} {body!r}")
            return started, [save(client, app / language.source, number) for number in range(saves)]
    finally:
        server.stop()


def save(client, source: pathlib.Path, number):
    """Changes the greeting, and asks until it has changed."""
    token = change(source, number)
    begun = time.perf_counter()
    while time.perf_counter() - begun < 60:
        status, body, _ = client.get("/")
        if token in body:
            return time.perf_counter() - begun
        if status >= 500:
            raise RuntimeError(f"after a save the answer is {status} {body!r}")
        time.sleep(ASK_AGAIN_S)
    raise RuntimeError(f"a change of {source} did not show within a minute")


def change(source: pathlib.Path, number):
    """Writes another greeting into a source, and returns it."""
    greeting = f"Hello {time.time_ns()}-{number} from"
    text, replaced = re.subn(r"Hello( [\d-]+)? from", greeting, source.read_text())
    if replaced != 1:
        raise RuntimeError(f"{source} has {replaced} greetings, not one")
    source.write_text(text)
    return greeting.encode()


def cargo_alone(bench, language):
    """What cargo takes by itself after the same change, in an app of its own."""
    app, took = make(bench, language, "alone"), []
    for number in range(SAVES):
        change(app / language.source, number)
        begun = time.perf_counter()
        subprocess.run(["cargo", "build", "--release", "--target", "wasm32-wasip2"], cwd=app, env=environment(),
                       check=True, capture_output=True)
        took.append(time.perf_counter() - begun)
    return took

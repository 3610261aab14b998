"""Processes under measurement: started, found ready, looked at, stopped. Nothing here outlives its `with` block."""

import os
import pathlib
import resource
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def raise_descriptor_limit():
    """Floods need thousands of sockets, on both sides."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port():
    """A loopback port that nobody has now. Only for servers that cannot be asked for port 0 and say what they got."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A child process that serves on loopback; `url` is where. `probe` says whether it serves yet."""

    def __init__(self, name, command, log: pathlib.Path, url=None, cwd=None, env=None, probe=None):
        self.probe = probe or answers
        self.name, self.command, self.log, self.url = name, [str(part) for part in command], log, url
        self.cwd, self.env, self.child = cwd, env, None
        self.said = {}

    def __enter__(self):
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Starts it, and returns at once. `started` is the time just before."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            self.started = time.perf_counter()
            self.child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if self.url is None else log, stderr=log,
                cwd=self.cwd, env=self.env)

    def wait_ready(self, deadline_s=60):
        """A server without a given URL prints `name=url` lines, as marram does; others are asked until they answer."""
        if self.url is None:
            self._read_lines(wanted="http")
            self.url = self.said["http"]
        end = time.perf_counter() + deadline_s
        while not self.probe(self.url):
            if self.child.poll() is not None or time.perf_counter() > end:
                raise RuntimeError(f"{self.name} does not serve: {self.tail()}")
            time.sleep(0.01)

    def _read_lines(self, wanted):
        while wanted not in self.said:
            line = self.child.stdout.readline().decode()
            if not line:
                raise RuntimeError(f"{self.name} has ended: {self.tail()}")
            name, _, value = line.strip().partition("=")
            self.said[name] = value

    def said_value(self, name):
        """What the server printed as `name=…`."""
        self._read_lines(name)
        return self.said[name]

    def stop(self, how=signal.SIGTERM):
        """Ends it, gently if it lets itself."""
        if self.child is None or self.child.poll() is not None:
            return
        self.child.send_signal(how)
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        if self.child.stdout:
            self.child.stdout.close()

    def tail(self):
        """The end of its log."""
        return self.log.read_text(errors="replace")[-600:].strip() or "it said nothing"

    def resident_bytes(self):
        """VmRSS."""
        return int(pathlib.Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * PAGE

    def private_bytes(self):
        """Resident memory that is not a mapped file."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))

    def cpu_seconds(self):
        """User and system time so far."""
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def accepts(address):
    """Whether something takes connections there."""
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def answers(url):
    """Whether something serves there."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: ready\r\nconnection: close\r\n\r\n")
            return connection.recv(16).startswith(b"HTTP/1.1 ")
    except OSError:
        return False

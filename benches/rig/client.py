"""A client that asks one thing after another on one connection, and takes the time of each answer."""

import socket
import time


class Client:
    """An HTTP/1.1 connection. Knows only what these servers answer: a length, or chunks."""

    def __init__(self, url, timeout_s=30):
        host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host, self.buffer = host, b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def get(self, path):
        """Returns the status, the body, and the seconds from the first byte sent to the last byte received."""
        return self.ask("GET", path)

    def ask(self, method, path, body=b"", headers=()):
        """As `get`, with another method, a body and (name, value) headers."""
        lines = [f"{method} {path} HTTP/1.1", f"host: {self.host}", *(f"{name}: {value}" for name, value in headers)]
        if method != "GET":
            lines.append(f"content-length: {len(body)}")
        request = "\r\n".join([*lines, "", ""]).encode() + body
        begun = time.perf_counter()
        self.socket.sendall(request)
        head = self._until(b"\r\n\r\n").lower()
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            body = self._chunks()
        else:
            body = self._exactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        return status, body, time.perf_counter() - begun

    def _fill(self):
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionError("the server closed the connection")
        self.buffer += received

    def _until(self, end):
        while end not in self.buffer:
            self._fill()
        found, _, self.buffer = self.buffer.partition(end)
        return found + end

    def _exactly(self, length):
        while len(self.buffer) < length:
            self._fill()
        found, self.buffer = self.buffer[:length], self.buffer[length:]
        return found

    def _chunks(self):
        body = b""
        while length := int(self._until(b"\r\n"), 16):
            body += self._exactly(length + 2)[:-2]
        self._until(b"\r\n")
        return body

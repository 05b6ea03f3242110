"""Many clients in one thread: each is a generator that yields requests and is sent their answers.

    answer = yield Request(KEY, VERSION, body)      a `wire.Reader` behind the response header
    yield 0.05                                      lets so many seconds pass

A client has one connection and one request under way, as the clients of groups and transactions do.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import struct
import time
from dataclasses import dataclass
from typing import Callable, Generator, Iterable

import wire

HEADER = struct.Struct(">i")
RECEIVE_BYTES = 1 << 16


@dataclass(slots=True)
class Request:
    """A request without its header; `flexible` ones have tagged fields in the header."""

    key: int
    version: int
    body: bytes
    flexible: bool = False


class Failed(Exception):
    """A client got an answer that it cannot go on from, or took too long."""


class Connection:
    """The socket of one client, and what of an answer has arrived."""

    def __init__(self, port: int, client: Generator):
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self.received = bytearray()
        self.flexible = False

    def send(self, request: Request) -> None:
        self.flexible = request.flexible
        head = struct.pack(">hhi", request.key, request.version, 1) + wire.text("bench") + (b"\0" if request.flexible else b"")
        # Requests are small, so the socket always takes them at once.
        self.socket.sendall(HEADER.pack(len(head) + len(request.body)) + head + request.body)

    def answer(self) -> wire.Reader | None:
        """The answer, once all of it is there."""
        more = self.socket.recv(RECEIVE_BYTES)
        if not more:
            raise Failed("the broker closed the connection")
        self.received += more
        if len(self.received) < 4 or len(self.received) < 4 + HEADER.unpack_from(self.received)[0]:
            return None
        reader = wire.Reader(bytes(self.received[8:]))
        self.received.clear()
        if self.flexible:
            reader.skip(1)
        return reader


class Dialogue:
    """Runs clients until a condition holds; they go on where they were when it is run again."""

    def __init__(self, port: int):
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.sleeping: list[tuple[float, int, Connection]] = []
        self.started = 0

    def start(self, clients: Iterable[Generator]) -> None:
        for client in clients:
            connection = Connection(self.port, client)
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)
            self.started += 1
            self.resume(connection, None)

    def resume(self, connection: Connection, answer: wire.Reader | None) -> None:
        try:
            wish = connection.client.send(answer)
        except StopIteration:
            self.selector.unregister(connection.socket)
            connection.socket.close()
            return
        if isinstance(wish, Request):
            connection.send(wish)
        else:
            self.started += 1
            heapq.heappush(self.sleeping, (time.monotonic() + wish, self.started, connection))

    def run(self, is_done: Callable[[], bool], seconds_max: float) -> None:
        give_up_at = time.monotonic() + seconds_max
        while not is_done():
            now = time.monotonic()
            if now > give_up_at:
                raise Failed(f"not done within {seconds_max} s")
            while self.sleeping and self.sleeping[0][0] <= now:
                self.resume(heapq.heappop(self.sleeping)[2], None)
            wake_at = min(self.sleeping[0][0] if self.sleeping else give_up_at, give_up_at)
            for key, _ in self.selector.select(max(wake_at - time.monotonic(), 0)):
                answer = key.data.answer()
                if answer is not None:
                    self.resume(key.data, answer)

    def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        # A sleeper wakes the loop often enough.
        self.run(lambda: time.monotonic() >= until, seconds + 60)

    def close(self) -> None:
        for key in list(self.selector.get_map().values()):
            key.data.socket.close()
        self.selector.close()

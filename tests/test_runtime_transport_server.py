"""A TCP server and its clients: late, stalled, dead, too many."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from s4g.core.errors import InputError
from s4g.runtime.sink import parse_sink_url
from s4g.runtime.transport import open_carrier
from s4g.runtime.transport_server import CLIENT_BYTES, CLIENTS, TcpServer

WAIT_S = 20.0


@pytest.fixture
def server() -> Iterator[TcpServer]:
    with closing(TcpServer("127.0.0.1", 0, "jsonl+tcp://:0")) as server:
        yield server


def connect(server: TcpServer) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), WAIT_S)
    client.settimeout(WAIT_S)
    until(lambda: server.receive() == b"" and any_named(server, client))
    return client


def any_named(server: TcpServer, client: socket.socket) -> bool:
    return any(one.name == name_of(client) for one in server._clients)


def name_of(client: socket.socket) -> str:
    host, port = client.getsockname()
    return f"{host}:{port}"


def until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.01)


def test_clients_get_whole_messages_from_when_they_came(server: TcpServer) -> None:
    server.send(b"nobody hears\n")
    with connect(server) as first:
        server.send(b"one\n")
        with connect(server) as second:
            server.send(b"two\n")
            assert first.recv(8, socket.MSG_WAITALL) == b"one\ntwo\n"
            assert second.recv(100) == b"two\n"
    until(lambda: not clients_after_a_message(server))
    assert server.let_go == 0  # both left by themselves


def clients_after_a_message(server: TcpServer) -> int:
    server.receive()
    server.send(b"x\n")
    return len(server._clients)


def test_a_client_that_has_nothing_more_to_say_is_still_told(server: TcpServer) -> None:
    with connect(server) as client:
        client.shutdown(socket.SHUT_WR)
        until(lambda: server.receive() == b"" and server._clients[0].has_said_all)
        server.send(b"one\n")
        server.receive()
        server.send(b"two\n")
        assert client.recv(8, socket.MSG_WAITALL) == b"one\ntwo\n"
    until(lambda: not clients_after_a_message(server))
    assert server.let_go == 0


def test_what_clients_say_is_received(server: TcpServer) -> None:
    with connect(server) as client:
        client.sendall(b"?WATCH")
        said = b""
        while len(said) < 6:
            said += server.receive()
        assert said == b"?WATCH"


def test_a_client_that_does_not_read_is_let_go_and_the_others_miss_nothing(
    server: TcpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    line = b"x" * 999 + b"\n"
    with connect(server) as stalled, connect(server) as reader:
        name = name_of(stalled)
        read = sent = 0
        while server.let_go == 0:
            server.send(line)
            sent += 1000
            while read < sent:
                read += len(reader.recv(sent - read))
            waiting = [len(client.waiting) for client in server._clients]
            assert max(waiting) <= CLIENT_BYTES
            assert sent < 100_000_000
        server.send(line)
        assert len(reader.recv(1000)) == 1000
        assert [client.name for client in server._clients] == [name_of(reader)]
    assert capsys.readouterr().err == (
        f"output jsonl+tcp://:0: client {name} does not read; it was let go\n"
    )


def test_a_client_that_dies_is_let_go(
    server: TcpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    client = connect(server)
    name = name_of(client)
    # Its system resets the connection, as that of a program that was killed.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    until(lambda: (server.send(b"x\n"), server.let_go)[1] == 1)
    assert capsys.readouterr().err == (
        f"output jsonl+tcp://:0: client {name} has gone; it was let go\n"
    )


def test_more_clients_than_there_is_room_for_are_turned_away(server: TcpServer) -> None:
    clients = [connect(server) for _ in range(CLIENTS)]
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as one_more:
        server.receive()
        one_more.settimeout(WAIT_S)
        assert one_more.recv(10) == b""
    clients.pop().close()
    until(lambda: clients_after_a_message(server) == CLIENTS - 1)
    clients.append(connect(server))
    for client in clients:
        client.close()


def test_a_port_in_use_is_refused(server: TcpServer) -> None:
    url = f"jsonl+tcp://127.0.0.1:{server.port}"
    with pytest.raises(InputError) as refused:
        open_carrier(parse_sink_url(url))
    assert str(refused.value) == (
        f"--to {url}: cannot be opened (Address already in use); another program may listen "
        "there; give another port, or stop it"
    )


def test_a_port_is_free_again_as_soon_as_the_server_ends() -> None:
    first = TcpServer("127.0.0.1", 0, "first")
    with connect(first) as client:
        first.send(b"x")
        assert client.recv(1) == b"x"
        first.close()  # before the client: the connection lingers on the server's side
        with closing(TcpServer("127.0.0.1", first.port, "second")):
            pass


def test_without_a_host_only_this_machine_is_listened_to() -> None:
    carrier = open_carrier(parse_sink_url("jsonl+tcp://:0"))
    assert isinstance(carrier, TcpServer)
    with closing(carrier):
        assert carrier._socket.getsockname()[0] == "127.0.0.1"


def test_any_free_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    carrier = open_carrier(parse_sink_url("jsonl+tcp://127.0.0.1:0"))
    assert isinstance(carrier, TcpServer)
    with closing(carrier):
        said = f"output jsonl+tcp://127.0.0.1:0: listens on port {carrier.port}\n"
        assert capsys.readouterr().err == said


def test_clients_of_ipv6_are_served() -> None:
    try:
        server = TcpServer("::1", 0, "six")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with closing(server), socket.create_connection(("::1", server.port), WAIT_S) as client:
        until(lambda: server.receive() == b"" and len(server._clients) == 1)
        server.send(b"x")
        assert client.recv(1) == b"x"

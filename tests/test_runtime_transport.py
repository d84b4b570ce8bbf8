"""UDP, TCP clients, and links that are opened anew once they are lost."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from s4g.core.errors import InputError
from s4g.runtime import transport
from s4g.runtime.sink import parse_sink_url
from s4g.runtime.transport import Carrier, Reopened, TcpClient, Udp, open_carrier

WAIT_S = 20.0  # for what must come; nothing here is timed


@pytest.fixture
def udp_receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(WAIT_S)
        yield receiver


def test_each_message_is_one_datagram_and_answers_come_back(udp_receiver: socket.socket) -> None:
    port = udp_receiver.getsockname()[1]
    with closing(open_carrier(parse_sink_url(f"jsonl+udp://127.0.0.1:{port}"))) as carrier:
        carrier.send(b"one\n")
        carrier.send(b"two\nthree\n")
        assert udp_receiver.recv(100) == b"one\n"
        data, place = udp_receiver.recvfrom(100)
        assert data == b"two\nthree\n"
        udp_receiver.sendto(b"heard", place)
        assert awaited(carrier) == b"heard"
        assert carrier.receive() == b""


def awaited(carrier: Carrier) -> bytes:
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        if data := carrier.receive():
            return data
        time.sleep(0.01)
    raise AssertionError("nothing came")


def test_that_nobody_listens_to_datagrams_is_no_failure() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with closing(Udp("127.0.0.1", port)) as carrier:
        for _ in range(5):
            carrier.send(b"x")
            assert carrier.receive() == b""


def test_a_group_is_sent_to_no_farther_than_the_user_says() -> None:
    with closing(Udp("239.2.3.1", 6969, ttl=0)) as carrier:
        ttl = carrier._socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL)
        assert ttl == 0
    url = "cot+udp://239.2.3.1:6969?ttl=300"
    with pytest.raises(InputError) as refused:
        open_carrier(parse_sink_url(url))
    assert str(refused.value) == f"--to {url}: ttl=300 is no number from 0 to 255"


def test_members_of_a_group_receive() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        member.bind(("", 0))
        try:
            join = socket.inet_aton("239.2.3.1") + socket.inet_aton("127.0.0.1")
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)
        except OSError as error:
            pytest.skip(f"no multicast on loopback here: {error}")
        member.settimeout(WAIT_S)
        with closing(Udp("239.2.3.1", member.getsockname()[1], ttl=0)) as carrier:
            local = socket.inet_aton("127.0.0.1")
            carrier._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
            carrier.send(b"to all")
        assert member.recv(100) == b"to all"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)
        yield server


def test_a_connection_carries_both_ways(listener: socket.socket) -> None:
    url = f"jsonl+tcpout://127.0.0.1:{listener.getsockname()[1]}"
    with closing(open_carrier(parse_sink_url(url))) as carrier:
        other, _ = listener.accept()
        with other:
            carrier.send(b"one\n")
            assert other.recv(100) == b"one\n"
            assert carrier.receive() == b""
            other.sendall(b"hello")
            assert awaited(carrier) == b"hello"


def test_a_connection_that_nobody_takes_is_refused(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    url = f"jsonl+tcpout://127.0.0.1:{port}"
    with pytest.raises(InputError) as refused:
        open_carrier(parse_sink_url(url))
    assert str(refused.value) == (
        f"--to {url}: cannot be opened (Connection refused); check host and port, and that the "
        "other side listens"
    )


def test_a_connection_that_was_lost_is_made_again(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.01)
    with closing(Reopened(lambda: TcpClient("127.0.0.1", listener.getsockname()[1]))) as carrier:
        other, _ = listener.accept()
        other.close()
        with pytest.raises(ConnectionResetError, match="closed by the other side"):
            awaited(carrier)
        end_s = time.monotonic() + WAIT_S
        while not sent(carrier, b"again\n"):
            assert time.monotonic() < end_s
            time.sleep(0.01)
        other, _ = listener.accept()
        with other:
            other.settimeout(WAIT_S)
            assert other.recv(100) == b"again\n"


def sent(carrier: Carrier, data: bytes) -> bool:
    try:
        carrier.send(data)
    except OSError:
        return False
    return True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Broken:
    """A link that fails until it is mended."""

    opened = 0
    is_broken = False

    def __init__(self) -> None:
        Broken.opened += 1
        if Broken.is_broken:
            raise OSError(19, "No such device")

    def send(self, data: bytes) -> None:
        if Broken.is_broken:
            raise OSError(5, "Input/output error")

    def receive(self) -> bytes:
        return b""

    def close(self) -> None:
        pass


def test_the_pauses_grow_to_eight_seconds_and_begin_small_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(transport.time, "monotonic", clock)
    monkeypatch.setattr(Broken, "opened", 0)
    monkeypatch.setattr(Broken, "is_broken", False)
    carrier = Reopened(Broken)
    Broken.is_broken = True
    tried = []
    while clock.now_s < 32:
        before = Broken.opened
        with pytest.raises(OSError, match="Input/output error|No such device"):
            carrier.send(b"x")
        if Broken.opened > before:
            tried.append(clock.now_s)
        clock.now_s += 0.25
    assert tried == [0.5, 1.5, 3.5, 7.5, 15.5, 23.5, 31.5]
    Broken.is_broken = False
    clock.now_s += 10
    carrier.send(b"x")
    Broken.is_broken = True
    with pytest.raises(OSError, match="Input/output error"):
        carrier.send(b"x")
    Broken.is_broken = False
    clock.now_s += 0.5
    carrier.send(b"x")

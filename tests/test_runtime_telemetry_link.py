import os
import pty
import socket
from pathlib import Path

import pytest

from s4g.core.errors import InputError
from s4g.runtime.telemetry_link import Address, open_first, open_link, parse_address


@pytest.mark.parametrize(
    ("url", "kind", "host", "port"),
    [
        ("udpin:10.0.0.5:14550", "udpin", "10.0.0.5", 14550),
        ("udpin::14550", "udpin", "127.0.0.1", 14550),
        ("udp:0.0.0.0:14550", "udpin", "0.0.0.0", 14550),
        ("udpin://0.0.0.0:14540", "udpin", "0.0.0.0", 14540),
        ("udpout:autopilot.local:14550", "udpout", "autopilot.local", 14550),
        ("tcp:127.0.0.1:5760", "tcp", "127.0.0.1", 5760),
        ("tcp:[::1]:5760", "tcp", "::1", 5760),
        ("serial:/dev/ttyACM0:57600", "serial", "/dev/ttyACM0", 57600),
        ("/dev/ttyTHS1", "serial", "/dev/ttyTHS1", 115200),
    ],
)
def test_addresses_are_read(url: str, kind: str, host: str, port: int) -> None:
    assert parse_address(url) == Address(url, kind, host, port)


@pytest.mark.parametrize(
    "url", ["udpin:14550", "udpin:1.2.3.4", "tcp:host:99999", "serial:ttyACM0", "udp:a:b:1"]
)
def test_what_is_no_address_is_refused_with_the_forms_there_are(url: str) -> None:
    with pytest.raises(InputError) as error:
        parse_address(url)
    assert str(error.value) == (
        f"--telemetry {url}: no address of a MAVLink stream; expected udpin:HOST:PORT, "
        "udpout:HOST:PORT, tcp:HOST:PORT or serial:/dev/DEVICE:BAUD"
    )


def test_udp_waits_on_this_machine_and_answers_who_sent() -> None:
    link = open_link(parse_address("udpin::0"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.settimeout(5)
        sender.sendto(b"one", ("127.0.0.1", link.port))
        assert link.receive() == b"one"
        link.send(b"two")
        assert sender.recv(9) == b"two"
    assert link.receive() == b""
    link.close()


def test_udp_that_sends_first_outlives_a_side_that_does_not_listen_yet() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    link = open_link(parse_address(f"udpout:127.0.0.1:{port}"))
    for _ in range(3):
        link.send(b"anyone?")
        assert link.receive() == b""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        other.settimeout(5)
        link.send(b"hello")
        data, peer = other.recvfrom(99)
        assert data == b"hello"
        other.sendto(b"yes", peer)
        assert link.receive() == b"yes"
    link.close()


def test_tcp_tells_when_the_other_side_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = open_link(parse_address(f"tcp:127.0.0.1:{server.getsockname()[1]}"))
        peer, _ = server.accept()
        peer.sendall(b"one")
        assert link.receive() == b"one"
        assert link.receive() == b""
        peer.close()
        with pytest.raises(OSError):
            link.receive()
    link.close()


def test_a_serial_port_is_read_and_written() -> None:
    pytest.importorskip("serial", reason="needs pyserial (s4g[telemetry])")
    ours, theirs = pty.openpty()
    link = open_link(parse_address(f"serial:{os.ttyname(theirs)}:57600"))
    os.write(ours, b"one")
    received = b""
    while len(received) < 3:
        received += link.receive()
    assert received == b"one"
    link.send(b"two")
    assert os.read(ours, 9) == b"two"
    link.close()
    for end in (ours, theirs):
        os.close(end)


def refusal(url: str) -> str:
    with pytest.raises(InputError) as error:
        open_first(parse_address(url))
    return str(error.value)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        url = f"udpin:127.0.0.1:{other.getsockname()[1]}"
        assert refusal(url) == (
            f"--telemetry {url}: cannot be opened (Address already in use); another program may "
            "listen there; give another port, or stop it"
        )


def test_a_host_that_does_not_listen_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp:127.0.0.1:{server.getsockname()[1]}"
    assert refusal(url) == (
        f"--telemetry {url}: cannot be opened (Connection refused); check host and port, and that "
        "the other side listens"
    )


def test_a_serial_device_that_is_not_there_is_refused() -> None:
    found = ", ".join(sorted(str(p) for p in Path("/dev").glob("tty[AU][CSM][MB]*"))) or "none"
    assert refusal("serial:/dev/ttyACM77") == (
        f"--telemetry serial:/dev/ttyACM77: no device /dev/ttyACM77; found {found}"
    )


def test_a_device_that_is_no_serial_port_is_refused() -> None:
    pytest.importorskip("serial", reason="needs pyserial (s4g[telemetry])")
    text = refusal("serial:/dev/null:57600")
    assert text.startswith("--telemetry serial:/dev/null:57600: cannot be opened (")
    assert text.endswith("; another program may use it, or you may not be in the group 'dialout'")


def test_without_pyserial_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    assert refusal("serial:/dev/null:57600") == (
        "--telemetry serial:/dev/null:57600: serial ports are read with pyserial, which is not "
        "installed; pip install 's4g[telemetry]'"
    )

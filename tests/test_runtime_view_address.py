"""Where the map is served, and which token it asks for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime.view_address import (
    Address,
    is_loopback,
    listen,
    new_token,
    parse_address,
    read_token,
    url_of,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8765", "127.0.0.1", 8765),
        ("0", "127.0.0.1", 0),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("drone.local:65535", "drone.local", 65535),
        ("[::1]:8765", "::1", 8765),
    ],
)
def test_an_address_is_a_port_with_or_without_a_host(text: str, host: str, port: int) -> None:
    assert parse_address(text, "--view") == Address(f"--view {text}", host, port)


@pytest.mark.parametrize("text", ["", ":8765", "65536", "-1", "a b:80", "::1:80", "http://x:80/"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_address(text, "--view")
    assert str(error.value) == (
        f"--view {text}: expected [HOST:]PORT, such as 8765 or 0.0.0.0:8765, ports to 65535"
    )


@given(st.text(max_size=40))
def test_no_text_makes_an_address_of_an_impossible_port(text: str) -> None:
    try:
        address = parse_address(text, "--view")
    except InputError:
        return
    assert 0 <= address.port <= 65535 and address.host


def test_a_port_in_use_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError) as error:
            listen(Address(f"--view {port}", "127.0.0.1", port))
    assert str(error.value) == (
        f"--view {port}: the port is in use; choose another, or 0 for any that is free"
    )


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError) as error:
        listen(Address("--view 192.0.2.1:0", "192.0.2.1", 0))
    assert str(error.value) == (
        "--view 192.0.2.1:0: this machine has no such address; give one of its own, or 0.0.0.0"
    )


def test_loopback_is_told_by_the_address_that_was_bound() -> None:
    with listen(Address("", "localhost", 0)) as own, listen(Address("", "0.0.0.0", 0)) as every:
        assert is_loopback(own)
        assert not is_loopback(every)


def test_the_url_names_the_port_that_was_found_and_the_token() -> None:
    with listen(Address("", "127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        assert url_of(own) == f"http://127.0.0.1:{port}/"
        assert url_of(own, "secret") == f"http://127.0.0.1:{port}/?token=secret"


def test_a_socket_on_all_addresses_is_named_by_the_machine() -> None:
    with listen(Address("", "0.0.0.0", 0)) as every:
        port = every.getsockname()[1]
        assert url_of(every) == f"http://{socket.gethostname()}:{port}/"


def test_tokens_differ_and_are_long() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 32 for token in tokens)


def test_a_token_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("abcdefgh12345678-_~.\n")
    assert read_token(path) == "abcdefgh12345678-_~."


@pytest.mark.parametrize("text", ["", "short", "two words that are long", "ä" * 20, "a" * 257])
def test_a_file_without_a_token_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_token(path)
    assert str(error.value) == (
        f"--view-token {path}: expected 16 to 256 letters, digits or -_~. on one line; make one "
        "with: openssl rand -hex 24"
    )

"""Signatures made here and checked by pymavlink, and the other way round."""

import hashlib
import runpy
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime import mavlink_signing
from s4g.runtime.mavlink_signing import Signer, read_key

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_mavlink.py"))))
NAME = "--to mavlink+udp://127.0.0.1:14550"
KEY = bytes(range(128, 160))


def key_file(tmp_path: Path, data: bytes = KEY) -> Path:
    path = tmp_path / "key"
    path.write_bytes(data)
    return path


def signed(key: bytes = KEY, stamp: int | None = None, system: int = 1, link: int = 0) -> Any:
    """A HEARTBEAT that pymavlink signed, as a receiver without a key sees it."""
    mav = toy.common.MAVLink(None, system, 1)
    mav.signing.secret_key, mav.signing.sign_outgoing = key, True
    mav.signing.link_id = link
    mav.signing.timestamp = stamp_now() if stamp is None else stamp
    data = toy.common.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3).pack(mav)
    return toy.common.MAVLink(None).decode(bytearray(data))


def stamp_now() -> int:
    return int((time.time() - 1_420_070_400) * 100_000)


@pytest.mark.parametrize("text", [b"a passphrase", b"a passphrase\n", b"a passphrase\r\n"])
def test_a_passphrase_is_hashed_as_mavproxy_does(tmp_path: Path, text: bytes) -> None:
    assert read_key(key_file(tmp_path, text), NAME) == hashlib.sha256(b"a passphrase").digest()


def test_32_bytes_that_are_no_text_are_the_key(tmp_path: Path) -> None:
    assert read_key(key_file(tmp_path), NAME) == KEY


def test_32_letters_are_a_passphrase(tmp_path: Path) -> None:
    assert read_key(key_file(tmp_path, b"x" * 32), NAME) == hashlib.sha256(b"x" * 32).digest()


@pytest.mark.parametrize("data", [b"", b"\n", KEY[:31], KEY + b"\x80", b"two\nlines"])
def test_what_is_no_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = key_file(tmp_path, data)
    with pytest.raises(InputError) as error:
        read_key(path, NAME)
    assert str(error.value) == (
        f"{NAME}: sign={path}: {len(data)} bytes that are no key; expected 32 bytes, or a "
        "passphrase in one line"
    )


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="key: cannot be read"):
        Signer(tmp_path / "key", NAME)


def test_a_receiver_with_the_key_takes_what_is_signed_in_order(tmp_path: Path) -> None:
    signer = Signer(key_file(tmp_path), NAME)
    receiver = toy.common.MAVLink(None)
    receiver.signing.secret_key = KEY
    for _ in range(3):
        mav = toy.common.MAVLink(None, 1, 197)
        mav.signing.secret_key, mav.signing.sign_outgoing = signer.key, True
        mav.signing.timestamp = signer.next_stamp()
        data = toy.common.MAVLink_heartbeat_message(18, 8, 0, 0, 4, 3).pack(mav)
        receiver.decode(bytearray(data))
    assert receiver.signing.goodsig_count == 3


def test_timestamps_are_the_clocks_and_grow_within_one_tick(tmp_path: Path) -> None:
    signer = Signer(key_file(tmp_path), NAME)
    before = stamp_now()
    stamps = [signer.next_stamp() for _ in range(1000)]
    assert stamps == sorted(set(stamps))
    assert before <= stamps[0] <= stamp_now()


def test_timestamps_grow_over_a_restart_with_the_clock_back_in_1970(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = key_file(tmp_path)
    last = [Signer(path, NAME).next_stamp() for _ in range(2)][-1]
    monkeypatch.setattr(mavlink_signing.time, "time", lambda: 100.0)
    for _ in range(5):
        signer = Signer(path, NAME)
        for _ in range(3):
            stamp = signer.next_stamp()
            assert stamp > last
            last = stamp


def test_timestamps_grow_over_a_crash_long_after_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now_s = key_file(tmp_path), [2e9]
    monkeypatch.setattr(mavlink_signing.time, "time", lambda: now_s[0])
    signer = Signer(path, NAME)
    for _ in range(100):
        now_s[0] += 7.0
        last = signer.next_stamp()
    now_s[0] = 100.0
    assert Signer(path, NAME).next_stamp() > last


def test_a_full_disk_in_flight_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = [2e9]
    monkeypatch.setattr(mavlink_signing.time, "time", lambda: now_s[0])
    signer = Signer(key_file(tmp_path), NAME)
    monkeypatch.setattr(mavlink_signing.os, "fsync", full)
    stamps = []
    for _ in range(5):
        now_s[0] += 90.0
        stamps.append(signer.next_stamp())
    assert stamps == sorted(set(stamps))
    assert capsys.readouterr().err == (
        f"{NAME}: {tmp_path}/key.timestamp: cannot be written (No space left on device)\n"
    )


def full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mavlink_signing.os, "fsync", full)
    path = key_file(tmp_path)
    with pytest.raises(InputError) as error:
        Signer(path, NAME)
    assert str(error.value) == (
        f"{NAME}: sign={path}: {path}.timestamp cannot be written (No space left on device); "
        "timestamps of signatures must grow from run to run, so put the key into a folder that can "
        "be written"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("text", ["", "soon\n", "-5", "9" * 20, "\N{SUPERSCRIPT TWO}"])
def test_a_damaged_timestamp_is_refused(tmp_path: Path, text: str) -> None:
    path = key_file(tmp_path)
    (tmp_path / "key.timestamp").write_text(text)
    with pytest.raises(InputError) as error:
        Signer(path, NAME)
    assert str(error.value) == (
        f"{NAME}: {path}.timestamp: holds no timestamp; remove it if the clock is right"
    )


def test_what_is_signed_with_the_key_is_believed_and_nothing_else(tmp_path: Path) -> None:
    signer = Signer(key_file(tmp_path), NAME)
    now = stamp_now()
    assert signer.believes(signed(stamp=now))
    assert not signer.believes(signed(key=bytes(32), stamp=now + 1))
    unsigned = toy.common.MAVLink(None).decode(bytearray(toy.Autopilot().heartbeat()))
    assert not signer.believes(unsigned)


def test_a_recording_played_again_is_not_believed(tmp_path: Path) -> None:
    signer = Signer(key_file(tmp_path), NAME)
    now = stamp_now()
    first, second = signed(stamp=now), signed(stamp=now + 1)
    assert signer.believes(first)
    assert signer.believes(second)
    assert not signer.believes(first)
    assert not signer.believes(second)
    assert signer.believes(signed(stamp=now, link=1))  # another link counts for itself


def test_a_sender_not_heard_before_may_lag_by_a_minute_and_no_more(tmp_path: Path) -> None:
    signer = Signer(key_file(tmp_path), NAME)
    now = signer.next_stamp()
    assert not signer.believes(signed(stamp=now - 6_100_000, system=2))
    assert signer.believes(signed(stamp=now - 5_900_000, system=2))


def test_a_forged_timestamp_far_ahead_does_not_lock_the_vehicle_out(tmp_path: Path) -> None:
    signer = Signer(key_file(tmp_path), NAME)
    now = stamp_now()
    assert not signer.believes(signed(key=bytes(32), stamp=now + 10**12))
    assert signer.believes(signed(stamp=now))


def test_timestamps_follow_a_vehicle_whose_clock_is_ahead(tmp_path: Path) -> None:
    signer = Signer(key_file(tmp_path), NAME)
    ahead = stamp_now() + 10**9
    assert signer.believes(signed(stamp=ahead))
    assert signer.next_stamp() > ahead


@given(st.integers(0, 300), st.integers(1, 255))
def test_a_message_with_any_byte_changed_is_not_believed(at: int, by: int) -> None:
    signer = Signer.__new__(Signer)
    signer.key, signer._newest, signer._stamp = KEY, {}, 0
    message = signed(stamp=5)
    data = bytearray(message.get_msgbuf())
    data[at % len(data)] ^= by
    message._msgbuf = data
    assert not signer.believes(message)

"""Reading flight logs that were cut, flipped, forged or never any."""

from __future__ import annotations

import io
import json
import math
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("mcap", reason="flight logs need mcap (outputs extra)")
from mcap.writer import CompressionType, Writer

from s4g.core.camera import Attitude, Camera
from s4g.core.errors import InputError, IntegrityError
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.frames import Frame, Outage
from s4g.runtime.intrinsics import Lens
from s4g.runtime.log_format import (
    EXACT,
    FLIGHT,
    PICTURES,
    RESIDUALS,
    STEPS,
    Flight,
    FrameNote,
    Malformed,
    dump,
    flight_json,
    printable,
    read_flight,
    read_step,
    step_json,
)
from s4g.runtime.log_pixels import pack_pixels
from s4g.runtime.log_read import open_log
from s4g.runtime.log_replay import Recorded
from s4g.runtime.log_segment import Segment, image_message
from s4g.runtime.telemetry_sample import Sample

FLOWN = Flight(
    flight=3,
    segment=1,
    first_step=0,
    lens=Lens(62.5),
    live=True,
    pack_path="/data/region.s4gpack",
    pack_sha256="ab" * 32,
    encoder_path="/data/encoder.onnx",
    encoder_sha256=None,
    model_id="70" * 32,
    backend="onnxruntime cpu",
    options={"level": None},
    versions={"s4g": "0.1.0"},
    started_utc_s=1.5e9,
)
SAMPLE = Sample(Attitude(10.1, -0.2, 0.3, 99.9), 1.25, vel_n_mps=0.1, hfov_deg=60.0, age_s=0.02)
STEP_COUNT = 6


def write_segment(path: Path, first: int = 0, count: int = STEP_COUNT, segment: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    file = Segment(path)
    file.add(FLIGHT, first, flight_json(replace(FLOWN, segment=segment, first_step=first)), 1)
    for number in range(first, first + count):
        add_step(file, number)
        file.sync()  # which ends a chunk
    file.close()
    return path


def add_step(file: Segment, number: int) -> None:
    fix = Fix(number, number / 10, State.TRACK, lat=46.9, lon=9.0, sigma_m=5.0)
    if number % 3 == 2:
        silent = replace(fix, state=State.NO_FIX, lat=None, lon=None, reason=Reason.NO_FRAMES)
        file.add(STEPS, number, step_json(number, silent, None, None), number)
        return
    rgb = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    frame = Frame(number, number / 10, None, f"frame {number}", 32, 24, 0.0, decoded=rgb)
    jpeg, residual = pack_pixels(rgb, exact=True)
    assert residual is not None
    file.add(PICTURES, number, image_message(jpeg, number), number)
    file.add(RESIDUALS, number, residual, number)
    note = FrameNote.of(frame, EXACT)
    file.add(STEPS, number, step_json(number, fix, note, SAMPLE), number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segment(tmp_path_factory.mktemp("log") / "0001.mcap")


def numbers(path: Path) -> tuple[list[int], list[str]]:
    log = open_log(path)
    return [one.step.number for one in log.steps()], log.faults


# ---- values -------------------------------------------------------------------------------------

FLOATS = st.floats(allow_nan=False)
MAYBE = st.none() | FLOATS


@given(
    st.builds(
        Sample,
        st.builds(Attitude, *[st.floats(allow_nan=False, allow_infinity=False)] * 4),
        t=MAYBE,
        vel_n_mps=MAYBE,
        vel_e_mps=MAYBE,
        hfov_deg=MAYBE,
        yaw_known=st.booleans(),
        tilt_known=st.booleans(),
        agl_known=st.booleans(),
        age_s=FLOATS,
    ),
    MAYBE,
)
def test_samples_come_back_to_the_last_bit(sample: Sample, t: float | None) -> None:
    frame = Frame(7, t, "a\n\N{SNOWMAN}.jpg", "x", 640, 480, 0.0, encoded=b"")
    fix = Fix(7, 1.0, State.ACQUIRING)
    step = read_step(step_json(9, fix, FrameNote.of(frame, "photo"), sample))
    assert (step.number, step.sample, step.t) == (9, sample, None)
    assert step.frame == FrameNote(7, t, "a\n\N{SNOWMAN}.jpg", "x", 640, 480, "photo")
    assert step.fix == json.loads(fix.to_json())


def test_numbers_that_json_lacks_come_back_too() -> None:
    sample = replace(SAMPLE, vel_n_mps=math.inf, vel_e_mps=math.nan)
    frame = Frame(0, 0.0, None, "x", 4, 4, 0.0, encoded=b"")
    data = step_json(0, Fix(0, 0.0, State.INIT), FrameNote.of(frame, "photo"), sample)
    back = read_step(data).sample
    assert isinstance(back, Sample)
    assert back.vel_n_mps == math.inf
    assert back.vel_e_mps is not None and math.isnan(back.vel_e_mps)
    json.loads(data, parse_constant=lambda name: pytest.fail(name))


def test_a_flight_comes_back() -> None:
    camera = Camera(640, 480, 500.5, 501.5, 319.5, 239.5, (0.1, -0.2, 0.0, 0.0, 0.5))
    for flight in (FLOWN, replace(FLOWN, lens=Lens(None, camera), live=False)):
        assert read_flight(flight_json(flight)) == flight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "it is no flight log of s4g-run"),
        ({"version": 2}, "its format is 2, this program reads 1"),
        ({"segment": -1}, "what it says of the flight is not of this format"),
        ({"live": 1}, "what it says of the flight is not of this format"),
        ({"lens": []}, "what it says of the flight is not of this format"),
        ({"model_id": 5}, "what it says of the flight is not of this format"),
        ({"options": [1]}, "what it says of the flight is not of this format"),
        ({"versions": {"s4g": 1}}, "what it says of the flight is not of this format"),
    ],
)
def test_a_flight_of_another_format_is_refused(change: dict[str, Any], message: str) -> None:
    value = json.loads(flight_json(FLOWN)) | change
    with pytest.raises(Malformed) as error:
        read_flight(json.dumps(value).encode())
    assert str(error.value) == message


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": 1.5},
        {"step": True},
        {"frame": None},
        {"sample": {}},
        {"sample": None, "reason": "because"},
        {"fix": None},
        {"fix": {}},
        {"fix": {"state": "FLYING"}},
        {"frame": {"index": 0, "t": None, "file": None, "name": "x", "picture": "exact"}},
    ],
)
def test_a_step_of_another_format_is_refused(change: dict[str, Any]) -> None:
    frame = Frame(0, 0.0, None, "x", 4, 4, 0.0, encoded=b"")
    data = step_json(0, Fix(0, 0.0, State.INIT), FrameNote.of(frame, EXACT), SAMPLE)
    with pytest.raises(Malformed, match="^a step is not of this format$"):
        read_step(json.dumps(json.loads(data) | change).encode())


@pytest.mark.parametrize(("width", "height"), [(0, 10), (1 << 17, 1), (60_000, 60_000)])
def test_a_frame_of_absurd_size_is_refused(width: int, height: int) -> None:
    frame = Frame(0, 0.0, None, "x", width, height, 0.0, encoded=b"")
    data = step_json(0, Fix(0, 0.0, State.INIT), FrameNote.of(frame, EXACT), SAMPLE)
    with pytest.raises(Malformed, match="^a step is not of this format$"):
        read_step(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000, "a message is no JSON"),
        (b"\xff", "a message is no JSON"),
        (b"[]", "a message is no JSON object"),
        (b" " * ((1 << 20) + 1), "a message has 1048577 bytes, more than 1048576"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, message: str) -> None:
    for read in (read_step, read_flight):
        with pytest.raises(Malformed) as error:
            read(data)
        assert str(error.value) == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.data())
def test_any_json_is_a_step_or_refused(data: st.DataObject) -> None:
    frame = Frame(0, 0.0, None, "x", 4, 4, 0.0, encoded=b"")
    value: Any = json.loads(
        step_json(0, Fix(0, 0.0, State.INIT), FrameNote.of(frame, EXACT), SAMPLE)
    )
    at = data.draw(st.sampled_from([(), ("frame",), ("sample",), ("sample", "attitude")]))
    inner = value
    for key in at:
        inner = inner[key]
    inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JSON)
    try:
        read_step(json.dumps(value).encode())
    except Malformed as error:
        assert str(error) == "a step is not of this format"


def test_nothing_of_a_log_steers_a_terminal() -> None:
    assert printable("a\x1b[2Jb\n\u202ec") == "a\ufffd[2Jb\ufffd\ufffdc"


# ---- files --------------------------------------------------------------------------------------


def test_a_whole_segment_is_read_without_a_fault(whole: Path) -> None:
    assert numbers(whole) == (list(range(STEP_COUNT)), [])


def test_frames_and_outages_come_back(whole: Path) -> None:
    source = Recorded(open_log(whole))
    items = list(source.frames())
    assert [isinstance(one, Outage) for one in items] == [False, False, True] * 2
    for number, one in enumerate(items):
        assert one.t == number / 10
        if isinstance(one, Frame):
            rgb = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            assert np.array_equal(one.rgb()[0], rgb)
    assert source.inexact is None


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_log_that_was_cut_anywhere_is_read_up_to_there(
    whole: Path, tmp_path: Path, share: float
) -> None:
    data = whole.read_bytes()
    cut = tmp_path / "0001.mcap"
    cut.write_bytes(data[: int(share * (len(data) - 1))])
    try:
        found, faults = numbers(cut)
    except IntegrityError as error:
        assert str(error).endswith("; expected the record of s4g-run --log-dir")
        return
    assert found == list(range(len(found)))
    if len(found) < STEP_COUNT:
        (fault,) = faults
        assert fault.endswith("it ends there, as after a power cut")


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_found_or_does_not_matter(
    whole: Path, tmp_path: Path, at: float, flip: int
) -> None:
    """What is read is what was written, or a fault tells where it ends."""
    data = bytearray(whole.read_bytes())
    data[int(at * len(data))] ^= flip
    damaged = tmp_path / "0001.mcap"
    damaged.write_bytes(data)
    try:
        log = open_log(damaged)
        steps = [one.step for one in log.steps()]
    except IntegrityError as error:
        assert "\n" not in str(error)
        return
    expected = [one.step for one in open_log(whole).steps()]
    assert steps == expected[: len(steps)]
    assert len(steps) == STEP_COUNT or len(log.faults) == 1


@pytest.mark.parametrize("kind", [1, 3, 4, 5, 7, 9, 10, 15, 0x80])
def test_a_chunk_that_passes_for_another_record_is_found(
    whole: Path, tmp_path: Path, kind: int
) -> None:
    data = bytearray(whole.read_bytes())
    at = 8
    while data[at] != 6:
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    while data[at] != 6:
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    data[at] = kind
    path = tmp_path / "0001.mcap"
    path.write_bytes(data)
    found, faults = numbers(path)
    assert found == list(range(len(found)))
    assert faults == [f"{path}: byte {at}: a record that s4g-run does not write"]


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=600), magic=st.booleans())
def test_any_bytes_are_refused_in_one_line(tmp_path: Path, data: bytes, magic: bool) -> None:
    path = tmp_path / "x.mcap"
    path.write_bytes((b"\x89MCAP0\r\n" if magic else b"") + data)
    with pytest.raises(IntegrityError) as error:
        open_log(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [1 << 20, 1 << 33, (1 << 64) - 1])
def test_a_forged_length_makes_room_for_nothing(whole: Path, tmp_path: Path, length: int) -> None:
    data = whole.read_bytes()
    path = tmp_path / "forged.mcap"
    for opcode in (6, 7, 0x7F):
        path.write_bytes(data[:8] + struct.pack("<BQ", opcode, length) + data[8:])
        tracemalloc.start()
        with pytest.raises(IntegrityError, match="it ends there, as after a power cut"):
            open_log(path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2 << 20


def test_a_forged_length_within_a_chunk_makes_room_for_nothing(tmp_path: Path) -> None:
    """The checksum of a hostile file fits; its lengths do not."""
    inner = struct.pack("<BQ", 5, 1 << 40) + b"xyz"
    outer = struct.pack("<QQQI", 0, 0, len(inner), zlib.crc32(inner))
    outer += struct.pack("<I", 0) + struct.pack("<Q", 1 << 40) + inner
    path = tmp_path / "forged.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(outer)) + outer)
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="what a chunk holds is damaged"):
        open_log(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 << 20


@pytest.mark.parametrize("compression", [CompressionType.ZSTD, CompressionType.LZ4])
def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path, compression: CompressionType) -> None:
    file = io.BytesIO()
    writer: Any = Writer(file, compression=compression)
    writer.start()
    channel = writer.register_channel(STEPS, "json", 0)
    writer.add_message(channel, 0, bytes(1 << 26), 0)
    writer.finish()
    path = tmp_path / "bomb.mcap"
    path.write_bytes(file.getvalue())
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="a chunk is compressed, which s4g-run does not do"):
        open_log(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 << 20


def test_a_foreign_mcap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.mcap"
    with path.open("wb") as file:
        writer: Any = Writer(file, compression=CompressionType.NONE)
        writer.start()
        writer.add_message(writer.register_channel("/imu", "json", 0), 0, b"{}", 0)
        writer.finish()
    with pytest.raises(IntegrityError) as error:
        open_log(path)
    assert str(error.value) == (
        f"{path}: tells nothing of a flight; expected the record of s4g-run --log-dir"
    )


def test_a_segment_that_is_missing_is_noticed(tmp_path: Path) -> None:
    flight = tmp_path / "flight-0003"
    for segment, first in ((1, 0), (2, 6), (3, 12)):
        write_segment(flight / f"{segment:04d}.mcap", first, segment=segment)
    source = Recorded(open_log(flight))
    assert len(list(source.frames())) == 18
    assert source.inexact is None
    (flight / "0002.mcap").unlink()
    source = Recorded(open_log(flight))
    assert len(list(source.frames())) == 12
    assert source.inexact == "6 steps before frame 12 are missing in the log"


def test_damage_in_one_segment_leaves_the_next(tmp_path: Path) -> None:
    flight = tmp_path / "flight-0003"
    for segment, first in ((1, 0), (2, 6)):
        write_segment(flight / f"{segment:04d}.mcap", first, segment=segment)
    path = flight / "0001.mcap"
    path.write_bytes(b"")
    found, faults = numbers(flight)
    assert found == list(range(6, 12))
    assert faults == [f"{path}: it is no MCAP file"]


def test_segments_of_two_flights_are_not_mixed(tmp_path: Path) -> None:
    flight = tmp_path / "flight-0003"
    write_segment(flight / "0001.mcap")
    file = Segment(flight / "0002.mcap")
    file.add(FLIGHT, 6, flight_json(replace(FLOWN, flight=4)), 1)
    file.close()
    with pytest.raises(InputError) as error:
        numbers(flight)
    assert (
        str(error.value) == f"{flight / '0002.mcap'}: belongs to another flight than 3; take it out"
    )


def test_steps_that_come_twice_end_a_segment(tmp_path: Path) -> None:
    path = tmp_path / "0001.mcap"
    file = Segment(path)
    file.add(FLIGHT, 0, flight_json(FLOWN), 1)
    for number in (0, 1, 1, 2):
        add_step(file, number)
    file.close()
    assert numbers(path) == ([0, 1], [f"{path}: step 1 comes after 1"])


def test_a_picture_of_another_step_is_not_taken_for_its_own(tmp_path: Path) -> None:
    path = tmp_path / "0001.mcap"
    file = Segment(path)
    file.add(FLIGHT, 0, flight_json(FLOWN), 1)
    file.add(PICTURES, 5, image_message(b"\xff\xd8\xff\xd9", 0), 0)
    frame = Frame(0, 0.0, None, "x", 4, 4, 0.0, encoded=b"")
    step = step_json(0, Fix(0, 0.0, State.INIT), FrameNote.of(frame, EXACT), SAMPLE)
    file.add(STEPS, 0, step, 0)
    file.close()
    (one,) = open_log(path).steps()
    assert one.jpeg is None


@pytest.mark.parametrize("cut", [0, 10, 39])
def test_a_picture_of_another_format_ends_a_segment(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "0001.mcap"
    file = Segment(path)
    file.add(FLIGHT, 0, flight_json(FLOWN), 1)
    file.add(PICTURES, 0, image_message(b"\xff\xd8\xff\xd9", 0)[:cut], 0)
    frame = Frame(0, 0.0, None, "x", 4, 4, 0.0, encoded=b"")
    step = step_json(0, Fix(0, 0.0, State.INIT), FrameNote.of(frame, EXACT), SAMPLE)
    file.add(STEPS, 0, step, 0)
    file.close()
    assert numbers(path) == ([], [f"{path}: a picture is not of this format"])


def test_json_is_written_plainly() -> None:
    assert dump({"a": (1, 2.5), "b": {"c": math.nan}}) == b'{"a":[1,2.5],"b":{"c":{"float":"nan"}}}'

"""Which reader a source gets; and that no reader lets a position through."""

import runpy
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.runtime.fix import Reason
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry import (
    CsvTelemetry,
    ExifTelemetry,
    Sample,
    is_stream,
    open_telemetry,
    read_telemetry,
)
from s4g.runtime.telemetry_vehicle import LogTelemetry

HERE = Path(__file__)
toy = SimpleNamespace(**runpy.run_path(str(HERE.with_name("toy_logs.py"))))
CSV = "t,yaw_deg,pitch_deg,roll_deg,agl_m\n0,350,0,0,100\n1,10,4,-2,110\n"


def frame(t: float | None = None, encoded: bytes | None = None) -> Frame:
    return Frame(0, t, None, "clip.mp4 frame 0", 64, 48, 0.0, encoded=encoded)


# ---- what each source holds; `lat`, `lon` and everything else that could tell a place vary ------


def csv(lat: float, lon: float) -> bytes:
    rows = [f"{t},{350 + 20 * t},1,2,100,5,-3,{lat},{lon},{lat * 9}" for t in (0, 1)]
    columns = "t,yaw_deg,pitch_deg,roll_deg,agl_m,vel_n_mps,vel_e_mps,lat,lon,alt_m"
    return "\n".join([columns, *rows]).encode()


def srt(lat: float, lon: float) -> bytes:
    bracket = "[rel_alt: 100.0 abs_alt: {}] [gb_yaw: 12.0 gb_pitch: -88.0 gb_roll: 0.0]"
    text = "".join(
        f"{n}\n00:00:0{n},000 --> 00:00:0{n + 1},000\n[latitude: {lat}] [longtitude: {lon}] "
        f"GPS({lon},{lat},16) HOME({lon},{lat}) [altitude: {lat * 9}] "
        + bracket.format(lat * 9)
        + "\n\n"
        for n in (0, 1)
    )
    return text.encode()


def dataflash(lat: float, lon: float) -> bytes:
    made = toy.DataFlash()
    made.describe("ATT", "Qfff", "TimeUS,Roll,Pitch,Yaw")
    made.describe("GPS", "QBLLeff", "TimeUS,Status,Lat,Lng,Alt,Spd,GCrs")
    made.describe("POS", "QLLfff", "TimeUS,Lat,Lng,Alt,RelHomeAlt,RelOriginAlt")
    made.describe("TERR", "QBLLHff", "TimeUS,Status,Lat,Lng,Spacing,TerrH,CHeight")
    made.describe("XKF1", "QBffff", "TimeUS,C,VN,VE,PN,PE")
    made.describe("ORGN", "QBLLe", "TimeUS,Type,Lat,Lng,Alt")
    place = (round(lat * 1e7), round(lon * 1e7))
    for t in (0.0, 1.0):
        made.row("GPS", toy.us(t), 3, *place, lat, lon, lat)
        made.row("ORGN", toy.us(t), 0, *place, lat)
        made.row("ATT", toy.us(t), 1, 2, 30 + t)
        made.row("POS", toy.us(t), *place, lat, 100, lat)
        made.row("TERR", toy.us(t), 2, *place, 100, lat, 80)
        made.row("XKF1", toy.us(t), 0, 5, -3, lat, lon)
    return bytes(made.data)


def ulog(lat: float, lon: float) -> bytes:
    pytest.importorskip("pyulog", reason="needs pyulog (s4g[telemetry])")
    made = toy.ULogFile()
    made.topic("vehicle_attitude", "4f", "float[4] q;")
    made.topic(
        "vehicle_local_position",
        "8f2d",
        "float x;float y;float z;float vx;float vy;float dist_bottom;float delta_x;float delta_y;"
        "double ref_lat;double ref_lon;",
    )
    made.topic("vehicle_gps_position", "2d", "double latitude_deg;double longitude_deg;")
    made.topic("vehicle_global_position", "2d", "double lat;double lon;")
    for t in (0.0, 1.0):
        made.row("vehicle_attitude", t, 1, 0, 0, t / 10)
        made.row("vehicle_local_position", t, lat, lon, -100, 5, -3, 80, lat, lon, lat, lon)
        made.row("vehicle_gps_position", t, lat, lon)
        made.row("vehicle_global_position", t, lat, lon)
    return bytes(made.data)


def tlog(lat: float, lon: float) -> bytes:
    mavlink = SimpleNamespace(**runpy.run_path(str(HERE.with_name("toy_mavlink.py"))))
    pilot, common = mavlink.Autopilot(), mavlink.common
    place = (round(lat * 1e7), round(lon * 1e7))
    truth = {"lat": place[0], "lon": place[1], "alt": round(lat * 1e3), "hdg": round(abs(lat) * 99)}
    raw = common.MAVLink_gps_raw_int_message(0, 3, *place, 9, 1, 1, 500, round(abs(lon) * 99), 9)
    records = []
    for t in (0.0, 1.0):
        records += [
            (t, pilot.pack(raw)),
            (t, pilot.attitude(9 + t, 0.1, 0.02, 0.03)),
            (t, pilot.global_position(9 + t, 100.0, 5.0, -3.0, **truth)),
            (t, pilot.local_position(9 + t, 4.0, -2.0, x=lat)),
            (t, pilot.terrain(80.0, lat=place[0])),
        ]
    return bytes(toy.tlog(records))


READERS = {"csv": csv, "srt": srt, "bin": dataflash, "ulg": ulog, "tlog": tlog}


@pytest.mark.parametrize("kind", READERS)
def test_a_position_in_a_file_changes_nothing(tmp_path: Path, kind: str) -> None:
    samples = []
    for i, (lat, lon) in enumerate([(47.0, 8.0), (-33.9, 151.2), (89.9, -179.9), (0.0, 0.0)]):
        path = tmp_path / f"{i}.{kind}"
        path.write_bytes(READERS[kind](lat, lon))
        telemetry = read_telemetry(path)
        samples.append([telemetry.at(frame(t)) for t in (0.0, 0.25, 1.0)])
    assert all(isinstance(sample, Sample) and sample.tilt_known for sample in samples[0])
    assert samples[1:] == samples[:1] * 3


@pytest.mark.parametrize("kind", READERS)
def test_the_content_tells_the_kind_of_a_file_and_not_its_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "telemetry"
    path.write_bytes(READERS[kind](47.0, 8.0))
    expected = CsvTelemetry if kind == "csv" else LogTelemetry
    assert isinstance(read_telemetry(path), expected)


def test_a_position_in_a_photo_changes_nothing() -> None:
    assert exif_sample(47.0) == exif_sample(-33.9)


def exif_sample(lat: float) -> Sample | Reason:
    return ExifTelemetry().at(frame(encoded=photo(lat)))


def photo(lat: float, pose: bool = True) -> bytes:
    """A DJI photo with its position in EXIF and XMP."""
    told = {"GpsLatitude": f"{lat:+f}", "AbsoluteAltitude": f"{lat * 9:+.2f}"}
    if pose:
        told |= {"GimbalYawDegree": "+45.50", "GimbalPitchDegree": "-89.90"}
        told |= {"GimbalRollDegree": "+0.00", "RelativeAltitude": "+39.80"}
    attributes = " ".join(f'drone-dji:{k}="{v}"' for k, v in told.items())
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" '
        f"{attributes}></rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()
    gps = struct.pack("<HHHII", 1, 2, 5, 1, 44) + bytes(4)  # GPSLatitude, one rational
    main = struct.pack("<HHHIII", 1, 0x8825, 4, 1, 26, 0)
    degrees = struct.pack("<II", round(abs(lat) * 1e6), 1_000_000)
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + main + gps + degrees
    jpeg = encode_rgb(np.full((48, 64, 3), 90, np.uint8), ".jpg")
    blocks = [exif, b"http://ns.adobe.com/xap/1.0/\x00" + xmp]
    parts = [b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block for block in blocks]
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


# ---- photos ------------------------------------------------------------------------------------


def test_a_photo_tells_its_pose() -> None:
    sample = exif_sample(47.0)
    assert isinstance(sample, Sample)
    assert sample.attitude.agl_m == 39.8
    assert (sample.yaw_known, sample.tilt_known, sample.agl_known) == (True, True, True)
    assert (sample.t, sample.age_s) == (None, 0.0)


def test_photos_without_pose_have_no_telemetry() -> None:
    telemetry = ExifTelemetry()
    assert telemetry.complaint() is None
    assert telemetry.at(frame(encoded=photo(47.0, pose=False))) is Reason.NO_TELEMETRY
    assert telemetry.complaint() == (
        "--telemetry exif: no photo tells its attitude or height (XMP drone-dji:Gimbal…Degree, "
        "RelativeAltitude); pass --telemetry FILE.csv instead"
    )
    telemetry.at(frame(encoded=photo(47.0)))
    assert telemetry.complaint() is None


def test_a_video_has_no_exif() -> None:
    with pytest.raises(InputError) as error:
        ExifTelemetry().at(frame(t=0.0))
    assert str(error.value) == (
        "--telemetry exif: only photos carry EXIF; give a CSV for a video or a live camera"
    )


# ---- what follows --telemetry ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ("udpin::14550", True),
        ("udp:0.0.0.0:14550", True),
        ("udpout:10.0.0.1:14550", True),
        ("tcp:10.0.0.1:5760", True),
        ("serial:/dev/ttyACM0", True),
        ("/dev/ttyACM0:57600", True),
        ("flight.tlog", False),
        ("udp.csv", False),
        ("exif", False),
    ],
)
def test_streams_are_told_from_files(source: str, is_one: bool) -> None:
    assert is_stream(source) is is_one


def test_the_optional_libraries_are_loaded_only_where_they_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(dataflash(47.0, 8.0))
    code = (
        "import sys\nfrom s4g.runtime.telemetry import open_telemetry\n"
        f"open_telemetry({str(path)!r})\n"
        "print(*({'pymavlink', 'pyulog', 'serial'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_what_follows_the_option_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    assert isinstance(open_telemetry("exif"), ExifTelemetry)
    telemetry = open_telemetry(str(path), offset_s=7.0)
    assert isinstance(telemetry, CsvTelemetry)
    assert telemetry.offset_s == 7.0


def test_a_stream_is_opened() -> None:
    pytest.importorskip("pymavlink", reason="needs pymavlink (s4g[telemetry])")
    telemetry = open_telemetry("udpin::0", system=3)
    telemetry.close()
    assert not telemetry.stream.thread.is_alive()
    assert telemetry._collector.system == 3


def test_a_mount_goes_with_logs(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(dataflash(0.0, 0.0))
    sample = open_telemetry(str(path), offset_s=7.0, mount_deg=(90.0, 0.0, 0.0)).at(frame(7.0))
    assert isinstance(sample, Sample)
    assert sample.attitude.yaw_deg == pytest.approx(120.0, abs=0.1)


@pytest.mark.parametrize("source", ["exif", "t.csv"])
def test_a_mount_is_refused_where_the_cameras_own_attitude_is_told(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(CSV)
    with pytest.raises(InputError) as error:
        open_telemetry(source, mount_deg=(0.0, 30.0, 0.0))
    assert str(error.value) == (
        f"--mount: {source} tells the camera's own attitude, which needs none; leave it out"
    )


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_telemetry(tmp_path / "none.bin")
    assert str(error.value) == f"{tmp_path}/none.bin: cannot be read (No such file or directory)"


def test_a_file_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x7fELF\x00\x01\x02")
    with pytest.raises(InputError) as error:
        read_telemetry(path)
    assert str(error.value) == (
        f"{path}: is no telemetry; expected a CSV, an ArduPilot .bin, a MAVLink .tlog, a PX4 .ulg "
        "or a DJI .srt"
    )


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tlog"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="has no rows"):
        read_telemetry(path)


def test_every_telemetry_of_a_file_can_be_closed(tmp_path: Path) -> None:
    for kind in ("csv", "bin"):
        path = tmp_path / kind
        path.write_bytes(READERS[kind](47.0, 8.0))
        telemetry: Any = read_telemetry(path)
        telemetry.close()
        assert isinstance(telemetry.at(frame(0.0)), Sample)

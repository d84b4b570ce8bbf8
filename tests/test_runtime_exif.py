import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.camera import Attitude
from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.runtime.exif import attitude_from_gimbal, hfov_from_35mm_deg, read_photo_pose

PIXELS = np.full((30, 40, 3), 90, np.uint8)
POSE = {
    "GimbalYawDegree": "+45.50",
    "GimbalPitchDegree": "-89.90",
    "GimbalRollDegree": "+0.00",
    "RelativeAltitude": "+39.80",
}


def xmp(values: dict[str, str], as_elements: bool = False, head: str = "") -> bytes:
    attributes = "" if as_elements else " ".join(f'drone-dji:{k}="{v}"' for k, v in values.items())
    elements = "".join(f"<drone-dji:{k}>{v}</drone-dji:{k}>" for k, v in values.items())
    return (
        f'{head}<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" '
        f"{attributes}>{elements if as_elements else ''}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def photo(packet: bytes | None, focal_35mm: int | None = None) -> bytes:
    jpeg = encode_rgb(PIXELS, ".jpg")
    blocks = b""
    if focal_35mm is not None:
        entry = struct.pack("<HHHIHH", 1, 0xA405, 3, 1, focal_35mm, 0)
        pointer = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
        blocks += app1(b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + pointer + entry + b"\x00" * 4)
    if packet is not None:
        blocks += app1(b"http://ns.adobe.com/xap/1.0/\x00" + packet)
    return jpeg[:2] + blocks + jpeg[2:]


def app1(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


@pytest.mark.parametrize("as_elements", [False, True])
def test_a_nadir_photo_becomes_a_camera_that_looks_down(as_elements: bool) -> None:
    pose = read_photo_pose(photo(xmp(POSE, as_elements)), "a.jpg")
    assert pose.attitude.yaw_deg == pytest.approx(45.5)
    assert pose.attitude.pitch_deg == pytest.approx(0.1)
    assert pose.attitude.roll_deg == pytest.approx(0.0)
    assert pose.attitude.agl_m == 39.8
    assert pose.hfov_deg is None


def test_the_field_of_view_comes_from_the_35_mm_focal_length() -> None:
    pose = read_photo_pose(photo(xmp(POSE), focal_35mm=20), "a.jpg")
    # 4:3: the 43.27 mm diagonal over 1.25 widths.
    assert pose.hfov_deg == pytest.approx(2 * math.degrees(math.atan(43.2666 / 1.25 / 2 / 20)))


def test_a_3_2_sensor_is_as_wide_as_the_film() -> None:
    expected = 2 * math.degrees(math.atan(18 / 24))
    assert hfov_from_35mm_deg(24, 5472, 3648) == pytest.approx(expected)


def test_a_16_9_crop_keeps_the_focal_length_of_its_4_3_sensor() -> None:
    assert hfov_from_35mm_deg(20, 4000, 2250) == pytest.approx(hfov_from_35mm_deg(20, 4000, 3000))


@given(st.floats(-179, 179), st.floats(-30, 30))
def test_gimbal_lock_is_resolved(yaw_deg: float, turn_deg: float) -> None:
    """At -90 degrees yaw and roll turn about the same axis: only their sum matters."""
    plain = attitude_from_gimbal(yaw_deg + turn_deg, -90.0, 0.0, 50.0)
    locked = attitude_from_gimbal(yaw_deg, -90.0, turn_deg, 50.0)
    np.testing.assert_allclose(plain.ned_from_camera, locked.ned_from_camera, atol=1e-9)


def test_roll_180_with_opposite_yaw_is_an_ordinary_nadir_photo() -> None:
    attitude = attitude_from_gimbal(-77.0, -90.0, 180.0, 50.0)
    assert attitude.yaw_deg == pytest.approx(103.0)
    assert attitude.tilt_deg == pytest.approx(0.0, abs=1e-5)


@given(st.floats(-180, 180), st.floats(-120, -60))
def test_without_roll_the_angles_carry_over(yaw_deg: float, pitch_deg: float) -> None:
    attitude = attitude_from_gimbal(yaw_deg, pitch_deg, 0.0, 50.0)
    expected = Attitude(yaw_deg, pitch_deg + 90.0, 0.0, 50.0)
    np.testing.assert_allclose(attitude.ned_from_camera, expected.ned_from_camera, atol=1e-9)


def test_a_photo_without_pose_tells_nothing() -> None:
    assert read_photo_pose(photo(None), "a.jpg") is None
    assert read_photo_pose(photo(xmp({"AbsoluteAltitude": "+400.0"})), "a.jpg") is None


def without(*names: str) -> bytes:
    return photo(xmp({k: v for k, v in POSE.items() if k not in names}))


def test_a_height_that_is_missing_is_unknown() -> None:
    pose = read_photo_pose(without("RelativeAltitude"), "a.jpg")
    assert (pose.yaw_known, pose.tilt_known, pose.agl_known) == (True, True, False)
    assert pose.attitude.yaw_deg == pytest.approx(45.5)
    assert pose.attitude.agl_m == 0.0


@pytest.mark.parametrize("name", ["GimbalPitchDegree", "GimbalRollDegree"])
def test_half_a_tilt_is_unknown_and_taken_for_straight_down(name: str) -> None:
    pose = read_photo_pose(without(name), "a.jpg")
    assert (pose.yaw_known, pose.tilt_known, pose.agl_known) == (True, False, True)
    assert pose.attitude == Attitude(pytest.approx(45.5), pytest.approx(0), pytest.approx(0), 39.8)


def test_a_heading_that_is_missing_is_unknown() -> None:
    pose = read_photo_pose(without("GimbalYawDegree"), "a.jpg")
    assert (pose.yaw_known, pose.tilt_known, pose.agl_known) == (False, True, True)
    assert pose.attitude.pitch_deg == pytest.approx(0.1)
    assert pose.attitude.yaw_deg == 0.0


def test_an_unknown_heading_is_0_where_the_gimbal_hangs_turned_over() -> None:
    values = {k: v for k, v in POSE.items() if k != "GimbalYawDegree"}
    pose = read_photo_pose(photo(xmp(values | {"GimbalRollDegree": "+180.00"})), "a.jpg")
    assert pose.attitude.yaw_deg == 0.0


def test_a_pose_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError) as error:
        read_photo_pose(photo(xmp(POSE | {"GimbalYawDegree": "nan"})), "a.jpg")
    assert str(error.value) == (
        "a.jpg: drone-dji:GimbalYawDegree is 'nan', expected a number; pass --telemetry FILE.csv "
        "instead"
    )


def test_xmp_with_a_document_type_is_refused() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]>'
    with pytest.raises(InputError) as error:
        read_photo_pose(photo(xmp(POSE, head=bomb)), "a.jpg")
    assert str(error.value) == (
        "a.jpg: its XMP declares a document type, which is refused; pass --telemetry FILE.csv "
        "instead"
    )


def test_broken_xmp_is_refused() -> None:
    with pytest.raises(InputError) as error:
        read_photo_pose(photo(xmp(POSE)[:-5]), "a.jpg")
    assert str(error.value).startswith("a.jpg: its XMP is not well-formed (")


def test_a_picture_that_is_no_jpeg_has_no_pose() -> None:
    assert read_photo_pose(encode_rgb(PIXELS, ".png"), "a.png") is None

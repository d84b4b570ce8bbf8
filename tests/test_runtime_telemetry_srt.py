from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime.exif import hfov_from_35mm_deg
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry_sample import Sample
from s4g.runtime.telemetry_srt import read_srt
from s4g.runtime.telemetry_vehicle import LogTelemetry

# As the models write them; positions changed.
MAVIC_3 = (
    '<font size="28">FrameCnt: 1, DiffTime: 33ms\n2024-05-01 12:00:00.123\n'
    "[iso: 100] [shutter: 1/798.21] [fnum: 2.8] [ev: 0] [color_md : default] [ae_meter_md: 1] "
    "[focal_len: 24.00] [dzoom_ratio: 1.00], [latitude: 48.267013] [longitude: 25.914562] "
    "[rel_alt: 102.229 abs_alt: 426.185] [gb_yaw: -65.8 gb_pitch: -89.9 gb_roll: 0.0] </font>"
)
MINI = (
    '<font size="28">SrtCnt : 1, DiffTime : 33ms\n2024-01-18 10:23:26.397\n'
    "[iso : 150] [shutter : 1/5000.0] [fnum : 170] [ev : 0] [ct : 5023] [color_md : default] "
    "[focal_len : 240] [dzoom_ratio: 10000, delta:0],[latitude: -22.724555] "
    "[longitude: -47.602414] [rel_alt: 0.300 abs_alt: 551.2] </font>"
)
MAVIC_2 = (
    "[iso : 110] [shutter : 1/200.0] [fnum : 280] [ev : 0.7] [ct : 5064] [color_md : default] "
    "[focal_len : 280] [latitude: 0.608553] [longtitude: -1.963763] [altitude: 1429.697998]"
)
PHANTOM_4_RTK = (
    "F/6.3, SS 60, ISO 100, EV 0, RTK (120.083799, 30.213635, 28), HOME (120.084146, 30.214243, "
    "103.55m), D 75.36m, H 76.19m, H.S 0.30m/s, V.S 0.00m/s, F.PRY (-5.3°, 2.1°, 28.3°), "
    "G.PRY (-80.0°, 0.0°, 28.2°)"
)
MAVIC_PRO = (
    "HOME(149.0251,-20.2532) 2017.08.05 14:11:51\nGPS(149.0251,-20.2533,16) BAROMETER:1.9\nISO:100"
)


def subtitles(folder: Path, *texts: str, starts: tuple[str, ...] = ()) -> Path:
    path = folder / "DJI_0001.SRT"
    starts = starts or tuple(f"00:00:{n:02d},000" for n in range(len(texts)))
    blocks = [
        f"{n}\n{start} --> 00:59:59,000\n{text}\n"
        for n, (start, text) in enumerate(zip(starts, texts, strict=True), 1)
    ]
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def sample(telemetry: LogTelemetry, t: float) -> Sample:
    found = telemetry.at(Frame(0, t, None, "clip.mp4 frame 0", 4000, 2250, 0.0))
    assert isinstance(found, Sample)
    return found


def test_gimbal_height_and_lens_are_read(tmp_path: Path) -> None:
    found = sample(read_srt(subtitles(tmp_path, MAVIC_3)), 0.0)
    assert found.attitude.yaw_deg == pytest.approx(294.2)
    assert found.attitude.pitch_deg == pytest.approx(0.1)
    assert found.attitude.agl_m == 102.229
    assert found.hfov_deg == pytest.approx(hfov_from_35mm_deg(24.0, 4000, 2250))
    assert (found.yaw_known, found.tilt_known, found.agl_known) == (True, True, True)


def test_a_model_without_gimbal_angles_leaves_the_attitude_unknown(tmp_path: Path) -> None:
    found = sample(read_srt(subtitles(tmp_path, MINI)), 0.0)
    assert (found.yaw_known, found.tilt_known, found.agl_known) == (False, False, True)
    assert found.attitude.agl_m == 0.3
    assert found.hfov_deg == pytest.approx(hfov_from_35mm_deg(24.0, 4000, 2250))


def test_an_altitude_of_which_nobody_knows_above_what_is_not_a_height(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_srt(subtitles(tmp_path, MAVIC_2))
    assert str(error.value) == (
        f"{tmp_path}/DJI_0001.SRT: its subtitles tell neither a gimbal's attitude nor a height; "
        "give a CSV"
    )


def test_pitch_roll_yaw_in_one_bracket_are_read(tmp_path: Path) -> None:
    found = sample(read_srt(subtitles(tmp_path, PHANTOM_4_RTK)), 0.0)
    assert found.attitude.yaw_deg == pytest.approx(28.2)
    assert found.attitude.pitch_deg == pytest.approx(10.0)
    assert found.attitude.agl_m == 76.19
    assert found.hfov_deg is None


def test_a_barometer_is_a_height(tmp_path: Path) -> None:
    found = sample(read_srt(subtitles(tmp_path, MAVIC_PRO)), 0.0)
    assert (found.attitude.agl_m, found.tilt_known) == (1.9, False)


@pytest.mark.parametrize("zoom", ["1.77", "20000"])
def test_with_digital_zoom_the_focal_length_is_not_believed(tmp_path: Path, zoom: str) -> None:
    text = MAVIC_3.replace("dzoom_ratio: 1.00", f"dzoom_ratio: {zoom}")
    assert sample(read_srt(subtitles(tmp_path, text)), 0.0).hfov_deg is None


def test_subtitles_are_interpolated_the_short_way_at_the_videos_time(tmp_path: Path) -> None:
    texts = [MAVIC_3.replace("-65.8", yaw) for yaw in ("-179.0", "+179.0")]
    path = subtitles(tmp_path, *texts, starts=("01:01:01,5", "01:01:02.500"))
    assert sample(read_srt(path), 3661.75).attitude.yaw_deg == pytest.approx(180.5)
    assert sample(read_srt(path, offset_s=10.0), 3671.75).attitude.yaw_deg == pytest.approx(180.5)


def test_subtitles_out_of_order_are_refused_with_their_line(tmp_path: Path) -> None:
    path = subtitles(tmp_path, MINI, MINI, starts=("00:00:05,000", "00:00:04,000"))
    with pytest.raises(InputError) as error:
        read_srt(path)
    assert str(error.value) == f"{path}: line 8: the time goes backwards; sort the subtitles"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(b"1\n00:00:00,000 --> 00:00:01,000\n\xff\xfe")
    with pytest.raises(InputError) as error:
        read_srt(path)
    assert str(error.value) == f"{path}: is no text; expected a DJI .srt in UTF-8"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="0123456789:,.->[]gb_yawpitchrolet H(m°-\n "), max_size=20))
def test_no_text_raises_anything_but_an_error_of_ours(tmp_path: Path, parts: list[str]) -> None:
    path = tmp_path / "a.srt"
    words = (" --> ", "\n00:00:01,000 --> ", "[gb_yaw: ", "rel_alt: ", "focal_len: 9")
    text = "".join(a + b for a, b in zip(parts, words * 4, strict=False))
    path.write_text(text, encoding="utf-8")
    try:
        read_srt(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")

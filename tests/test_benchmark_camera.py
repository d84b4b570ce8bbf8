import json
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])


def test_a_machine_that_cannot_boot_another_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from camera import vivid

    monkeypatch.setattr(vivid, "_tool", lambda name: None if name == "cpio" else f"/bin/{name}")
    assert vivid.lacking(tmp_path) == "not installed: apt install cpio"


def test_a_folder_without_a_kernel_is_told_from_one_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from camera import vivid

    monkeypatch.setattr(vivid, "_tool", lambda name: f"/bin/{name}")
    assert vivid.lacking(tmp_path) == (
        f"{tmp_path} holds no boot/vmlinuz-*; unpack a Debian kernel there: apt-get download "
        f"linux-image-VERSION-amd64 && dpkg-deb -x linux-image-*.deb {tmp_path}"
    )
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "vmlinuz-6.1.0").write_text("")
    assert vivid.lacking(tmp_path) is None


def test_what_the_virtual_machine_tells_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    from camera.guest import MARK, tell

    tell("steady", p50_s=0.002)
    line = capsys.readouterr().out
    assert line.startswith(MARK)
    assert json.loads(line.removeprefix(MARK)) == {"scenario": "steady", "p50_s": 0.002}

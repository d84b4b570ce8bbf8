"""What is told about a machine, from files and commands such as a Jetson has."""

from __future__ import annotations

from pathlib import Path

import pytest

from s4g.export.machine import describe, l4t_release, machine, power_mode


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CPUFREQ = "sys__devices__system__cpu__cpu0__cpufreq__"


def test_this_machine_tells_its_processor_and_cores() -> None:
    found = machine()
    assert found["processor"] and found["cores"] >= 1 and found["system"]
    assert describe(found).startswith(str(found["board"] or found["processor"]))


def test_a_bare_machine_tells_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = machine(tmp_path)
    for name in ("governor", "clocks", "board", "l4t", "jetpack", "power_mode", "gpu"):
        assert found[name] is None
    assert describe(found) == f"{found['processor']}, {found['cores']} cores"


def test_the_processor_is_named_as_the_kernel_names_it(tmp_path: Path) -> None:
    root = write(
        tmp_path, proc__cpuinfo="processor : 0\nmodel name\t: Some CPU @ 2 GHz\nflags : x\n"
    )
    assert machine(root)["processor"] == "Some CPU @ 2 GHz"


@pytest.mark.parametrize(("low", "clocks"), [("729600\n", "scaled"), ("1510400\n", "fixed")])
def test_clocks_are_fixed_where_none_may_be_lower(tmp_path: Path, low: str, clocks: str) -> None:
    root = write(
        tmp_path,
        **{
            f"{CPUFREQ}scaling_governor": "schedutil\n",
            f"{CPUFREQ}scaling_min_freq": low,
            f"{CPUFREQ}scaling_max_freq": "1510400\n",
        },
    )
    found = machine(root)
    assert (found["governor"], found["clocks"]) == ("schedutil", clocks)
    assert describe(found).endswith(f"governor schedutil, clocks {clocks}")


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
        ("# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n", "39.2.0"),
        ("something else", None),
        ("", None),
    ],
)
def test_the_release_of_jetson_linux_is_read(
    tmp_path: Path, text: str, release: str | None
) -> None:
    assert l4t_release(write(tmp_path, etc__nv_tegra_release=text)) == release


@pytest.mark.parametrize(
    ("told", "mode"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", "MAXN_SUPER"),
        ("NVPM VERB: Config file\nNV Power Mode: 15W\n0\n", "15W"),
        ("NVPM ERROR: must be root\n", None),
        ("", None),
    ],
)
def test_the_power_mode_is_read(told: str, mode: str | None) -> None:
    assert power_mode(told) == mode


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_jetson_tells_board_power_mode_and_jetpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "root", **{"proc__device-tree__model": "NVIDIA Jetson Orin Nano\0"})
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    command(bin_folder, "nvpmodel", '[ "$*" = "-q" ] && echo "NV Power Mode: 25W" && echo 1')
    command(bin_folder, "dpkg-query", '[ "$4$3" = "nvidia-jetpack" ] && printf "6.2+b77"')
    command(bin_folder, "nvidia-smi", "echo broken >&2; exit 9")
    monkeypatch.setenv("PATH", str(bin_folder))
    found = machine(root)
    assert (found["board"], found["power_mode"]) == ("NVIDIA Jetson Orin Nano", "25W")
    assert (found["jetpack"], found["gpu"]) == ("6.2+b77", None)
    assert describe(found).startswith("NVIDIA Jetson Orin Nano, ")
    assert ", power mode 25W" in describe(found)


def test_a_command_that_cannot_be_started_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvpmodel").write_text("not a program")
    (tmp_path / "nvpmodel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine(tmp_path)["power_mode"] is None

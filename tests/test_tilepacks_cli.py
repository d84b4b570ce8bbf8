from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.console import run_command
from s4g.core.engine_onnx import OnnxEngine
from s4g.core.errors import S4GError
from s4g.tilepacks.cli import cli

BOX = "9.001,46.9517,9.003,46.9532"


def _image(height_px: int, width_px: int, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(1, 256, (height_px, width_px, bands), dtype=np.uint8)


def _geotiff(path: Path, image: np.ndarray, crs: str = "EPSG:32632", **options: object) -> Path:
    rasterio = pytest.importorskip("rasterio")
    profile = {
        "driver": "GTiff",
        "height": image.shape[0],
        "width": image.shape[1],
        "count": image.shape[2],
        "dtype": "uint8",
        "crs": crs,
        "transform": rasterio.Affine(0.5, 0, 500_000.0, 0, -0.5, 5_200_000.0),
        **options,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(image, -1, 0))
    return path


ENCODER = "encoder: toy.onnx on onnxruntime cpu"


class Command:
    """`s4g-pack` in this process: exit code, stdout and stderr of a run."""

    def __init__(self, capsys: pytest.CaptureFixture[str], source: Path, encoder: Path) -> None:
        self._capsys = capsys
        encoding = ["--encoder", str(encoder), "--device", "cpu", "--threads", "1"]
        self.options = ["--source", str(source), *encoding]

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            run_command(cli, [str(v) for v in arguments])
        out, err = self._capsys.readouterr()
        return int(str(stop.value.code)), out, err

    def build(self, *arguments: object) -> tuple[int, str, str]:
        return self(*self.options, *arguments)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], toy_source: Path, toy_encoder: Path) -> Command:
    return Command(capsys, toy_source, toy_encoder)


def test_pack_is_built_told_and_verified(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpack"
    code, out, err = command.build("--bbox", BOX, "--levels", "80,40", "--out", path)
    assert (code, err) == (0, f"{ENCODER}\n")
    assert re.search(r"level +40 m +\d+ tiles every 10 m at 0.625 m/px", out)
    assert command("info", path)[1] == out
    assert command("--info", path)[1] == out
    code, out, err = command("verify", path)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(path))}: whole, \d+ tiles, not signed\n", out)


def test_json_is_for_programs(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpack"
    code, out, _ = command.build("--bbox", BOX, "--levels", "80", "--out", path, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["bytes"] == path.stat().st_size
    assert told["bounds"] == [float(v) for v in BOX.split(",")]
    assert told["levels"][0]["footprint_m"] == 80
    assert told["attribution"] == "toy imagery, public domain"
    assert json.loads(command("info", path, "--json")[1]) == told
    assert json.loads(command("--info", path, "--json")[1]) == told


def test_choices_made_for_the_user_are_said(command: Command, tmp_path: Path) -> None:
    code, _, err = command.build("--out", tmp_path / "p.s4gpack")
    assert code == 0
    first, second, third = err.splitlines()
    assert first.startswith("note: no --bbox: packing all of ")
    assert second == "note: levels chosen: 80 m, 160 m"
    assert third == ENCODER


def test_the_device_is_the_users_choice(
    command: Command, toy_encoder: Path, tmp_path: Path
) -> None:
    options = ["--levels", "80", "--out", tmp_path / "p.s4gpack"]
    err = command.build(*options, "--device", "auto")[2]
    assert err.splitlines()[-1].startswith("encoder: toy.onnx on onnxruntime ")
    code, _, err = command.build(*options, "--device", "tensorrt", "--overwrite")
    assert (code, err) == (
        2,
        f"error: {toy_encoder}: device tensorrt runs plans; build one on this machine with "
        "s4g-export build BUNDLE\n",
    )


def test_the_engine_is_closed_whatever_happens(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(OnnxEngine, "close", lambda engine: closed.append(engine.name))
    options = ["--levels", "80", "--out", tmp_path / "p.s4gpack"]
    assert command.build(*options)[0] == 0
    assert command.build("--levels", "1", "--dry-run")[0] == 2
    assert len(closed) == 2


def test_dry_run_tells_tiles_and_bytes_and_writes_nothing(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpack"
    code, out, _ = command.build(
        "--levels", "80", "--dims", "32", "--out", path, "--dry-run", "--json"
    )
    planned = json.loads(out)
    assert (code, list(tmp_path.iterdir())) == (0, [])
    code, out, _ = command.build("--levels", "80", "--dry-run")
    assert code == 0 and out.endswith("; nothing was written\n")
    command.build("--levels", "80", "--out", path, "--no-overview", "--dims", "32")
    built = json.loads(command("info", path, "--json")[1])
    assert planned["levels"][0]["tiles"] >= built["levels"][0]["tiles"] > 0
    assert planned["levels"][0]["bytes"] == pytest.approx(built["levels"][0]["bytes"], rel=0.2)
    assert built["overview_bytes"] == 0 < planned["overview_bytes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bbox", "9.003,46.9517,9.001,46.9532"], "west 9.003 must be less than east 9.001"),
        (["--bbox", "9.001,46.96,9.003,46.9532"], "south 46.96 must be less than north 46.9532"),
        (["--bbox", "9.001,46.9517,9.003"], "--bbox 9.001,46.9517,9.003: expected W,S,E,N in deg"),
        (["--bbox", "a,b,c,d"], "--bbox a,b,c,d: expected W,S,E,N in degrees"),
        (["--bbox", "200,46,201,47"], "longitudes must lie between -180 and 180 degrees"),
        (["--bbox", "10,50,10.1,50.1"], "--bbox 10,50,10.1,50.1: has nothing in common with"),
        (["--levels", "80,x"], "--levels 80,x: expected footprints in metres, for example 80,160"),
        (["--levels", "-80"], "--levels -80: footprints are metres and must be positive"),
        (["--levels", "10"], "--levels 10: 0.156 m/px at the encoder's 64 px, which was trained f"),
        (["--stride", "0"], "--stride 0: expected a share between 0.05 and 1"),
        (["--stride", "nan"], "--stride nan: expected a share between 0.05 and 1"),
        (["--min-valid", "60"], "--min-valid 60: expected a share between 0 and 1"),
        (["--threads", "-1"], "--threads"),
        (["--source", "none.tif"], "none.tif: no such file or folder; give a raster, a folder of"),
        (["--zoom", "17"], "--zoom: is for tile servers, and none is among the sources; leave it"),
        (["--i-have-permission"], "--i-have-permission: is for tile servers, and none is among th"),
        (["--stretch", "3"], "--stretch 3: expected LOW,HIGH, the values of black and white"),
        (["--stretch", "9,3"], "--stretch 9,3"),
        (["--stretch", "300,400"], "toy.tif all black or all white; its values lie between 1 and "),
        (["--rate", "5"], "--rate: is for tile servers, and none is among the sources; leave it o"),
        (["--retries", "0"], "--retries: is for tile servers, and none is among the sources; leav"),
        (["--encoder", "none.onnx"], "none.onnx: no such encoder; give an ONNX file or a bundle"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_exit_code_2(
    command: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = command.build("--out", tmp_path / "p.s4gpack", *arguments)
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert (code, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith("error: ") and message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_stretch_without_effect_is_refused(command: Command, tmp_path: Path) -> None:
    options = ["--encoder", command.options[3], "--source", "landscape", "--stretch", "0,200"]
    assert command(*options, "--out", tmp_path / "p.s4gpack") == (
        2,
        "",
        "error: --stretch: has no effect on landscape, which is no raster; leave it out\n",
    )
    # Of one date it has.
    code, _, err = command(*options, "--also", command.options[1], "--levels", "80", "--dry-run")
    assert code == 0, err


def test_a_credit_without_effect_is_told(command: Command) -> None:
    code, _, err = command.build("--bbox", BOX, "--dry-run", "--attribution", "me", "--levels", 80)
    assert code == 0
    assert err == (
        "note: --attribution is not used: "
        f"{command.options[1]} has its own, 'toy imagery, public domain'\n"
    )


def test_options_of_a_build_are_refused_where_a_pack_is_told(
    command: Command, toy_pack: Path
) -> None:
    code, out, err = command("--info", toy_pack, "--levels", "80", "--no-overview", "--threads", 0)
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: --info builds nothing; leave out --levels, --no-overview, --threads (see "
    )
    assert command("--info", toy_pack, "--debug", "--json")[0] == 0


@pytest.mark.parametrize("option", ["--source", "--out"])
def test_missing_option_is_named(command: Command, option: str) -> None:
    given = {"--source": "a.tif", "--out": "p.s4gpack"}
    del given[option]
    (name, value), *_ = given.items()
    code, _, err = command(name, value)
    assert code == 2
    assert err.startswith(f"error: Missing option '{option}' (see ")


def test_existing_pack_is_refused_before_any_work(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpack"
    path.write_bytes(b"precious")
    code, _, err = command.build("--out", path)
    assert (code, err) == (
        2,
        f"error: {path}: already exists; pass --overwrite to replace it\n",
    )
    assert path.read_bytes() == b"precious"
    assert command.build("--out", path, "--overwrite")[0] == 0


def test_missing_folder_is_refused_before_any_work(command: Command, tmp_path: Path) -> None:
    code, _, err = command.build("--out", tmp_path / "no" / "p.s4gpack")
    assert code == 2
    assert err.endswith(f"the folder {tmp_path}/no does not exist; create it first\n")


def test_bbox_beyond_the_source_is_clipped_and_said(command: Command, tmp_path: Path) -> None:
    code, _, err = command.build(
        "--bbox", "9.001,46.9517,9.9,46.9532", "--levels", "80", "--out", tmp_path / "p.s4gpack"
    )
    assert code == 0
    assert err.startswith("note: --bbox 9.001,46.9517,9.9,46.9532 reaches beyond ")
    told = json.loads(command("info", tmp_path / "p.s4gpack", "--json")[1])
    assert told["bounds"][2] < 9.01


def test_damaged_pack_is_one_line_and_exit_code_2(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpack"
    command.build("--levels", "80", "--out", path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    for arguments in (["verify", path], ["info", path], ["--info", path]):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert err == (
            f"error: {path}: damaged or altered: section overview does not match its SHA-256; "
            "copy it again from where it was built, or rebuild it with s4g-pack\n"
        )


def _truncated(path: Path) -> Path:
    _geotiff(path, _image(512, 640))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    return path


def test_damaged_geotiff_is_one_line_and_leaves_nothing(command: Command, tmp_path: Path) -> None:
    source = _truncated(tmp_path / "cut.tif")
    code, out, err = command.build("--source", source, "--out", tmp_path / "p.s4gpack")
    lines = [line for line in err.splitlines() if not line.startswith(("note: ", "encoder: "))]
    assert code in (1, 2) and out == ""
    assert len(lines) == 1 and lines[0].startswith(f"error: {source}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.tif"]


def test_file_that_is_no_image_is_refused(command: Command, tmp_path: Path) -> None:
    source = tmp_path / "text.tif"
    source.write_text("not an image")
    code, _, err = command.build("--source", source, "--out", tmp_path / "p.s4gpack")
    assert (code, err) == (
        2,
        f"error: {source}: not an image that can be read (not recognized as being in a supported "
        "file format)\n",
    )


@pytest.mark.parametrize(
    ("bands", "crs", "options"),
    [
        (4, "EPSG:32632", {"photometric": "RGB", "alpha": "YES"}),
        (4, "EPSG:32632", {"photometric": "RGB"}),
        (1, "EPSG:32632", {}),
        (3, "EPSG:32631", {}),
        (3, "EPSG:2056", {"west": 2_600_000.0, "north": 1_200_000.0}),
        (3, "EPSG:3857", {"west": 900_000.0, "north": 5_900_000.0}),
        (3, "EPSG:4326", {"west": 8.0, "north": 47.0, "degrees": True}),
    ],
    ids=["RGBA", "RGB and infrared", "grey", "other zone", "Swiss", "Web Mercator", "degrees"],
)
def test_geotiff_of_any_kind_is_packed(
    command: Command, tmp_path: Path, bands: int, crs: str, options: dict[str, object]
) -> None:
    rasterio = pytest.importorskip("rasterio")
    west = float(str(options.pop("west", 500_000.0)))
    north = float(str(options.pop("north", 5_200_000.0)))
    gsd = 5e-6 if options.pop("degrees", False) else 0.5
    options["transform"] = rasterio.Affine(gsd, 0, west, 0, -gsd, north)
    source = _geotiff(tmp_path / "x.tif", _image(600, 700, bands), crs, **options)
    code, out, _ = command.build(
        "--source", source, "--levels", "80", "--out", tmp_path / "p.s4gpack", "--json"
    )
    assert code == 0
    assert json.loads(out)["levels"][0]["tiles"] >= 20


def test_nodata_is_not_packed(command: Command, tmp_path: Path) -> None:
    image = _image(600, 800)
    image[:, 400:] = 0
    source = _geotiff(tmp_path / "half.tif", image, nodata=0)
    arguments = ["--source", source, "--levels", "80", "--json", "--out", tmp_path / "p.s4gpack"]
    told = json.loads(command.build(*arguments)[1])
    strict = json.loads(command.build(*arguments, "--min-valid", "1", "--overwrite")[1])
    # 400 x 300 m at 80 m every 20 m: 17 columns of 12; imagery covers the western 200 m.
    assert strict["levels"][0]["tiles"] == 7 * 12
    assert told["levels"][0]["tiles"] == 8 * 12


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_full_disk_is_one_line_exit_code_1_and_leaves_nothing(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    # A limit on the size of files stands in for a full disk: the write itself fails.
    code = "from s4g.tilepacks.cli import main; main()"
    path = tmp_path / "p.s4gpack"
    arguments = ["--source", toy_source, "--encoder", toy_encoder, "--levels", "80", "--out", path]
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_limit_file_size,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 1, run.stderr
    error = run.stderr.splitlines()[-1]
    assert error == (
        f"error: {path}: cannot write (File too large); free some space or choose another place; "
        "nothing was left behind"
    )
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def _told(command: Command, out: Path, *arguments: object) -> dict[str, Any]:
    code, told, err = command.build("--levels", "80", "--out", out, "--json", *arguments)
    assert code == 0, err
    return dict(json.loads(told))


def test_another_date_and_headings_multiply_the_vectors(command: Command, tmp_path: Path) -> None:
    other = _geotiff(tmp_path / "older.tif", _image(512, 640))
    plain = _told(command, tmp_path / "plain.s4gpack")
    dated = _told(command, tmp_path / "dated.s4gpack", "--also", other)
    turned = _told(command, tmp_path / "turned.s4gpack", "--headings", "4", "--also", other)
    tiles = [told["levels"][0]["tiles"] for told in (plain, dated, turned)]
    assert tiles == [tiles[0], 2 * tiles[0], 8 * tiles[0]]
    assert [told["headings"] for told in (plain, dated, turned)] == [1, 1, 4]
    assert [layer["name"] for layer in dated["layers"]] == ["toy.tif", "older.tif"]
    assert command("verify", tmp_path / "turned.s4gpack")[0] == 0


def test_too_many_headings_are_refused(command: Command, tmp_path: Path) -> None:
    source = command.options[1]
    arguments = ["--also", source, "--headings", "36", "--out", tmp_path / "p.s4gpack"]
    code, _, err = command.build(*arguments, "--dry-run")
    assert code == 2
    assert err.splitlines()[-1] == (
        "error: --headings 36: with 2 layers of imagery 72 vectors a place, at most 64; use fewer"
    )
    assert command.build("--headings", "37", "--out", tmp_path / "p.s4gpack")[0] == 2


def test_the_length_of_vectors_is_the_users_choice(command: Command, tmp_path: Path) -> None:
    assert _told(command, tmp_path / "p.s4gpack", "--dims", "16")["dims"] == 16
    compact = _told(command, tmp_path / "c.s4gpack", "--compact")
    assert compact["dims"] == 32  # all that the encoder has; 64 of a larger one
    code, _, err = command.build("--dims", "33", "--out", tmp_path / "x.s4gpack")
    assert (code, err.splitlines()[-1]) == (
        2,
        "error: --dims 33: this encoder's embeddings have 32; choose 8 to 32",
    )
    code, _, err = command.build("--dims", "16", "--compact", "--out", tmp_path / "x.s4gpack")
    assert code == 2
    assert err.startswith("error: --compact chooses --dims itself; give one of them (see ")


def test_the_number_of_workers_does_not_show(command: Command, tmp_path: Path) -> None:
    for workers in ("1", "3"):
        _told(command, tmp_path / f"{workers}.s4gpack", "--workers", workers)
    assert (tmp_path / "1.s4gpack").read_bytes() == (tmp_path / "3.s4gpack").read_bytes()
    assert command.build("--workers", "0", "--out", tmp_path / "p.s4gpack")[0] == 2


def test_a_build_that_was_stopped_goes_on_or_starts_again(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "p.s4gpack", iter(range(1000))
    options = ["--levels", "40,80", "--out", path]
    embed = OnnxEngine.embed

    def stopping(engine: OnnxEngine, images: np.ndarray) -> np.ndarray:
        if next(calls) == 22:
            raise S4GError("the device is lost")
        return embed(engine, images)

    with monkeypatch.context() as patch:
        patch.setattr(OnnxEngine, "embed", stopping)
        code, _, err = command.build(*options)
    assert (code, err.splitlines()[-1]) == (1, "error: the device is lost")
    assert not path.exists()
    code, _, err = command.build(*options, "--headings", "2")
    assert (code, err.splitlines()[-1]) == (
        2,
        f"error: {path}: was begun with another options; repeat the former command to go on, or "
        "pass --restart to throw away what is done",
    )
    assert command.build(*options)[0] == 0
    went_on = path.read_bytes()
    assert command.build(*options, "--restart", "--overwrite")[0] == 0
    assert path.read_bytes() == went_on
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_pack_is_signed_and_checked_by_its_key(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpack"
    _told(command, path, "--no-overview")
    for name in ("ops", "other"):
        code, out, _ = command("keygen", tmp_path / name)
        assert code == 0
        assert out.startswith(f"{tmp_path / name}.key: keep it secret\n{tmp_path / name}.pub: key ")
    keys = [tmp_path / name for name in ("ops.pub", "other.pub")]
    code, _, err = command("verify", path, "--key", keys[0])
    assert (code, err) == (
        2,
        f"error: {path}: is not signed; sign it with s4g-pack sign, or do without "
        "--require-signature\n",
    )
    code, out, _ = command("sign", path, "--key", tmp_path / "ops.key")
    signer = out.split()[-1]
    assert (code, out) == (0, f"{path}: signed by key {signer}\n")
    assert json.loads(command("verify", path, "--key", keys[0], "--json")[1])["signed_by"] == signer
    assert json.loads(command("info", path, "--json")[1])["signed_by"] == signer
    code, _, err = command("verify", path, "--key", keys[1])
    assert code == 2 and err.startswith(f"error: {path}: signed by key {signer}, not by ")


def test_help_has_an_example_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from s4g.tilepacks.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'onnxruntime', 'rasterio', 'hnswlib', 'cv2', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "s4g-pack --bbox 8.53,47.37,8.55,47.39 --source ortho.tif --out" in run.stdout


def test_a_set_is_built_told_verified_and_cut(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpacks"
    code, out, _ = command.build("--levels", "48", "--shard", "150m", "--out", path)
    assert code == 0
    assert out.startswith(f"{path}: 4 packs, ")
    assert command("info", path)[1] == out
    assert json.loads(command("info", path, "--json")[1])["levels"][0]["footprint_m"] == 48
    code, out, err = command("verify", path)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(path))}: whole, \d+ tiles, not signed\n", out)
    flight = tmp_path / "flight.s4gpack"
    assert command("extract", path, "--bbox", BOX, "--out", flight)[0] == 0
    assert command("verify", flight)[0] == 0


def test_a_set_is_signed_with_all_its_packs(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpacks"
    assert command.build("--levels", "48", "--shard", "150m", "--out", path)[0] == 0
    code, out, _ = command("keygen", tmp_path / "ops")
    assert code == 0
    code, out, err = command("sign", path, "--key", tmp_path / "ops.key")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(path))}: signed by key [0-9a-f]{{16}}\n", out)
    for one in (path, path / "r000c000.s4gpack"):
        code, out, _ = command("verify", one, "--key", tmp_path / "ops.pub")
        assert code == 0 and out.endswith(", which you trust\n")
    assert command("keygen", tmp_path / "other")[0] == 0
    code, _, err = command("verify", path, "--key", tmp_path / "other.pub")
    assert code == 2
    assert "index.s4gset: signed by key " in err


def test_a_pack_like_another_can_be_merged_with_it(command: Command, tmp_path: Path) -> None:
    first, second, both = (tmp_path / f"{name}.s4gpack" for name in ("a", "b", "ab"))
    assert command.build("--bbox", BOX, "--levels", "48", "--out", first)[0] == 0
    other = "9.0005,46.9517,9.0025,46.9532"
    assert command.build("--bbox", other, "--like", first, "--out", second)[0] == 0
    code, _, err = command("merge", first, second, "--out", both)
    assert code == 0
    assert re.search(r"note: \d+ tiles left out: a pack named before has the same place", err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--shard", "1km", "--out", "p.s4gpack"],
            "--shard makes a set of packs, whose name ends in .s4gpacks: give both or none.",
        ),
        (
            ["--out", "p.s4gpacks"],
            "--shard makes a set of packs, whose name ends in .s4gpacks: give both or none.",
        ),
        (
            ["--shard", "1", "--out", "p.s4gpacks"],
            "--shard 1: expected a length with its unit, for example 800m or 2km",
        ),
        (
            ["--shard", "-2km", "--out", "p.s4gpacks"],
            "--shard -2km: expected a length with its unit, for example 800m or 2km",
        ),
        (
            ["--like", "a.s4gpack", "--stride", "0.5", "--out", "p.s4gpack"],
            "--stride is that of --like; give one of them.",
        ),
        (
            ["--like", "a.s4gpack", "--compact", "--out", "p.s4gpack"],
            "--dims and --compact are those of --like; give one of them.",
        ),
        (
            ["--like", "missing.s4gpack", "--out", "p.s4gpack"],
            "missing.s4gpack: cannot be read (No such file or directory)",
        ),
        (
            ["--imagery-quality", "50", "--out", "p.s4gpack"],
            "--imagery-quality is for --imagery; give both.",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command.build(*options)
    assert (code, out) == (2, "")
    told = err.splitlines()[-1].removeprefix("error: ")
    assert re.sub(r" \(see .* --help\)$", ".", told) == message
    assert not list(tmp_path.iterdir())

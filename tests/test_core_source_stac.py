"""STAC items: which image is meant, where it lies, whom to credit, and when it was taken."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s4g.core.errors import InputError, S4GError
from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundWindow
from s4g.core.source_mosaic import MosaicGround
from s4g.core.source_raster import RasterGround
from s4g.core.source_stac import open_stac
from s4g.core.sources import open_ground

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
pytest.importorskip("pystac", reason="STAC needs pystac (the pack extra)")
range_server = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("range_server.py"))))

TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def write(path: Path, colour: int, east_m: float = 0, dtype: str = "uint8") -> Path:
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=100,
        width=100,
        count=3,
        dtype=dtype,
        crs="EPSG:32615",
        transform=rasterio.Affine(0.5, 0, 480_000 + east_m, 0, -0.5, 4_980_000),
    ) as file:
        file.write(np.full((3, 100, 100), colour, dtype))
    return path


def item(name: str = "scene", **changes: Any) -> dict[str, Any]:
    """Return an Item with one image, as the NAIP collections have it."""
    properties = {
        "datetime": "2020-08-31T16:00:00Z",
        "license": "proprietary",
        "providers": [
            {"name": "USDA Farm Service Agency", "roles": ["producer", "licensor"]},
            {"name": "A mirror", "roles": ["host"]},
        ],
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": {"type": "Point", "coordinates": [-93.25, 44.97]},
        "bbox": [-93.25, 44.97, -93.25, 44.97],
        "properties": {**properties, **changes.pop("properties", {})},
        "links": [],
        "assets": {
            "image": {"href": "./image.tif", "type": TIFF, "roles": ["data"]},
            "thumbnail": {"href": "./small.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
            "overview": {"href": "./over.tif", "type": TIFF, "roles": ["overview"]},
        },
        **changes,
    }


def save(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def colour(source: RasterGround | MosaicGround) -> set[int]:
    frame = LocalFrame(*source.bounds.center)
    seen = source.read(frame, GroundWindow(-5, 5, 0.5, 20, 20))
    assert seen.valid.all()
    return {int(value) for value in np.unique(seen.rgb)}


def message_of(source: str) -> str:
    with pytest.raises(InputError) as caught:
        open_stac(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_only_image_that_is_data_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "image.tif", 70)
    source = open_ground(save(tmp_path / "item.json", item()))
    assert isinstance(source, RasterGround)
    assert source.name == f"{tmp_path / 'image.tif'}"
    assert colour(source) == {70}
    source.close()


def test_the_visual_image_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "image.tif", 70)
    write(tmp_path / "visual.tif", 90)
    value = item()
    value["assets"]["visual"] = {"href": "visual.tif"}
    assert colour(open_stac(save(tmp_path / "item.json", value))) == {90}


def test_of_several_images_one_is_chosen(tmp_path: Path) -> None:
    write(tmp_path / "B02.tif", 20)
    write(tmp_path / "B03.tif", 30)
    assets = {name: {"href": f"{name}.tif", "type": TIFF} for name in ("B02", "B03")}
    path = save(tmp_path / "item.json", item(assets=assets))
    assert message_of(path) == (
        f"{path}, item scene: has several images (B02, B03); choose one: {path}#B02"
    )
    source = open_ground(f"{path}#B03")
    assert isinstance(source, RasterGround)
    assert colour(source) == {30}


def test_an_asset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "item.json", item())
    assert message_of(f"{path}#B09") == (
        f"{path}, item scene: has no asset B09; it has image, thumbnail, overview"
    )


def test_an_item_without_images_is_refused(tmp_path: Path) -> None:
    assets = {"meta": {"href": "a.xml", "type": "application/xml"}}
    path = save(tmp_path / "item.json", item(assets=assets))
    assert message_of(path) == f"{path}, item scene: has no image; its assets are meta"
    path = save(tmp_path / "item.json", item(assets={}))
    assert message_of(path) == f"{path}, item scene: has no image; its assets are none"


def test_paths_are_seen_from_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "images" / "a.tif", 70)
    (tmp_path / "items").mkdir()
    assets = {"image": {"href": "../images/a.tif", "type": TIFF}}
    save(tmp_path / "items" / "item.json", item(assets=assets))
    monkeypatch.chdir(tmp_path)
    assert colour(open_stac("items/item.json")) == {70}


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "item.json", item())
    assert message_of(path) == (
        f"{path}, item scene, asset image: no such file: {tmp_path / 'image.tif'}"
    )


@pytest.mark.parametrize(
    "href", ["s3://bucket/a.tif", "file:///etc/a.tif", "/vsimem/a.tif", "GPKG:a.gpkg:b"]
)
def test_other_places_are_refused(tmp_path: Path, href: str) -> None:
    path = save(tmp_path / "item.json", item(assets={"image": {"href": href, "type": TIFF}}))
    message = message_of(path)
    assert message.startswith(f"{path}, item scene, asset image: ")
    assert message.endswith(" cannot be opened; expected a path or an http(s) address")


def test_credit_and_date_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "image.tif", 70)
    source = open_stac(save(tmp_path / "item.json", item()))
    assert source.attribution == "USDA Farm Service Agency, A mirror (proprietary)"
    assert source.datetime is not None
    assert source.datetime.isoformat() == "2020-08-31T16:00:00+00:00"
    assert source.date == "2020-08-31"


def test_the_start_of_a_span_is_the_date(tmp_path: Path) -> None:
    write(tmp_path / "image.tif", 70)
    span = {
        "datetime": None,
        "start_datetime": "2020-06-01T00:00:00Z",
        "end_datetime": "2020-09-01T00:00:00Z",
    }
    source = open_stac(save(tmp_path / "item.json", item(properties=span)))
    assert source.date == "2020-06-01"


def test_the_credit_of_the_image_serves_where_the_item_has_none(tmp_path: Path) -> None:
    with rasterio.open(write(tmp_path / "image.tif", 70), "r+") as file:
        file.update_tags(TIFFTAG_COPYRIGHT="the image's own")
    value = item(properties={"providers": [], "license": ""})
    assert open_stac(save(tmp_path / "item.json", value)).attribution == "the image's own"


def collection(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(items), **more}


def two_items(tmp_path: Path) -> list[dict[str, Any]]:
    write(tmp_path / "a.tif", 70)
    write(tmp_path / "b.tif", 90, east_m=25)
    items = [item(name) for name in ("a", "b")]
    for value in items:
        value["assets"] = {"image": {"href": f"{value['id']}.tif", "type": TIFF}}
    items[1]["properties"]["datetime"] = "2019-09-04T16:00:00Z"
    return items


def test_an_item_collection_is_one_source(tmp_path: Path) -> None:
    path = save(tmp_path / "items.json", collection(*two_items(tmp_path)))
    source = open_ground(path)
    assert isinstance(source, MosaicGround)
    assert source.name == path
    assert source.attribution == "USDA Farm Service Agency, A mirror (proprietary)"
    assert source.date == "2019-09-04/2020-08-31"
    # Where both show a place, the first in the file wins.
    assert colour(source) == {70}
    source.close()


def test_the_first_in_the_file_wins(tmp_path: Path) -> None:
    path = save(tmp_path / "items.json", collection(*reversed(two_items(tmp_path))))
    assert colour(open_stac(path)) == {90}


def test_a_page_of_a_longer_list_is_told(tmp_path: Path) -> None:
    more = {"links": [{"rel": "next", "href": "https://example.org/page2"}]}
    for items in (two_items(tmp_path), two_items(tmp_path)[:1]):
        path = save(tmp_path / "items.json", collection(*items, **more))
        assert open_stac(path).notes == (
            f"{path}: is the first page of a longer list; the rest is not used",
        )


def test_the_stretch_is_passed_on(tmp_path: Path) -> None:
    write(tmp_path / "image.tif", 1000, dtype="uint16")
    path = save(tmp_path / "item.json", item())
    source = open_ground(path, stretch=(0, 2550))
    assert isinstance(source, RasterGround)
    assert colour(source) == {100}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"type": "Catalog"}, "is Catalog, expected a STAC Item or ItemCollection"),
        ({"type": "Collection"}, "is Collection, expected a STAC Item or ItemCollection"),
        ({"a": 1}, "is no STAC, expected a STAC Item or ItemCollection"),
        ([1], "is no STAC, expected a STAC Item or ItemCollection"),
        ({"type": "FeatureCollection", "features": []}, "holds no items"),
        ({"type": "FeatureCollection", "features": 7}, "holds no items"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, value: Any, told: str) -> None:
    path = save(tmp_path / "item.json", value)
    assert message_of(path) == f"{path}: {told}"


@pytest.mark.parametrize(
    "changes",
    [
        {"stac_version": None},
        {"assets": 7},
        {"assets": {"image": 3}},
        {"properties": {"datetime": "yesterday"}},
        {"links": 3},
        {"id": None},
        {"assets": {"image": {"href": 7, "type": TIFF}}},
        {"assets": {"image": {"href": "image.tif", "type": 9}}},
        {"properties": {"providers": 9}},
        {"properties": {"providers": [{"roles": []}]}},
        {"properties": {"providers": "me"}},
        {"assets": {"image": {"href": "image.tif", "type": TIFF, "roles": 5}}},
    ],
)
def test_items_that_are_wrong_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write(tmp_path / "image.tif", 70)
    path = save(tmp_path / "item.json", item(**changes))
    assert message_of(path).startswith(f"{path}: not a valid STAC Item (")


def test_what_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "item.json"
    for data in (b"", b"\xff\xfe", b"[" * 100_000, b"<html>"):
        path.write_bytes(data)
        assert message_of(str(path)) == f"{path}: not JSON; give a STAC Item or ItemCollection"


def test_a_file_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s4g.core.source_stac._MAX_JSON_BYTES", 1 << 20)
    path = tmp_path / "item.json"
    path.write_bytes(b" " * (1 << 21))
    assert message_of(str(path)) == f"{path}: is larger than 1 MiB; give fewer items"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of `tmp_path`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("s4g.core.source_stac._BACKOFF_S", 0.01)
    with range_server.serving(tmp_path) as address:
        yield address


def test_an_item_and_its_image_are_read_over_http(tmp_path: Path, server: str) -> None:
    write(tmp_path / "image.tif", 70)
    save(tmp_path / "item.json", item())
    source = open_ground(f"{server}/item.json?key=secret")
    assert isinstance(source, RasterGround)
    assert source.name == f"{server}/image.tif"
    assert colour(source) == {70}
    asked = {line.split()[1] for line in (tmp_path / "requests.log").read_text().splitlines()}
    assert asked == {"/item.json?key=secret", "/image.tif"}


def test_an_item_from_a_server_leads_to_no_file_here(tmp_path: Path, server: str) -> None:
    image = write(tmp_path / "image.tif", 70)
    for href in (f"file://{image}", f"/vsicurl/{server}/image.tif"):
        save(tmp_path / "item.json", item(assets={"image": {"href": href, "type": TIFF}}))
        assert message_of(f"{server}/item.json").endswith("expected a path or an http(s) address")
    save(tmp_path / "item.json", item(assets={"image": {"href": str(image), "type": TIFF}}))
    assert open_stac(f"{server}/item.json").name == f"{server}{image}"


def test_a_busy_server_is_asked_again(tmp_path: Path, server: str) -> None:
    save(tmp_path / "item.json", item(assets={}))
    assert "has no image" in message_of(f"{server}/busy/item.json")


@pytest.mark.parametrize("status", [403, 500])
def test_an_answer_of_a_server_is_told(server: str, status: int) -> None:
    with pytest.raises(S4GError) as caught:
        open_stac(f"{server}/status/{status}/item.json?key=secret")
    assert str(caught.value) == (
        f"{server}/status/{status}/item.json: the server answered HTTP {status}; check the address"
    )
    assert isinstance(caught.value, InputError) == (status < 500)


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("s4g.core.source_stac._TRIES", 0)
    with pytest.raises(S4GError) as caught:
        open_stac("http://127.0.0.1:9/item.json?key=secret")
    assert str(caught.value) == (
        "http://127.0.0.1:9/item.json: cannot be reached (ConnectionError); check the address "
        "and the network"
    )

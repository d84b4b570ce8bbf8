"""URL templates: what they may say, how they are filled in, and that keys stay hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.core.tile_template import (
    check_template,
    fill_template,
    masked_template,
    public_host,
    quadkey,
)


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://h/{z}/{x}/{y}.png", "https://h/3/5/2.png"),
        ("https://h/{z}/{x}/{-y}.png", "https://h/3/5/5.png"),
        ("https://{s}.h/{z}/{x}/{y}", "https://b.h/3/5/2"),
        ("https://h/{q}.jpg", "https://h/121.jpg"),
        ("http://h:80/?M={TileMatrix}&R={TileRow}&C={TileCol}", "http://h:80/?M=3&R=2&C=5"),
        ("http://h/m/EPSG:3857:{TileMatrix}/{TileRow}/{TileCol}", "http://h/m/EPSG:3857:3/2/5"),
    ],
)
def test_every_kind_of_template_is_filled_in(template: str, url: str) -> None:
    check_template(template)
    assert fill_template(template, 3, 5, 2) == url


def test_a_quadkey_is_that_of_its_definition() -> None:
    assert quadkey(3, 3, 5) == "213"  # the example of the Bing Maps tile system


@given(st.integers(1, 23), st.data())
def test_quadkeys_of_a_zoom_are_all_different(zoom: int, data: st.DataObject) -> None:
    number = st.integers(0, (1 << zoom) - 1)
    x, y = data.draw(number), data.draw(number)
    key = quadkey(zoom, x, y)
    assert len(key) == zoom
    assert sum((int(digit) & 1) << i for i, digit in enumerate(reversed(key))) == x
    assert sum((int(digit) >> 1) << i for i, digit in enumerate(reversed(key))) == y


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("ftp://h/{z}/{x}/{y}", "ftp://h/{z}/{x}/{y}: is no template like "),
        ("file:///{z}/{x}/{y}", "file:///{z}/{x}/{y}: is no template like "),
        ("https:///{z}/{x}/{y}", "https:///{z}/{x}/{y}: is no template like "),
        ("https://h:99999/{z}/{x}/{y}", "https://h:99999/{z}/{x}/{y}: is no template like "),
        ("https://[h/{z}/{x}/{y}", "https://[h/{z}/{x}/{y}: is no template like "),
        ("tiles/{z}/{x}/{y}", "tiles/{z}/{x}/{y}: is no template like "),
    ],
)
def test_what_is_no_web_address_is_refused(template: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        check_template(template)
    assert str(error.value) == message + "https://host/{z}/{x}/{y}.png"


def test_an_unknown_placeholder_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError) as error:
        check_template("https://h/{Z}/{x}/{y}?m={tilematrix}")
    assert str(error.value) == (
        "https://h/{Z}/{x}/{y}?m={tilematrix}: {Z} is no placeholder, did you mean {z}? "
        "Known: {x} {y} {-y} {z} {q} {s} {TileMatrix} {TileRow} {TileCol}"
    )


@pytest.mark.parametrize(
    "template", ["https://{x}.h/{z}/{y}", "https://h/{z}/{x}/{y} .png", "https://h\\{z}/{x}/{y}/"]
)
def test_a_host_that_is_not_fixed_is_refused(template: str) -> None:
    with pytest.raises(InputError) as error:
        check_template(template)
    assert str(error.value) == (
        f"{template}: the host must be fixed, but for {{s}}, and without spaces"
    )


@pytest.mark.parametrize("template", ["https://h/{z}/{x}", "https://h/{x}/{y}", "https://h/a.png"])
def test_a_template_that_names_no_tile_is_refused(template: str) -> None:
    with pytest.raises(InputError) as error:
        check_template(template)
    assert str(error.value) == (
        f"{template}: must hold {{z}}, {{x}} and {{y}} (or {{-y}}), or {{q}}, or {{TileMatrix}}, "
        "{TileCol} and {TileRow}"
    )


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("https://h/{z}/{x}/{y}.png?key=abc", "https://h/{z}/{x}/{y}.png?key=***"),
        ("https://h/{q}?abc&d=e&f=", "https://h/{q}?***&d=***&f="),
        ("https://u:p@h/{q}#abc", "https://h/{q}"),
        ("https://h/?m=EPSG:{TileMatrix}:k", "https://h/?m=***{TileMatrix}***"),
        ("https://h/a1b2c3d4e5f6a1b2c3d4e5f6g/{q}", "https://h/***/{q}"),
        ("https://h/a1b2c3d4e5f6a1b2c3d4e5f6g{q}", "https://h/***"),
        ("https://h/orthophotos-and-other-maps/{q}", "https://h/orthophotos-and-other-maps/{q}"),
    ],
)
def test_what_may_be_a_key_is_not_shown(template: str, shown: str) -> None:
    assert masked_template(template) == shown


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=25, max_size=60))
def test_no_long_key_is_shown_wherever_it_stands(key: str) -> None:
    key = "9" + key
    for template in (
        f"https://h/{key}/{{q}}",
        f"https://h/{{q}}?k={key}",
        f"https://{key}@h/{{q}}",
    ):
        assert key not in masked_template(template)


@pytest.mark.parametrize(
    ("template", "host"),
    [
        ("https://{s}.tile.openstreetmap.org/{z}/{x}/{y}.png", "tile.openstreetmap.org"),
        ("https://mt1.google.com/vt?x={x}&y={y}&z={z}", "google.com"),
        ("https://MT1.GOOGLE.COM./vt?x={x}&y={y}&z={z}", "google.com"),
        ("http://ecn.t3.tiles.virtualearth.net/tiles/a{q}.jpeg", "virtualearth.net"),
        ("https://server.arcgisonline.com/{z}/{y}/{x}", "arcgisonline.com"),
        ("https://api.mapbox.com/v4/{z}/{x}/{y}.jpg", "api.mapbox.com"),
        ("https://notgoogle.com/{z}/{x}/{y}", None),
        ("https://tiles.example.org/google.com/{z}/{x}/{y}", None),
    ],
)
def test_hosts_that_forbid_bulk_download_are_known(template: str, host: str | None) -> None:
    assert public_host(template) == host

"""Colours for QGIS: what its table `layer_styles` holds for a layer of tiles.

A tile's square overlaps its neighbours', so what is coloured is a square of one stride around its
middle. The XML is as QGIS 2 and 3 read it: properties as `prop`, which later versions still take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

_OPACITY = 0.8
# From nothing to see, or hard, to safe: red to blue, told apart also by those who see no red.
_COLOURS = ("178,24,43", "239,138,98", "253,219,199", "146,197,222", "33,102,172")
_END = 1e9


@dataclass(frozen=True)
class Style:
    """How a layer is coloured.

    Attributes:
        layer: its table.
        column: what is coloured.
        bounds: four values between the five colours, ascending; below the first is bad.
        worst: what a value below the first means.
        unit: of the values, for the legend.
        stride_m: side of a coloured square.
    """

    layer: str
    column: str
    bounds: tuple[float, float, float, float]
    worst: str
    unit: str
    stride_m: float


def detail_style(layer: str, stride_m: float) -> Style:
    """Colour by how much there is to see."""
    return Style(
        layer, "detail_grey", (1, 2, 4, 6), "nothing to see", " grey levels per pixel", stride_m
    )


def ambiguity_style(layer: str, stride_m: float) -> Style:
    """Colour by how much more a frame may score than the most similar place elsewhere."""
    return Style(layer, "margin", (0, 0.1, 0.2, 0.3), "hard", " of cosine left", stride_m)


def style_rows(styles: Sequence[Style], geometry_column: str) -> dict[str, list[object]]:
    """Return the columns of `layer_styles`; the first style of a layer is its default."""
    layers = [style.layer for style in styles]
    empty: list[object] = [""] * len(styles)
    return {
        "f_table_catalog": empty,
        "f_table_schema": empty,
        "f_table_name": [*layers],
        "f_geometry_column": [geometry_column] * len(styles),
        "styleName": [style.column for style in styles],
        "styleQML": [_qml(style) for style in styles],
        "styleSLD": empty,
        "useAsDefault": [layers.index(style.layer) == i for i, style in enumerate(styles)],
        "description": empty,
        "owner": empty,
        "ui": empty,
    }


def _qml(style: Style) -> str:
    edges = (-_END, *style.bounds, _END)
    ranges, symbols = [], []
    for number, colour in enumerate(_COLOURS):
        low, high = edges[number : number + 2]
        if number == 0:
            label = f"{style.worst} (at most {high:g}{style.unit})"
        elif number == len(_COLOURS) - 1:
            label = f"above {low:g}"
        else:
            label = f"{low:g} to {high:g}"
        ranges.append(
            f'<range lower="{low:g}" upper="{high:g}" symbol="{number}" label={quoteattr(label)} '
            'render="true"/>'
        )
        symbols.append(_symbol(number, colour, style.stride_m))
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        '<qgis version="3.22" styleCategories="Symbology">'
        f'<renderer-v2 type="graduatedSymbol" attr="{style.column}" symbollevels="0" '
        'enableorderby="0" forceraster="0" graduatedMethod="GraduatedColor">'
        f"<ranges>{''.join(ranges)}</ranges><symbols>{''.join(symbols)}</symbols></renderer-v2>"
        "<layerGeometryType>2</layerGeometryType></qgis>"
    )


def _symbol(number: int, colour: str, side_m: float) -> str:
    marker = {
        "name": "square", "color": f"{colour},255", "outline_style": "no",
        "size": f"{side_m:g}", "size_unit": "RenderMetersInMapUnits",
    }  # fmt: skip
    return (
        f'<symbol type="fill" name="{number}" alpha="{_OPACITY}" force_rhr="0" clip_to_extent="1">'
        '<layer class="CentroidFill" enabled="1" locked="0" pass="0">'
        f'<symbol type="marker" name="@{number}@0" alpha="1" force_rhr="0" clip_to_extent="1">'
        '<layer class="SimpleMarker" enabled="1" locked="0" pass="0">'
        + "".join(f'<prop k="{key}" v="{value}"/>' for key, value in marker.items())
        + "</layer></symbol></layer></symbol>"
    )

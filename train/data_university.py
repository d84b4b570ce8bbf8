"""University-1652: drone views and a satellite tile of university buildings."""

from __future__ import annotations

from pathlib import Path

from .dataset import Count, PairSet, RetrievalTask
from .layout import (
    Places,
    cmc_percent,
    place_positions,
    read_places,
    require_found,
    rows_at,
    same_place,
)

TREE = (
    "University-1652 looks like train/{satellite,drone}/ID/*.jpg, "
    "test/{query_drone,gallery_satellite,query_satellite,gallery_drone}/ID/*.jpg"
)
_OFFICIAL = {
    "train/satellite": 701,
    "train/drone": 37_854,
    "test/query_drone": 37_855,
    "test/gallery_satellite": 951,
    "test/query_satellite": 701,
    "test/gallery_drone": 51_355,
}


class University:
    """The set on disk: a building has one satellite tile and 54 drone views."""

    name = "University-1652"

    def __init__(self, root: Path) -> None:
        """Take the folder that holds `train` and `test`."""
        self._root = root

    def training(self) -> PairSet:
        """Return every drone view with the tile of its building.

        Raises:
            InputError: a folder is missing, or coordinates are wrong.
        """
        return place_pairs(
            self.name,
            self._places("train/drone"),
            self._places("train/satellite"),
            self._root / "coordinates.csv",
        )

    def tasks(self) -> list[RetrievalTask]:
        """Return both directions, each with the official and with the reduced gallery.

        Raises:
            InputError: a folder is missing, or a query can never be found.
        """
        return [
            *place_tasks(
                "drone→satellite",
                self._places("test/query_drone"),
                self._places("test/gallery_satellite"),
            ),
            *place_tasks(
                "satellite→drone",
                self._places("test/query_satellite"),
                self._places("test/gallery_drone"),
            ),
        ]

    def counts(self) -> list[Count]:
        """Return the counts of all folders; one that is not on disk counts 0."""
        return [
            Count(
                f"{folder} images",
                len(self._places(folder)) if (self._root / folder).is_dir() else 0,
                official,
            )
            for folder, official in _OFFICIAL.items()
        ]

    def _places(self, folder: str) -> Places:
        return read_places(self._root, folder, TREE)


def place_pairs(name: str, drones: Places, tiles: Places, coordinates: Path) -> PairSet:
    """Return the pairs of drone views and tiles that show one place.

    Args:
        name: of the data set.
        drones: the queries.
        tiles: the references.
        coordinates: a CSV `id,lat,lon` that may be missing.

    Raises:
        InputError: a drone view shows a place without a tile, or coordinates are wrong.
    """
    relations = same_place(drones, tiles)
    require_found(relations, drones.images, "the training tiles")
    positions = place_positions(coordinates, tiles.ids)
    return PairSet(
        name=name,
        queries=drones.images,
        references=tiles.images,
        pair_query=relations.rows,
        pair_reference=relations.references,
        pair_weight=relations.weights,
        relations=relations,
        reference_positions=None if positions is None else positions.take(tiles.place),
    )


def place_tasks(name: str, queries: Places, gallery: Places) -> list[RetrievalTask]:
    """Return one direction with the official gallery, and with the reduced one.

    Official (the evaluator of University-1652): all of the gallery, places that no query shows
    included. Reduced (Sample4Geo and what followed it): those distractors never compete, as if
    they were not there. Both share the pictures, so that embeddings are computed once.

    Args:
        name: `drone→satellite` or `satellite→drone`.
        queries: what is asked.
        gallery: what is searched.

    Raises:
        InputError: a query's place has no picture in the gallery.
    """
    relations = require_found(same_place(queries, gallery), queries.images, "the gallery")
    rows = rows_at(gallery, queries.ids)
    from_above = name.startswith("satellite")
    what = "drone images" if from_above else "satellite tiles"
    whole, part = len(gallery), len(rows)
    protocols = (
        (f"official: all {whole:,} {what}, distractors included", whole, None),
        (f"reduced, as in the literature: {part:,} {what}, distractors dropped", part, rows),
    )
    return [
        RetrievalTask(
            name=name,
            protocol=protocol,
            queries=queries.images,
            gallery=gallery.images,
            positives=relations,
            one_percent_k=cmc_percent(size),
            query_view="reference" if from_above else "query",
            gallery_view="query" if from_above else "reference",
            gallery_rows=chosen,
            metrics=("recall", "ap"),
        )
        for protocol, size, chosen in protocols
    ]

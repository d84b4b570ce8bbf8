"""A picture of a condition's worst answers: query, tile that was answered, tile that is right."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from condition import HIT_FOOTPRINTS, Images
from evaluate import RegionAnswers

from s4g.core.files import write_bytes
from s4g.core.images import encode_rgb

ROWS = 12
_SIDE_PX = 160
_TEXT_PX = 34


def failure_sheet(answers: list[RegionAnswers]) -> Images:
    """Return the sheet (H, W, 3) uint8: wrong answers first, the most certain on top."""
    worst = []
    for of in answers:
        distance_m = of.distance_m
        best, nearest = of.scores.argmax(axis=1), distance_m.argmin(axis=1)
        footprint_m = of.region.gallery.footprint_m
        for row in range(len(of.scores)):
            away = distance_m[row, best[row]] / footprint_m
            lead = of.scores[row, best[row]] - of.scores[row, nearest[row]]
            worst.append((int(away > HIT_FOOTPRINTS), lead, of, row, best[row], nearest[row], away))
    worst.sort(key=lambda item: (-item[0], -item[1]))
    rows = []
    for _, _, of, row, answered, right, away in worst[:ROWS]:
        tiles, score = of.region.gallery.tiles, of.scores[row]
        rows.append(
            np.hstack(
                [
                    _titled(of.region.queries[row, 0], "query", of.region.gallery.source),
                    _titled(
                        tiles[answered],
                        f"answered {score[answered]:.3f}",
                        f"{away:.1f} footprints off",
                    ),
                    _titled(tiles[right], f"right {score[right]:.3f}", _rank(score, right)),
                ]
            )
        )
    return np.vstack(rows)


def write_sheet(folder: Path, name: str, answers: list[RegionAnswers], overwrite: bool) -> None:
    """Write the sheet as a PNG named after condition and method.

    Raises:
        InputError: it exists, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheet = encode_rgb(failure_sheet(answers), ".png")
    write_bytes(folder / sheet_name(name), sheet, overwrite)


def sheet_name(name: str) -> str:
    """Return the file name of a sheet; signs stay, since +40 % and -40 % are two conditions."""
    return "".join(c if c.isalnum() or c in "+-" else "_" for c in name) + ".png"


def _rank(scores: np.ndarray[tuple[int, ...], np.dtype[np.float64]], right: int) -> str:
    return f"rank {int((scores > scores[right]).sum()) + 1}"


def _titled(image: Images, first: str, second: str) -> Images:
    picture = np.full((_SIDE_PX + _TEXT_PX, _SIDE_PX + 4, 3), 255, np.uint8)
    size = (_SIDE_PX, _SIDE_PX)
    picture[_TEXT_PX:, :_SIDE_PX] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    for line, text in enumerate((first, second)):
        place = (2, 13 + 15 * line)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return picture

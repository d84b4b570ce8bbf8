"""Pictures are decoded as small as the target allows, and damaged ones are named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.images import encode_rgb
from s4g.train import reading
from s4g.train.dataset import UnreadableImageError
from s4g.train.reading import read_resized, resize

Image = npt.NDArray[np.uint8]


def scene(height: int, width: int) -> Image:
    """A smooth picture with colours: what JPEG keeps well."""
    coarse = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def written(path: Path, image: Image) -> Path:
    path.write_bytes(encode_rgb(image, path.suffix, 95))
    return path


def decoded(path: Path, height: int, width: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return by how much each decoding was reduced and what it gave."""
    calls = []
    original = reading.decode_rgb

    def spy(data: bytes, origin: str, reduction: int = 1) -> Image:
        image = original(data, origin, reduction)
        calls.append((reduction, image.shape))
        return image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "decode_rgb", spy)
        assert read_resized(path, height, width).shape == (height, width, 3)
    return calls


@pytest.mark.parametrize(("target", "reduction"), [(300, 2), (299, 2), (150, 4), (75, 8), (20, 8)])
def test_a_jpeg_decoded_at_reduced_scale_looks_like_the_whole_one(
    tmp_path: Path, target: int, reduction: int
) -> None:
    path = written(tmp_path / "a.jpg", scene(600, 800))
    assert decoded(path, target, target)[0][0] == reduction
    whole = resize(np.asarray(cv2.imread(str(path))[:, :, ::-1], np.uint8), target, target)
    difference = np.abs(read_resized(path, target, target).astype(int) - whole)
    assert difference.mean() < 1.5


@settings(max_examples=60)
@given(st.integers(8, 200), st.integers(8, 200), st.integers(4, 120), st.integers(4, 120))
def test_decoding_never_goes_below_the_target_nor_stops_short_of_it(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, height: int, width: int
) -> None:
    path = written(tmp_path_factory.mktemp("jpeg") / "a.jpg", scene(rows, columns))
    ((reduction, shape),) = decoded(path, height, width)
    if reduction > 1:
        assert shape[0] >= height and shape[1] >= width
    if reduction < 8:
        coarser = 2 * reduction
        assert -(-rows // coarser) < height or -(-columns // coarser) < width


def test_a_picture_smaller_than_the_target_is_enlarged_from_its_full_size(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jpg", scene(60, 80))
    assert decoded(path, 120, 160) == [(1, (60, 80, 3))]


def test_a_picture_of_the_target_size_is_not_resampled(tmp_path: Path) -> None:
    image = scene(60, 80)
    assert np.array_equal(read_resized(written(tmp_path / "a.png", image), 60, 80), image)


def test_fine_stripes_shrink_to_grey_instead_of_coarse_stripes(tmp_path: Path) -> None:
    stripes = np.zeros((60, 120, 3), np.uint8)
    stripes[:, ::2] = 200
    small = read_resized(written(tmp_path / "a.png", stripes), 20, 48)
    assert small.std() < 25  # bilinear sampling gives 0 to 200 here
    assert abs(float(small.mean()) - 100) < 3


def test_a_slight_shrink_is_bilinear() -> None:
    image = scene(120, 120)
    expected = cv2.resize(image, (90, 90), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize(image, 90, 90), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp"])
def test_other_formats_are_read_as_well(tmp_path: Path, suffix: str) -> None:
    image = scene(40, 60)
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), image[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert np.array_equal(read_resized(path, 40, 60), image)


def test_a_truncated_jpeg_is_refused_before_its_rest_turns_grey(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jpg", scene(200, 200))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UnreadableImageError) as error:
        read_resized(path, 20, 20)
    assert str(error.value) == (
        f"{path}: a truncated JPEG (3000 bytes); replace or remove the file"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError) as error:
        read_resized(tmp_path / "none.jpg", 20, 20)
    assert str(error.value) == (
        f"{tmp_path / 'none.jpg'}: cannot be read (No such file or directory); restore the file"
    )


@pytest.mark.parametrize("content", [b"", b"GIF89a and more", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError) as error:
        read_resized(path, 20, 20)
    assert str(error.value) == (
        f"{path}: not an image that can be decoded; replace or remove the file"
    )


def test_a_truncated_png_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", scene(100, 100))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImageError, match="not an image that can be decoded"):
        read_resized(path, 20, 20)

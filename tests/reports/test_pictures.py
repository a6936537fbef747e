"""The pictures of a report lie as radiologists want them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

for _name in ("matplotlib", "pandas", "pyarrow", "jinja2"):
    pytest.importorskip(_name)

from PIL import Image  # noqa: E402

from protoseg_fast.report.review import LONGEST, Pictures, draw  # noqa: E402


def _shown(pictures: Pictures) -> np.ndarray:
    """The grey image, as decoded from the page."""
    data = base64.b64decode(pictures.image.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA", "AIL"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pictures_lie_as_radiologists_want_them(codes: str, axis: int) -> None:
    """Whatever the order and direction of the stored axes, the same view of the body."""
    nib = pytest.importorskip("nibabel")
    spacing = {"R": 1.0, "A": 2.0, "S": 3.0}
    size = {"R": 5, "A": 6, "S": 7}
    body = nib.Nifti1Image(
        np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7), np.diag([1.0, 2.0, 3.0, 1.0])
    )
    to = nib.orientations.axcodes2ornt(codes)
    stored = body.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(body.affine), to)
    )
    data = np.asarray(stored.dataobj).astype(np.uint8)
    plane = data.take(2, axis)
    preview = {
        "image": plane,
        "output": plane[None] > 0,
        "axis": np.array(axis),
        "index": np.array(2),
    }
    details = {
        "shape": list(data.shape),
        "spacing": [float(zoom) for zoom in stored.header.get_zooms()],
        "affine": stored.affine.tolist(),
    }
    pictures = draw(preview, 0, "liver", details)
    # The same slice of the body in RAS, seen from the feet, the front or the left.
    letter = {"L": "R", "P": "A", "I": "S"}.get(codes[axis], codes[axis])
    at = 2 if codes[axis] == letter else size[letter] - 3
    left = [name for name in "RAS" if name != letter]
    ras = np.asarray(body.dataobj).astype(np.uint8).take(at, "RAS".index(letter))
    np.testing.assert_array_equal(_shown(pictures), ras[::-1, ::-1].T)
    proportions = [size[name] * spacing[name] for name in left]
    assert pictures.width / pictures.height == pytest.approx(proportions[0] / proportions[1])
    assert pictures.where == f"slice 3 of {data.shape[axis]} along axis {axis + 1}"
    assert [tile.caption for tile in pictures.tiles] == ["Image", "Network's output"]


def test_pictures_without_an_affine_are_as_stored() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    stored = {"image": image, "output": image[None] > 2, "axis": np.array(-1), "index": np.array(0)}
    pictures = draw(stored, 0, "cell", {"shape": [2, 3], "spacing": None, "affine": None})
    np.testing.assert_array_equal(_shown(pictures), image)
    assert (pictures.width, pictures.height, pictures.where) == (3, 2, "")


def test_large_pictures_are_thinned_out() -> None:
    side = 3 * LONGEST
    stored = {"image": np.zeros((side, 5), np.uint8), "truth": np.ones((1, side, 5), bool)}
    pictures = draw(stored, 0, "liver", {})
    assert (pictures.rows, pictures.columns) == (LONGEST, 2)
    assert pictures.truth

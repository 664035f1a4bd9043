# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from exif_blocks import ODD_TAGS, ORIENTATION, UNREADABLE, with_exif
from photos import drawn

from rtdetr.data.header_cache import Header
from rtdetr.data.headers import read_headers
from rtdetr.images.io import load_image

SIDEWAYS = {"orientation": with_exif(ORIENTATION)} | {
    name: with_exif(ORIENTATION, tag) for name, tag in ODD_TAGS.items()
}
CASES = [(name, exif, (32, 24)) for name, exif in SIDEWAYS.items()]
CASES += [(name, exif, (24, 32)) for name, exif in UNREADABLE.items()]


@pytest.mark.parametrize(("name", "exif", "size"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_header_has_the_size_that_the_image_is_read_with(
    tmp_path: Path, suffix: str, name: str, exif: bytes, size: tuple[int, int]
) -> None:
    path = tmp_path / f"a.{suffix}"
    drawn(24, 32).save(path, exif=exif)
    (header,) = read_headers([str(path)])
    image = load_image(path).image
    assert isinstance(header, Header)
    assert header.upright == (image.height, image.width) == size

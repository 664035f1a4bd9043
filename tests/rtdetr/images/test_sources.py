# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import http.server
import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from exif_blocks import ODD_TAGS, ORIENTATION, UNREADABLE, with_exif
from photos import drawn, photo
from PIL import Image, ImageOps

from rtdetr.errors import DataError
from rtdetr.files import HIDDEN
from rtdetr.images.download import download
from rtdetr.images.io import LoadedImage, Unreadable, load_image
from rtdetr.images.names import (
    VIDEO_SUFFIXES,
    image_suffixes,
    is_video,
    one_line,
    stem_of,
    unicode_name,
)
from rtdetr.images.sources import ImageSource, VideoSource, find_sources, read_sources


class Handler(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("10.png", "2.PNG", "1.png", "deep/3.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(24, 32, seed=int(path.stem)).save(path)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def items(source: Any, **options: Any) -> list[Any]:
    return [one.item for one in find_sources(source, **options).items]


def read(source: Any) -> list[LoadedImage | Unreadable]:
    return list(read_sources(find_sources(source).items))


def pixels(source: Any, **options: Any) -> np.ndarray[Any, Any]:
    image = load_image(source, **options)
    assert image.image.mode == "RGB"
    return np.asarray(image.image)


def test_all_forms_of_one_image_have_the_same_pixels(tmp_path: Path, server: str) -> None:
    path = tmp_path / "a.png"
    photo().save(path)
    Handler.answers["/a.png?x=1"] = (200, path.read_bytes())
    wanted = np.asarray(photo())
    first = torch.from_numpy(wanted.transpose(2, 0, 1).copy())
    forms = [path, str(path), f"{server}/a.png?x=1", photo(), wanted, wanted / 255.0, first]
    forms += [wanted.astype(np.float32) / 255, first.float() / 255, first.double() / 255]
    for form in forms:
        assert np.array_equal(pixels(form), wanted), type(form)
    for form in (wanted[:, :, ::-1], first.flip(0)):
        assert np.array_equal(pixels(form, color="bgr"), wanted)


def test_arrays_are_channels_last_and_tensors_first_whatever_their_size() -> None:
    assert pixels(np.zeros((3, 5, 3), np.uint8)).shape == (3, 5, 3)
    assert pixels(torch.zeros(3, 5, 3)).shape == (5, 3, 3)
    with pytest.raises(DataError, match=r"image: expected an image .*\[H,W,C\].*\[3, 5, 7\]"):
        load_image(np.zeros((3, 5, 7), np.uint8))


def test_gray_and_alpha(tmp_path: Path) -> None:
    photo().convert("LA").save(tmp_path / "gray.png")
    photo().convert("P").save(tmp_path / "palette.png")
    gray = pixels(tmp_path / "gray.png")
    assert (gray[..., 0] == gray[..., 2]).all()
    assert pixels(tmp_path / "palette.png").shape == gray.shape
    assert pixels(np.zeros((4, 5), bool)).shape == (4, 5, 3)
    assert pixels(np.full((4, 5, 4), 9, np.uint8)).max() == 9


@pytest.mark.parametrize("as_path", [True, False], ids=["path", "PIL"])
def test_exif_is_honored(tmp_path: Path, as_path: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned counterclockwise
    photo().save(tmp_path / "turned.png", exif=exif)
    wanted = np.rot90(np.asarray(photo()))
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(pixels(tmp_path / "turned.png" if as_path else opened), wanted)


@pytest.mark.parametrize("tag", ODD_TAGS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_an_odd_exif_tag_costs_neither_pixels_nor_orientation(
    tmp_path: Path, tag: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    drawn(24, 32).save(path, exif=with_exif(ORIENTATION, ODD_TAGS[tag]))
    assert pixels(path).shape == (32, 24, 3)


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_orientation_that_cannot_be_read_is_none(tmp_path: Path, name: str) -> None:
    drawn(24, 32).save(tmp_path / "a.jpg", exif=UNREADABLE[name])
    assert pixels(tmp_path / "a.jpg").shape == (24, 32, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_nothing_is_turned_twice(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn(24, 32).save(tmp_path / f"a.{suffix}", exif=exif)
    once = load_image(tmp_path / f"a.{suffix}").image
    assert once.size == (24, 32)
    assert load_image(once).image.size == (24, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    drawn(24, 32).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(pixels(tmp_path / "a.png"), upright)


def test_names(tmp_path: Path, folder: Path) -> None:
    assert load_image(photo()).name == "image"
    assert load_image(folder / "1.png").name == str(folder / "1.png")
    with Image.open(folder / "1.png") as opened:
        assert load_image(opened).name == str(folder / "1.png")
    listed = [one.name for one in read([photo(), folder / "1.png", photo()])]
    assert listed == ["image0", str(folder / "1.png"), "image2"]


def test_folder_in_natural_order(folder: Path) -> None:
    names = [Path(one.name).name for one in read(folder)]
    assert names == ["1.png", "2.PNG", "10.png"]
    assert all(isinstance(one, LoadedImage) for one in read(str(folder)))


def test_one_list_of_suffixes_for_folders_globs_and_files(tmp_path: Path) -> None:
    names = [
        f"{name}.{name}"
        for name in ["jfif", "jpe", "avif", "jp2", "ppm", "pgm", "tga", "dib", "ico", "qoi", "apng"]
    ]
    for name in names:
        image = drawn(32, 32).convert("L" if name == "pgm.pgm" else "RGB")
        image.save(tmp_path / name)
    for name in ("clip.ts", "clip.WMV", "clip.flv", "clip.mts", "clip.3gp", "clip.asf"):
        (tmp_path / name).touch()
    (tmp_path / "table.h5").touch()
    (tmp_path / "page.pdf").touch()
    for source in (tmp_path, f"{tmp_path}/*"):
        found = find_sources(source).items
        assert [one.name for one in found if isinstance(one, ImageSource)] == [
            str(tmp_path / name) for name in sorted(names)
        ]
        assert sum(isinstance(one, VideoSource) for one in found) == 6
    for name in names:
        assert find_sources(str(tmp_path / name)).is_single
        assert pixels(tmp_path / name).shape == (32, 32, 3)


def test_video_suffixes_are_known_to_pyav() -> None:
    av = pytest.importorskip("av")
    formats = [av.ContainerFormat(name) for name in av.formats_available]
    known = {f".{suffix}" for one in formats for suffix in one.extensions}
    assert VIDEO_SUFFIXES - known == set()
    assert VIDEO_SUFFIXES & image_suffixes() == set()


def test_videos_of_a_folder_without_pyav_are_told_and_the_images_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "1.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    first, second, *_ = read(folder)
    assert isinstance(first, Unreadable)
    assert re.search(r"1\.mp4: Video needs the package av: pip install", str(first.error))
    assert isinstance(second, LoadedImage)


def test_hidden_files_are_no_images_of_a_folder(folder: Path) -> None:
    for name in (".0-qrfwv0v5.png", f"{HIDDEN}1.png", ".thumbnails/1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        drawn(8, 8).save(folder / name)
    names = [path.name for path in items(folder, recursive=True)]
    assert sorted(names) == ["1.png", "10.png", "2.PNG", "3.png"]
    assert [path.name for path in items(f"{folder}/.0*")] == [".0-qrfwv0v5.png"]


@pytest.fixture
def nobody() -> Iterator[None]:
    """Run as a user who has no rights, for what root may do to folders that are locked."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def locked(folder: Path) -> Iterator[Path]:
    """A folder inside of ``folder`` that nobody may list."""
    for path in (folder, *folder.parents[:3]):
        path.chmod(0o755)
    path = folder / "locked"
    path.mkdir()
    drawn(8, 8).save(path / "a.png")
    path.chmod(0)
    yield path
    path.chmod(0o755)


def test_locked_folders_are_told(folder: Path, locked: Path, nobody: None) -> None:
    *images, last = read_sources(find_sources(folder, recursive=True).items)
    assert len(images) == 4
    assert isinstance(last, Unreadable)
    assert str(last.error) == f"{locked}: permission denied"
    with pytest.raises(DataError, match="locked: permission denied"):
        find_sources(locked)
    for name in ("a.png", "a.mp4"):
        if name.endswith("mp4"):
            pytest.importorskip("av")
        (one,) = read([locked / name])
        assert isinstance(one, Unreadable)
        assert str(one.error) == f"{locked / name}: permission denied"


UNUSUAL_PATHS = {
    "too long": ("x" * 300 + ".png", "file name too long"),
    "through a file": ("1.png/a.png", "not a directory"),
    "zero byte": ("a\0.png", "not a readable image: embedded null byte"),
    "pipe": ("pipe.png", "is a pipe or device, expected a file"),
    "link to nothing": ("link.png", "no such file"),
    "no user": ("~no-such-user/a.png", "no such file"),
}


@pytest.mark.parametrize("case", UNUSUAL_PATHS)
def test_unusual_paths_are_data(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    os.mkfifo("pipe.png")
    Path("link.png").symlink_to("nothing.png")
    name, message = UNUSUAL_PATHS[case]
    bad, good = read([name, "1.png"])
    assert isinstance(bad, Unreadable)
    assert str(bad.error) == f"{name}: {message}"
    assert isinstance(good, LoadedImage)


def test_pipe_in_a_folder_is_passed_over_and_a_broken_link_told(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "z.png").symlink_to("nothing.png")
    assert [type(one) for one in read(folder)] == [LoadedImage] * 3 + [Unreadable]


def test_names_that_are_no_utf8(folder: Path) -> None:
    path = folder / os.fsdecode(b"2\xe9.png")
    drawn(24, 32).save(path)
    loaded = read(folder)
    assert str(path) in [one.name for one in loaded]
    assert {type(one) for one in loaded} == {LoadedImage}


def test_recursive(folder: Path) -> None:
    deep = [path.name for path in items(folder, recursive=True)]
    assert sorted(deep) == ["1.png", "10.png", "2.PNG", "3.png"]


def test_glob(folder: Path) -> None:
    assert [path.name for path in items(f"{folder}/1*.png")] == ["1.png", "10.png"]
    assert [path.name for path in items(f"{folder}/**/3.png")] == ["3.png"]
    assert [path.name for path in items(f"{folder}/*")] == ["1.png", "2.PNG", "10.png"]


def test_file_with_brackets_in_its_name_is_no_glob(folder: Path) -> None:
    path = folder / "a[1].png"
    photo().save(path)
    assert find_sources(str(path)).is_single
    assert pixels(str(path)).shape[2] == 3


def test_lists_are_flattened(folder: Path) -> None:
    batch = np.zeros((2, 4, 5, 3), np.uint8)
    assert len(items([folder, str(folder / "1.png"), (photo(), [photo()]), batch])) == 3 + 1 + 2 + 2
    assert [one.image.size for one in read(torch.zeros(2, 3, 4, 5))] == [(5, 4)] * 2  # type: ignore[union-attr]


def test_what_is_one_and_what_is_many(folder: Path) -> None:
    for single in (
        folder / "1.png",
        "http://x/*.jpg",
        photo(),
        np.zeros((4, 5, 3)),
        torch.zeros(3, 4, 5),
    ):
        assert find_sources(single).is_single
    for many in (
        folder,
        f"{folder}/*.png",
        [photo()],
        (),
        np.zeros((1, 4, 5, 3)),
        torch.zeros(1, 3, 4, 5),
    ):
        assert not find_sources(many).is_single


def test_a_word_becomes_a_value_once(folder: Path) -> None:
    found = find_sources([str(folder / "1.png"), "clip.mp4", photo()]).items
    assert [type(one) for one in found] == [ImageSource, VideoSource, ImageSource]
    assert [one.name for one in found] == [str(folder / "1.png"), "clip.mp4", "image2"]
    assert find_sources(list(found)).items == found
    assert find_sources("clip.mp4").is_single


def test_what_is_a_video() -> None:
    assert is_video("a/b.MP4")
    assert is_video(Path("b.mov"))
    assert is_video("https://x.org/b.mp4?token=a.jpg")
    for live in (0, 12, "0", "rtsp://user@host/1", "RTMP://host/x", "/dev/video1"):
        assert is_video(live)
        assert find_sources(live).is_single
    assert not is_video("b.jpg")
    assert not is_video("100.jpg")
    assert not is_video(True)
    assert not is_video(photo())


def test_unreadable_files_are_data(folder: Path) -> None:
    (folder / "3.png").write_bytes((folder / "1.png").read_bytes()[:300])
    (folder / "4.png").write_bytes(b"nothing of the kind")
    got = read(folder)
    assert [type(one) for one in got] == [
        LoadedImage,
        LoadedImage,
        Unreadable,
        Unreadable,
        LoadedImage,
    ]
    for one, name in ((got[2], "3.png"), (got[3], "4.png")):
        assert isinstance(one, Unreadable)
        assert one.name == str(folder / name)
        with pytest.raises(DataError, match=rf"{name}: not a readable image"):
            raise one.error


SINGLE_ERRORS = {
    "missing": ("{tmp}/no.png", r"no\.png: no such file"),
    "folder": ("{tmp}", "is a folder"),
    "empty": ("{tmp}/empty.png", r"empty\.png: not a readable image: its format is not known"),
    "cut off": ("{tmp}/cut.jpg", r"cut\.jpg: not a readable image: .*truncated"),
}


@pytest.mark.parametrize("case", SINGLE_ERRORS)
def test_errors_name_the_file(tmp_path: Path, case: str) -> None:
    (tmp_path / "empty.png").touch()
    photo().save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:4000])
    source, message = SINGLE_ERRORS[case]
    with pytest.raises(DataError, match=message):
        load_image(source.format(tmp=tmp_path))


def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(64, 64).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"bomb\.png: .*decompression bomb"):
        load_image(tmp_path / "bomb.png")


def test_bytes_and_open_files(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for form in (data, io.BytesIO(data)):
        assert np.array_equal(pixels(form), np.asarray(photo()))
    with pytest.raises(DataError, match="image: not a readable image: its format is not known"):
        load_image(b"")


@pytest.mark.parametrize("source", [iter([1]), (one for one in "ab"), 3.5, -1, None], ids=repr)
def test_what_is_no_source_is_an_error_of_the_call(source: Any) -> None:
    for form in (source, [photo(), source]):
        with pytest.raises(DataError, match="expected a path, URL"):
            find_sources(form)


OTHER_URLS = [
    "ftp://x/a.png",
    "s3://bucket/a.mp4",
    "data:image/png;base64,iVBORw0KGgo",
    "file:///a",
]


@pytest.mark.parametrize("url", OTHER_URLS)
def test_other_urls_are_refused_as_they_were_written(url: str) -> None:
    (one,) = read([url])
    assert isinstance(one, Unreadable)
    assert str(one.error) == f"{url}: expected a path or a URL of http, https or rtsp"


def test_limit_counts_what_could_be_read(folder: Path) -> None:
    sources = find_sources(["no.png", folder, "no.png"]).items
    kinds = [type(one) for one in read_sources(sources, limit=2)]
    assert kinds == [Unreadable, LoadedImage, LoadedImage]
    assert list(read_sources(sources, limit=0)) == []


@pytest.mark.parametrize("source", [3.5, None, {"a": 1}], ids=str)
def test_other_kinds_are_refused(source: Any) -> None:
    with pytest.raises(DataError, match=f"expected a path, URL.*{type(source).__name__}"):
        load_image(source)


def test_empty_folder_and_glob(tmp_path: Path) -> None:
    for source in (tmp_path, f"{tmp_path}/*.jpg"):
        with pytest.raises(DataError, match="no images or videos there"):
            read(source)


def test_url_errors(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Handler.answers |= {"/big.png": (200, b"x" * 2000), "/text.png": (200, b"<html>")}
    with pytest.raises(DataError, match=r"/none\.png: the server answered 404"):
        load_image(f"{server}/none.png")
    with pytest.raises(DataError, match=r"/text\.png: not a readable image"):
        load_image(f"{server}/text.png")
    with pytest.raises(DataError, match="larger than"):
        download(f"{server}/big.png", limit=1000)
    with pytest.raises(DataError, match=r"could not download it: .*refused"):
        load_image("http://127.0.0.1:1/a.png")
    assert download(f"{server}/big.png", limit=2000) == b"x" * 2000


def test_slow_server_times_out() -> None:
    released = threading.Event()

    class Slow(Handler):
        def do_GET(self) -> None:
            released.wait(10)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        with pytest.raises(DataError, match="could not download it: timed out"):
            download(f"http://127.0.0.1:{made.server_port}/", timeout=0.1)
        released.set()
        made.shutdown()
        thread.join()


def test_only_http_is_fetched(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    with pytest.raises(DataError, match="expected a path or a URL of http, https or rtsp"):
        load_image((tmp_path / "a.png").as_uri())


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/b.tar.png", "b.tar"),
        ("https://x.org/p%20q.jpg?c=d/e.f", "p q"),
        ("https://x.org/", "image"),
        ("https://x.org/a%00b%0a.jpg", "a_b_"),
        ("rtsp://user:word@host/live.sdp", "live"),
        ("http://[::1/a.jpg", "image"),
        ("x" * 500 + ".jpg", "x" * 200),
    ],
)
def test_stem(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_text_of_names() -> None:
    assert unicode_name(os.fsdecode(b"caf\xe9 \xc3\xa9.png")) == "caf\\xe9 é.png"
    assert one_line("a\nb\x1b[31m\u2028é人.png") == r"a\nb\x1b[31m\u2028é人.png"

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from photos import drawn, photo
from PIL import Image

from rtdetr.errors import DataError
from rtdetr.images.io import LoadedImage, Unreadable, download, load_image
from rtdetr.images.names import is_video, stem_of
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
    assert not is_video("b.jpg")
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


@pytest.mark.parametrize("source", [3.5, None, b"bytes"], ids=str)
def test_other_kinds_are_refused(source: Any) -> None:
    with pytest.raises(DataError, match=f"expected a path, URL.*{type(source).__name__}"):
        load_image(source)


def test_empty_folder_and_glob(tmp_path: Path) -> None:
    for source in (tmp_path, f"{tmp_path}/*.jpg"):
        with pytest.raises(DataError, match=r"no images there\. Looked for .*\.png"):
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
    with pytest.raises(DataError, match="no such file"):
        load_image((tmp_path / "a.png").as_uri())


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/b.tar.png", "b.tar"),
        ("https://x.org/p%20q.jpg?c=d/e.f", "p q"),
        ("https://x.org/", "image"),
    ],
)
def test_stem(name: str, stem: str) -> None:
    assert stem_of(name) == stem

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import socketserver
import threading
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
from photos import drawn

from rtdetr.errors import DataError
from rtdetr.images.download import download
from rtdetr.images.io import LoadedImage, Unreadable
from rtdetr.images.sources import find_sources, read_sources


def image_bytes() -> bytes:
    file = io.BytesIO()
    drawn(24, 32).save(file, "png")
    return file.getvalue()


def answer(body: bytes, head: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n".encode() + body


def redirect(target: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()


BODY = image_bytes()
# What the server sends, by the path that it is asked for.
ANSWERS = {
    "/my%20image.png": answer(BODY),
    "/%C3%A9.png?size=a%20b&q=%E4%BA%BA": answer(BODY),
    "/100%25.png": answer(BODY),
    "/moved": redirect("/my%20image.png"),
    "/garbage": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "/nothing": b"",
    "/headers": answer(BODY, "".join(f"X-{i}: 1\r\n" for i in range(200))),
    "/header": answer(BODY, f"X: {'x' * 70_000}\r\n"),
    "/chunk": answer(b"zz\r\nabc", "Transfer-Encoding: chunked\r\n"),
    "/cut": answer(BODY[:50], f"Content-Length: {len(BODY)}\r\n"),
    "/colors": b"HTTP/1.1 500 \x1b[31mred\x1b[0m\r\nContent-Length: 0\r\n\r\n",
    "/odd": b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n",
    "/ftp": redirect("ftp://127.0.0.1/a.png"),
    "/file": redirect("file:///etc/passwd"),
    "/loop": redirect("/loop"),
}


class Handler(socketserver.StreamRequestHandler):
    released: ClassVar[threading.Event] = threading.Event()

    def handle(self) -> None:
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        slow = {"/slow-body": answer(b""), "/slow-header": b"HTTP/1.1 200 OK\r\nX: "}
        self.wfile.write(slow.get(path) or ANSWERS.get(path, b""))
        while path in slow and not self.released.wait(0.02):
            self.wfile.write(b"x")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_: object) -> None:
        pass  # the client has left


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        Handler.released.set()
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "path",
    ["/my image.png", "/my%20image.png", "/é.png?size=a b&q=人#part", "/100%25.png", "/moved"],
)
def test_urls_are_quoted_as_a_browser_does(server: str, path: str) -> None:
    assert download(server + path) == BODY


BROKEN = {
    "/garbage": "could not download it: ",
    "/nothing": "could not download it: ",
    "/headers": "could not download it: got more than 100 headers",
    "/header": "could not download it: got more than 65536 bytes",
    "/chunk": "could not download it: ",
    "/cut": r"could not download it: \d+ bytes are missing at its end",
    "/colors": "the server answered 500 Internal Server Error$",
    "/odd": "the server answered 799$",
    "/ftp": "the server sends on to ftp://127.0.0.1/a.png, expected http or https",
    "/file": "the server answered 302",
    "/loop": "the server answered 302",
}
IMPOSSIBLE = (
    "http://[::1",
    "http://a b/c.png",
    "http://user:pa ss@127.0.0.1:1/a.png",
    "http://127.0.0.1:port/a.png",
    "http://127.0.0.1:99999/a.png",
    "http:///a.png",
    "http://",
    "https://" + "a" * 70 + ".example/a.png",
    "http://127.0.0.1:1/a\tb\nc.png",
    "http://127.0.0.1:1/\udce9.png",
    "http://[::1/clip.mp4",
)


@pytest.mark.parametrize("path", BROKEN)
def test_broken_answers_are_errors_of_the_url(server: str, path: str) -> None:
    with pytest.raises(DataError, match=BROKEN[path]) as caught:
        download(server + path, timeout=5)
    assert str(caught.value).startswith(server + path)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("url", IMPOSSIBLE)
def test_odd_urls_do_not_cost_the_others(server: str, url: str) -> None:
    if url.endswith(".mp4"):
        pytest.importorskip("av")
    sources = find_sources([url, f"{server}/my image.png"]).items
    bad, good = read_sources(sources)
    assert isinstance(bad, Unreadable)
    assert str(bad.error).startswith(f"{url}: ")
    assert isinstance(good, LoadedImage)
    assert np.array_equal(np.asarray(good.image), np.asarray(drawn(24, 32)))


@pytest.mark.parametrize("path", ["/slow-body", "/slow-header"])
def test_a_byte_at_a_time_does_not_last_for_ever(server: str, path: str) -> None:
    with pytest.raises(DataError, match=r"could not download it(: timed out| within 0.3 seconds)"):
        download(server + path, deadline=0.3)

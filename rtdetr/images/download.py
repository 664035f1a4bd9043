# SPDX-License-Identifier: Apache-2.0
"""Fetching one file by HTTP, within a limit of time and of size."""

from __future__ import annotations

import http
import queue
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPMessage
from typing import IO
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request

from ..errors import DataError
from .names import is_url

__all__ = ["download"]

SILENCE_S = 20.0
DEADLINE_S = 60.0
MAX_BYTES = 64 * 2**20
CHUNK_BYTES = 2**16

# What RFC 3986 reserves, and the percent sign of what is quoted already.
KEPT = "%/:=&?~#+!$,;'@()*[]"


def download(
    url: str, *, timeout: float = SILENCE_S, deadline: float = DEADLINE_S, limit: int = MAX_BYTES
) -> bytes:
    """The bytes behind an http(s) URL, in which spaces and letters of any script need not be quoted.

    Args:
        url: where they are.
        timeout: seconds that the server may be silent.
        deadline: seconds for everything.
        limit: most bytes to take.

    Raises:
        DataError: if the server cannot be reached, refuses, takes too long, or sends more than ``limit`` bytes.
    """
    answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    end = time.monotonic() + deadline

    def work() -> None:
        try:
            answers.put(_fetch(url, timeout, end, limit))
        except Exception as error:
            # Protocols raise whatever they run into (OSError, HTTPException, ValueError, UnicodeError, ...).
            answers.put(error)

    # A timeout of sockets begins anew with every byte, that of a line of the header too: only a second thread can
    # leave a server that sends one byte a second.
    threading.Thread(target=work, daemon=True).start()
    try:
        answer = answers.get(timeout=deadline)
    except queue.Empty:
        raise DataError(f"{url}: could not download it within {deadline:g} seconds") from None
    if isinstance(answer, bytes):
        return answer
    raise DataError(f"{url}: {_reason(answer)}") from answer


class _Redirects(HTTPRedirectHandler):
    """Follows a server to http and https alone; urllib would follow it to ftp as well."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not is_url(newurl):
            raise DataError(f"the server sends on to {newurl}, expected http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(url: str, timeout: float, end: float, limit: int) -> bytes:
    request = Request(_ascii_url(url), headers={"User-Agent": "rtdetr"})
    data = bytearray()
    with urllib.request.build_opener(_Redirects).open(request, timeout=timeout) as response:
        while chunk := response.read1(CHUNK_BYTES):
            data += chunk
            if len(data) > limit:
                raise DataError(f"larger than {limit // 2**20} MiB; download it and pass its path")
            if time.monotonic() > end:
                raise TimeoutError("timed out")
        if response.length:
            raise ConnectionError(f"{response.length} bytes are missing at its end")
    return bytes(data)


def _ascii_url(url: str) -> str:
    """The URL as it goes over the wire; a browser quotes the same."""
    parts = urlsplit(url)
    path, query = (quote(part, safe=KEPT) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, parts.netloc.encode("idna").decode(), path, query, ""))


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, urllib.error.HTTPError):
        # Not the phrase that the server sent with it, which may be anything.
        known = error.code in set(http.HTTPStatus)
        phrase = f" {http.HTTPStatus(error.code).phrase}" if known else ""
        return f"the server answered {error.code}{phrase}"
    cause = getattr(error, "reason", error)
    text = " ".join(str(cause).split())
    return f"could not download it: {text or type(cause).__name__}"

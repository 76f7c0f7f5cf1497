"""A web server on loopback that hands out files of a directory, and breaks off when told to."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class FileServer:
    """What the server does, and what it was asked.

    Attributes:
        root: directory of the files.
        url: without a slash at the end.
        break_after: bytes after which each of the next connections is closed.
        statuses: status codes that the next requests get instead of a file.
        ranges: whether it can send a part of a file.
        requests: (path, Range header) of all requests.
    """

    root: Path
    url: str = ""
    break_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serve(root: Path) -> Iterator[FileServer]:
    """Serve `root` until the block ends."""
    state = FileServer(root)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            path = root / self.path.lstrip("/").partition("?")[0]
            if state.statuses:
                return self.send_error(state.statuses.pop(0))
            if not path.is_file():
                return self.send_error(404)
            content = path.read_bytes()
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if start >= len(content) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return None
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            limit = state.break_after.pop(0) if state.break_after else len(content)
            self.wfile.write(content[start:][:limit])
            return None

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A stand-in on loopback for the parts of the Hugging Face hub that pushing and pulling a model use."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Hub:
    """What is on the hub.

    Attributes:
        url: of the server.
        files: repository -> path -> content, as of its only commit.
        requests: method and path of all requests.
        token: who writes must have this one.
    """

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    token: str = "hf_writer"

    def commit(self, repository: str) -> str:
        """Return the hash that stands for the state of a repository."""
        digest = hashlib.sha1()
        for path, content in sorted(self.files[repository].items()):
            digest.update(path.encode() + content)
        return digest.hexdigest()


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty hub until the block ends."""
    hub = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hub.requests.append(f"POST {self.path}")
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.send_json({"error": "no write access"}, 403)
            if self.path == "/api/repos/create":
                values = json.loads(body)
                name = f"{values['organization']}/{values['name']}"
                hub.files.setdefault(name, {})
                return self.send_json({"url": f"{hub.url}/{name}", "name": name, "id": name})
            if self.path == "/api/validate-yaml":  # of the card
                return self.send_json({"warnings": [], "errors": []})
            repository, action = self.repository()
            if action == "preupload/main":
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                return self.send_json({"files": files})
            for line in body.splitlines():  # commit/main
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    hub.files[repository][entry["value"]["path"]] = content
            address = f"{hub.url}/{repository}/commit/{hub.commit(repository)}"
            self.send_json({"commitUrl": address, "commitOid": hub.commit(repository), "hookOutput": ""})

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if self.path.startswith("/api/models/"):
                repository, action = self.repository()
                if repository not in hub.files:
                    return self.send_json({"error": "Repository not found"}, 404)
                sha = hub.commit(repository)
                names = hub.files[repository]
                if action.startswith("tree/"):
                    rows = [
                        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for name, content in names.items()
                    ]
                    return self.send_json(rows)
                siblings = [{"rfilename": name} for name in names]
                return self.send_json({"id": repository, "sha": sha, "siblings": siblings})
            owner, name, _, _, *path = self.path.strip("/").split("/")
            found = hub.files.get(f"{owner}/{name}", {}).get("/".join(path))
            commit = {"X-Repo-Commit": hub.commit(f"{owner}/{name}")} if f"{owner}/{name}" in hub.files else {}
            if found is None:
                return self.send(b"", 404, {"X-Error-Code": "EntryNotFound", **commit})
            self.send(found, 200, {"ETag": f'"{hashlib.sha1(found).hexdigest()}"', **commit})

        do_HEAD = do_GET  # noqa: N815

        def repository(self) -> tuple[str, str]:
            owner, name, *action = self.path.partition("?")[0].removeprefix("/api/models/").split("/")
            return f"{owner}/{name}", "/".join(action)

        def send_json(self, value: Any, status: int = 200) -> None:
            self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

        def send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

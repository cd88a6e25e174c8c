"""A small hub on this machine: the part of the protocol that the hub's client speaks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Hub:
    """Repositories by id and revision; `asked` has every path that was requested.

    cut     name of a file whose transfer breaks off half way
    gated   ids that need a login
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Path]] = {}
        self.pull_requests: dict[str, list[dict[str, Any]]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.cut = ""
        self.url = ""

    def add(self, repo: str, folder: Path, revision: str = "main") -> str:
        """Publishes a folder; its commit."""
        self.repos.setdefault(repo, {})[revision] = folder
        return self.commit(repo, revision)

    def commit(self, repo: str, revision: str) -> str:
        return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()

    def folder(self, repo: str, revision: str) -> Path | None:
        known = self.repos.get(repo, {})
        by_commit = {self.commit(repo, name): folder for name, folder in known.items()}
        return known.get(revision) or by_commit.get(revision)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo, rest = "/".join(parts[2:4]), parts[4:]
            if repo in self.gated:
                return self._error(403, "GatedRepo")
            if repo not in self.repos:
                return self._error(404, "RepoNotFound")
            if rest == ["discussions"]:
                pages = self.pull_requests.get(repo, [])
                return self._json({"discussions": pages, "count": len(pages), "start": 0})
            revision = "/".join(rest[1:]).replace("%2F", "/") if rest else "main"
            return self._info(repo, revision)
        repo, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        folder = self.folder(repo, revision)
        if folder is None or not (folder / name).is_file():
            return self._error(404, "EntryNotFound")
        body = (folder / name).read_bytes()
        commit = revision if len(revision) == 40 else self.commit(repo, revision)
        etag = hashlib.sha1(body).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, body

    def _info(self, repo: str, revision: str) -> tuple[int, dict[str, str], bytes]:
        folder = self.folder(repo, revision)
        if folder is None:
            return self._error(404, "RevisionNotFound")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        siblings = [
            {"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size}
            for path in files
        ]
        sha = revision if len(revision) == 40 else self.commit(repo, revision)
        return self._json({"id": repo, "sha": sha, "siblings": siblings, "private": False})

    @staticmethod
    def _json(data: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(data).encode()

    @staticmethod
    def _error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
        return status, {"X-Error-Code": code, "X-Error-Message": code}, b""


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            hub.asked.append(path)
            status, headers, content = hub.answer(path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                broken = bool(hub.cut) and path.endswith(hub.cut)
                self.wfile.write(content[: len(content) // 2] if broken else content)
                self.close_connection = broken

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

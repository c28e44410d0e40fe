"""A server that speaks the Hugging Face Hub's protocol as far as downloads go, and has faults at will.

It answers what huggingface_hub asks for: /api/{models,datasets}/ID/revision/REV and /tree/REV, HEAD and GET of
[/datasets]/ID/resolve/REV/FILE with ETag and X-Repo-Commit, and the X-Error-Code of what it refuses. Files of LARGE
bytes or more are redirected to another host, as the Hub does with its file store, and are served there in parts, too.
"""

import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from redsm5 import hub

LARGE = 3_000
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree)/([^/?]+)")
RESOLVE = re.compile(r"(/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """Files by commit, and the names that commits have."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False


@dataclass
class Fault:
    """What happens to requests whose "METHOD path" the pattern is found in, so many times.

    `status`: this answer; or `hang`: none; or `cut`: the connection ends after so many bytes of the body.
    """

    pattern: str
    times: int = 1_000
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: int | None = None

    def __str__(self) -> str:
        what = "hang" if self.hang else self.status or f"cut after {self.cut}"
        return f"{self.pattern}: {what}"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str | None
    range: str | None
    host: str


class HubServer:
    """The server. Tokens in `tokens` are valid, those in `granted` may read gated repositories, too."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.tokens: set[str] = set()
        self.granted: set[str] = set()
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.serves_parts = True
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, kind: str, repo_id: str, files: dict[str, bytes], *, ref: str = "main", gated: bool = False) -> str:
        """Commit these files to a repository (kind: model, dataset), made where there is none; the commit."""
        content = repr(sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items()))
        commit = hashlib.sha1(content.encode()).hexdigest()
        repo = self.repos.setdefault((kind, repo_id), Repo({}, {}, gated))
        repo.commits[commit] = files
        repo.refs[ref] = commit
        return commit

    def environment(self, home: Path) -> dict[str, str]:
        """What makes a process use this server, with its cache and its login in `home`."""
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "*"}
        rest = {
            k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()
        }
        return rest | own

    def take_over(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Have this process use the server, with its cache and its login in `home`, and no login yet."""
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("no_proxy", "*")
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        hub._fetch.cache_clear()  # this process may have asked other servers before

    def asked(self, pattern: str = "") -> list[str]:
        """The requests so far, as "METHOD path"."""
        lines = [f"{request.method} {request.path}" for request in self.requests]
        return [line for line in lines if re.search(pattern, line)]

    def take_fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, line):
                fault.times -= 1
                return fault
        return None

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            host = (self.headers.get("Host") or "").partition(":")[0]
            path = unquote(urlsplit(self.path).path)
            server.requests.append(Request(self.command, path, token, self.headers.get("Range"), host))
            fault = server.take_fault(f"{self.command} {path}")
            if fault and fault.hang:
                server.stopping.wait(30)
                self.close_connection = True
            elif fault and fault.status:
                self.send(fault.status, b'{"error": "as ordered"}', fault.headers)
            elif host == "localhost":
                self.file_store(path, fault)
            elif token and token not in server.tokens:
                self.refuse(401, "", "Invalid credentials in Authorization header")
            elif path == "/api/whoami-v2":
                self.send(200, b'{"name": "someone", "type": "user"}', {})
            elif match := API.fullmatch(path):
                self.api(*match.groups(), token=token, fault=fault)
            elif match := RESOLVE.fullmatch(path):
                self.resolve("dataset" if match[1] else "model", *match.groups()[1:], token=token, fault=fault)
            else:
                self.refuse(404, "", "no such page")

        def found(self, kind: str, repo_id: str, revision: str, token: str | None) -> tuple[Repo, str] | None:
            """The repository and the commit; None: refused."""
            repo = server.repos.get((kind, repo_id))
            if repo is None:
                self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
                return None
            commit = repo.refs.get(revision, revision)
            if commit not in repo.commits:
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return None
            return repo, commit

        def api(
            self, kinds: str, repo_id: str, what: str, revision: str, *, token: str | None, fault: Fault | None
        ) -> None:
            if (found := self.found(kinds[:-1], repo_id, revision, token)) is None:
                return
            repo, commit = found
            files = repo.commits[commit]
            if what == "revision":
                siblings = [{"rfilename": name} for name in files]
                document = {"_id": "0", "id": repo_id, "sha": commit, "gated": repo.gated, "siblings": siblings}
                self.send(200, json.dumps(document).encode(), {}, fault)
                return
            entries = [self.entry(name, data) for name, data in files.items()]
            self.send(200, json.dumps(entries).encode(), {}, fault)

        @staticmethod
        def entry(name: str, data: bytes) -> dict[str, Any]:
            entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            if len(data) >= LARGE:
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            return entry

        def resolve(
            self, kind: str, repo_id: str, revision: str, name: str, *, token: str | None, fault: Fault | None
        ) -> None:
            if (found := self.found(kind, repo_id, revision, token)) is None:
                return
            repo, commit = found
            commit_header = {"X-Repo-Commit": commit}
            if repo.gated and token not in server.granted:
                self.refuse(403 if token else 401, "GatedRepo", f"Access to {repo_id} is restricted")
            elif name not in repo.commits[commit]:
                self.refuse(404, "EntryNotFound", "Entry not found", commit_header)
            elif len(data := repo.commits[commit][name]) >= LARGE:
                digest = hashlib.sha256(data).hexdigest()
                headers = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
                headers["Location"] = f"http://localhost:{server.port}/store/{name}/{digest}?Signature=secret"
                self.send(302, b"", commit_header | headers)
            else:
                self.send(200, data, commit_header | {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, fault)

        def file_store(self, path: str, fault: Fault | None) -> None:
            blobs = [
                data for repo in server.repos.values() for files in repo.commits.values() for data in files.values()
            ]
            data = next(data for data in blobs if hashlib.sha256(data).hexdigest() == path.rpartition("/")[2])
            start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if start and server.serves_parts:
                part = {"Content-Range": f"bytes {start[1]}-{len(data) - 1}/{len(data)}"}
                self.send(206, data[int(start[1]) :], part, fault)
            else:
                self.send(200, data, {}, fault)

        def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
            codes = {"X-Error-Code": code} if code else {}
            body = json.dumps({"error": message}).encode()
            self.send(status, body, {**codes, "X-Error-Message": message, **(headers or {})})

        def send(self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None = None) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault and fault.cut is not None:
                body, self.close_connection = body[: fault.cut], True
            self.wfile.write(body)

    return Handler

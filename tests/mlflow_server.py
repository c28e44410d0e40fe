"""A real `mlflow server` that can be killed, and a proxy before it that answers as servers in trouble do."""

import http.client
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from redsm5.engine import files, paths
from redsm5.engine.documents import milliseconds
from redsm5.engine.records import Shipped


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class MlflowServer:
    """`mlflow server` over SQLite, with artifacts through itself."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again if it was killed; it answers when this returns."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        switches = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | switches, stdout=log, stderr=log, cwd=self.folder, process_group=0
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        self.kill()
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """Kill it and its worker with SIGKILL."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def query(self, sql: str, *values: object) -> list[tuple]:
        database = sqlite3.connect(self.folder / "server.db", timeout=30)
        try:
            return database.execute(sql, values).fetchall()
        finally:
            database.close()

    def run_ids(self, trial_id: str, stage: str = "%") -> list[str]:
        """The runs of a trial, by default the deleted ones too."""
        sql = "SELECT r.run_uuid FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'trial_id' "
        return [row[0] for row in self.query(sql + "WHERE t.value = ? AND r.lifecycle_stage LIKE ?", trial_id, stage)]

    def rows(self, trial_id: str) -> list[tuple]:
        """(metric, step, value, timestamp) of every row of a trial, over all its runs."""
        sql = "SELECT m.key, m.step, m.value, m.timestamp FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid "
        return sorted(self.query(sql + "WHERE t.key = 'trial_id' AND t.value = ?", trial_id))


def check_arrived(server: MlflowServer, folder: Path) -> None:
    """Every journal row of the trial is in MLflow once, with its time, in one run, and shipped.json says so."""
    trial_id = json.loads((folder / paths.TRIAL).read_bytes())["trial_id"]
    journal = files.read_lines(folder / paths.METRICS)
    wanted = sorted((row["metric"], row["step"], row["value"], milliseconds(row["timestamp"])) for row in journal)
    assert server.rows(trial_id) == wanted
    shipped = Shipped.model_validate_json((folder / paths.SHIPPED).read_bytes())
    assert server.run_ids(trial_id, "active") == [shipped.run_id]
    assert (shipped.rows, shipped.bytes) == (len(journal), (folder / paths.METRICS).stat().st_size)


Fault = Callable[[str, str, bytes], str]


def all_is_well(method: str, path: str, body: bytes) -> str:
    return "pass"


class FaultProxy:
    """Stands before a server. `fault(method, path, body)` says what becomes of a request:

    "pass"; a status such as "500", "404 json" or "403", which never reaches the server; "hang": no answer; "cut": the
    connection ends before, "lose": after the server has done what was asked.

    With `credentials` it refuses whoever does not send one of them as the Authorization header, and its answer repeats
    what was sent, as a careless one would. With `certificate`, a file with its key too, it speaks TLS.
    """

    def __init__(self, port: int, certificate: Path | None = None, credentials: tuple[str, ...] = ()) -> None:
        self.fault: Fault = all_is_well
        self.asked: list[str] = []  # "PUT /path what-became-of-it"
        self._over = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_all(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                what = proxy.fault(self.command, self.path, body)
                sent = self.headers.get("Authorization", "")
                if credentials and sent not in credentials:
                    what = "401"
                proxy.asked.append(f"{self.command} {self.path.partition('?')[0]} {what}")
                status, answer = 200, b"{}"
                if what in ("pass", "lose"):
                    status, answer = proxy.forward(port, self, body)
                elif what == "hang":
                    proxy._over.wait()
                elif what != "cut":
                    code, _, as_json = what.partition(" ")
                    status, answer = int(code), b"<html>an error of the proxy</html>"
                    if code == "401":
                        answer = f"no access with {sent}, that is {sent.partition(' ')[2]}".encode()
                    if as_json:
                        answer = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "it is not there"}'
                if what in ("cut", "lose", "hang"):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_PATCH = handle_all

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = self.url.replace("http:", "https:")
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def forward(port: int, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
        connection.request(request.command, request.path, body, headers | {"Accept-Encoding": "identity"})
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def recover(self) -> None:
        """Cut the requests that hang, and pass on all others from now on."""
        self.fault = all_is_well
        self._over.set()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

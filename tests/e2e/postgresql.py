"""A real PostgreSQL server in a folder of its own, which a test may stop, kill and start again."""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

USER, PASSWORD, DATABASE = "redsm5", "correct-horse-battery", "optuna"


def programs() -> Path | None:
    """The folder of the server's programs: from PATH, or where Debian puts them."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    return next((Path(p).parent for p in sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None)


MISSING = None if programs() else "no PostgreSQL server is installed (apt install postgresql)"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Server:
    """It listens on a free port of 127.0.0.1 and on a socket in its folder, and asks for a password on both.

    PostgreSQL refuses to run as root, who runs it as the user `postgres`.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))  # not below tmp_path, which only its owner may enter
        self.port = free_port()
        self._as: list[str] = []
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._do("initdb", "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-sync")
        self.start()
        with psycopg.connect(f"{self.url('postgres')}", password=PASSWORD, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self._do("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop it; "immediate" is as a crash."""
        self._do("pg_ctl", "stop", "-w", "-m", mode)

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def url(self, database: str = DATABASE) -> str:
        """Without the password, which comes from PGPASSWORD."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def _do(self, program: str, *arguments: str) -> None:
        folder = programs()
        assert folder is not None
        command = [*self._as, str(folder / program), "-D", str(self.folder / "data"), *arguments]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode == 0, done.stderr.decode()

"""The Hub and MLflow, as servers and files that are well, away, silent or damaged."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from redsm5.doctor import services
from tests.hub_server import Fault, HubServer
from tests.mlflow_server import FaultProxy, free_port

TOKEN = "hf_" + "abcdefgh" * 4


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    server.take_over(monkeypatch, tmp_path)
    yield server
    server.close()


def test_the_hub_is_asked_about_a_token_and_about_nothing_else(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert services.check_hub().detail == "no token"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = services.check_hub()
    assert (offline.state, "offline" in offline.detail, "a token is set" in offline.detail) == ("ok", True, True)
    assert not hub_server.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    refused = services.check_hub()
    assert (refused.state, refused.detail) == ("warn", "a token is set, and the Hub refuses it (401)")
    hub_server.tokens.add(TOKEN)
    assert services.check_hub().detail == "logged in as someone"
    assert set(hub_server.asked()) == {"GET /api/whoami-v2"}
    monkeypatch.setattr(services, "REQUEST_S", 0.3)
    hub_server.faults.append(Fault("whoami", hang=True))
    away = services.check_hub()
    assert (away.state, "does not answer" in away.detail) == ("warn", True)
    assert TOKEN not in f"{offline}{refused}{away}"


# ---------------------------------------------------------------------------------------------------------------------
# MLflow


def test_a_local_database_is_known_by_its_schema(tmp_path: Path) -> None:
    assert services.check_mlflow(tmp_path).state == "ok"
    database = tmp_path / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('451aebb31d03')")
    assert "schema 451aebb31d03" in services.check_mlflow(tmp_path).detail
    assert services.check_mlflow(tmp_path).state == "ok"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'fffffffffff1'")
    assert services.check_mlflow(tmp_path).state == "fail"
    database.write_bytes(b"no database" * 100)
    found = services.check_mlflow(tmp_path)
    assert found.state == "fail"
    assert "just sync" in found.remedy


def test_a_server_is_asked_for_its_version_and_one_that_hangs_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "REQUEST_S", 0.5)
    proxy = FaultProxy(free_port())
    try:
        for what, state in (("200", "ok"), ("401", "fail"), ("503", "warn"), ("hang", "warn"), ("cut", "warn")):
            proxy.fault = lambda *_, what=what: what
            assert services.check_mlflow(tmp_path, proxy.url).state == state, what
    finally:
        proxy.close()
    away = services.check_mlflow(tmp_path, f"http://me:s3cretpass@127.0.0.1:{free_port()}")
    assert away.state == "warn"
    assert "s3cretpass" not in away.detail


def test_the_address_is_that_of_the_studies(tmp_path: Path) -> None:
    study = tmp_path / "study_11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
    study.mkdir()
    for uri, words in (("https://u:[redacted]@host", "is not saved"), ("postgresql://db/x", "neither a server nor")):
        (study / "study.json").write_text(json.dumps({"config": {"study": {"tracking_uri": uri}}}))
        found = services.check_mlflow(tmp_path)
        assert found.state == "note"
        assert words in found.detail


def test_a_database_in_a_folder_that_moved_is_looked_for_where_the_folder_is(tmp_path: Path) -> None:
    study = tmp_path / "study_00000000-0000-4000-8000-000000000000"
    study.mkdir()
    config = {"experiments": "/before", "study": {"tracking_uri": "sqlite:////before/own.db"}}
    (study / "study.json").write_text(json.dumps({"config": config}))
    assert str(tmp_path / "own.db") in services.check_mlflow(tmp_path).detail

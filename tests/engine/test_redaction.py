"""No password of an address is left, whatever characters it has, and harmless text stays as it is, in no time."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from redsm5.engine.redaction import REDACTED, redact, redact_address, secret_variables

PASSWORDS = ("pa ss", "p\"a's", "a<b>c", "pa%20ss%40", "p@ss/w?x#y", "12 34", "8080/x", "ü ñ", "a, b; c) d]", "x" * 900)


# Where digits come first, that may be a port with words after it, in the middle of a text.
@pytest.mark.parametrize("password", [p for p in PASSWORDS if not p[0].isdigit()], ids=lambda p: p[:12])
@pytest.mark.parametrize("around", ["{}", "cannot open {}: refused", 'at "{}"', "({}), retried", "two\n{}\nlines"])
def test_a_password_goes_wherever_its_address_stands(password: str, around: str) -> None:
    got = redact(around.format(f"postgresql://u:{password}@host/db"))
    assert password not in got
    assert got == around.format(f"postgresql://u:{REDACTED}@host/db")


@given(st.text(min_size=1), st.text(alphabet="abc", min_size=1), st.sampled_from(["postgresql+psycopg", "https"]))
@example("pa ss\nword", "me", "postgresql")
@example("12 34", "me", "https")
def test_what_is_saved_of_an_address_depends_on_nothing_of_its_password(password: str, user: str, scheme: str) -> None:
    saved = redact_address(f"{scheme}://{user}:{password}@host.example:5432/db")
    assert saved == f"{scheme}://{user}:{REDACTED}@host.example:5432/db"


@pytest.mark.parametrize("password", [p for p in PASSWORDS if "@" not in p], ids=lambda p: p[:12])
def test_it_is_the_password_that_the_database_s_library_sees(password: str) -> None:
    url = f"postgresql://u:{password}@host/db"
    assert make_url(url).password
    assert str(make_url(url).password) not in redact_address(url)


@pytest.mark.parametrize(
    ("address", "saved"),
    [
        ("postgresql://u@host:5432/db", "postgresql://u@host:5432/db"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("http://127.0.0.1:5000/mlflow", "http://127.0.0.1:5000/mlflow"),
        ("https://t0ken@host/x", f"https://{REDACTED}@host/x"),
        ("postgresql://h/db?password=geheim&sslmode=on", f"postgresql://h/db?password={REDACTED}&sslmode=on"),
        ("databricks", "databricks"),
    ],
)
def test_the_rest_of_an_address_stays(address: str, saved: str) -> None:
    assert redact_address(address) == saved


def test_a_password_that_is_a_word_of_the_scheme_takes_nothing_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "postgres")
    assert redact_address("postgresql://u:postgres@h/db") == f"postgresql://u:{REDACTED}@h/db"


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000 does not answer; see http://127.0.0.1:5001/x",
        "the server at http://127.0.0.1:5000/api has no user named x",
        "postgresql://me@db:5432/optuna is away",
    ],
)
def test_ports_are_no_passwords(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "piece", ["://u:", "://u:p a", "://u:x@", ":// a:b", "://a@b:", "://u: x@y ", 'p"', "a b ", "://u:\n", "://1:1 "]
)
def test_a_hundred_kilobytes_take_no_time(piece: str) -> None:
    text = "http://u:" + piece * (100_000 // len(piece))
    for function in (redact, redact_address):
        start = time.perf_counter()
        function(text)
        assert time.perf_counter() - start < 2


def test_which_variables_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "PGPASSWORD", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "my_password", "PWD", "HF_HOME"):
        monkeypatch.setenv(name, f"value of {name}")
    monkeypatch.setenv("EMPTY_TOKEN", "")
    known = secret_variables()
    assert {"HF_TOKEN", "PGPASSWORD", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "my_password"} <= known.keys()
    assert not {"PWD", "OLDPWD", "HF_HOME", "EMPTY_TOKEN", "PATH", "HOME"} & known.keys()
    assert all(re.fullmatch(f"value of {name}", known[name]) for name in ("HF_TOKEN", "my_password"))

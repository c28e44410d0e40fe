"""The images' files hold what they promise; cheap, and so in `just test`."""

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "containers" / "Dockerfile").read_text()
DEFINITION = (ROOT / "containers" / "redsm5.def").read_text()


def last_stage() -> str:
    return DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


def section(name: str) -> str:
    match = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", DEFINITION, re.MULTILINE | re.DOTALL)
    assert match, f"redsm5.def has no %{name}"
    return match.group(1)


def test_no_token_enters_a_layer() -> None:
    for line in re.findall(r"^(?:ARG|ENV|COPY|ADD) .*", DOCKERFILE, re.MULTILINE):
        assert not re.search(r"token|passw|secret|pip\.conf|\.netrc|HF_TOKEN", line, re.IGNORECASE), line
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored  # what is not named does not even reach the build
    assert not {"!.git", "!experiments", "!data", "!.env"} & set(ignored)


def test_the_image_runs_as_nobody_in_particular() -> None:
    user = re.findall(r"^USER (\S+)", last_stage(), re.MULTILINE)
    assert user
    assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user[-1])
    assert "HEALTHCHECK" in last_stage()


def test_both_images_are_filled_and_started_by_the_same_scripts() -> None:
    for name in ("install", "entrypoint"):
        assert f"containers/{name}" in DOCKERFILE
        assert f"containers/{name}" in DEFINITION
        assert os.access(ROOT / "containers" / name, os.X_OK)
    assert "/redsm5/containers/entrypoint" in section("runscript")


def test_both_images_hold_the_same_files() -> None:
    in_definition = {Path(line.split()[0]).name for line in section("files").splitlines() if line.strip()}
    copied = " ".join(re.findall(r"^COPY --from=code (.*)", last_stage(), re.MULTILINE))
    in_docker = {Path(path).name for path in copied.split() if path.startswith("/redsm5/") and not path.endswith("/")}
    assert in_definition - {"README.md"} == in_docker
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert in_definition == kept


def test_the_definition_has_all_that_apptainer_shows_and_runs() -> None:
    for name in ("arguments", "post", "runscript", "test", "labels", "help"):
        assert section(name).strip()
    defaults = dict(line.strip().split("=", 1) for line in section("arguments").splitlines() if line.strip())
    assert set(re.findall(r"\{\{ (\w+) \}\}", DEFINITION)) == set(defaults)


def test_compose_and_the_dev_container_can_be_read() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == {"app", "mlflow"}
    assert all(service["read_only"] for service in services.values())
    json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())


def test_without_any_place_to_write_the_entry_point_says_so() -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
    command = [ROOT / "containers" / "entrypoint", "help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "--tmpfs /tmp" in done.stderr

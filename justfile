# All commands; `just` alone lists them. Arguments and exit codes are passed on unchanged.

set positional-arguments
set shell := ["sh", "-cu"]

# Absolute paths: in a container the commands run in the current folder, not in this one (containers/entrypoint).
python := quote(justfile_directory() / ".venv/bin/python")
redsm5 := quote(justfile_directory() / ".venv/bin/redsm5")
scripts := quote(justfile_directory() / "scripts")
extras := "[dev,postgresql,sample-model]"
docker := env("DOCKER", "docker")
parallel := "-n auto --maxprocesses 4 --dist worksteal"

[private]
default: help

# List the commands
help:
    @"{{ just_executable() }}" --justfile "{{ justfile() }}" --list --unsorted

# Make .venv from the lock; instant when it is up to date, and run by all other commands
[no-exit-message]
setup:
    #!/bin/sh
    # The stamp records what was installed, and where: a virtual environment cannot be moved. It is written last.
    set -eu
    unset PYTHONWARNINGS  # pip's own warnings must not become errors
    stamp="{{ sha256_file('constraints.txt') }} {{ sha256_file('pyproject.toml') }} $PWD"
    up_to_date() { [ -x {{ python }} ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; }
    refuse() { printf 'error: %s\n  %s\n' "$1" "$2" >&2; exit 1; }
    up_to_date && exit 0

    python3=${PYTHON:-python3}
    command -v "$python3" >/dev/null || refuse "$python3 is not installed" "Install Python 3.11 or newer, or set PYTHON."
    "$python3" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        refuse "$("$python3" -V 2>&1) is too old" "Install Python 3.11 or newer, or set PYTHON=/path/to/a/newer/python3."
    "$python3" -c 'import ensurepip, venv' 2>/dev/null ||
        refuse "$python3 cannot make virtual environments" "Install its venv module (Debian and Ubuntu: apt install python3-venv)."

    # Several workers may start at once in a fresh checkout: one installs, the others wait for it.
    exec 9<justfile
    if command -v flock >/dev/null; then flock 9 || true; fi
    up_to_date && exit 0
    echo "Installing into .venv; the first time takes some minutes." >&2
    rm -f .venv/stamp
    {{ python }} -c 'import pip, sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null &&
        grep -qsF "$PWD/.venv" .venv/bin/activate || "$python3" -m venv --clear .venv
    {{ python }} -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.{{ extras }}' ||
        refuse "the installation failed, see above" "Fix the cause (network? disk?) and run the command again: it continues from here."
    printf '%s\n' "$stamp" >.venv/stamp

# Run or resume a study: just hpo study.name=night study.trials=100 model=mental_bert data=csv data.dir=DIR
[no-exit-message]
hpo *overrides: setup
    @exec {{ redsm5 }} hpo "$@"

# Train one trial; trial.id=<uuid> resumes that one
[no-exit-message]
train *overrides: setup
    @exec {{ redsm5 }} train "$@"

# Evaluate a trial's best checkpoints again: just evaluate ID [--split test]
[no-exit-message]
evaluate *flags: setup
    @exec {{ redsm5 }} evaluate "$@"

# Train a trial again from its snapshot and compare every metric: just reproduce ID
[no-exit-message]
reproduce *flags: setup
    @exec {{ redsm5 }} reproduce "$@"

# Train a trial again whose weights are gone, and put them back: just rebuild ID [--anyway]
[no-exit-message]
rebuild *flags: setup
    @exec {{ redsm5 }} rebuild "$@"

# Compare two trials on the same test posts: just compare ID ID
[no-exit-message]
compare *flags: setup
    @exec {{ redsm5 }} compare "$@"

# Write a trial's model as a folder that stands alone, with a model card: just export ID --to DIR [--mlflow]
[no-exit-message]
export *flags: setup
    @exec {{ redsm5 }} export "$@"

# Predict symptoms and evidence of new posts: just predict --model DIR|ID --posts FILE.csv|- --to FILE.csv|.jsonl|.parquet|-
[no-exit-message]
predict *flags: setup
    @exec {{ redsm5 }} predict "$@"

# Repeat every decision of a search with study.pruner=asha: just replay [STUDY]
[no-exit-message]
replay *flags: setup
    @exec {{ redsm5 }} replay "$@"

# Train the baseline, TF-IDF with linear SVMs, on the same splits, with the same report
[no-exit-message]
baseline *overrides: setup
    @exec {{ redsm5 }} baseline "$@"

# Tabulate F1 by the split of ReDSM5's authors and by ours: just protocol data=csv data.dir=DIR [study=NAME]
[no-exit-message]
protocol *overrides: setup
    @exec {{ redsm5 }} protocol "$@"

# List the studies: just studies [--format table|json|csv]
[no-exit-message]
studies *flags: setup
    @exec {{ redsm5 }} studies "$@"

# Summarize a study as JSON and as a page: just summary [NAME|UUID]; default: the newest
[no-exit-message]
summary *flags: setup
    @exec {{ redsm5 }} summary "$@"

# List a trial's checkpoints, kept or deleted, and why: just checkpoints ID [--format table|json|csv]
[no-exit-message]
checkpoints *flags: setup
    @exec {{ redsm5 }} checkpoints "$@"

# Show reclaimable disk space: just cleanup [--execute [--evict]]; nothing is deleted without --execute
[no-exit-message]
cleanup *flags: setup
    @exec {{ redsm5 }} cleanup "$@"

# List the configuration's keys, with values and defaults: just keys [WORD] [--format table|json|csv]
[no-exit-message]
keys *words: setup
    @exec {{ redsm5 }} keys "$@"

# Print the completion of commands, keys and ids for a shell: eval "$(just completion bash)"; zsh, fish
[no-exit-message]
completion *shell: setup
    @exec {{ redsm5 }} completion "$@"

# Ship waiting metrics to MLflow
[no-exit-message]
sync *flags: setup
    @exec {{ redsm5 }} sync "$@"

# Check that what a study needs works here: just doctor [--format table|json|csv] [--experiments DIR]; runs without setup, too
[no-exit-message]
doctor *flags:
    #!/bin/sh
    # does not depend on `setup`, nor on what it installs: they may be what is broken
    [ -x {{ python }} ] && exec {{ python }} {{ scripts }}/doctor.py "$@"
    exec "${PYTHON:-python3}" scripts/doctor.py "$@"

# Unpack a small pretrained encoder, for model=minilm: just sample-model [DIR]
[no-exit-message]
sample-model *flags: setup
    @exec {{ redsm5 }} sample-model "$@"

# Monitor and control the studies in the terminal
[no-exit-message]
tui *flags: setup
    @exec {{ redsm5 }} tui "$@"

# Open MLflow's own UI on localhost
[no-exit-message]
mlflow *flags: setup
    @exec {{ redsm5 }} mlflow "$@"

# Run the tests; arguments go to pytest
[no-exit-message]
test *args: setup
    @exec {{ python }} -m pytest {{ parallel }} -m "not long and not container and not cluster" "$@"

# Run the tests, including the long ones
[no-exit-message]
test-long *args: setup
    @exec {{ python }} -m pytest {{ parallel }} -m "not container and not cluster" "$@"

# Build the images and run studies in them (for requirements see tests/container)
[no-exit-message]
test-container *args: setup
    @exec {{ python }} -m pytest -m container tests/container "$@"

# Run the job files of containers/slurm on a real Slurm (for requirements see tests/slurm/conftest.py)
[no-exit-message]
test-slurm *args: setup
    @exec {{ python }} -m pytest -m cluster tests/slurm "$@"

# Kill a study with SIGKILL repeatedly, and compare its results with an uninterrupted study
[no-exit-message]
demo-crash *flags: setup
    @exec {{ redsm5 }} demo-crash "$@"

# Build the image for Docker: just container-build [--build-arg DEVICE=cuda]; DOCKER=podman uses Podman
[no-exit-message]
container-build *flags:
    @exec {{ docker }} build -f containers/Dockerfile -t redsm5 --build-arg "REVISION=$(git describe --always --dirty '--exclude=*')" "$@" .

# Run a command in the image, as you: just container-run hpo study.trials=50; REDSM5_DATA=DIR is /data, RUN_FLAGS="--gpus all"
[no-exit-message]
[script("sh", "-eu")]
container-run *command:
    experiments=$(realpath -m "${REDSM5_EXPERIMENTS:-experiments}") cache=${HF_HOME:-$HOME/.cache/huggingface}
    mkdir -p "$cache"
    (umask 077; mkdir -p "$experiments")
    set -- redsm5 "$@"
    [ -z "${REDSM5_DATA:-}" ] || set -- -v "$(realpath "$REDSM5_DATA"):/data:ro" "$@"
    [ ! -t 0 ] || set -- -it "$@"
    exec {{ docker }} run --rm --init --read-only --tmpfs /tmp --shm-size 1g --user "$(id -u):$(id -g)" -e HF_TOKEN \
        -v "$experiments:/experiments" -v "$cache:/cache/huggingface" ${RUN_FLAGS:-} "$@"

# Build the image for Apptainer: just apptainer-build [--build-arg device=cuda]
[no-exit-message]
apptainer-build *flags:
    @exec apptainer build --build-arg "revision=$(git describe --always --dirty '--exclude=*')" "$@" redsm5.sif containers/redsm5.def

# Run a command in the image: just apptainer-run hpo study.trials=50; REDSM5_DATA=DIR is /data, RUN_FLAGS="--bind DIR"
[no-exit-message]
[script("sh", "-eu")]
apptainer-run *command:
    set -- redsm5.sif "$@"
    [ -z "${REDSM5_DATA:-}" ] || set -- --bind "$(realpath "$REDSM5_DATA"):/data:ro" "$@"
    [ ! -e /dev/nvidiactl ] || set -- --nv "$@"
    exec apptainer run ${RUN_FLAGS:-} "$@"

# Run all benchmarks and write a page with the results; or run one: just bench checkpoint
[no-exit-message]
[script("sh", "-eu")]
bench *words: setup
    what=page
    case "${1:--}" in -*) ;; *) what=$1; shift ;; esac
    exec {{ python }} {{ scripts }}/bench/"$what.py" "$@"

# Check style, formatting and the direction of imports
lint: setup
    .venv/bin/ruff check .
    .venv/bin/black --check --quiet --diff .
    .venv/bin/lint-imports --no-logo

# Sort imports, fix what ruff can fix, format
format: setup
    .venv/bin/ruff check --fix .
    .venv/bin/black .

# Check the types
typecheck: setup
    .venv/bin/mypy

# Write redsm5/schemas/ from the models in redsm5/engine/records.py and reports.py; --check only compares
[no-exit-message]
schemas *flags: setup
    @exec {{ python }} {{ scripts }}/schemas.py "$@"

# Write docs/reference.md from the configuration's classes; --check only compares
[no-exit-message]
reference *flags: setup
    @exec {{ python }} {{ scripts }}/reference.py "$@"

# List every user-visible string with its place: just strings [--docstrings modules|all] [WORD ...]
[no-exit-message]
strings *flags: setup
    @exec {{ python }} {{ scripts }}/strings.py "$@"

# Everything that CI runs: lint, typecheck, schemas, reference, tests with coverage
check: lint typecheck (schemas "--check") (reference "--check")
    {{ python }} -m pytest {{ parallel }} -m "not long and not container and not cluster" --cov --cov-report=term

# Update the lock after a change of dependencies; needs poetry and poetry-plugin-export
lock:
    poetry lock
    # torch pins its CUDA libraries itself; the first marker pattern only repeats requires-python
    poetry export --all-extras --without-hashes \
        | sed -E -e '/^(-|nvidia-[^m]|cuda-|triton)/d' -e 's/ ; python_version >= "3.11" and python_version < "4.0"( and )?/ ; /' \
            -e 's/ ; $//' -e 's/^([^=]+)\[[^]]*\]/\1/' >constraints.txt

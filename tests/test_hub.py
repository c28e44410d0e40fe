"""Files of the Hub: what is asked for, how often, what a person is told, and that nothing half is taken for whole."""

import csv
import io
import json
import logging
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from huggingface_hub import constants, file_download, hf_hub_download
from transformers import BertConfig, BertModel

from redsm5 import hub
from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import build_tokenizer
from redsm5.engine.errors import HubAccessError, HubError, HubUnavailableError, InputError
from redsm5.hub import tries
from redsm5.model.encoder import build_encoder
from redsm5.sections import DataConfig, ModelConfig
from tests.hub_server import Fault, HubServer

REDSM5, BERT = "irlab-udc/redsm5", "lab/bert"
TOKEN = "hf_aSecretThatIsNowhere"
# What is asked for to get the posts, in this order; the last in the other host's store.
REVISION, TREE, HEAD, STORE = "GET /api/.*/revision/", "GET /api/.*/tree/", "HEAD .*posts.csv", "GET /store/.*posts.csv"


@pytest.fixture(scope="module")
def csvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files of 60 posts."""
    folder = tmp_path_factory.mktemp("csvs")
    write_csvs(folder, 60, 1)
    return folder


@pytest.fixture
def server(csvs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with the gated data set, for whom it is open; this process has logged in there and has an empty cache."""
    server = HubServer()
    server.take_over(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))  # before it asks for the rest
    server.add("dataset", REDSM5, csv_files(csvs) | {"README.md": b"# ReDSM5"}, gated=True)
    server.tokens, server.granted = {TOKEN}, {TOKEN}
    log_in(TOKEN)
    yield server
    server.close()
    forget()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited between tries."""
    waits: list[float] = []
    monkeypatch.setattr(tries, "sleep", waits.append)
    return waits


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small encoder, as both kinds of weights, with its tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = build_tokenizer("tiny", load_splits(SYNTHETIC).train)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes))
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def csv_files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in hub.DATA_FILES}


def log_in(token: str | None) -> None:
    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir(exist_ok=True)
    path.write_text(token or "")


def forget() -> None:
    """As a process does that has just started."""
    hub._fetch.cache_clear()


DATA, SYNTHETIC = compose(["data=hub", f"data.repo_id={REDSM5}"]).data, compose(["data.posts=60"]).data
MODEL = compose(["model=bert_base", f"model.model_id={BERT}", "model.max_length=64"]).model


def at(revision: str) -> DataConfig:
    """The data set at this revision."""
    return DATA.model_copy(update={"revision": revision})


def model(model_id: str) -> ModelConfig:
    return MODEL.model_copy(update={"model_id": model_id})


def without(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


# ---------------------------------------------------------------------------------------------------------------------
# the cache comes first


def test_the_data_are_those_of_a_folder_with_the_same_files(server: HubServer, csvs: Path) -> None:
    from_folder = load_splits(compose(["data=csv", f"data.dir={csvs}"]).data)
    assert load_splits(DATA) == from_folder


def test_what_is_in_the_cache_is_used_without_a_request(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hub.data_files(DATA)
    assert len(server.asked("GET /store/")) == 2
    assert not [r for r in server.requests if r.host == "localhost" and r.token], "another host got the token"
    assert sorted(path.name for path in first.folder.iterdir()) == sorted(hub.DATA_FILES), "more than was needed"
    server.requests.clear()
    server.tokens.clear()
    for revision in ("main", first.commit):
        forget()
        assert hub.data_files(at(revision or "")) == first
        hub.check_access(at(revision or ""), [], None)
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.data_files(DATA) == first
    assert server.requests == []


def test_what_another_program_brought_into_the_cache_is_used_if_it_is_whole(server: HubServer) -> None:
    for count, name in enumerate(hub.DATA_FILES, 1):
        hf_hub_download(REDSM5, name, repo_type="dataset")
        server.requests.clear()
        hub.data_files(DATA)
        assert bool(server.requests) == (count == 1)
        forget()
        if count == 1:
            shutil.rmtree(constants.HF_HUB_CACHE)
            hf_hub_download(REDSM5, name, repo_type="dataset")


def test_a_commit_pins_the_revision_and_a_branch_stays_within_a_process(server: HubServer, tmp_path: Path) -> None:
    old = server.repos["dataset", REDSM5].refs["main"]
    assert hub.commits(DATA, model("tiny")) == {"data": old}
    write_csvs(tmp_path, 70, 2)
    new = server.add("dataset", REDSM5, csv_files(tmp_path))
    shutil.rmtree(constants.HF_HUB_CACHE)
    assert hub.data_files(DATA).commit == old
    forget()
    assert hub.data_files(DATA).commit == new
    assert hub.data_files(at(old)).commit == old
    assert load_splits(at(old)).counts["posts"] == 60


# ---------------------------------------------------------------------------------------------------------------------
# what is refused


def no_token(server: HubServer) -> None:
    log_in(None)


def expired_token(server: HubServer) -> None:
    server.tokens.clear()


def terms_not_accepted(server: HubServer) -> None:
    server.granted.clear()


def weak_token(server: HubServer) -> None:
    server.faults.append(Fault(HEAD, status=403, headers={"X-Error-Message": "no permission"}))


def no_such_repository(server: HubServer) -> None:
    server.repos.clear()


def no_such_revision(server: HubServer) -> None:
    server.repos["dataset", REDSM5].refs.clear()


def listed_but_not_there(server: HubServer) -> None:
    server.faults.append(Fault(HEAD, status=404, headers={"X-Error-Code": "EntryNotFound"}))


def no_such_file(server: HubServer) -> None:
    del next(iter(server.repos["dataset", REDSM5].commits.values()))["redsm5_annotations.csv"]


@pytest.mark.parametrize(
    ("trouble", "kind", "words", "remedy"),
    [
        (no_token, HubAccessError, "gated, and there is no token (1 try, last status 401)", "hf auth login"),
        (expired_token, HubAccessError, "expired or been revoked (1 try, last status 401)", "settings/tokens"),
        (terms_not_accepted, HubAccessError, "account has no access (1 try, last status 403)", "accept its terms on"),
        (weak_token, HubAccessError, "may not read it (1 try, last status 403)", "settings/tokens"),
        (no_such_repository, HubError, "no such repository", "Check data.repo_id"),
        (no_such_revision, HubError, "no such revision (1 try, last status 404)", "Set data.revision"),
        (listed_but_not_there, HubError, "is missing (1 try, last status 404)", "another revision"),
        (no_such_file, HubError, "has no redsm5_annotations.csv", "files are listed on"),
    ],
)
def test_what_is_refused_is_asked_for_once_and_the_message_says_why_and_what_to_do(
    server: HubServer,
    waits: list[float],
    trouble: Callable[[HubServer], None],
    kind: type[HubError],
    words: str,
    remedy: str,
) -> None:
    trouble(server)
    with pytest.raises(HubError) as caught:
        load_splits(DATA)
    error = caught.value
    assert (type(error), error.exit_code, waits) == (kind, 1, [])
    assert words in error.what
    assert f"dataset {REDSM5} at revision main" in error.what
    assert remedy in (error.remedy or "")
    assert error.where == "data.repo_id"


def test_a_token_of_the_environment_is_named_since_a_login_would_not_help(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(HubAccessError, match="HF_TOKEN takes precedence over a login"):
        hub.data_files(DATA)


def test_offline_nothing_is_asked_for_and_the_message_says_so(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for ask in (lambda: hub.data_files(DATA), lambda: hub.check_access(DATA, [], None)):
        with pytest.raises(HubError, match=r"not in the cache.*HF_HUB_OFFLINE") as caught:
            ask()
        assert f"hf download {REDSM5} --repo-type dataset --revision main" in (caught.value.remedy or "")
    assert server.requests == []


# ---------------------------------------------------------------------------------------------------------------------
# what may pass


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(REVISION, status=429), "too many requests (5 tries, last status 429)"),
        (Fault(REVISION, status=500), "server error (5 tries, last status 500)"),
        (Fault(TREE, status=503), "server error (5 tries, last status 503)"),
        (Fault(HEAD, status=502), "server error (5 tries, last status 502)"),
        (Fault(STORE, status=504), "server error (5 tries, last status 504)"),
        (Fault(STORE, status=403), "server error (5 tries, last status 403)"),  # its signed address is too old
        (Fault(REVISION, hang=True), "timeout (5 tries)"),
        (Fault(TREE, hang=True), "timeout (5 tries)"),
        (Fault(HEAD, hang=True), "timeout (5 tries)"),
        (Fault(STORE, hang=True), "timeout (5 tries)"),
        (Fault(TREE, cut=9), "the connection was lost (5 tries)"),
        (Fault(STORE, cut=0), "the connection was lost (5 tries)"),
        (Fault(STORE, cut=2000), "the connection was lost (5 tries)"),
        (Fault(REVISION, status=200), "incomplete, or not from the Hub (5 tries)"),
    ],
    ids=lambda value: str(value) if isinstance(value, Fault) else "",
)
def test_what_may_pass_is_tried_five_times_with_growing_waits_and_then_works(
    server: HubServer, waits: list[float], monkeypatch: pytest.MonkeyPatch, fault: Fault, words: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.05)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    server.faults.append(fault)
    with pytest.raises(HubUnavailableError) as caught:
        hub.data_files(DATA)
    assert caught.value.exit_code == 1
    assert words in caught.value.what
    assert "Run the same command again later" in (caught.value.remedy or "")
    assert waits == [1, 2, 4, 8]
    assert len(server.asked(fault.pattern)) == 5, "huggingface_hub repeats requests by itself"
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*posts.csv")), "a part was taken for the whole"
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))

    fault.times = 4
    waits.clear()
    assert load_splits(DATA).counts["posts"] == 60
    assert waits == [1, 2, 4, 8]


def test_nobody_there_is_told_so(server: HubServer, waits: list[float]) -> None:
    server.close()
    with pytest.raises(HubUnavailableError, match="no connection to http://127"):
        hub.data_files(DATA)
    assert waits == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "86400"}, tries.RETRY_AFTER_MAX_S),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
    ],
)
def test_the_wait_that_the_hub_asks_for_is_kept_up_to_a_bound(
    server: HubServer, waits: list[float], headers: dict[str, str], wait: float
) -> None:
    server.faults.append(Fault("GET /api/", times=1, status=429, headers=headers))
    hub.data_files(DATA)
    assert waits == [wait]


def test_a_long_file_goes_on_where_it_was_cut(
    server: HubServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.faults.append(Fault(STORE, cut=2500, times=8))
    assert load_splits(DATA).counts["posts"] == 60
    assert waits == []
    assert [r.range for r in server.requests if r.range] == [f"bytes={2000 * i}-" for i in range(1, 9)]


def test_a_file_that_begins_anew_after_each_cut_is_given_up(
    server: HubServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.serves_parts = False
    server.faults.append(Fault(STORE, cut=2500))
    with pytest.raises(HubUnavailableError, match="the connection was lost"):
        hub.data_files(DATA)
    assert len(server.asked(STORE)) == 10  # of each try, the first request and the one for the rest


def test_no_token_and_no_signed_address_is_in_a_message_or_a_log(
    server: HubServer, waits: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)  # as under our own log
    server.serves_parts = False
    server.faults += [Fault("GET /api/", times=1, status=500), Fault(STORE, cut=2500)]
    with pytest.raises(HubUnavailableError) as caught:
        hub.data_files(DATA)
    assert len(caplog.messages) == 4
    assert f"dataset {REDSM5} at revision main: status 500 (attempt 1 of 5); retrying in 1 s" in caplog.messages
    for secret in (TOKEN, "Signature"):
        assert secret not in caught.value.message() + caplog.text


# ---------------------------------------------------------------------------------------------------------------------
# models


def test_safetensors_are_preferred_and_nothing_else_is_downloaded(server: HubServer, bert: dict[str, bytes]) -> None:
    extra = {"onnx/model.safetensors": b"x" * 4000, "flax_model.msgpack": b"x" * 4000}
    commit = server.add("model", BERT, bert | extra)
    files = hub.model_files(BERT)
    assert files.commit == commit
    assert {path.name for path in files.folder.iterdir()} == bert.keys() - {"pytorch_model.bin"}
    assert hub.commits(SYNTHETIC, MODEL) == {"model": commit}
    server.requests.clear()
    encoder = build_encoder(MODEL, vocab_size=1)
    assert len(build_tokenizer(BERT, [])) == encoder.config.vocab_size
    assert server.requests == []


def test_a_bin_alone_is_loaded_as_tensors_with_a_warning(
    server: HubServer, bert: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    server.add("model", "lab/safe", bert)
    server.add("model", BERT, without(bert, "model.safetensors"))
    safe = build_encoder(model("lab/safe"), vocab_size=1).state_dict()
    assert not caplog.messages
    loaded = build_encoder(MODEL, vocab_size=1).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in safe.items())
    assert [m for m in caplog.messages if "no safetensors" in m and "weights_only" in m]
    forget()
    server.requests.clear()
    hub.model_files(BERT)
    assert server.requests == []


def test_a_bin_that_holds_code_is_refused_and_does_not_run(
    server: HubServer, bert: dict[str, bytes], tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (tmp_path / "it-ran",)

    old = {key: value for key, value in json.loads(bert["config.json"]).items() if key != "dtype"}
    files = without(bert, "model.safetensors") | {"config.json": json.dumps(old).encode()}
    server.add("model", BERT, files | {"pytorch_model.bin": pickle.dumps({"weight": Evil()}, protocol=2)})
    with pytest.raises(InputError, match="holds more than tensors"):
        build_encoder(MODEL, vocab_size=1)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["config.json"], "has no config.json"),
        (["tokenizer.json"], "has no tokenizer"),
        (["model.safetensors", "pytorch_model.bin"], "has no model.safetensors and no pytorch_model.bin"),
    ],
)
def test_a_repository_that_is_no_model_is_refused(
    server: HubServer, bert: dict[str, bytes], missing: list[str], words: str
) -> None:
    commit = server.add("model", BERT, without(bert, *missing))
    with pytest.raises(HubError, match=f"model lab/bert at revision main .commit {commit}. {words}"):
        hub.model_files(BERT)


def test_sharded_weights_are_whole_with_all_their_shards(server: HubServer, bert: dict[str, bytes]) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": b"x" * 4000 * i for i in (1, 2)}
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    rest = without(bert, "model.safetensors", "pytorch_model.bin")
    server.add("model", BERT, rest | shards | {"model.safetensors.index.json": index.encode()})
    folder = hub.model_files(BERT).folder
    assert all((folder / name).is_file() for name in shards)
    forget()
    (folder / "model-00002-of-00002.safetensors").unlink()
    server.requests.clear()
    hub.model_files(BERT)
    assert len(server.asked("HEAD")) == 1


def test_a_folder_and_tiny_never_touch_the_hub(
    server: HubServer, bert: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab" / "bert").mkdir(parents=True)  # by the name that a model of the Hub might have
    for name, data in bert.items():
        (tmp_path / BERT / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    assert hub.model_files(BERT) == (tmp_path / BERT, None)
    hub.check_access(SYNTHETIC, [BERT, "tiny"], None)
    assert hub.commits(SYNTHETIC, MODEL) == {}
    build_encoder(MODEL, vocab_size=1)
    build_tokenizer(BERT, [])
    build_encoder(model("tiny"), vocab_size=9)
    assert server.requests == []


def test_a_folder_that_is_not_there_is_no_name_of_the_hub(server: HubServer, tmp_path: Path) -> None:
    for name in (str(tmp_path / "gone"), "../gone", "a b/c"):
        with pytest.raises(InputError, match="not a valid model name of the Hub"):
            hub.model_files(name)
    assert server.requests == []


# ---------------------------------------------------------------------------------------------------------------------
# access, without a download


def test_access_is_seen_without_a_download(server: HubServer, bert: dict[str, bytes]) -> None:
    server.add("model", BERT, bert, gated=True)
    hub.check_access(DATA, [BERT, "tiny"], None)
    assert server.asked() == [
        f"HEAD /{BERT}/resolve/main/config.json",
        f"HEAD /datasets/{REDSM5}/resolve/main/redsm5_posts.csv",
    ]
    server.granted.clear()
    with pytest.raises(HubAccessError, match="model lab/bert at revision main: it is gated"):
        hub.check_access(DATA, [BERT], None)
    with pytest.raises(HubError, match="no such revision"):
        hub.check_access(DATA, [BERT], "v2")


# ---------------------------------------------------------------------------------------------------------------------
# tables in other forms than CSV


def tables(csvs: Path, form: str) -> dict[str, bytes]:
    """The two CSV files as another form that a data set's repository may have."""
    files = {"README.md": b"# ReDSM5"}
    for name in hub.DATA_FILES:
        with (csvs / name).open(newline="") as file:
            table = Dataset.from_list(list(csv.DictReader(file)))
        stem = Path(name).stem
        if form == "shards":
            for i in range(3):
                part = io.BytesIO()
                table.shard(3, i).to_parquet(part)
                files[f"{stem.removeprefix('redsm5_')}/train-{i:05}-of-00003.parquet"] = part.getvalue()
        else:
            whole = io.BytesIO()
            table.to_parquet(whole) if form == "parquet" else table.to_json(whole)
            files[f"{stem}.{form}"] = whole.getvalue()
    return files


FORMS = {
    "parquet": "redsm5_annotations.parquet",
    "jsonl": "redsm5_annotations.jsonl",
    "shards": "annotations/.*parquet",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_repository_may_hold_the_tables_in_another_form(
    server: HubServer, csvs: Path, form: str, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from_folder = load_splits(compose(["data=csv", f"data.dir={csvs}"]).data)
    server.repos.clear()
    server.add("dataset", REDSM5, tables(csvs, form), gated=True)
    hub.check_access(DATA, [], None)
    assert server.asked("GET /store/") == []

    server.faults.append(Fault(f"(GET|HEAD) .*{FORMS[form]}"))  # the other table arrives, and this one never
    server.faults[0].status = 503
    with pytest.raises(HubUnavailableError, match="5 tries, last status 503"):
        load_splits(DATA)
    assert waits == [1, 2, 4, 8]
    server.faults.clear()
    assert load_splits(DATA) == from_folder
    server.requests.clear()
    server.tokens.clear()
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_splits(DATA) == from_folder
    assert server.requests == []


def test_a_repository_without_access_or_tables_is_refused_in_whatever_form(server: HubServer, csvs: Path) -> None:
    server.repos.clear()
    server.add("dataset", REDSM5, tables(csvs, "parquet"), gated=True)
    server.granted.clear()
    for ask in (lambda: load_splits(DATA), lambda: hub.check_access(DATA, [], None)):
        with pytest.raises(HubAccessError, match=r"account has no access .1 try, last status 403"):
            ask()
    server.granted = {TOKEN}
    server.repos.clear()
    server.add("dataset", REDSM5, {"README.md": b"# ReDSM5", "other.parquet": b""}, gated=True)
    with pytest.raises(HubError, match=r"has no redsm5_posts\.csv"):
        load_splits(DATA)
    with pytest.raises(HubError, match=r"a required file is missing .1 try, last status 404"):
        hub.check_access(DATA, [], None)


def test_a_part_that_is_missing_in_the_cache_is_asked_for(server: HubServer, csvs: Path) -> None:
    server.repos.clear()
    server.add("dataset", REDSM5, tables(csvs, "shards"), gated=True)
    folder = hub.data_files(DATA).folder
    (folder / "posts" / "train-00001-of-00003.parquet").unlink()
    forget()
    server.requests.clear()
    assert load_splits(DATA).counts["posts"] == 60
    assert server.asked("train-00001-of-00003"), "two parts of three are no table"

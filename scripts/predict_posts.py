"""Predict symptoms and evidence of new posts: `just predict --model DIR|ID --posts FILE.csv|- --to FILE|-`.

The model is a folder that `just export` wrote, or a trial's. The posts' file has the columns post_id and text, and may
be larger than memory. The predictions (.csv, .jsonl or .parquet) are a row for each post, in order. An interrupted run
is resumed by the same command; its rows are in FILE.partial until all are there.
"""

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from structlog.typing import FilteringBoundLogger

from redsm5.data.read import stream_posts
from redsm5.engine import environment, files
from redsm5.engine.errors import InputError, Interrupted, exit_with_message
from redsm5.engine.installed import command, typed
from redsm5.engine.study.launch import note_ignored
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.terminal import Parser, show
from redsm5.engine.tracking.logs import open_logs
from redsm5.evaluation.outputs import WRITERS, Partial, Row, chunks_of, format_of, row_of, skip

if TYPE_CHECKING:
    from redsm5.evaluation.trained import Model

PIPE = "-"
NAMED = 20  # malformed rows that are named, each with its line
Tell = Callable[[int], object]  # called with the number of posts that are done


def main() -> int:
    parser = Parser(prog="just predict", description=__doc__)
    parser.add_argument(
        "--model",
        required=True,
        metavar="DIR|ID",
        help=typed(
            "a folder that `just export` wrote, or a trial; winner:STUDY averages the repeats that confirmed it"
        ),
    )
    parser.add_argument("--posts", required=True, metavar="FILE", help="a CSV file; -: standard input")
    parser.add_argument(
        "--to", required=True, metavar="FILE", help="a new .csv, .jsonl or .parquet; -: standard output"
    )
    parser.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="of standard output")
    parser.add_argument("--text", action="store_true", help="with the text of the evidence spans")
    parser.add_argument(
        "--on-error", choices=("refuse", "skip"), default="refuse", help="what to do with a malformed row"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:1; default: the GPU, if there is one")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    arguments = parser.parse_args()
    files.make_private()
    to, form = Path(arguments.to), arguments.format
    if arguments.to != PIPE:
        form = format_of(to)
        if not to.absolute().parent.is_dir():
            raise InputError("there is no such folder", where=f"--to {to}", remedy="Create it, or name another one.")
    log = open_logs(None)
    note_ignored(log)
    environment.start_over()
    stop = StopRequest()
    with opened(arguments.posts) as source:
        # Imported here, since these imports take seconds and most errors are reported before.
        from redsm5.evaluation.stored import folders_of
        from redsm5.evaluation.trained import load

        folders, left_out = folders_of(arguments.experiments, arguments.model)
        if left_out:
            log.warning("repeats whose weights were deleted are left out", repeats=len(left_out))
        if len(folders) > 1:
            log.info("averaging the predictions of confirmed repeats", repeats=len(folders))
        model = load(*folders, device=arguments.device)
        posts = valid_posts(source, Path(arguments.posts), arguments.on_error, log)
        with progress(source) as tell:
            if arguments.to == PIPE:
                predict_to_pipe(model, posts, form, tell, stop, with_text=arguments.text)
            else:
                predict_to_file(model, posts, to, form, tell, stop, with_text=arguments.text)
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# the posts


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The posts' file, or standard input.

    Raises:
        InputError: there is no such file.
    """
    if name == PIPE:
        yield sys.stdin.buffer
        return
    if not Path(name).exists():
        raise InputError("there is no such file", where=f"--posts {name}", remedy="Name the posts' file.")
    with Path(name).open("rb") as file:
        yield file


def valid_posts(source: BinaryIO, path: Path, on_error: str, log: FilteringBoundLogger) -> Iterator[tuple[str, str]]:
    """The (post_id, text) of each row; malformed ones are refused, or named and skipped.

    Raises:
        InputError: a row is malformed and is not to be skipped, or the file is no CSV file.
    """
    skipped = 0
    for post in stream_posts(source, Path("standard input") if str(path) == PIPE else path):
        if not isinstance(post, InputError):
            yield post
        elif on_error == "refuse":
            raise InputError(
                post.what, where=post.where, remedy=f"{post.remedy} Or leave such rows out: --on-error skip"
            )
        else:
            skipped += 1
            if skipped <= NAMED:
                log.warning(f"row skipped: {post.what}", place=post.where)
    if skipped > NAMED:
        log.warning("more rows were skipped", rows=skipped - NAMED)


@contextmanager
def progress(source: BinaryIO) -> Iterator[Tell]:
    """A bar on a terminal, which shows how much of the file is read; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    found = os.fstat(source.fileno())
    total = found.st_size if stat.S_ISREG(found.st_mode) else None
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task("posts", total=total)

        def tell(done: int) -> None:
            bar.update(task, description=f"{done} posts", completed=source.tell() if total else None)

        yield tell


# ---------------------------------------------------------------------------------------------------------------------
# the predictions


def predicted(
    model: "Model", chunk: list[tuple[str, str]], check: Callable[[], object], *, with_text: bool
) -> list[Row]:
    predictions = model.predict_chunk([text for _, text in chunk], check)
    pairs = zip(chunk, predictions, strict=True)
    return [row_of(post_id, text, prediction, with_text=with_text) for (post_id, text), prediction in pairs]


def predict_to_file(
    model: "Model",
    posts: Iterator[tuple[str, str]],
    to: Path,
    form: str,
    tell: Tell,
    stop: StopRequest,
    *,
    with_text: bool,
) -> None:
    """Predict all posts into a file; what `to.partial` has of them is not predicted again.

    Raises:
        Interrupted: a signal asked to stop; all whole chunks are saved.
        InputError: the file exists, or `to.partial` is of another model or other posts.
    """
    with Partial(to, model.identity, with_text=with_text) as done:

        def check() -> None:
            if stop.requested:
                saved = f"{done.done} posts are saved in {done.path}" if done.done else "no post was saved yet"
                raise Interrupted(saved, remedy=f"`{command('predict', *sys.argv[1:])}` continues.")

        if not done.complete:
            skip(done, posts)
            tell(done.done)
            for chunk in chunks_of(posts):
                done.append(predicted(model, chunk, check, with_text=with_text))
                tell(done.done)
        done.finish(form)


def predict_to_pipe(
    model: "Model", posts: Iterator[tuple[str, str]], form: str, tell: Tell, stop: StopRequest, *, with_text: bool
) -> None:
    """Predict all posts to standard output.

    Raises:
        Interrupted: a signal asked to stop.
    """
    written = 0

    def write(rows: Sequence[Row], *, header: bool = False) -> None:
        content = io.BytesIO()
        WRITERS[form](content, rows, header=header)
        if sys.stdout.isatty():  # which would obey control characters in a post_id
            show(content.getvalue().decode().removesuffix("\n"))
        else:
            sys.stdout.buffer.write(content.getvalue())
            sys.stdout.buffer.flush()

    def check() -> None:
        if stop.requested:
            remedy = "Standard output cannot be resumed; a file can: --to FILE."
            raise Interrupted(f"stopped after {written} posts", remedy=remedy)

    if form == "csv":
        write((), header=True)
    for chunk in chunks_of(posts):
        rows = predicted(model, chunk, check, with_text=with_text)
        write(rows)
        written += len(rows)
        tell(written)


if __name__ == "__main__":
    exit_with_message(main)

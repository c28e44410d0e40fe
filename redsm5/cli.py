"""The command `redsm5 COMMAND [arguments]`: runs a script of scripts/, or the terminal app, in this process.

Arguments, exit codes, signals and tracebacks are the script's own. Nothing is imported but what finds the script, so a
command starts as fast as its script.
"""

import runpy
import sys

from redsm5.engine.installed import APP, SCRIPTS

# By command: its script or module, and its line in the list, which has the order of the justfile.
COMMANDS = {
    "hpo": ("hpo.py", "run or resume a study: hpo study.name=night study.trials=100"),
    "train": ("launch.py", "train one trial; trial.id=UUID resumes that one"),
    "evaluate": ("evaluate.py", "evaluate a trial's best checkpoints again"),
    "reproduce": ("reproduce.py", "train a trial again from its snapshot and compare every metric"),
    "rebuild": ("rebuild.py", "train a trial again whose weights are gone, and put them back"),
    "compare": ("compare.py", "compare two trials on the same test posts, with intervals and p values"),
    "export": ("export.py", "write a trial's model as a folder that stands alone, with a model card"),
    "predict": ("predict_posts.py", "predict symptoms and evidence of new posts"),
    "replay": ("replay.py", "repeat every decision of a search with study.pruner=asha"),
    "baseline": ("baseline.py", "train the baseline, TF-IDF with linear SVMs, on the same splits"),
    "protocol": ("protocol.py", "tabulate F1 by the split of ReDSM5's authors and by ours, with intervals"),
    "studies": ("studies.py", "list the studies"),
    "summary": ("summarize.py", "summarize a study as JSON and as a page"),
    "checkpoints": ("checkpoints.py", "list a trial's checkpoints, kept or deleted, and why"),
    "cleanup": ("cleanup.py", "show reclaimable disk space; with --execute, delete it"),
    "keys": ("keys.py", "list the configuration's keys: just keys WORD"),
    "completion": ("completion.py", "print the completion of commands, keys and ids for bash, zsh or fish"),
    "sync": ("sync.py", "ship waiting metrics to MLflow"),
    "doctor": ("doctor.py", "check that what a study needs works here"),
    "sample-model": ("sample_model.py", "unpack a small pretrained encoder, for model=minilm"),
    "tui": (APP, "monitor and control the studies in the terminal"),
    "mlflow": ("mlflow_ui.py", "open MLflow's own UI on localhost"),
    "demo-crash": ("demo_crash.py", "kill a study repeatedly, and compare it with an uninterrupted one"),
}
USAGE = "usage: redsm5 COMMAND [arguments], or redsm5 --version"


def main() -> None:
    """Run the command of sys.argv; its script exits with its own code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name not in COMMANDS:
        _answer(name)
        return
    script = COMMANDS[name][0]
    sys.argv = [name, *arguments]  # runpy puts the script's path in the place of the name
    if script == APP:
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def _answer(word: str) -> None:
    """Print the list of commands or the version, or refuse an unknown command."""
    from redsm5.engine.errors import InputError, exit_with_message, nearest
    from redsm5.engine.terminal import one_line, show

    def answer() -> int:
        if word in ("-h", "--help", "help"):
            show("\n".join([USAGE, "", *(f"  {name:<12} {line}" for name, (_, line) in COMMANDS.items())]))
        elif word == "--version":
            from redsm5 import code_version

            show(f"redsm5 {code_version()}")
        else:
            what = f"unknown command {one_line(word)}{nearest(word, [*COMMANDS])}"
            raise InputError(what, remedy="`redsm5 --help` lists the commands.")
        return 0

    exit_with_message(answer)

"""Print a shell's completion of commands, flags, keys and ids: `just completion bash|zsh|fish`.

    eval "$(just completion bash)"          in this shell; in ~/.bashrc or ~/.zshrc: for all
    just completion fish | source           of fish

It completes `redsm5 COMMAND` everywhere, and `just COMMAND` in this checkout. Trials and studies are those of
--experiments or experiments=, else of $REDSM5_EXPERIMENTS, else of the folder experiments. It starts no process of
Python, so it is as fast as the shell.
"""

import argparse
import re
import shlex
from collections.abc import Iterator

from redsm5.cli import COMMANDS
from redsm5.config import Config, compose
from redsm5.engine.errors import exit_with_message
from redsm5.engine.installed import APP, CHECKOUT, LAUNCH_DIR, SCRIPTS, WITH_OVERRIDES
from redsm5.engine.sections import allowed
from redsm5.engine.spec import known_keys
from redsm5.engine.study.workers import PER_GPU, WORKERS
from redsm5.engine.terminal import Parser, show

OF_TRIALS = ("evaluate", "reproduce", "rebuild", "compare", "export", "checkpoints", "predict")
OF_STUDIES = ("summary", "replay")
OF_KEYS = (*WITH_OVERRIDES, "keys")
FLAG = re.compile(r'add_argument\(\s*"(--[a-z-]+)"|add_argument\(\s*"--[a-z-]+", "(--[a-z-]+)"')


def flags_of(command: str) -> list[str]:
    """The flags of a command, as its script adds them."""
    script = COMMANDS[command][0]
    source = ((CHECKOUT or SCRIPTS.parent) / "tui/__main__.py" if script == APP else SCRIPTS / script).read_text()
    found = [one or other for one, other in FLAG.findall(source)]
    found += ["--format"] if "add_format(" in source else []
    return sorted({*found, "--help"})


def words_of_keys() -> tuple[list[str], list[str]]:
    """What an override may begin with, KEY=, and all overrides with a value from a list: model=tiny."""
    keys = [f"{key}=" for key in known_keys(compose([]))]
    groups = [folder for conf in Config.CONF for folder in conf.iterdir() if folder.is_dir()]
    choices = [f"{folder.name}={path.stem}" for folder in groups for path in folder.glob("*.yaml")]
    choices += [f"launch={path.stem}" for path in LAUNCH_DIR.glob("*.yaml")]
    choices += [f"{key}={value}" for key, value in values(Config.model_json_schema())]
    begun = {*keys, *(f"{choice.partition('=')[0]}=" for choice in choices), f"{WORKERS}=", f"{PER_GPU}="}
    return sorted(begun), sorted({*choices, f"{WORKERS}=auto"})


def values(schema: dict[str, object]) -> Iterator[tuple[str, str]]:
    """The key and the value of each that is from a list, true and false among them."""
    sections = schema["$defs"]
    assert isinstance(sections, dict)

    def walk(properties: dict[str, dict[str, object]], prefix: str) -> Iterator[tuple[str, str]]:
        for name, of in properties.items():
            if isinstance(ref := of.get("$ref"), str):
                yield from walk(sections[ref.rpartition("/")[2]]["properties"], f"{prefix}{name}.")
            elif ("anyOf" in of or "enum" in of or of.get("type") == "boolean") and "$ref" not in str(of):
                yield from ((f"{prefix}{name}", word) for word in re.findall(r"`(?!null`)([\w.-]+)`", allowed(of)))

    properties = schema["properties"]
    assert isinstance(properties, dict)
    yield from walk(properties, "")


BASH = r"""# Completion of redsm5 for bash and zsh, made by `just completion bash`.
if [ -n "${ZSH_VERSION-}" ]; then
    whence compdef >/dev/null || { autoload -Uz compinit && compinit -D -u; }
    autoload -U +X bashcompinit && bashcompinit
fi

_redsm5_checkout=@CHECKOUT@
_redsm5_keys=@KEYS@
_redsm5_values=@VALUES@

_redsm5_flags() {
    case $1 in
@FLAGS@
    esac
}

# Whether the nearest justfile is the checkout's.
_redsm5_here() {
    local folder=$PWD
    while [ -n "$folder" ] && [ ! -e "$folder/justfile" ]; do folder=${folder%/*}; done
    [ -n "$_redsm5_checkout" ] && [ "$folder" -ef "$_redsm5_checkout" ]
}

_redsm5_trials() {
    local folder
    for folder in $(command ls "$1" 2>/dev/null); do
        case $folder in trial_*) printf '%s\n' "${folder#trial_}" ;; esac
    done
}

_redsm5_studies() {
    local folder
    for folder in $(command ls "$1" 2>/dev/null); do
        case $folder in study_*)
            command sed -n 's/^  "name": "\([A-Za-z0-9._-]*\)",*$/\1/p' "$1/$folder/study.json" 2>/dev/null ;;
        esac
    done
}

# Print words, each after a beginning.
_redsm5_after() {
    local beginning=$1 word
    shift
    for word in "$@"; do printf '%s\n' "$beginning$word"; done
}

_redsm5_complete() {
    local line="${COMP_LINE:0:$COMP_POINT}" experiments=${REDSM5_EXPERIMENTS:-experiments}
    local cur command= word previous= place=0 choices= prefix studies
    local -a typed
    [ -z "${ZSH_VERSION-}" ] || setopt localoptions shwordsplit ksharrays
    cur=${line##*[[:space:]]}
    COMPREPLY=()
    if [ -n "${ZSH_VERSION-}" ]; then typed=($line); else read -r -a typed <<<"$line"; fi
    case ${typed[0]} in redsm5|*/redsm5) ;; *)
        if ! _redsm5_here; then
            if [ -z "${ZSH_VERSION-}" ] && typeset -f _just >/dev/null; then _just "$@"; fi
            return 0
        fi
        case $experiments in /*) ;; *) experiments=$_redsm5_checkout/$experiments ;; esac ;;
    esac
    for word in "${typed[@]}"; do
        if [ "$previous" = --experiments ] && [ "$word" != "$cur" ]; then experiments=$word; fi
        case $word in experiments=?*) experiments=${word#experiments=} ;; esac
        [ $place = 1 ] && command=$word
        place=$((place + 1)) previous=$word
    done
    if [ $place = 1 ] || { [ $place = 2 ] && [ -n "$cur" ]; }; then
        choices="@COMMANDS@"
    else
        studies=$(_redsm5_studies "$experiments")
        case $cur in
            -*) choices=$(_redsm5_flags "$command") ;;
            study.name=*) choices=$(_redsm5_after study.name= $studies) ;;
            study=*) choices=$(_redsm5_after study= $studies) ;;
            trial.id=*) choices=$(_redsm5_after trial.id= $(_redsm5_trials "$experiments")) ;;
            *=*) choices=$_redsm5_values ;;
            *) case $command in
                @OF_KEYS@) choices=$_redsm5_keys ;;
                @OF_TRIALS@) choices="best winner $(_redsm5_after best: $studies) $(_redsm5_after winner: $studies)"
                    choices="$choices $(_redsm5_trials "$experiments")" ;;
                @OF_STUDIES@) choices=$studies ;;
                completion) choices="bash zsh fish" ;;
            esac ;;
        esac
    fi
    prefix=
    [ -n "${ZSH_VERSION-}" ] || case $cur in *[=:]*) prefix=${cur%"${cur##*[=:]}"} ;; esac  # bash splits words there
    for word in $choices; do
        case $word in "$cur"*) COMPREPLY+=("${word#"$prefix"}") ;; esac
    done
    case "${COMPREPLY[*]-}" in *=) type compopt >/dev/null 2>&1 && compopt -o nospace 2>/dev/null ;; esac
    return 0
}

complete -o default -F _redsm5_complete redsm5
[ -z "$_redsm5_checkout" ] || complete -o default -F _redsm5_complete just
"""

FISH = r"""# Completion of redsm5 for fish, made by `just completion fish`.
set -g __redsm5_checkout @CHECKOUT@

function __redsm5_ours # whether it is redsm5, or just in the checkout
    set -l words (commandline -opc)
    string match -q '*redsm5' -- $words[1]; and return 0
    set -l folder $PWD
    while test -n "$folder"; and not test -e "$folder/justfile"
        set folder (string replace -r '/[^/]*$' '' -- $folder)
    end
    test -n "$__redsm5_checkout"; and test "$folder" = "$__redsm5_checkout"
end

function __redsm5_first
    __redsm5_ours; and test (count (commandline -opc)) = 1
end

function __redsm5_in
    set -l words (commandline -opc)
    __redsm5_ours; and test (count $words) -gt 1; and contains -- $words[2] $argv
end

function __redsm5_folder
    set -l words (commandline -opc)
    set -l folder experiments
    set -q REDSM5_EXPERIMENTS; and set folder $REDSM5_EXPERIMENTS
    for n in (seq (count $words))
        string match -q 'experiments=?*' -- $words[$n]; and set folder (string replace experiments= '' -- $words[$n])
        test "$words[$n]" = --experiments; and test (count $words) -gt $n; and set folder $words[(math $n + 1)]
    end
    if not string match -q '/*' -- $folder; and not string match -q '*redsm5' -- $words[1]
        set folder $__redsm5_checkout/$folder
    end
    echo $folder
end

function __redsm5_trials
    for folder in (__redsm5_folder)/trial_*
        string replace -r '.*/trial_' '' -- $folder
    end
end

function __redsm5_studies
    set -l files (__redsm5_folder)/study_*/study.json
    test (count $files) -gt 0; and sed -n 's/^  "name": "\([A-Za-z0-9._-]*\)",*$/\1/p' $files
end

for command in redsm5 just
    test $command = just; and test -z "$__redsm5_checkout"; and continue
@LINES@
end
"""


def bash() -> str:
    """For bash and zsh, which has bash's completion by bashcompinit."""
    begun, with_values = words_of_keys()
    flags = "\n".join(f'        {name}) echo "{" ".join(flags_of(name))}" ;;' for name in COMMANDS)
    filled = {
        "CHECKOUT": shlex.quote(str(CHECKOUT or "")),
        "KEYS": shlex.quote(" ".join(begun)),
        "VALUES": shlex.quote(" ".join(with_values)),
        "FLAGS": flags,
        "COMMANDS": " ".join(COMMANDS),
        "OF_KEYS": "|".join(OF_KEYS),
        "OF_TRIALS": "|".join(OF_TRIALS),
        "OF_STUDIES": "|".join(OF_STUDIES),
    }
    return re.sub(r"@([A-Z_]+)@", lambda found: filled[found[1]], BASH)


def fish() -> str:
    begun, with_values = words_of_keys()
    lines = [f"-n __redsm5_first -f -a {name} -d {shlex.quote(line)}" for name, (_, line) in COMMANDS.items()]
    for name in COMMANDS:
        lines += [f"-n '__redsm5_in {name}' -l {flag.removeprefix('--')}" for flag in flags_of(name)]
    valued = 'string match -q "*=*" -- (commandline -ct)'  # the word has its = already
    studies = "(for s in (__redsm5_studies); echo best:$s; echo winner:$s; end)"
    lines += [
        f"-n '__redsm5_in {' '.join(OF_KEYS)}; and not {valued}' -f -a {shlex.quote(' '.join(begun))}",
        f"-n '__redsm5_in {' '.join(OF_KEYS)}; and {valued}' -f -a {shlex.quote(' '.join(with_values))}",
        f"-n '__redsm5_in {' '.join(OF_KEYS)}' -f -a '(for s in (__redsm5_studies); echo study.name=$s; end)'",
        "-n '__redsm5_in train' -f -a '(for t in (__redsm5_trials); echo trial.id=$t; end)'",
        f"-n '__redsm5_in {' '.join(OF_TRIALS)}' -f -a 'best winner (__redsm5_trials)'",
        f"-n '__redsm5_in {' '.join(OF_TRIALS)}' -f -a '{studies}'",
        f"-n '__redsm5_in {' '.join(OF_STUDIES)}' -f -a '(__redsm5_studies)'",
        "-n '__redsm5_in completion' -f -a 'bash zsh fish'",
    ]
    text = "\n".join(f"    complete -c $command {line}" for line in lines)
    return FISH.replace("@CHECKOUT@", shlex.quote(str(CHECKOUT or ""))).replace("@LINES@", text)


def main() -> int:
    parser = Parser(prog="just completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    show(fish() if parser.parse_args().shell == "fish" else bash())
    return 0


if __name__ == "__main__":
    exit_with_message(main)

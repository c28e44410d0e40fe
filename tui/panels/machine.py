"""The Machine screen's panels as lines of text: charts of the last minutes, and the trials running on the machine."""

from collections.abc import Callable, Sequence

from rich.text import Text

from ..read.machine import KEPT_S, SELDOM_S, Gpu, MachineView, Sample
from ..read.view import View
from . import text
from .text import DIM, size
from .trial import measured

Of = Callable[[Sample], float | None]
Write = Callable[[float], str]
BLOCKS = " ▁▂▃▄▅▆▇█"
WAITING = "measuring…"
# The columns of the running trials: the metric without `system_`, and its heading.
COLUMNS = (
    ("steps_per_second", "steps"),
    ("cpu_percent", "cpu"),
    ("memory_bytes", "memory"),
    ("gpu_utilization_percent", "gpu"),
    ("gpu_memory_bytes", "gpu mem"),
    ("disk_write_bytes_per_second", "write"),
    ("disk_read_bytes_per_second", "read"),
    ("save_stall_seconds", "stall"),
)


def columns(samples: Sequence[Sample], of: Of, width: int) -> list[float | None]:
    """The highest value in each of `width` parts of the last minutes; None if samples are missing for long."""
    heights: list[float | None] = [None] * width
    if not samples or width < 1:
        return heights
    until = samples[-1].at
    each = KEPT_S / width
    told = [(sample.at, value) for sample in samples if (value := of(sample)) is not None]
    for at, value in told:
        column = min(max(width - 1 - int((until - at) / each), 0), width - 1)
        heights[column] = max(value, heights[column] or 0.0)
    last, since = None, 0.0
    for column, height in enumerate(heights):  # a sample stands for the time until the next one
        since = 0.0 if height is not None else since + each
        last = height if height is not None else last
        heights[column] = last if since <= 2 * SELDOM_S else None
    return heights


def area(heights: Sequence[float | None], rows: int, top: float) -> list[str]:
    """A chart of blocks in `rows` lines, from top to bottom; zero is the thinnest block, None is blank."""
    eighths = [0 if h is None else min(max(round(h / top * rows * 8), 1), rows * 8) if top > 0 else 1 for h in heights]
    return ["".join(BLOCKS[min(max(n - 8 * row, 0), 8)] for n in eighths) for row in range(rows - 1, -1, -1)]


def chart(samples: Sequence[Sample], of: Of, width: int, rows: int, top: float | None, write: Write) -> Text:
    """A chart of the last minutes, up to `top` or up to the highest value, with the axis labels beside it."""
    heights = columns(samples, of, max(width - 9, 4))
    reach = top or max((h for h in heights if h is not None), default=0.0)
    page = Text()
    for n, line in enumerate(area(heights, rows, reach)):
        page.append(f"{write(reach) if n == 0 else '':>8}│", DIM).append(line, "cyan").append("\n")
    page.rstrip()
    return page


def since(width: int) -> Text:
    """The time axis under a chart."""
    return Text(f"{'':>9}{KEPT_S / 60:.0f} min ago{'now':>{max(width - 18, 4)}}", DIM)


def percent(share: float) -> str:
    return f"{share:.0f}%"


def rate(number: float | None) -> str:
    return "–" if number is None else f"{size(number)}/s"


def title(machine: MachineView) -> str:
    return f"machine {text.clean(machine.host, 30)}".rstrip()


def cpu(machine: MachineView, width: int, rows: int) -> tuple[Text, str]:
    """The CPU chart, and the text in its frame."""
    if not machine.samples:
        return Text(WAITING, DIM), ""
    now = machine.samples[-1]
    load = f"  load {' '.join(f'{n:.1f}' for n in now.load)}" if now.load else ""
    page = chart(machine.samples, lambda s: s.cpu, width, max(rows - 1, 1), 100.0, percent)
    return page.append("\n").append_text(since(width)), f"{now.cpu:.0f}%{load}"


def memory(machine: MachineView, width: int, rows: int) -> tuple[Text, str]:
    if not machine.samples:
        return Text(WAITING, DIM), ""
    now, whole = machine.samples[-1], machine.memory_total
    page = chart(machine.samples, lambda s: s.memory, width, max(rows - 1, 1), float(whole), size)
    share = f" ({100 * now.memory / whole:.0f}%)" if whole else ""
    return page.append("\n").append_text(since(width)), f"{size(now.memory)} of {size(whole)}{share}"


def disk(machine: MachineView, width: int, rows: int) -> tuple[Text, str]:
    """Charts of writes and, below, reads, each up to its highest value."""
    if not machine.samples:
        return Text(WAITING, DIM), ""
    now = machine.samples[-1]
    if now.written is None and now.read is None:
        return Text("disk activity is not available on this system", DIM), ""
    above = max((rows - 1) // 2, 1)
    page = chart(machine.samples, lambda s: s.written, width, above, None, rate).append("\n")
    page.append_text(chart(machine.samples, lambda s: s.read, width, max(rows - 1 - above, 1), None, rate))
    return page.append("\n").append_text(since(width)), f"write {rate(now.written)}  read {rate(now.read)}"


def gpus(machine: MachineView, width: int, rows: int) -> tuple[Text, str]:
    """A line and a chart for each GPU."""
    if not machine.samples:
        return Text(WAITING, DIM), ""
    found = machine.samples[-1].gpus
    if not found:
        return Text("no NVIDIA GPU found", DIM), ""
    page, each = Text(), max((rows - 1) // len(found) - 1, 0)
    for n, gpu in enumerate(found):
        name = text.clean(gpu.name.removeprefix("NVIDIA "), max(width - 32, 4))
        page.append(f"{n} {name}", "bold").append(f"  {_told(gpu)}\n")
        if each:
            page.append_text(chart(machine.samples, _busy(n), width, each, 100.0, percent)).append("\n")
    if each:
        page.append_text(since(width))
    page.rstrip()
    return page, "1 GPU" if len(found) == 1 else f"{len(found)} GPUs"


def _busy(n: int) -> Of:
    return lambda sample: sample.gpus[n].busy if n < len(sample.gpus) else None


def _told(gpu: Gpu) -> str:
    """Use, memory and temperature, as far as they are known."""
    parts = [] if gpu.busy is None else [percent(gpu.busy)]
    if gpu.used is not None and gpu.total:
        whole = size(gpu.total)
        parts.append(f"{size(gpu.used).removesuffix(whole[-3:])} of {whole}")
    parts += [] if gpu.temperature is None else [f"{gpu.temperature:.0f} °C"]
    return "  ".join(parts)


def strip(machine: MachineView, width: int) -> Text:
    """The machine in three lines of two cells."""
    if not machine.samples:
        return Text(WAITING, DIM)
    now, samples = machine.samples[-1], machine.samples
    cells: list[tuple[str, str, Of]] = [
        ("cpu", f"{now.cpu:.0f}% of {machine.cores} cores", lambda s: s.cpu),
        ("memory", f"{size(now.memory)} of {size(machine.memory_total)}", lambda s: s.memory),
        ("write", rate(now.written), lambda s: s.written),
        ("read", rate(now.read), lambda s: s.read),
    ]
    cells += [(f"gpu {n}", _told(gpu), _busy(n)) for n, gpu in enumerate(now.gpus[:2])]
    tops = {"cpu": 100.0, "memory": float(machine.memory_total), "gpu 0": 100.0, "gpu 1": 100.0}
    half = max(width // 2, 30)
    page = Text()
    for n, (name, said, of) in enumerate(cells):
        heights = columns(samples, of, max(half - 40, 4))
        top = tops.get(name) or max((h for h in heights if h is not None), default=0.0)
        page.append(f"{name:<7}", DIM).append(f"{said:<30.29}").append(area(heights, 1, top)[0], "cyan")
        page.append("   " if n % 2 == 0 else "\n")
    page.rstrip()
    return page


def at_work(view: View, width: int) -> tuple[Text, str]:
    """The trials that run on this machine with their newest system metrics, and the heading."""
    active, here = view.snapshot.trials.active, view.machine.here
    shown = [t for t in active if here is None or t.trial_id in here]
    named = "running trials" if here is None else "trials running on this machine"
    fitting = COLUMNS[: max((width - 18) // 11, 1)]
    page = Text()
    if shown:
        page.append(f"{'':<7}{'epoch':<9}" + "".join(f"{name:>11}" for _, name in fitting), DIM)
    for trial in shown:
        page.append(f"\n{text.number(trial):<7}", "bold cyan").append(f"{f'{trial.epoch}/{trial.epochs}':<9.8}")
        detail = view.details.get(trial.trial_id)
        for name, _ in fitting:
            series = detail.series.get(f"system_{name}") if detail else None
            told = measured(name, series.values[-1])[1] if series and series.values else "–"
            page.append(f"{told:>11}")
    if not shown:
        page.append("no trial is running here", DIM)
    if elsewhere := len(active) - len(shown):
        page.append(f"\n{text.trials(elsewhere)} running elsewhere", DIM)
    return page, named

"""The objective over the trials: a point for each that has a score, a line for the best so far."""

from itertools import accumulate

from textual_plotext import PlotextPlot

from tui.reader import Snapshot


class ObjectiveChart(PlotextPlot):
    """Drawn anew only when a point has changed, so that it does not flicker."""

    _drawn: tuple[object, ...] | None = None

    def show(self, snapshot: Snapshot) -> None:
        scored = [
            (float(t.number if t.number is not None else n), t.best.value, t.state == "completed")
            for n, t in enumerate(snapshot.trials)
            if t.best and abs(t.best.value) != float("inf") and t.best.value == t.best.value
        ]
        last = max((t.number or 0 for t in snapshot.trials), default=0)
        if (tuple(scored), last) == self._drawn:
            return
        self._drawn = (tuple(scored), last)
        self.plt.clear_figure()
        self.plt.xaxes(True, False)
        self.plt.yaxes(True, False)
        self.plt.yfrequency(3)
        self.plt.xlim(-0.5, last + 0.5)
        step = max(1, (last + 5) // 6)
        ticks = [*range(0, last + 1, step)]
        self.plt.xticks(ticks, [f"#{tick}" for tick in ticks])
        if scored:
            numbers, values, completed = zip(*scored, strict=True)
            margin = (max(values) - min(values)) * 0.05 or 0.01
            bottom = min(values) - margin
            self.plt.ylim(bottom if min(values) < 0 else max(0.0, bottom), max(values) + margin)
            best = [(n, v) for n, v, done in scored if done]
            if best:
                # As a staircase: the best stays what it is until a trial beats it.
                highs = [*accumulate((v for _, v in best), max)]
                corners = [
                    (n, high)
                    for (n, _), low, high in zip(best, [highs[0], *highs], highs, strict=False)
                    for high in (low, high)
                ]
                corners.append((last + 0.5, highs[-1]))
                self.plt.plot([n for n, _ in corners], [v for _, v in corners], marker="braille", color="green")
            for done, color, marker in ((False, "orange", "x"), (True, "cyan", "dot")):
                points = [(n, v) for n, v, d in zip(numbers, values, completed, strict=True) if d == done]
                if points:
                    self.plt.scatter([n for n, _ in points], [v for _, v in points], marker=marker, color=color)
        self.refresh()

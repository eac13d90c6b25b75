"""The table: a group of columns for each figure, one column of ratios for each system but the first."""

from compare import median, ratio


class Table:
    """Grows a row at a time, so that a watcher sees it happen."""

    def __init__(self, systems, with_cpu=False, out=print):
        self.names = [system.name for system in systems]
        self.with_cpu, self.out, self.below_one = with_cpu, out, []
        self.figures = [("requests/s", "rps", 0), ("p50 µs", "p50_us", 0), ("p99 µs", "p99_us", 0)]
        if with_cpu:
            self.figures.append(("core µs/request", "cpu_us", 2))
        self.width = max(10, *(len(name) for name in self.names)) + 1

    def header(self):
        groups, names = "", ""
        for index, (title, _, _) in enumerate(self.figures):
            columns = [f"{name:>{self.width}}" for name in self.names]
            if index == 0:
                columns += [f"{self._ratio_title(name):>{self.width}}" for name in self.names[1:]]
            group = "".join(columns)
            groups += f"{title:>{len(group)}} │"
            names += group + " │"
        self.out(f"{'':34}{groups}")
        self.out(f"{'load':34}{names}")
        self.out("─" * (34 + len(names)))

    def _ratio_title(self, name):
        return "ratio" if len(self.names) == 2 else f"{name.split('-')[-1]} ×"

    def row(self, load, results):
        base = results[self.names[0]]
        medians = {name: median(results[name]) for name in self.names}
        ratios = {name: ratio(results[name], base) for name in self.names[1:]}
        if any(value < 1 for name, value in ratios.items() if name.startswith("sidestep")):
            self.below_one.append(load.name)
        line = f"{load.name:34}"
        for index, (_, figure, digits) in enumerate(self.figures):
            for name in self.names:
                line += f"{getattr(medians[name], figure):>{self.width},.{digits}f}".replace(",", " ")
            if index == 0:
                line += "".join(f"{value:>{self.width}.2f}" for value in ratios.values())
            line += " │"
        self.out(line)
        return medians, ratios

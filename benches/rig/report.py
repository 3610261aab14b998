"""What was found, as a table for people, as Markdown and as JSON."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess

VERDICTS = {True: "reached", False: "MISSED", None: ""}


@dataclasses.dataclass
class Finding:
    """One measured thing. `reached` is None where there is no target: then it is for information."""

    row: str
    what: str
    measured: str
    target: str = ""
    reached: bool | None = None

    @classmethod
    def ratio(cls, row, what, mine, other, least):
        """A ratio of two rates that has to be at least `least`."""
        ratio = mine / other
        return cls(row, what, f"{ratio:.2f} ×", f"≥ {least} ×", ratio >= least)

    @classmethod
    def at_most(cls, row, what, value, limit, unit, digits=1):
        """A value that has to be at most `limit`."""
        return cls(row, what, f"{value:.{digits}f} {unit}", f"≤ {limit:g} {unit}", value <= limit)


def median_and_p99(values):
    """Of a list of numbers."""
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return at(0.5), at(0.99)


def spread(series):
    """A table of the raw results of some servers, in Markdown."""
    rows = [["server", "req/s (min–max)", "p50", "p99", "CPU a request", "resident"]]
    for each in series:
        rates = [found.rate for found in each.rounds]
        rows.append([
            each.name, f"{each.rate:,.0f} ({min(rates):,.0f}–{max(rates):,.0f})", f"{each.median('p50_ms'):.2f} ms",
            f"{each.median('p99_ms'):.2f} ms", f"{each.median('cpu_us'):.0f} µs", f"{each.resident / 1e6:.0f} MB"])
    others = max(found.others for each in series for found in each.rounds)
    return markdown_table(rows) + f"\n\nOther programs took up to {others:.0%} of the machine during a round."


def markdown_table(rows):
    """A Markdown table with aligned columns; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    line = lambda cells: "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"
    return "\n".join([line(rows[0]), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows[1:])])


def findings_table(findings):
    """The table that a reader looks at first."""
    rows = [["row", "what", "target", "measured", ""]]
    rows += [[each.row, each.what, each.target, each.measured, VERDICTS[each.reached]] for each in findings]
    return markdown_table(rows)


def machine(versions):
    """Where and with what it was measured."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "?")
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return {
        "date": datetime.date.today().isoformat(), "cores": len(os.sched_getaffinity(0)), "processor": model,
        "memory": f"{memory_gb:.0f} GB", "kernel": f"{platform.system()} {platform.release()}", **versions,
    }


def version_of(*command):
    """The first line that a program says about its version."""
    said = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return (said.stdout + said.stderr).strip().splitlines()[0]


class Report:
    """Everything that a run has found."""

    def __init__(self, facts):
        self.facts, self.findings, self.sections, self.raw, self.broken = facts, [], [], {}, []

    def add(self, row, findings, notes=(), series=(), raw=None):
        """Takes in what one row has found."""
        self.findings += findings
        text = [f"### {row}", *notes] + ([spread(series)] if series else [])
        self.sections.append("\n\n".join(text))
        self.raw[row] = {"series": [each.as_json() for each in series], **(raw or {})}

    def markdown(self):
        """The whole report."""
        facts = "\n".join(f"- {name}: {value}" for name, value in self.facts.items())
        broken = "".join(f"\n**not measured**: {row}: {why}\n" for row, why in self.broken)
        missed = [each for each in self.findings if each.reached is False]
        judged = [each for each in self.findings if each.reached is not None]
        verdict = f"{len(judged) - len(missed)} of {len(judged)} targets reached"
        if missed:
            verdict += "; MISSED: " + "; ".join(f"{each.row}, {each.what} ({each.measured})" for each in missed)
        return "\n\n".join(
            ["# Benchmark", facts, findings_table(self.findings), verdict + broken, *self.sections]) + "\n"

    def write(self, folder):
        """Writes both files, and returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / "bench.md", folder / "bench.json"
        paths[0].write_text(self.markdown())
        whole = {"facts": self.facts, "findings": [dataclasses.asdict(each) for each in self.findings],
                 "broken": self.broken, "raw": self.raw}
        paths[1].write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        return paths

"""What the gate says: a few lines for a terminal, Markdown for a summary page, JUnit XML."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from idbench.files import write_bytes
from idbench.gate import Check, Verdict
from idbench.output import escape_markdown
from idbench.reports.columns import plain_title

_COVERAGE = " coverage"


def summary(verdict: Verdict) -> str:
    """A few lines: the verdict, a line a metric, and what decided against the run."""
    lines = [f"{verdict.word.upper()}: {verdict.run} against {verdict.reference}"]
    rows = _rows(verdict)
    if rows:
        rows.insert(0, ("metric", "reference", "run", "change [95%]", "tolerance", "n", "outcome"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"{_label(check)}: {check.message}." for check in _told(verdict)]
    lines += [f"Note: {note}." for note in verdict.notes]
    return "\n".join(lines)


def markdown(verdict: Verdict) -> str:
    """The same for the summary page of a CI job."""
    lines = [
        f"### idbench: {verdict.word}", "",
        f"`{_code(verdict.run)}` against `{_code(verdict.reference)}`", "",
    ]
    rows = _rows(verdict)
    if rows:
        lines += [
            "| metric | reference | run | change [95%] | tolerance | samples | outcome |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            outcome = f"**{row[-1]}**" if row[-1] in ("regressed", "incomparable") else row[-1]
            lines.append("| " + " | ".join((*map(escape_markdown, row[:-1]), outcome)) + " |")
        lines.append("")
    told = [f"{_label(check)}: {check.message}" for check in _told(verdict)]
    told += [f"Note: {note}" for note in verdict.notes]
    lines += [f"- {escape_markdown(text)}" for text in told]
    return "\n".join(lines).rstrip() + "\n"


def write_junit(path: Path, verdict: Verdict) -> None:
    """Write JUnit XML: one test case a check; regressed: failure, incomparable: error."""
    by_outcome = [check.outcome for check in verdict.checks]
    suite = ElementTree.Element("testsuite", {
        "name": "idbench check", "tests": str(len(verdict.checks)),
        "failures": str(by_outcome.count("regressed")),
        "errors": str(by_outcome.count("incomparable")), "skipped": "0",
    })
    for check in verdict.checks:
        case = ElementTree.SubElement(suite, "testcase", {
            "classname": "idbench.check", "name": _clean(_label(check)), "time": "0",
        })
        kind = {"regressed": "failure", "incomparable": "error"}.get(check.outcome)
        if kind:
            ElementTree.SubElement(case, kind, {
                "type": check.outcome, "message": _clean(check.message),
            }).text = _clean(" | ".join(_row(check)))
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(
                f"{check.outcome}: {check.message}")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    write_bytes(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """A row a metric."""
    return [_row(c) for c in verdict.checks
            if c.change is not None and not c.name.endswith(_COVERAGE)]


def _told(verdict: Verdict) -> Iterable[Check]:
    """Checks that need a sentence."""
    return (c for c in verdict.checks if c.outcome in ("regressed", "incomparable", "allowed"))


def _label(check: Check) -> str:
    if check.name.endswith(_COVERAGE):
        return f"{plain_title(check.name.removesuffix(_COVERAGE))} coverage"
    return plain_title(check.name) if check.change is not None else check.name


def _row(check: Check) -> tuple[str, ...]:
    def number(value: float | None, form: str = ".3f") -> str:
        return "" if value is None else format(value, form)

    change = number(check.change, "+.3f")
    if check.low is not None and check.high is not None:
        change += f" [{check.low:+.3f}, {check.high:+.3f}]"
    samples = "" if check.samples is None else str(check.samples)
    return (_label(check), number(check.reference), number(check.run), change,
            number(check.tolerance, "g"), samples, check.outcome)


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())


def _clean(text: str) -> str:
    """Without control characters, which XML cannot hold."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)

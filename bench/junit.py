"""A comparison as JUnit XML, which CI systems show beside the tests."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from .findings import FAILING, Comparison, Finding

_NOT_XML = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF), "\N{REPLACEMENT CHARACTER}")


def write_junit(comparison: Comparison, file: Path) -> None:
    """One test case for each method on a task, one for the pipeline, and one for each suite's failing finding."""
    failing = [finding for finding in comparison.findings if finding.verdict in FAILING]
    cases: dict[tuple[str, str], list[Finding]] = {("pipeline", "pipeline"): []}
    cases.update({(f"{protocol}.{task}", method): [] for protocol, task, method in comparison.places})
    by_task = {(task, method): (f"{protocol}.{task}", method) for protocol, task, method in comparison.places}
    for finding in failing:
        for task in finding.tasks:
            for method in finding.methods or ("pipeline",):
                place = by_task.get((task, method), (task if finding.methods else "pipeline", method))
                cases.setdefault(place, []).append(finding)
    failures = sum(bool(found) for found in cases.values())
    suite = ElementTree.Element(
        "testsuite", name="bench check", tests=str(len(cases)), failures=str(failures), errors="0", skipped="0"
    )
    for (group, name), found in cases.items():
        case = ElementTree.SubElement(suite, "testcase", classname=_clean(group), name=_clean(name))
        if found:
            message = "; ".join(finding.text for finding in found)
            failure = ElementTree.SubElement(case, "failure", type=found[0].kind, message=_clean(message))
            failure.text = _clean("\n".join(map(str, found)))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    file.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _clean(text: str) -> str:
    """Without the characters that XML 1.0 forbids."""
    return text.translate(_NOT_XML)

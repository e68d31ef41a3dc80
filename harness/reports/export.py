# SPDX-License-Identifier: GPL-2.0-only
"""Exports the matrix of results to JUnit, KTAP and KCIDB. No I/O."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Dict, List
from xml.etree import ElementTree

from harness.judging.verdict import Kind
from harness.results import matrix
from harness.results.matrix import Matrix
from harness.results.result import Result

SUITE = "bpf_spin_lock"
_LOG = 16384  # characters: the longest log excerpt that KCIDB accepts


def _of(pivot: Matrix, kernel: str) -> List[Result]:
    """Return the results on a kernel in the order of the rules."""
    return [r for cases in pivot.rules.values() for r in pivot.cell(cases, kernel)]


def _seconds(result: Result) -> float:
    return float(result.seconds.get("case", 0))


def _log(result: Result) -> str:
    """Return the reason, the console and the verifier's log of a case."""
    seen = result.observation
    parts = [*result.evidence, *((seen.console, seen.log) if seen else ())]
    return "\n".join(part for part in parts if part)


# -- JUnit ----------------------------------------------------------------------------------------

# KNOWN is "skipped": JUnit has no element for an expected failure.
_JUNIT = {
    Kind.FAIL: "failure",
    Kind.CRASH: "failure",
    Kind.ERROR: "error",
    Kind.INCONCLUSIVE: "error",
    Kind.KNOWN: "skipped",
    Kind.SKIP: "skipped",
}


def junit(pivot: Matrix) -> str:
    """Return JUnit XML with one suite per kernel."""
    root = ElementTree.Element("testsuites", name=SUITE)
    for kernel in pivot.columns:
        found = _of(pivot, kernel)
        counts = {word: 0 for word in ("failure", "error", "skipped")}
        for result in found:
            if result.verdict in _JUNIT:
                counts[_JUNIT[result.verdict]] += 1
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(kernel),
            tests=str(len(found)),
            failures=str(counts["failure"]),
            errors=str(counts["error"]),
            skipped=str(counts["skipped"]),
            time=f"{sum(map(_seconds, found)):.3f}",
        )
        properties = ElementTree.SubElement(suite, "properties")
        ElementTree.SubElement(
            properties, "property", name="kernel", value=_xml(pivot.release(kernel))
        )
        for result in found:
            _testcase(suite, result)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _testcase(suite: ElementTree.Element, result: Result) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_xml(f"{SUITE}.{matrix.column(result)}"),
        name=_xml(f"{result.name}[{result.loader}]"),
        time=f"{_seconds(result):.3f}",
    )
    if result.verdict not in _JUNIT:
        return
    message = _xml(f"{result.verdict.value}: {result.reason}")
    ending = ElementTree.SubElement(
        case, _JUNIT[result.verdict], message=message, type=result.verdict.value
    )
    if _JUNIT[result.verdict] != "skipped":
        ending.text = _xml("\n".join([*result.evidence, f"repeat: {result.repeat}"]))


def _xml(text: str) -> str:
    """Replace characters that XML forbids with "?". A console may contain any character."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


# -- KTAP -----------------------------------------------------------------------------------------


def ktap(pivot: Matrix) -> str:
    """Return KTAP version 1: one test per kernel, with its cases as subtests."""
    lines = ["KTAP version 1", f"1..{len(pivot.columns)}"]
    for number, kernel in enumerate(pivot.columns, 1):
        found = _of(pivot, kernel)
        lines += ["  KTAP version 1", f"  # Subtest: {_words(kernel)}", f"  1..{len(found)}"]
        for position, result in enumerate(found, 1):
            lines += [f"  {line}" for line in _ktap_case(position, result)]
        good = not any(_is_bad(result) for result in found)
        lines.append(f"{'ok' if good else 'not ok'} {number} {_words(kernel)}")
    return "\n".join(lines) + "\n"


def _is_bad(result: Result) -> bool:
    return result.verdict not in (Kind.PASS, Kind.SKIP, Kind.KNOWN)


def _ktap_case(number: int, result: Result) -> List[str]:
    """Return the lines of a case: its diagnostics, then its result."""
    directive = {
        Kind.SKIP: f" # SKIP {_words(result.reason)}",
        # As kselftest does: an expected failure is "ok" with the directive XFAIL.
        Kind.KNOWN: f" # XFAIL {_words(result.reason)}",
        Kind.ERROR: " # ERROR",
        Kind.INCONCLUSIVE: " # ERROR inconclusive",
    }.get(result.verdict, "")
    words = [f"{result.verdict.value}: {result.reason}", *result.evidence[:12]]
    said = [f"# {_words(line)}" for line in words] if _is_bad(result) else []
    ok = "not ok" if _is_bad(result) else "ok"
    return [*said, f"{ok} {number} {_words(f'{result.name}.{result.loader}')}{directive}"]


def _words(text: str) -> str:
    """Return text as one line without "#", which would begin a directive."""
    return " ".join(re.sub(r"[^\x20-\x7e]", " ", text).replace("#", "_").split())


# -- KCIDB ----------------------------------------------------------------------------------------

# In KCIDB, DONE is a test that ended without evidence on the code. MISS is a test that the harness
# could not run. A bug on record is a bug: FAIL, with the commit.
_KCIDB = {
    Kind.PASS: "PASS",
    Kind.FAIL: "FAIL",
    Kind.CRASH: "FAIL",
    Kind.KNOWN: "FAIL",
    Kind.INCONCLUSIVE: "DONE",
    Kind.ERROR: "ERROR",
    Kind.SKIP: "SKIP",
}


def kcidb(pivot: Matrix, origin: str) -> Dict[str, Any]:
    """Return a report in KCIDB's schema 5.3. `origin` is the name of the submitter."""
    report: Dict[str, Any] = {
        "version": {"major": 5, "minor": 3},
        "checkouts": [],
        "builds": [],
        "tests": [],
    }
    for kernel in pivot.columns:
        found = _of(pivot, kernel)
        facts = next((r.facts for r in found if r.facts), {})
        release = pivot.release(kernel) or kernel
        version = str(facts.get("version") or release)
        build = f"{origin}:{release}-{_digest([version, facts.get('config_sha256')])}"
        checkout = f"{origin}:{facts.get('kernel_package') or release}"
        package = facts.get("kernel_package")
        said = f"Debian linux {package}" if package else f"kernel {release}"
        if checkout not in [c["id"] for c in report["checkouts"]]:
            report["checkouts"].append(
                {"id": checkout, "origin": origin, "comment": _safe(said), "valid": True}
            )
        if build not in [b["id"] for b in report["builds"]]:
            report["builds"].append(
                {
                    "id": build,
                    "checkout_id": checkout,
                    "origin": origin,
                    "comment": _safe(version),
                    "architecture": "x86_64",
                    "status": "PASS",
                    "misc": {"config_sha256": facts.get("config_sha256") or "unknown"},
                }
            )
        report["tests"] += [_kcidb_test(result, build, origin) for result in found]
    return report


def _kcidb_test(result: Result, build: str, origin: str) -> Dict[str, Any]:
    status = "MISS" if not result.kernel else _KCIDB[result.verdict]
    path = [SUITE, result.loader, result.name]
    test: Dict[str, Any] = {
        "id": f"{origin}:{_digest(result.to_json(), 32)}",
        "origin": origin,
        "build_id": build,
        "path": ".".join(re.sub(r"[^\w-]", "_", word, flags=re.ASCII) for word in path),
        "comment": _safe(result.rule),
        "status": status,
        "duration": _seconds(result),
        "environment": {
            "comment": _safe(f"{result.target} guest, {result.facts.get('accelerator', '')}"),
            "misc": {"cpus": result.facts.get("cpus", 0)},
        },
        "misc": {
            "verdict": result.verdict.value,
            "reason": result.reason,
            "kernel": matrix.column(result),
            "commits": list(result.commits),
            "repeat": result.repeat,
        },
    }
    log = _safe(_log(result))[-_LOG:]
    return {**test, "log_excerpt": log} if log else test


def _digest(value: Any, size: int = 12) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:size]


def _safe(text: str) -> str:
    return text.replace("\0", "?")

# SPDX-License-Identifier: GPL-2.0-only
"""How well `spinlock check --run` tells right programs from wrong ones.

Runs the programs of tests/harness/check/run on one kernel. A right one that is accused is a false
accusation, a wrong one that is not is missed. Exit code 1: there was a false accusation.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path

from harness.check import examine, inputs, lockset, proof, prove
from harness.machines import choose, target

PROGRAMS = Path(__file__).resolve().parent.parent / "tests/harness/check/run"


def main() -> int:
    """Print a line per program, and counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default=target.DEFAULT_KERNEL)
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("names", nargs="*", help="of programs; all without")
    options = parser.parse_args()
    files = [
        f for f in sorted(PROGRAMS.glob("*.bpf.c")) if not options.names or f.name in options.names
    ]
    false, missed, wrong, right = 0, 0, 0, 0
    settings = target.Settings("qemu", options.kernel, options.cpus)
    with closing(choose.open_target(settings, lambda message: None)) as guests:
        for file in files:
            started = time.monotonic()
            source = examine.open_source(file, guests.headers())
            row = examine.examine(guests, options.kernel, source, source.programs)
            findings = lockset.analyse(source.object, source.programs)
            given = prove.Inputs(inputs.packets())
            proven = prove.prove(guests, row, source, findings, given)
            accused = not proven.good
            is_wrong = file.name.startswith("wrong")
            wrong, right = wrong + is_wrong, right + (not is_wrong)
            false += accused and not is_wrong
            missed += is_wrong and not accused
            said = "; ".join(_said(each) for each in proven.proofs)
            said += "".join(f"; {text}" for text in (*proven.notes, proven.complaint) if text)
            said += "".join(f"; {name} not run: {why}" for name, why in proven.left_out.items())
            flag = (
                "FALSE"
                if accused and not is_wrong
                else "MISSED" if is_wrong and not accused else ""
            )
            print(
                f"{file.name[:-6]:<26} {time.monotonic() - started:5.1f} s {flag:<6} {said}",
                flush=True,
            )
    print(f"{false} of {right} right ones accused, {missed} of {wrong} wrong ones missed")
    return int(false > 0)


def _said(each: proof.Proof) -> str:
    loss = each.loss or each.twin
    seen = f" ({loss.found} for {loss.expected})" if loss is not None else ""
    return f"{each.field}: {each.verdict}{seen}"


if __name__ == "__main__":
    sys.exit(main())

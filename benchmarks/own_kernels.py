# SPDX-License-Identifier: GPL-2.0-only
"""Build healthy kernels with other configurations than Debian's, and run the suite on each.

    python benchmarks/own_kernels.py [NAME…] [--into DIR] [--tree VERSION=DIR] [--jobs N]
                                     [--only-build] [--built NAME=FILE] [-- WORDS OF spinlock run]

own_kernels.yaml has the configurations. The source is Debian's linux-source of the minor that each
names, or --tree. A tree that was built is built again only where it changed. Needs gcc, make, flex,
bison, bc, pahole (dwarves), libelf-dev and libssl-dev.

Prints a line per kernel and each result that is neither PASS, KNOWN nor SKIP. Exits with 1 if there
is one, or if a kernel's SKIP has no reason that names an option, a version, CPUs or a word of the
command line.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import yaml

from harness import paths
from harness.errors import SetupError, UsageError
from harness.provision import catalogue, debian_packages
from harness.results import matrix
from harness.results.result import Result

TABLE = Path(__file__).with_suffix(".yaml")
HEALTHY = ("PASS", "KNOWN", "SKIP")
TOOLS = ("make", "gcc", "flex", "bison", "bc", "pahole")
# What a SKIP of such a kernel may name: what it lacks, or what its version lacks.
NAMED = re.compile(r"CONFIG_\w+|\bv\d+\.\d+|version|one CPU|LSM|headers|bcc|[0-9a-f]{12}")


@dataclass(frozen=True)
class Kernel:
    """A configuration: what it is about, the minor of its source, and all its options."""

    name: str
    what: str
    source: str
    options: Mapping[str, str]


def kernels() -> Dict[str, Kernel]:
    """Read own_kernels.yaml."""
    table = yaml.load(TABLE.read_text(encoding="utf-8"), yaml.BaseLoader)  # y and n stay words
    return {
        name: Kernel(name, row["what"], row["source"], {**table["base"], **row["options"]})
        for name, row in table["kernels"].items()
    }


def source(minor: str, into: Path) -> Path:
    """Return the tree of Debian's linux-source of a minor, fetched if need be. Raises SetupError."""
    tree = into / f"linux-source-{minor}"
    if (tree / "Makefile").exists():
        return tree
    if minor not in catalogue.MINORS:
        raise UsageError(
            f"Debian has no kernel {minor}: name one of {', '.join(catalogue.MINORS)}."
        )
    suites = catalogue.MINORS[minor]["suites"]
    archive = debian_packages.Archive(paths.cache("apt", "+".join(suites)), suites)
    with paths.lock(archive.lock):
        archive.refresh()
        if not archive.names(f"linux-source-{minor}"):
            raise SetupError(f"Debian has no source of {minor} any more: say --tree {minor}=DIR.")
        [package] = archive.packages([f"linux-source-{minor}"])
        [deb] = archive.download([package], into)
    debian_packages.unpack(deb, into / "unpacked")
    deb.unlink()
    [packed] = (into / "unpacked" / "usr" / "src").glob(f"linux-source-{minor}.tar.*")
    _run(["tar", "-xf", str(packed), "-C", str(into)])
    shutil.rmtree(into / "unpacked")
    return tree


def configure(kernel: Kernel, tree: Path, out: Path) -> None:
    """Write a kernel's .config. Raises SetupError if an option is not taken as wanted."""
    make = ["make", "-s", "-C", str(tree), f"O={out}"]
    _run([*make, "tinyconfig"])
    config = out / ".config"
    lines = [f"CONFIG_{name}={value}" for name, value in kernel.options.items() if value != "n"]
    lines += [
        f"# CONFIG_{name} is not set" for name, value in kernel.options.items() if value == "n"
    ]
    # Of two lines for one symbol the last one counts.
    config.write_text(config.read_text() + "\n".join(lines) + "\n")
    _run([*make, "olddefconfig"])
    wrong = not_taken(kernel.options, config.read_text())
    if wrong:
        raise SetupError(
            f"The source {kernel.source} does not take {', '.join(wrong)} of {kernel.name}: what"
            " do they depend on there?"
        )


def not_taken(options: Mapping[str, str], config: str) -> List[str]:
    """Return the options that a .config has otherwise than wanted, as NAME=wanted."""
    pairs = re.findall(r"^CONFIG_(\w+)=(.*)$", config, re.M)
    values = dict(pairs)
    return [f"{name}={value}" for name, value in options.items() if values.get(name, "n") != value]


def build(kernel: Kernel, tree: Path, out: Path, jobs: int) -> Path:
    """Build a kernel's bzImage and return it. Raises SetupError."""
    out.mkdir(parents=True, exist_ok=True)
    configure(kernel, tree, out)
    _run(["make", "-s", "-C", str(tree), f"O={out}", f"-j{jobs}", "bzImage"], out / "build.log")
    return out / "arch" / "x86" / "boot" / "bzImage"


def _run(command: Sequence[str], output: Optional[Path] = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if output is not None:
        output.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        where = f"; see {output}" if output else ""
        raise SetupError(f"{command[0]} {command[-1]} failed: {last}{where}")


def run(image: Path, results: Path, words: Sequence[str]) -> List[Result]:
    """Run the suite on a kernel and return its results. Raises UsageError if there are none."""
    command = [sys.executable, "-m", "harness", "run", "--kernel", str(image)]
    command += ["--loader", "libbpf", "--results", str(results), *words]
    subprocess.run(command, check=False)
    return list(matrix.read([results]).results)


def faults(results: Sequence[Result]) -> List[str]:
    """Return a line per result that a healthy kernel must not have."""
    lines = []
    for result in results:
        kind = result.verdict.value
        if kind not in HEALTHY:
            lines.append(f"{kind} {result.name}: {result.reason}")
        elif kind == "SKIP" and not NAMED.search(result.reason):
            lines.append(f"SKIP without its cause: {result.name}: {result.reason}")
    return lines


def main() -> int:
    every = kernels()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(every)}")
    parser.add_argument("--into", type=Path, default=Path("results") / "own_kernels")
    parser.add_argument("--tree", action="append", default=[], metavar="VERSION=DIR")
    parser.add_argument("--built", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only-build", action="store_true")
    ours, words = _cut(sys.argv[1:])
    arguments = parser.parse_args(ours)
    wrong = [name for name in arguments.names if name not in every]
    if wrong:
        parser.error(f"there is no configuration {wrong[0]}: name one of {', '.join(every)}")
    into = arguments.into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    trees, built = _pairs(parser, arguments.tree), _pairs(parser, arguments.built)
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing and not built:
        parser.error(f"{missing[0]} is missing, which building needs")
    bad = 0
    for name in arguments.names or list(every):
        kernel = every[name]
        try:
            image = built.get(name) or build(
                kernel,
                trees.get(kernel.source) or source(kernel.source, into),
                into / name,
                arguments.jobs,
            )
            found = [] if arguments.only_build else run(image, into / f"{name}-results", words)
        except (SetupError, UsageError) as error:
            print(f"{name}: {error}", flush=True)
            bad += 1
            continue
        counts = Counter(result.verdict.value for result in found)
        said = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        print(f"{name} ({kernel.source}, {kernel.what}): {said or image}", flush=True)
        wrong = faults(found)
        bad += len(wrong)
        for line in wrong:
            print(f"    {line}", flush=True)
    return 1 if bad else 0


def _cut(words: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Cut the command line at "--", behind which are words for `spinlock run`."""
    at = list(words).index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def _pairs(parser: argparse.ArgumentParser, words: Sequence[str]) -> Dict[str, Path]:
    pairs: List[Tuple[str, ...]] = [tuple(word.split("=", 1)) for word in words]
    for pair in pairs:
        if len(pair) != 2 or not Path(pair[1]).exists():
            parser.error(f"'{'='.join(pair)}' is no NAME=PATH of what exists")
    return {pair[0]: Path(pair[1]).resolve() for pair in pairs}


if __name__ == "__main__":
    sys.exit(main())

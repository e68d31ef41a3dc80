# SPDX-License-Identifier: GPL-2.0-only
"""Have the kernel's own selftests judge `spinlock check`.

    CLANG=clang-19 python benchmarks/selftests.py [--kernel NAME…] [--file PATTERN…] [-o DIR]

Debian's package of a kernel's sources has the selftests of BPF. Each file of theirs that takes a lock is
compiled, and checked on that kernel. What must happen to a program is said by its annotations, which
the compiler keeps, or by the tables of the tests that load it; a program of which nothing is said, in a
file whose programs are to load, must load. Compared are loads or refused, and the class of a refusal
with the class of the text that is expected. Prints counts and each difference; exits with 1 for a
difference. The selftests stay in the cache.
"""

from __future__ import annotations

import argparse
import ast
import collections
import fnmatch
import json
import re
import subprocess
import sys
import tarfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Counter, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from packaging.version import Version

from harness import paths
from harness.check import examine, refusal
from harness.errors import SetupError
from harness.guest import calls
from harness.machines import choose, target
from harness.provision import build, catalogue, debian_packages, elf
from harness.provision.btf import Btf, Malformed

KERNELS = ("6.12", "7.3")
TESTS = Path("tools/testing/selftests/bpf")
WANTED = (
    *(f"{TESTS}/", "tools/lib/bpf/", "tools/include/", "tools/arch/x86/include/uapi/"),
    *("scripts/bpf_doc.py", "include/uapi/"),
)
LOCKS = re.compile(r"spin_lock|linked_list\.h")
_FUNC, _DECL_TAG = 12, 17  # kinds of BTF
_COMMENT = "comment:"
_COUNTED = re.compile(r"^\d+[=:]")
_REFUSED = r"fail|restricted"  # in names of files of which nothing may load
# A class that says more of the same text, from what the program did before.
_CLOSER = (("not-a-pointer", "stale-reference"), ("call-under-lock", "second-lock"))
# What the selftests bring along, a module, is in no kernel of a distribution.
_MODULE = ("bpf_testmod", "bpf_kfunc_call_test", "bpf_iter_testmod", "bpf_kfunc_common_test")


Answers = Dict[str, Dict[str, str]]


@dataclass
class Expected:
    """What the selftests say of a program."""

    loads: bool
    messages: List[str] = field(default_factory=list)


@dataclass
class Found:
    """How many programs agree, and what is to be said of the others."""

    counts: Counter[str] = field(default_factory=collections.Counter)
    classes: Counter[str] = field(default_factory=collections.Counter)
    wrong: List[str] = field(default_factory=list)
    left_out: List[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Judge on each kernel. Returns 1 for a difference, 4 if something cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--kernel", action="append", metavar="NAME")
    parser.add_argument("--file", action="append", default=[], metavar="PATTERN")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="keep answers here, and go on from them"
    )
    options = parser.parse_args(arguments)
    different = False
    try:
        for kernel in options.kernel or KERNELS:
            found = judge(kernel, options.file, options.output)
            different = different or bool(found.wrong)
            print(f"{kernel}: " + ", ".join(f"{n} {what}" for what, n in found.counts.items()))
            print("  classes: " + ", ".join(f"{c} {n}" for c, n in found.classes.most_common()))
            for line in (*found.wrong, *(f"left out: {each}" for each in found.left_out)):
                print(f"  {line}")
    except SetupError as error:
        print(f"selftests: {error}", file=sys.stderr)
        return 4
    return int(different)


def judge(kernel: str, patterns: Sequence[str], output: Optional[Path]) -> Found:
    """Check the selftests of one kernel. Raises SetupError."""
    tree = fetch(kernel)
    tests = tree / TESTS
    tables = dict(_tables(tests))
    found = Found()
    settings = target.Settings("qemu", kernel)
    with closing(choose.open_target(settings, _say)) as guests:
        _make_headers(guests, tree)
        for file in sorted(tests.glob("progs/*.c")):
            if patterns and not any(fnmatch.fnmatch(file.name, each) for each in patterns):
                continue
            if not LOCKS.search(file.read_text(errors="replace")):
                continue
            try:
                source = _compile(file, tree)
            except (build.CompileError, Malformed) as error:
                found.left_out.append(f"{file.name}: {_first_error(str(error))}")
                continue
            _say(f"{kernel}: {file.name}, {len(source.programs)} programs")
            kept = output / kernel / f"{source.name}.json" if output is not None else None
            if kept is not None and kept.exists():
                answers: Answers = json.loads(kept.read_text())
            else:
                answers = _answers(examine.examine(guests, kernel, source, source.programs))
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(answers, indent=1))
            _compare(source, answers, _expectations(source, tables), found)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _answers(row: examine.OnKernel) -> Answers:
    """Return, of each program, {} if it loads, else its class, line and log."""
    if row.problem is not None:
        return {"": {"class": row.problem.name, "line": row.problem.line, "log": ""}}
    return {
        name: (
            {"class": seen.refusal.name, "line": seen.refusal.line, "log": seen.log}
            if seen.refusal is not None
            else {}
        )
        for name, seen in row.programs.items()
    }


# -- sources ---------------------------------------------------------------------------------------


def fetch(kernel: str) -> Path:
    """Return a directory with the selftests of a kernel. Raises SetupError."""
    row = catalogue.find(kernel)
    if not isinstance(row, catalogue.Debian):
        raise SetupError(f"{kernel} is no kernel of Debian, which has its sources as a package.")
    archive = debian_packages.Archive(paths.cache("apt", "+".join(row.suites)), row.suites)
    with paths.lock(archive.lock):
        archive.refresh()
        (package,) = archive.packages([f"linux-source-{row.series}"])
        final = paths.cache("selftests") / f"{package.name}_{package.version}"
        if final.is_dir():
            return final
        with paths.Scratch(final.parent) as scratch:
            _say(f"{kernel}: downloading {package.name} {package.version}")
            (deb,) = archive.download([package], scratch)
            debian_packages.unpack(deb, scratch / "deb")
            (packed,) = (scratch / "deb/usr/src").glob("*.tar.xz")
            with tarfile.open(packed) as sources:
                for member in sources:
                    member.name = member.name.partition("/")[2]
                    if member.name.startswith(WANTED) and (member.isfile() or member.issym()):
                        sources.extract(member, scratch / "tree", filter="data")
            (scratch / "tree").rename(final)
    return final


def _make_headers(guests: target.Target, tree: Path) -> None:
    """Make the headers that the selftests are built with: the kernel's types, and its helpers."""
    kinds, helpers = tree / TESTS / "vmlinux.h", tree / "tools/lib/bpf/bpf_helper_defs.h"
    if not kinds.exists():
        dump = ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"]
        with guests.session() as session:
            done = session.call(calls.Command(dump), limit=300)
        if done["status"]:
            raise SetupError(f"bpftool does not write the kernel's types: {done['stderr']}")
        kinds.write_text(done["stdout"])
    if not helpers.exists():
        text = _run([sys.executable, "scripts/bpf_doc.py", "--header"], tree)
        helpers.write_text(text)
    link = tree / "tools/lib/include"
    if not link.exists():
        link.mkdir()
        (link / "bpf").symlink_to("../bpf")


def _compile(file: Path, tree: Path) -> examine.Source:
    tests = tree / TESTS
    places = (
        *(tests, tests / "progs", tests / "libarena/include"),
        *(tree / "tools/lib/include", tree / "tools/include/uapi"),
    )
    command = [str(build.clang()), "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-std=gnu11"]
    command += ["-D__TARGET_ARCH_x86", "-D__x86_64__", "-DENABLE_ATOMICS_TESTS", "-Wno-everything"]
    command += [f"-I{place}" for place in places]
    command += [f"-idirafter{place}" for place in _system()]
    with paths.Scratch() as scratch:
        made = scratch / "object.o"
        done = subprocess.run(
            [*command, "-c", str(file), "-o", str(made)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise build.CompileError(done.stderr)
        data = made.read_bytes()
    return examine.Source(file.name, data, elf.read(data))


def _system() -> List[str]:
    """Return where the machine's own compiler finds its C library's headers."""
    return ["/usr/include/x86_64-linux-gnu", "/usr/include"]


def _run(command: Sequence[str], directory: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    if done.returncode:
        raise SetupError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def _first_error(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if "error:" in line), text[-120:])


# -- what must happen ------------------------------------------------------------------------------


def _expectations(
    source: examine.Source, tables: Mapping[Tuple[str, str], str]
) -> Dict[str, Expected]:
    """Return what the selftests say of each program of a file of which they say something."""
    assert source.object.types is not None
    stem = source.name[: -len(".c")]
    tags = _tags(source.object.types)
    annotated = any("test_expect_" in tag for each in tags.values() for tag in each)
    found = {}
    for name in source.programs:
        own = tags.get(name, [])
        said = {re.split(r"[=:]", tag, maxsplit=1)[0] for tag in own}
        if (stem, name) in tables:
            found[name] = Expected(False, [tables[stem, name]])
        elif "test_expect_failure" in said:
            found[name] = Expected(False, _messages(own))
        elif "test_expect_success" in said or not (annotated or re.search(_REFUSED, stem)):
            found[name] = Expected(True)
    return found


def _messages(tags: Sequence[str]) -> List[str]:
    found = []
    for tag in tags:
        name, _, rest = tag.partition("=")
        if name == "test_expect_msg":
            found.append(_COUNTED.sub("", rest))
    return found


def _tags(types: Btf) -> Dict[str, List[str]]:
    """Return the comments in the tags of each function, without the number that makes them differ."""
    found: Dict[str, List[str]] = {}
    for each in types.types:
        if each.kind == _DECL_TAG and 0 < each.ref < len(types.types):
            of = types.types[each.ref]
            if of.kind == _FUNC and each.name.startswith(_COMMENT):
                found.setdefault(of.name, []).append(_COUNTED.sub("", each.name[len(_COMMENT) :]))
    return found


def _tables(tests: Path) -> Iterator[Tuple[Tuple[str, str], str]]:
    """Yield ((file, program), text) of the tables of programs that must be refused."""
    for file in sorted(tests.glob("prog_tests/*.c")):
        text = file.read_text(errors="replace")
        for stem, body in re.findall(r"\}\s*(\w+_fail)_tests\[\]\s*=\s*\{\n(.*?)\n\};", text, re.S):
            plain = subprocess.run(
                [str(build.clang()), "-E", "-P", "-x", "c", "-"],
                input=body,
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            names = {stem, f"test_{stem}"}
            string = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
            for program, message in re.findall(rf"\{{\s*{string},\s*{string}\}}", plain):
                for each in names:
                    yield (each, _text(program)), _text(message)


def _text(literals: str) -> str:
    return "".join(ast.literal_eval(each) for each in re.findall(r'"(?:[^"\\]|\\.)*"', literals))


# -- the comparison --------------------------------------------------------------------------------


def _compare(
    source: examine.Source,
    answers: Answers,
    expected: Mapping[str, Expected],
    found: Found,
) -> None:
    for name in source.programs:
        title = f"{source.name}: {name}"
        why = answers.get(name, answers.get(""))
        must = expected.get(name)
        needs = _of_module(source, name, why)
        if must is None or why is None:
            reason = "nothing is said of it" if must is None else "no answer"
            found.left_out.append(f"{title}: {reason}")
        elif must.loads and why and why["class"] == "needs-target":
            found.left_out.append(f"{title}: its test sets the target when it runs")
        elif needs:
            found.left_out.append(f"{title}: {needs}() is of the selftests' own module")
        elif must.loads != (not why):
            found.counts["differ in loads or refused"] += 1
            told = f"{why['class']}: {why['line']}" if why else f"loads, {must.messages}"
            found.wrong.append(f"{title}: must {'load' if must.loads else 'be refused'}: {told}")
        else:
            found.counts["agree on loads or refused"] += 1
            if why:
                _compare_class(title, must, why, found)


def _of_module(source: examine.Source, name: str, why: Optional[Dict[str, str]]) -> str:
    """Return what of the selftests' own module a program was refused for the want of, "" if nothing."""
    if not why or why["class"] not in ("kernel-function", "hook-missing"):
        return ""
    hook = source.object.functions[name].section.rpartition("/")[2]
    names = [hook, *source.asked_names()] if why["class"] == "kernel-function" else [hook]
    return next((each for each in names if each.startswith(_MODULE)), "")


def _compare_class(title: str, must: Expected, why: Dict[str, str], found: Found) -> None:
    name, line = why["class"], why["line"]
    found.classes[name] += 1
    classes = {_class(message) for message in must.messages} - {"other"}
    classes |= {closer for wide, closer in _CLOSER if wide in classes}
    if name == "other" or classes and name not in classes:
        found.counts["differ in the class"] += 1
        fits = "/".join(sorted(classes)) or "none"
        found.wrong.append(f"{title}: {name}: {line}; fitting: {fits}: {must.messages}")
    else:
        found.counts["refused in the class of the text"] += 1


def _class(message: str) -> str:
    """Return the class of a text that is expected."""
    plain = re.sub(r"\{\{.*?\}\}", " ", message)
    log = f"7: (85) call bpf_unknown#93\n{plain}\nprocessed 8 insns\n"
    seen = {"stage": "load", "errno": "EINVAL", "log": log}
    return refusal.explain(seen, {"btf": None, "maps": {}}, Version("7.3"), None, {}).name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

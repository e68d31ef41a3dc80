# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock kernels`: list, fetch and remove Debian's kernels."""

from __future__ import annotations

import argparse
import json
from typing import Any, Dict, List

from harness.commands import OK, output
from harness.errors import UsageError
from harness.provision import catalogue, debian_kernel, kernel_store


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock kernels`."""
    sub.add_argument(
        "what",
        choices=("list", "fetch", "remove"),
        nargs="?",
        default="list",
        help="list: show kernels, fetched or not (default); fetch: download and prepare; remove:"
        " delete from the cache",
    )
    sub.add_argument(
        "names",
        nargs="*",
        metavar="KERNEL",
        help="a minor (6.12), a flavour (6.12-rt), a version (6.12.43), or all: the newest of each"
        " minor",
    )
    sub.add_argument("--json", action="store_true", help="with list: print JSON")
    sub.add_argument(
        "--available", action="store_true", help="with list: also show the versions Debian has now"
    )
    sub.add_argument(
        "--update", action="store_true", help="with fetch: look for a newer version of each kernel"
    )


def run(options: argparse.Namespace) -> int:
    """List, fetch or remove kernels. Raises UsageError for an unknown name."""
    if options.what == "list":
        return _list(options)
    if not options.names:
        raise UsageError(f"Which? `spinlock kernels {options.what} all`, or names of a list.")
    for name in catalogue.expand(options.names):
        if options.what == "fetch":
            got = kernel_store.fetch(name, output.progress, update=options.update)
            print(f"{name:<12}{got.release:<32}{headers(got)}")
        else:
            print(f"{name:<12}{'removed' if kernel_store.remove(name) else 'was not there'}")
    return OK


def _list(options: argparse.Namespace) -> int:
    there = kernel_store.fetched()
    rows: List[Dict[str, Any]] = []
    chosen = catalogue.expand(options.names) if options.names else [*catalogue.names(), *there]
    for name in dict.fromkeys(chosen):
        catalogue.find(name)
        got = there.get(name)
        row: Dict[str, Any] = {"name": name, "release": got.release if got else None}
        if got is not None:
            row["headers"], row["mib"] = got.headers, kernel_store.size_mib(got)
        if options.available and name in catalogue.MINORS:
            row["available"] = debian_kernel.available(name, output.progress)
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        if row["release"]:
            detail = f"{row['release']:<32}{row['mib']:>5} MiB  {headers(there[row['name']])}"
        else:
            detail = "not fetched"
        print(f"{row['name']:<16}{detail}")
        for version in row.get("available", ()):
            print(f"    {version}")
    return OK


def headers(found: kernel_store.Kernel) -> str:
    """Return a phrase about a kernel's headers, which bcc needs to compile."""
    if found.headers == "own":
        return "with headers for bcc"
    if found.headers:
        return f"with headers of {found.headers} for bcc"
    return "without headers, so without bcc"

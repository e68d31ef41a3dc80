#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Make the transcripts of the pages anew, and the picture of the README.

A transcript is a block of console output below a comment that names its command:

    <!-- transcript: spinlock run missing_unlock --loader libbpf -->
    ```console
    $ spinlock run missing_unlock --loader libbpf
    …
    ```

    docs/transcripts.py [PAGE…]          run the commands, write their output (default: all pages)
    docs/transcripts.py --picture PAGE   draw a report's page: docs/matrix.png (needs chromium)
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Match

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LIMIT_SECONDS = 600
PICTURE = ROOT / "docs" / "matrix.png"
_BLOCK = re.compile(r"<!-- transcript: (?P<command>[^\n]+) -->\n```console\n.*?^```$", re.S | re.M)


def output(command: str) -> str:
    """Return what a command prints in the checkout, as a log file would have it.

    Raises SystemExit with its last words where it is not to be had in time.
    """
    places = os.pathsep.join([str(ROOT / ".venv" / "bin"), os.environ.get("PATH", "")])
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env={**os.environ, "PATH": places},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if done.returncode not in (0, 1):  # 1: a check said no, which may be what the page shows
        sys.exit(f"`{command}` ended with {done.returncode}: {done.stdout[-500:]}")
    return done.stdout.rstrip().replace(f"{ROOT}/", "")


def anew(text: str) -> str:
    """Return a page's text with its transcripts made anew."""

    def block(match: Match[str]) -> str:
        command = match["command"]
        head = f"<!-- transcript: {command} -->\n```console\n$ {command}\n"
        return f"{head}{output(command)}\n```"

    return _BLOCK.sub(block, text)


def picture(page: Path) -> None:
    """Draw a report's page. Raises SystemExit without chromium."""
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", "--window-size=1400,900"]
        command += ["--disable-background-networking", "--disable-sync", "--no-first-run"]
        try:
            subprocess.run(
                [*command, f"--screenshot={PICTURE}", page.resolve().as_uri()],
                check=True,
                timeout=LIMIT_SECONDS,
                capture_output=True,
            )
        except FileNotFoundError:
            sys.exit("There is no chromium on this machine: install it to draw the picture.")


def main() -> None:
    """Do what the command line asks for."""
    form = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    form.add_argument("pages", nargs="*", type=Path, metavar="PAGE", default=PAGES)
    form.add_argument("--picture", type=Path, metavar="PAGE", help="a report.html to be drawn")
    options = form.parse_args()
    if options.picture is not None:
        picture(options.picture)
        return
    for page in options.pages:
        text = page.read_text(encoding="utf-8")
        page.write_text(anew(text), encoding="utf-8")


if __name__ == "__main__":
    main()

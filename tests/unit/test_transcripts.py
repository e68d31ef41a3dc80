# SPDX-License-Identifier: GPL-2.0-only
"""docs/transcripts.py: a page's transcripts are what its commands print."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def transcripts():
    spec = importlib.util.spec_from_file_location("transcripts", ROOT / "docs" / "transcripts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_what_names_its_command_is_made_anew(transcripts):
    before = "a\n<!-- transcript: echo new -->\n```console\n$ echo old\nold\n```\n```\nkept\n```\n"
    after = "a\n<!-- transcript: echo new -->\n```console\n$ echo new\nnew\n```\n```\nkept\n```\n"
    assert transcripts.anew(before) == after
    assert transcripts.anew(after) == after


def test_a_command_that_does_not_work_is_no_transcript(transcripts):
    with pytest.raises(SystemExit, match="ended with 127"):
        transcripts.output("there-is-no-such-command")


def test_every_command_of_a_page_is_the_project_s(transcripts):
    pages = [page.read_text() for page in transcripts.PAGES]
    commands = [m["command"] for text in pages for m in transcripts._BLOCK.finditer(text)]
    assert commands and all(command.split()[0] in ("spinlock", "make") for command in commands)

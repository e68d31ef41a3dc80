# SPDX-License-Identifier: GPL-2.0-only
"""What is in contrib/ for other repositories: the GitHub action and the hook of pre-commit."""

import configparser
import json
import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "contrib/github-action"


def test_the_action_hands_its_script_what_that_reads():
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    (step,) = [step for step in action["runs"]["steps"] if "env" in step]
    script = (ACTION / "check.sh").read_text()
    assert set(step["env"]) == set(re.findall(r"\$\{([A-Z]+)[:?-]", script))
    given = {f"${{{{ inputs.{name} }}}}" for name in action["inputs"]}
    assert given == set(step["env"].values())


def test_the_hook_is_a_command_of_the_wheel_and_takes_bpf_sources():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert f"{hook['entry'].split()[0]} = " in setup["options.entry_points"]["console_scripts"]
    assert re.search(hook["files"], "src/flow.bpf.c") and not re.search(hook["files"], "src/flow.c")


def test_the_script_of_the_action_says_no_and_writes_its_log(tmp_path):
    file = ROOT / "tests/harness/check/tutorial_1.bpf.c"
    environment = {
        **os.environ,
        "FILES": str(file),
        "KERNELS": "6.12",
        "ARGUMENTS": "--cpus 2",
        "SARIF": str(tmp_path / "log.sarif"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    command = ["bash", str(ACTION / "check.sh")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "call-under-lock" in done.stdout and done.stdout in (tmp_path / "summary.md").read_text()
    (run,) = json.loads((tmp_path / "log.sarif").read_text())["runs"]
    rules = {result["ruleId"] for result in run["results"]}
    assert rules == {"call-under-lock", "not-protected"}
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert {p["artifactLocation"]["uri"] for p in places} == {str(file.relative_to(ROOT))}

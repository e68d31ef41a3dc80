# SPDX-License-Identifier: GPL-2.0-only
"""What the `spinlock` command makes of its words."""

import subprocess

import pytest

from harness import __main__ as command
from harness.commands import completion
from harness.provision import catalogue
from harness.results import matrix


def parsed(words):
    return command._parse(words.split())


@pytest.mark.parametrize(
    "words, names",
    [
        ("kernels fetch --update 6.12", ["6.12"]),
        ("kernels fetch 6.12 --update", ["6.12"]),
        ("kernels fetch 6.1 --update 6.12 7.3", ["6.1", "6.12", "7.3"]),
        ("kernels list --json 6.12", ["6.12"]),
        ("kernels --json", []),
        ("run first --loader libbpf second", ["first", "second"]),
        ("run --loader libbpf second", ["second"]),
    ],
)
def test_names_may_stand_before_and_after_options(words, names):
    assert parsed(words).names == names


def test_places_are_paths_wherever_they_stand():
    places = parsed("report a --markdown b/c").places
    assert [str(place) for place in places] == ["a", "b/c"]
    assert [place.name for place in places] == ["a", "c"]
    assert parsed("report --markdown").places == [matrix.LATEST]


@pytest.mark.parametrize(
    "words, said",
    [
        ("list something", "unrecognized arguments: something"),
        ("run name --loader libbpf other --no-such", "unrecognized arguments: other --no-such"),
        ("kernels fetch --updaet 6.12", "unrecognized arguments"),
    ],
)
def test_other_words_are_refused_by_the_command_they_were_given_to(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_follows_a_shell_s_command_is_its_own():
    assert parsed("shell --kernel 6.1 uname -a").words == ["uname", "-a"]


def test_every_option_says_what_it_is_for():
    for action in completion._actions(command._parser()):
        assert action.help, action.option_strings or action.dest
        assert "PosixPath" not in action.help % {"default": action.default}


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_knows_commands_cases_and_kernels(shell, tmp_path):
    pytest.importorskip("shtab")
    text = completion.script(command._parser(), shell, ["lock_it"], ["all", *catalogue.names()])
    for word in ("bisect", "--against", "lock_it", "6.12-rt"):
        assert word in text
    if shell == "zsh":  # names, however many
        assert '"*:a scenario' in text and '"(*)::' not in text
    if shell == "bash":
        file = tmp_path / "spinlock.bash"
        file.write_text(text)
        ask = f"source {file}; COMP_WORDS=(spinlock run lo); COMP_CWORD=2; _shtab_spinlock"
        done = subprocess.run(
            ["bash", "-c", f'{ask}; echo "${{COMPREPLY[@]}}"'], capture_output=True, text=True
        )
        assert done.stdout.strip() == "lock_it", done.stderr

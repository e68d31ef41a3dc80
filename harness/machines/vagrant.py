# SPDX-License-Identifier: GPL-2.0-only
"""The machine that `vagrant up` started in this checkout, over plain ssh.

The machine outlives sessions and runs. A kernel that crashes reboots by itself, due to panic=-1.
The new boot id and the console, which libvirt writes to a file, show the crash. The harness waits
until the machine answers again.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

from filelock import FileLock

from harness import paths
from harness.errors import SetupError
from harness.judging import splat
from harness.machines import vagrant_box
from harness.machines.loss import GuestLost, why_lost
from harness.machines.session import Json, Session, piped
from harness.machines.target import Settings
from harness.progress import Progress
from harness.provision import build, kernel_store, userland

ROOT = paths.root()
PLACE = "/run/spinlock"  # in the guest's tmpfs: a crash cannot leave a half-written file there

_ANSWER_SECONDS = 30.0  # for one command over ssh on a busy emulated machine; normal is 1
_BOOT_SECONDS = 300.0  # until a rebooted machine answers; normal is 10 with KVM, 40 without
_SILENT_SECONDS = 60.0  # without an answer and console output for this long, the machine hangs
_RETRY_SECONDS = 1.0

# ssh uses the first value that it finds, so these precede Vagrant's options.
_SSH_OPTIONS = (
    "ControlMaster auto",
    "ControlPersist 60",  # ends by itself when the harness is killed
    "ServerAliveInterval 5",
    "ServerAliveCountMax 4",
    "ConnectTimeout 10",
    "BatchMode yes",
    "LogLevel ERROR",
)

# A script that runs with the agent on standard input and prints the members of Greeting.
_GREETING = """
set -e
cat /proc/sys/kernel/random/boot_id
nproc
uname -r
mkdir -p {place}
test -e {agent} || {{ cat > {agent}.new && mv {agent}.new {agent}; }}
cat /usr/share/spinlock/packages
"""


@dataclass(frozen=True)
class Domain:
    """Libvirt's facts about a machine."""

    accelerator: str  # "kvm" or "tcg"
    console: Optional[Path]


@dataclass(frozen=True)
class Greeting:
    """The guest's facts before a session; the output of _GREETING."""

    boot_id: str
    cpus: int
    release: str
    versions: Json


@dataclass
class _Line:
    """An agent's process in the guest. Its session is open if it is kept warm, else closed."""

    stack: ExitStack
    session: Session


# -- is there a machine? -------------------------------------------------------------------------------


def dotfiles(root: Path = ROOT) -> Path:
    """Return the directory where Vagrant keeps its state of a checkout's machine."""
    return root / os.environ.get("VAGRANT_DOTFILE_PATH", ".vagrant")


def running(root: Path = ROOT) -> bool:
    """Tell whether the machine of a checkout is up. Takes milliseconds."""
    found = vagrant_box.machine_id(dotfiles(root))
    return found is not None and vagrant_box.state(found) == "running"


def serves(settings: Settings, root: Path = ROOT) -> bool:
    """Tell whether a running machine fits the settings of a user who named no target."""
    if settings.append or not running(root):
        return False
    return settings.kernel in (None, vagrant_box.read_settings(dotfiles(root)).get("kernel_name"))


def describe_domain(xml: str) -> Domain:
    """Read the output of `virsh dumpxml`."""
    tree = ElementTree.fromstring(xml)
    source = tree.find("./devices/serial[@type='file']/source")
    path = source.get("path") if source is not None else None
    return Domain(
        accelerator="kvm" if tree.get("type") == "kvm" else "tcg",
        console=Path(path) if path else None,
    )


def ssh_config(vagrants: str, control: Path) -> Tuple[str, str]:
    """Return (host alias, configuration for `ssh -F`), given the output of `vagrant ssh-config`.

    Raises SetupError if that output names no host.
    """
    words = [line.split() for line in vagrants.splitlines()]
    alias = next((word[1] for word in words if word[:1] == ["Host"] and len(word) > 1), None)
    if alias is None or not any(word[:1] == ["HostName"] for word in words):
        raise SetupError("`vagrant ssh-config` names no machine: does `vagrant status` show it up?")
    options = "".join(f"  {option}\n" for option in (*_SSH_OPTIONS, f"ControlPath {control}"))
    return alias, f"Host {alias}\n{options}\n{vagrants}"


def parse_greeting(text: str) -> Greeting:
    """Read the output of _GREETING."""
    boot_id, cpus, release, packages = text.split("\n", 3)
    return Greeting(boot_id, int(cpus), release, userland.parse_versions(packages))


# -- the target ------------------------------------------------------------------------------------------


class Vagrant:
    """One machine. Sessions are processes of one agent, so only the first waits for its start.

    A `warm` session is kept open, as in qemu.Qemu, until a case disturbs it. Processes that share
    the machine (pytest-xdist) take turns, session by session.
    """

    name = "vagrant"

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._progress = progress
        self._id = _running_machine()
        self.kernel: str = vagrant_box.read_settings(dotfiles()).get("kernel_name", "")
        if settings.append:
            raise SetupError("--append is for --target qemu: a Vagrant machine is booted already.")
        self._domain = describe_domain(vagrant_box.virsh("dumpxml", self._id))
        self._userland = userland.ensure(progress)
        self._scratch = paths.Scratch()
        self._warm: Optional[_Line] = None
        self._idle: Optional[_Line] = None
        self._turn = FileLock(str(dotfiles() / "spinlock.lock"))
        self._console_from = 0
        try:
            self._alias = self._configure_ssh()
            self._greeting = self._greet(_BOOT_SECONDS)
            self._check_kernel(settings)
        except BaseException:
            self.close()
            raise
        self.cpus = self._greeting.cpus

    @contextmanager
    def session(self, warm: bool = False) -> Iterator[Session]:
        """See Target."""
        with self._turn:
            self._console_from = len(self._console())
            line = self._take(warm)
            undisturbed = False
            try:
                yield line.session
                if not warm and not line.session.disturbed:
                    line.session.close()
                undisturbed = not line.session.disturbed
            finally:
                if not undisturbed:
                    line.stack.close()
                elif warm:
                    line.session.boot = {"kind": "kept", "seconds": 0.0}
                    self._warm = line
                else:
                    self._idle = line

    def describe(self) -> Json:
        """See Target."""
        prepared = vagrant_box.read_settings(dotfiles())
        known = prepared.get("kernel_release") == self._greeting.release
        return {
            "accelerator": self._domain.accelerator,
            "command": ["vagrant", "up"],
            "image": self._greeting.versions,
            "agent": build.agent().stem,
            "kernel_package": prepared["kernel_package"] if known else None,
        }

    def headers(self) -> Path:
        """See Target."""
        return self._userland.include

    def close(self) -> None:
        """See Target."""
        self._drop_lines()
        self._disconnect()
        self._scratch.remove()

    # -- sessions ----------------------------------------------------------------------------------------

    def _take(self, warm: bool) -> _Line:
        if warm and self._warm is not None:
            line, self._warm = self._warm, None
            return line
        if not warm and self._idle is not None:
            line, self._idle = self._idle, None
            try:
                line.session = line.session.again()
            except BaseException:
                line.stack.close()
                raise
            return line
        self._greeting = self._greet(_BOOT_SECONDS)
        with ExitStack() as stack:
            # Before v5.11 BPF memory counts against RLIMIT_MEMLOCK, also for root.
            serve = f"ulimit -l unlimited; exec /usr/bin/python3 {self._agent()} serve"
            session = stack.enter_context(piped(self._remote(serve), self._lost))
            return _Line(stack.pop_all(), session)

    def _drop_lines(self) -> None:
        for line in (self._warm, self._idle):
            if line is not None:
                line.stack.close()
        self._warm = self._idle = None

    def _lost(self, timed_out: bool) -> GuestLost:
        """Find out why a session ended. Wait until the machine answers again."""
        self._drop_lines()
        self._disconnect()  # else new logins wait for the end of the old connection
        state = vagrant_box.state(self._id)
        if state != "running":
            return GuestLost(f"the machine is {state}: start it with `vagrant up`", False, "")
        if timed_out:
            self._inject_nmi()
        before = self._greeting.boot_id
        try:
            self._greeting = self._greet(_BOOT_SECONDS)
        except SetupError as error:
            self._progress(str(error))
        console = self._console()[self._console_from :]
        if self._greeting.boot_id == before and not timed_out:
            if splat.find(console.splitlines()) is None:
                return GuestLost("the connection to the machine broke", False, console)
        reason = "it rebooted by itself" if self._greeting.boot_id != before else None
        return why_lost(timed_out, reason, console, self._domain.accelerator)

    def _inject_nmi(self) -> None:
        """Make a hung kernel print the stacks of its CPUs and panic (unknown_nmi_panic)."""
        try:
            vagrant_box.virsh("inject-nmi", self._id)
        except SetupError as error:
            self._progress(str(error))  # it has halted; the console has the reason

    def _console(self) -> str:
        """Return the machine's console output since its start; "" if it is not readable."""
        if self._domain.console is None:
            return ""
        try:
            text = self._domain.console.read_bytes().decode(errors="replace")
        except OSError:
            return ""  # the boot id still shows a reboot
        return text.replace("\r\n", "\n")

    # -- ssh -----------------------------------------------------------------------------------------------

    def _configure_ssh(self) -> str:
        directory = self._scratch.path
        alias, text = ssh_config(
            vagrant_box.run(["vagrant", "ssh-config"], _ANSWER_SECONDS, ROOT), directory / "control"
        )
        (directory / "ssh_config").write_text(text)
        return alias

    def _ssh(self, *arguments: str) -> List[str]:
        return ["ssh", "-F", str(self._scratch.path / "ssh_config"), *arguments]

    def _remote(self, script: str) -> List[str]:
        return self._ssh(self._alias, f"sudo -n sh -c {shlex.quote(script)}")

    def _agent(self) -> str:
        return f"{PLACE}/{build.agent().name}"

    def _greet(self, limit: float) -> Greeting:
        """Wait until the machine answers, and copy the agent to it.

        A machine without any answer or console output is made to panic once.
        """
        script = _GREETING.format(place=PLACE, agent=self._agent())
        started = time.monotonic()
        first_console: Optional[int] = len(self._console())
        while True:
            done = self._run(self._remote(script), build.agent().read_bytes())
            if done is not None and done.returncode == 0:
                return parse_greeting(done.stdout.decode())
            passed = time.monotonic() - started
            if passed > limit or vagrant_box.state(self._id) != "running":
                said = done.stderr.decode(errors="replace").strip() if done is not None else ""
                detail = f" ({said.splitlines()[-1]})" if said else ""
                raise SetupError(
                    f"The Vagrant machine does not answer{detail}: restart it with `vagrant reload`.",
                    self._console()[self._console_from :],
                )
            if first_console is not None and passed > _SILENT_SECONDS:
                if len(self._console()) == first_console:
                    self._inject_nmi()
                first_console = None
            time.sleep(_RETRY_SECONDS)  # there is no event when its sshd begins to listen

    def _run(
        self, command: Sequence[str], data: bytes
    ) -> "Optional[subprocess.CompletedProcess[bytes]]":
        """Run ssh. Returns None if it took too long."""
        with tempfile.TemporaryFile() as messages:  # a pipe would stay open in ControlPersist's ssh
            try:
                done = subprocess.run(
                    command,
                    input=data,
                    stdout=subprocess.PIPE,
                    stderr=messages,
                    timeout=_ANSWER_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return None
            messages.seek(0)
            done.stderr = messages.read()
            return done

    def _disconnect(self) -> None:
        """End ssh's persistent connection."""
        if (self._scratch.path / "control").exists():
            self._run(self._ssh("-O", "exit", self._alias), b"")

    def _check_kernel(self, settings: Settings) -> None:
        if settings.kernel is None:
            return
        wanted = kernel_store.cached(settings.kernel)
        if wanted is None or wanted.release != self._greeting.release:
            raise SetupError(
                f"The Vagrant machine runs {self._greeting.release}: "
                f"`KERNEL={settings.kernel} vagrant reload` boots the kernel you want."
            )


def _running_machine() -> str:
    found = vagrant_box.machine_id(dotfiles())
    if found is not None:
        state = vagrant_box.state(found)
        if state == "running":
            return found
        if state is None:
            vagrant_box.check_host()  # a more exact error if libvirt is missing
    raise SetupError("No Vagrant machine of this checkout is running: start it with `vagrant up`.")

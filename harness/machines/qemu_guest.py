# SPDX-License-Identifier: GPL-2.0-only
"""Guests under QEMU. A kernel is cold-booted once and saved; every later guest is restored.

A saved guest is its memory as a sparse file plus QEMU's device state. Restored guests map the
memory file copy-on-write: they start without reading it and share unchanged pages.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Optional, Sequence

import psutil
from filelock import FileLock, Timeout

from harness import paths
from harness.errors import SetupError
from harness.judging import splat
from harness.machines import qemu_command, queues
from harness.machines.pulse import Look, Registers, Timer, owes, registers, timer
from harness.machines.qemu_command import QEMU, Machine, Memory, Runtime
from harness.machines.qmp import Qmp
from harness.progress import Progress
from harness.provision.initramfs import cpio
from harness.provision.kernel_store import Kernel
from harness.provision.userland import Image

FORMAT = 3  # increase if saved guests of older releases must not be used

BOOT_LIMIT_S = 180.0  # an emulated guest on a busy machine; normal is 5
RESTORE_LIMIT_S = 60.0  # likewise; normal is under 1
BOOT_ATTEMPTS = 3  # with emulation; see splat.is_emulators
PROBE_LIMIT_S = 8.0  # for KVM; a working one needs less than 1
KEPT_GUESTS = 4  # saved guests per kernel, 200 MB each; a new agent or command line adds one
SPARE_MIB = 64  # disk space for the device state, beside that for the memory
DYING_LOOK_S = 0.2  # interval of looks at the console of a guest that is about to end
LOOKS, BETWEEN_LOOKS_S = 10, 0.02  # looks at a CPU with a pending timer interrupt
CONSOLE_KEPT = 16000  # characters of the console in a SetupError


def save_key(command: Sequence[str], *facts: str) -> str:
    """Return the name of a saved guest: a digest of its QEMU command and other `facts`."""
    text = json.dumps([FORMAT, list(command), list(facts)])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def describe_end(status: int, console: str, messages: str) -> str:
    """Return why QEMU ended, given its exit status, the guest's console and QEMU's messages."""
    panics = re.findall(r"Kernel panic - not syncing: (.*)", console)
    if panics:
        return f"the kernel panicked: {panics[0].strip()}"
    inits = re.findall(r"spinlock-init: (.*)", console)
    if inits:
        return f"the guest's init stopped: {inits[-1].strip()}"
    if status < 0:
        return f"QEMU was ended by {signal.Signals(-status).name}"
    said = messages.strip().splitlines()
    if status != 0 and said:
        return f"QEMU ended: {said[-1]}"
    return f"the guest stopped or reset (QEMU's exit status {status})"


def telling(console: str) -> str:
    """Return the part of a console to keep: from its first splat on, else its end.

    The end alone might miss the panic message, since backtraces of all CPUs follow it.
    """
    lines = console.splitlines(keepends=True)
    found = splat.find(lines)
    if found is None:
        return console[-CONSOLE_KEPT:]
    return "".join(lines[found.position :])[:CONSOLE_KEPT]


class Guest:
    """One QEMU process. `start` makes one. As a context manager it ends QEMU.

    `channel` is the socket to the agent's virtio-serial port. `hello` is the kernel release that
    the agent reported. `boot` has the kind of boot ("cold" or "restored") and its seconds.
    `command` is the QEMU command line; its fd= numbers are inherited sockets.
    """

    def __init__(self, kernel: str, accelerator: str, cpus: int = 1) -> None:
        self.kernel, self.accelerator, self.cpus = kernel, accelerator, cpus
        self.boot: dict[str, Any] = {}
        self.hello = ""
        self.symbols: dict[str, int] = {}  # of the kernel: see queues.py
        self.command: list[str] = []
        self._scratch = paths.Scratch()
        self.runtime = self._scratch.path
        self.channel, self._channel_far = socket.socketpair()
        ours, self._qmp_far = socket.socketpair()
        self._qmp = Qmp(ours)
        self._process: subprocess.Popen[bytes] | None = None
        self._end: str | None = None
        self._last_console = ""

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """Close the guest if the block raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Return QEMU's process id."""
        assert self._process is not None
        return self._process.pid

    def console(self) -> str:
        """Return the guest's console output so far. Also works after `close`."""
        try:
            text = (self.runtime / "console").read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return self._last_console
        return text.replace("\r\n", "\n")

    def alive(self) -> bool:
        """Tell whether QEMU still runs."""
        return self._process is not None and self._process.poll() is None

    def exit_reason(self) -> str | None:
        """Return the reason why QEMU ended, as a phrase; None while it runs."""
        if self._end is None and self._process is not None and not self.alive():
            messages = (self.runtime / "messages").read_text(errors="replace")
            self._end = describe_end(self._process.returncode, self.console(), messages)
        return self._end

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds` until QEMU has ended. Tell whether it has."""
        assert self._process is not None
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_for_end(self, seconds: float, quiet: float) -> None:
        """Wait until QEMU has ended or the console has become quiet, at most `seconds`.

        Quiet means no output for `quiet` seconds after some output. A panic waits long for stuck
        CPUs after its last message.
        """
        deadline = time.monotonic() + seconds
        length, grown = len(self.console()), float("inf")
        while not self.wait(DYING_LOOK_S) and time.monotonic() < min(deadline, grown + quiet):
            now = len(self.console())
            if now > length:
                length, grown = now, time.monotonic()

    def inject_nmi(self) -> None:
        """Make a hung kernel panic with a backtrace (unknown_nmi_panic)."""
        self._qmp.execute("inject-nmi")

    def look(self) -> dict[int, Look]:
        """Look at all CPUs.

        A healthy CPU takes its timer interrupt almost at once, even if it has interrupts off most
        of the time: it takes the interrupt after each unlock. A vCPU that waits for a core of a
        busy host owes it most of the time. So a CPU is overdue only if several looks find it so.
        """
        timers: dict[int, Timer] = {}
        overdue = set(range(self.cpus))
        for _ in range(LOOKS):
            for cpu in sorted(overdue):
                timers[cpu] = timer(self._qmp.human(f"info lapic {cpu}"))
                if not owes(timers[cpu], functools.partial(self._registers, cpu)):
                    overdue.discard(cpu)
            if not overdue:
                break
            time.sleep(BETWEEN_LOOKS_S)
        threads = psutil.Process(self.pid).threads()
        ran = {thread.id: thread.user_time + thread.system_time for thread in threads}
        looks = {}
        for cpu, set_to in timers.items():
            now = self._registers(cpu)
            armed = now.kept if set_to.periodic else set_to.armed
            looks[cpu] = Look(armed, ran[self._threads[cpu]], cpu in overdue, now.idle, now.at)
        return looks

    def _registers(self, cpu: int) -> Registers:
        return registers(self._dump(cpu))

    def _dump(self, cpu: int) -> str:
        return self._qmp.human("info registers", cpu)

    def queues(self) -> str:
        """Return in words which CPUs wait for each other in queues of locks; "" if none or unknown."""
        if not self.symbols:
            return ""

        def read(address: int, words: int) -> list[int]:
            return queues.words_of(self._qmp.human(f"x /{words}xg {address:#x}"))

        dumps = [self._dump(cpu) for cpu in range(self.cpus)]
        found = []
        for array, lock in queues.ARRAYS.items():
            nodes = queues.nodes_in_use(self.symbols, array, self.cpus, read)
            if nodes:
                locks = queues.lock_words(dumps, nodes, read)
                parts = [queues.word_in_words(*each) for each in locks.items()]
                found.append(
                    f"in the queue of a {lock}: " + "; ".join([*parts, queues.in_words(nodes)])
                )
        return "; ".join(found)

    def waited(self) -> dict[int, float]:
        """Return the seconds that each vCPU has been runnable without a core of the host.

        {} if the host's kernel does not count them (CONFIG_SCHED_INFO).
        """
        files = {
            cpu: Path(f"/proc/{self.pid}/task/{thread}/schedstat")
            for cpu, thread in self._threads.items()
        }
        try:
            return {cpu: int(file.read_text().split()[1]) / 1e9 for cpu, file in files.items()}
        except FileNotFoundError:
            return {}

    @functools.cached_property
    def _threads(self) -> dict[int, int]:
        """The thread id of each vCPU on the host."""
        told = self._qmp.execute("query-cpus-fast")
        return {cpu["cpu-index"]: cpu["thread-id"] for cpu in told}

    @contextlib.contextmanager
    def debugged(self) -> Iterator[Path]:
        """Let QEMU's gdb stub listen on a Unix socket meanwhile; yield its path.

        The guest runs on at the end. Raises EOFError if QEMU has ended.
        """
        place = self.runtime / "gdb"
        listening = f"gdbserver unix:{qemu_command.escape(place)},server=on,wait=off"
        said = self._qmp.human(listening)
        if not place.exists():
            raise SetupError(f"QEMU opened no gdb stub: {said.strip() or 'it said nothing'}.")
        try:
            yield place
        finally:
            if self.alive():
                self._qmp.human("gdbserver none")
                self._qmp.execute("cont")

    def close(self) -> None:
        """End QEMU and remove the guest's files. May be called again."""
        if self._process is not None:
            if self.exit_reason() is None:
                self._process.kill()
                self._process.wait()
                self._end = "closed by the harness"
            self._last_console = self.console()
        for end in (self.channel, self._channel_far, self._qmp_far):
            end.close()
        self._qmp.close()
        self._scratch.remove()

    def fail(self, what: str) -> SetupError:
        """Return the error "the guest `what`", with the reason why QEMU ended and the console."""
        if not self.alive():
            what = f"{what}: {self.exit_reason()}"
        return SetupError(
            f"The guest of kernel {self.kernel} {what}; its console says more.",
            telling(self.console()),
        )

    def _spawn(self, command: list[str]) -> None:
        self.command = command
        # PDEATHSIG ends QEMU together with the thread that forked it, hence the spawner thread.
        # If the harness died before PDEATHSIG was set, the parent differs and QEMU is not started.
        guard = f'[ "$PPID" = {os.getpid()} ] && exec "$@"'
        wrapped = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", guard, "sh", *command]
        far = (self._channel_far.fileno(), self._qmp_far.fileno())
        with (self.runtime / "messages").open("wb") as messages:

            def spawn() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    wrapped,
                    stdin=subprocess.DEVNULL,
                    stdout=messages,
                    stderr=messages,
                    pass_fds=far,
                    start_new_session=True,
                )

            try:
                self._process = _spawner(os.getpid()).submit(spawn).result()
            except (
                FileNotFoundError,
                PermissionError,
            ) as error:  # the latter for an unreadable PATH
                raise SetupError("setpriv is missing: install the package util-linux.") from error
        # With our copies closed, the end of QEMU is an end of file for us.
        self._channel_far.close()
        self._qmp_far.close()

    def _read_line(self, limit: float, what: str) -> dict[str, Any]:
        """Read one message of the agent. No other message may follow it yet."""
        deadline = time.monotonic() + limit
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.channel], [], [], max(0, deadline - time.monotonic()))[0]:
                raise self.fail(f"gave no {what} within {limit:.0f} s")
            got = self.channel.recv(65536)
            if not got:
                self.wait(RESTORE_LIMIT_S)
                raise self.fail(f"ended before its {what}")
            line += got
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self.fail(f"sent {line[:80]!r} for its {what}") from None
        return message


def start(
    kernel: Kernel,
    image: Image,
    machine: Machine,
    *,
    agent: Path,
    snapshot: bool = True,
    progress: Progress = lambda message: None,
) -> Guest:
    """Return a running guest whose agent answers.

    With `snapshot` it is restored from a saved guest. The first call boots a guest, saves it and
    returns it running, so that the first answer comes soon. The second call warms the saved guest
    and saves it again.
    Raises SetupError, with the end of the console, if the guest does not start.
    """
    plan = _Plan(kernel, image, machine, agent, accelerator(kernel, progress))
    if not snapshot:
        return plan.cold(progress, None)
    label = "own" if kernel.modules is None else kernel.name
    saved = paths.cache("guests") / f"{label}-{plan.key}"
    with paths.lock(Path(f"{saved}.lock")):
        if (saved / "guest.json").exists():
            try:
                warm = json.loads((saved / "guest.json").read_text())["warm"]
                return plan.restore(saved) if warm else plan.warm_and_save(saved, progress)
            except (SetupError, OSError, ValueError, KeyError) as error:
                progress(f"guest {kernel.name}: the saved guest is not usable ({error})")
                shutil.rmtree(saved, ignore_errors=True)  # warming may have removed it
        guest = plan.boot_and_save(saved, progress)
    _forget_old(label, saved)
    return guest


def accelerator(kernel: Kernel, progress: Progress = lambda message: None) -> str:
    """Return "kvm" if it really boots `kernel` here, else "tcg".

    SPINLOCK_ACCELERATOR overrides the probe. The answer is cached per host and QEMU version.
    """
    chosen = os.environ.get("SPINLOCK_ACCELERATOR", "")
    if chosen:
        if chosen not in ("kvm", "tcg"):
            raise SetupError(f"SPINLOCK_ACCELERATOR is {chosen!r}: set it to kvm or tcg.")
        return chosen
    version()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    remembered = paths.cache("probe") / f"kvm-{save_key([], version(), _host())}"
    with paths.lock(Path(f"{remembered}.lock")):
        if not remembered.exists():
            progress("probing KVM")
            answer = "kvm" if _kvm_boots(kernel) else "tcg"
            remembered.with_suffix(".new").write_text(answer)
            remembered.with_suffix(".new").rename(remembered)
        return remembered.read_text()


@functools.lru_cache(maxsize=None)
def version() -> str:
    """Return QEMU's version line. Raises SetupError if QEMU is missing."""
    try:
        done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    except (FileNotFoundError, PermissionError) as error:  # the latter for an unreadable PATH
        raise SetupError(f"{QEMU} is missing: install the package qemu-system-x86.") from error
    if done.returncode != 0:
        raise SetupError(f"{QEMU} does not run ({done.stderr.strip()}): reinstall it.")
    return done.stdout.splitlines()[0]


def _forget_old(name: str, newest: Path) -> None:
    """Remove all saved guests of kernel `name` but the KEPT_GUESTS that were used last.

    Also remove incomplete saved guests of any kernel, left by killed processes.
    """
    for unfinished in newest.parent.glob("*.building-*"):
        _remove(unfinished, newest.parent / unfinished.name.partition(".building-")[0])
    found = [path for path in newest.parent.glob(f"{name}-{'?' * 20}") if path != newest]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for stale in found[KEPT_GUESTS - 1 :]:
        _remove(stale, stale)


def _remove(directory: Path, guest: Path) -> None:
    """Remove a saved guest's directory, unless a process is starting or saving that guest."""
    try:
        with FileLock(f"{guest}.lock", timeout=0):
            shutil.rmtree(directory, ignore_errors=True)
    except Timeout:
        pass


class _Plan:
    """The request of one call of `start`, and the three ways to fulfil it."""

    def __init__(
        self, kernel: Kernel, image: Image, machine: Machine, agent: Path, accelerator: str
    ) -> None:
        self.kernel, self._machine = kernel, machine
        self.accelerator = accelerator
        try:
            self._agent = agent.read_bytes()
        except OSError as error:
            raise SetupError(f"The agent {agent} cannot be read: {error.strerror}.") from error
        self._arguments = functools.partial(
            qemu_command.arguments, kernel, image, machine, accelerator
        )
        # Names of runtime files do not matter to a saved guest.
        nowhere = Path("-")
        command = self._arguments(Runtime(nowhere, nowhere, channel_fd=0, qmp_fd=0))
        self.key = save_key(
            command,
            version(),
            kernel.digest,
            image.digest,
            hashlib.sha256(self._agent).hexdigest(),
            _host() if accelerator == "kvm" else "",
        )

    def cold(self, progress: Progress, memory: Path | None) -> Guest:
        """Boot a guest and wait for its hello. Boot it again if the emulator failed."""
        for attempt in range(BOOT_ATTEMPTS, 0, -1):
            try:
                return self._boot(progress, memory)
            except SetupError as error:
                by_emulator = self.accelerator == "tcg" and splat.is_emulators(error.console)
                if attempt == 1 or not by_emulator:
                    raise
                progress(f"guest {self.kernel.name}: the emulator failed at patched code; again")
        raise AssertionError("unreachable")

    def _boot(self, progress: Progress, memory: Path | None) -> Guest:
        progress(f"guest {self.kernel.name}: booting ({self.accelerator})")
        started = time.monotonic()
        guest = Guest(self.kernel.name, self.accelerator, self._machine.cpus)
        with guest.closed_on_failure():
            kept = None if memory is None else Memory(memory, kept=True)
            self._launch(guest, kept, incoming=False)
            message = guest._read_line(BOOT_LIMIT_S, "hello")
            guest.hello = message.get("hello", "")
        guest.boot = {"kind": "cold", "seconds": time.monotonic() - started}
        return guest

    def boot_and_save(self, saved: Path, progress: Progress) -> Guest:
        """Boot a guest, save it in the directory `saved`, and return it running."""
        self._check_space(saved.parent)
        with _building(saved) as building:
            guest = self.cold(progress, building / "running")
            with guest.closed_on_failure():
                if self.kernel.modules is None:  # Debian's kernels have all of them
                    self._check_options(guest)
                # Only these queue for locks: other guests find their hypervisor.
                if self.kernel.modules is None or self._machine.append:
                    guest.symbols = self._symbols(guest)
                _save(guest, building, warm=False)
                building.rename(saved)
                guest._qmp.execute("cont")
        return guest

    def warm_and_save(self, saved: Path, progress: Progress) -> Guest:
        """Warm a saved guest, replace its saved state, and return it running."""
        progress(f"guest {self.kernel.name}: warming the saved guest")
        self._check_space(saved.parent)
        with _building(saved) as building:
            _copy_memory(saved / "memory", building / "running")
            guest = self.restore(saved, building / "running")
            with guest.closed_on_failure():
                guest.channel.sendall(b'{"warm": true}\n')
                guest._read_line(BOOT_LIMIT_S, "word that it is warm")
                _save(guest, building, warm=True)
                shutil.rmtree(saved)
                building.rename(saved)
                guest._qmp.execute("cont")
        return guest

    def _check_space(self, place: Path) -> None:
        """Raise SetupError if a saved guest may not fit.

        A disk that fills up later would end QEMU with SIGBUS, without any explanation.
        """
        free = shutil.disk_usage(place).free >> 20
        needed = (
            2 * self._machine.memory_mib + SPARE_MIB
        )  # the running guest's memory, and its copy
        if free < needed:
            raise SetupError(
                f"{place} has {free} MiB free and a saved guest may need {needed} MiB: "
                "free some space, set SPINLOCK_CACHE to a larger disk, or run without snapshots."
            )

    def _check_options(self, guest: Guest) -> None:
        """Raise SetupError if the user's kernel lacks an option that the harness needs."""
        guest.channel.sendall(b'{"lacking": true}\n')
        lacking = guest._read_line(BOOT_LIMIT_S, "word of what it lacks")["lacking"]
        if lacking:
            raise SetupError(
                f"Kernel {self.kernel.name} was built without {', '.join(lacking)}, which the"
                " harness needs: build it in."
            )

    def _symbols(self, guest: Guest) -> dict[str, int]:
        """Ask a guest for the symbols that queues of locks are found by."""
        question = json.dumps({"symbols": queues.SYMBOLS})
        guest.channel.sendall(question.encode() + b"\n")
        symbols: dict[str, int] = guest._read_line(BOOT_LIMIT_S, "word of its symbols")["symbols"]
        return symbols

    def restore(self, saved: Path, kept: Path | None = None) -> Guest:
        """Restore a saved guest and wait until its agent answers.

        `kept` is a copy of its memory that the guest writes to; None: its writes are lost.
        """
        started = time.monotonic()
        os.utime(saved)
        guest = Guest(self.kernel.name, self.accelerator, self._machine.cpus)
        with guest.closed_on_failure():
            facts = json.loads((saved / "guest.json").read_text())
            guest.hello, guest.symbols = facts["hello"], facts["symbols"]
            memory = Memory(kept or saved / "memory", kept is not None)
            self._launch(guest, memory, incoming=True)
            guest._qmp.load(saved / "state")
            guest.channel.sendall(b'{"ping": 0}\n')
            guest._read_line(RESTORE_LIMIT_S, "answer to a ping")
        guest.boot = {"kind": "restored", "seconds": time.monotonic() - started}
        return guest

    def _launch(self, guest: Guest, memory: Memory | None, *, incoming: bool) -> None:
        initrd = guest.runtime / "initrd"
        content = self.kernel.initrd.read_bytes() + cpio({"agent.pyz": self._agent})
        try:
            initrd.write_bytes(content)
        except OSError as error:
            raise SetupError(
                f"Cannot write {initrd} ({error.strerror}): make room, or set TMPDIR to a place that"
                " has some."
            ) from None
        guest._spawn(
            self._arguments(
                Runtime(
                    initrd=initrd,
                    console=guest.runtime / "console",
                    channel_fd=guest._channel_far.fileno(),
                    qmp_fd=guest._qmp_far.fileno(),
                ),
                memory=memory,
                incoming=incoming,
            )
        )
        try:
            guest._qmp.greet()
            initrd.unlink()  # QEMU has read it; a killed harness must not leave large files behind
        except EOFError:
            guest.wait(RESTORE_LIMIT_S)
            raise guest.fail("did not start") from None


@contextlib.contextmanager
def _building(saved: Path) -> Iterator[Path]:
    """Provide a directory beside `saved`, removed unless it was renamed. Raises SetupError."""
    for leftover in saved.parent.glob(f"{saved.name}.building-*"):
        shutil.rmtree(leftover)
    building = Path(tempfile.mkdtemp(prefix=f"{saved.name}.building-", dir=saved.parent))
    try:
        yield building
    except OSError as error:
        raise SetupError(
            f"The guest cannot be saved below {saved.parent} ({error}): "
            "free some space or set SPINLOCK_CACHE."
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _save(guest: Guest, building: Path, *, warm: bool) -> None:
    """Stop a guest and save it in a directory. Its memory is the file "running" there.

    Raises OSError, SetupError.
    """
    guest._qmp.save(building / "state")
    _copy_memory(building / "running", building / "memory")
    (building / "running").unlink()  # QEMU has it mapped
    facts = {
        "hello": guest.hello,
        "boot": guest.boot,
        "warm": warm,
        "symbols": guest.symbols,
    }
    (building / "guest.json").write_text(json.dumps(facts))


def _copy_memory(running: Path, copy: Path) -> None:
    """Copy the memory of a stopped guest, whose unused parts are holes. Raises OSError."""
    done = subprocess.run(
        ["cp", "--sparse=always", "--reflink=auto", str(running), str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(done.stderr.strip())


def _kvm_boots(kernel: Kernel) -> bool:
    """Boot up to init under KVM: /dev/kvm may exist and still run no guest."""
    with Guest(kernel.name, "kvm") as guest:
        guest._spawn(qemu_command.probe(kernel, guest.runtime / "console"))
        guest.wait(PROBE_LIMIT_S)
        return "spinlock-init: alive" in guest.console()


@functools.lru_cache(maxsize=None)
def _spawner(pid: int) -> concurrent.futures.Executor:
    """Return the thread that forks every QEMU of the process `pid` and lives as long as it."""
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="qemu-spawner")


def _host() -> str:
    """Return the facts of the host that KVM depends on: kernel release and CPU model."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return f"{platform.release()} {model.group(1) if model else ''}"

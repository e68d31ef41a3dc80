# SPDX-License-Identifier: GPL-2.0-only
"""What is damaged, tampered with, out of reach or misspelt ends in a sentence, not in a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from harness import __main__ as command
from harness.check import examine
from harness.errors import SetupError, UsageError
from harness.machines import qemu_command, qemu_guest
from harness.provision import bzimage, catalogue, debian_packages, kernel_store, userland
from harness.pytest_plugin import resume, run_options
from harness.results import matrix
from harness.results.log import ResultLog
from harness.scenarios.programs import Programs

NO_NETWORK = (
    "E: Failed to fetch http://deb.debian.org/debian/dists/trixie/InRelease  Temporary failure"
    " resolving 'deb.debian.org'\nE: Some index files failed to download."
)
TAMPERED = (
    "E: Failed to fetch http://deb.debian.org/debian/pool/l/linux.deb  Hash Sum mismatch\n"
    "W: Connection failed [IP: 1.2.3.4 80]"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def made(cache: Path) -> Path:
    """A kernel that was fetched."""
    row = catalogue.find("6.12")
    assert isinstance(row, catalogue.Debian)
    directory = cache / "kernels" / f"6.12-{kernel_store.recipe(row)}"
    directory.mkdir(parents=True)
    for name in kernel_store.FILES:
        (directory / name).write_text(name)
    manifest = {
        "release": "6.12.1",
        "package_version": "6.12.1-1",
        "headers": "own",
        "command_line": [],
        "digest": kernel_store._digest(sorted(directory.iterdir())),
        "format": kernel_store.FORMAT,
    }
    (directory / "kernel.json").write_text(json.dumps(manifest))
    (directory / f"initrd-{kernel_store._init_digest()}.cpio").write_text("")
    return directory


def silent(message: str) -> None:
    del message


def test_no_network_is_told_from_tampering() -> None:
    unreachable = debian_packages.failure(["apt-get", "update"], NO_NETWORK)
    assert isinstance(unreachable, debian_packages.Unreachable)
    assert str(unreachable) == (
        "The Debian mirror cannot be reached (Temporary failure resolving 'deb.debian.org'): check"
        " the network and SPINLOCK_MIRROR."
    )
    tampered = debian_packages.failure(["apt-get", "download"], TAMPERED)
    assert not isinstance(tampered, debian_packages.Unreachable)
    assert "not what Debian has signed" in str(tampered)


def test_only_no_network_makes_an_older_kernel_do(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = made.rename(made.with_name("6.12-0123456789ab"))
    monkeypatch.setattr(kernel_store, "_check_space", lambda home: None)

    def fails(error: SetupError) -> None:
        def build(row: object, final: object, progress: object) -> None:
            raise error

        monkeypatch.setattr(kernel_store, "_build", build)

    fails(debian_packages.Unreachable("no network"))
    assert kernel_store.fetch("6.12", silent).vmlinux.parent == old
    fails(debian_packages.failure(["apt-get", "download"], TAMPERED))
    with pytest.raises(SetupError, match="not what Debian has signed"):
        kernel_store.fetch("6.12", silent)


def test_a_flipped_byte_in_a_kernel_is_found(made: Path) -> None:
    assert kernel_store.fetch("6.12", silent).release == "6.12.1"
    assert kernel_store.fetch("6.12", silent).release == "6.12.1"  # not read again, only looked at
    (made / "modules.squashfs").write_text("modules.squashgs")
    with pytest.raises(SetupError, match="damaged: `spinlock kernels remove 6.12`"):
        kernel_store.fetch("6.12", silent)
    assert kernel_store.remove("6.12")


@pytest.mark.parametrize("name", kernel_store.FILES)
def test_a_missing_file_of_a_kernel_is_found(made: Path, name: str) -> None:
    (made / name).unlink()
    with pytest.raises(SetupError, match="damaged"):
        kernel_store.fetch("6.12", silent)


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "\x00"])
def test_a_damaged_manifest_is_said(made: Path, text: str) -> None:
    (made / "kernel.json").write_text(text)
    with pytest.raises(SetupError, match="damaged"):
        kernel_store.fetch("6.12", silent)
    home = made.parent.parent / "image" / userland.recipe()
    home.mkdir(parents=True)
    (home / "image.json").write_text(text)
    with pytest.raises(SetupError, match="damaged: remove it"):
        userland.cached()


def test_an_image_that_is_cut_off_is_said(cache: Path) -> None:
    home = cache / "image" / userland.recipe()
    home.mkdir(parents=True)
    (home / "image.json").write_text('{"digest": "0", "versions": {}}')
    (home / "root.ext4").write_text("too short")
    with pytest.raises(SetupError, match="damaged: remove it"):
        userland.cached()


def elf(sections: int) -> bytes:
    header = bytearray(64)
    header[:5], header[18:20] = b"\x7fELF\x02", b"\x3e\0"
    struct.pack_into("<Q", header, 40, 64)
    struct.pack_into("<HH", header, 58, 64, sections)
    return bytes(header)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is not a bzImage"),
        (b"hello\n" * 200, "is not a bzImage"),
        (b"MZ\0\0" + bytes(52) + b"ARM\x64" + bytes(4096), "is not a bzImage"),
        (b"\x7fELF", "is no kernel for x86-64"),
        (elf(3), "is damaged"),
        (elf(0), "has no PVH entry"),
    ],
)
def test_a_file_that_is_no_kernel_is_named(cache: Path, content: bytes, words: str) -> None:
    path = cache / "mine"
    path.write_bytes(content)
    with pytest.raises(SetupError, match=f"^{path} {words}"):
        kernel_store.fetch(str(path), silent)


def test_a_damaged_payload_is_not_blamed_on_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: object, **more: object) -> object:
        return subprocess.CompletedProcess([], 1, b"", b"zstd: Data corruption detected\n")

    monkeypatch.setattr(subprocess, "run", refuses)
    with pytest.raises(SetupError, match="/boot/mine is damaged .zstd cannot decompress it.: get"):
        bzimage._filter(["zstd", "-d"], b"", "zstd", "/boot/mine")


def test_options_may_stand_before_names(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.main(["kernels", "list", "--json", "6.12", "6.1"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["6.12", "6.1"]
    with pytest.raises(SystemExit) as stopped:
        command.main(["kernels", "list", "--jsom", "6.12"])
    assert stopped.value.code == command.USAGE
    assert "unrecognized arguments: --jsom" in capsys.readouterr().err


def test_a_full_disk_is_said_once(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    log = ResultLog(Path("/dev/full"))
    log._file.write("what does not fit")
    log.close()


def test_a_package_that_is_not_the_signed_one_is_thrown_away(tmp_path: Path) -> None:
    deb = tmp_path / "linux.deb"
    deb.write_bytes(b"linux")
    record = f"Package: linux\nVersion: 1\nSHA256: {hashlib.sha256(b'linux').hexdigest()}\n"
    package = debian_packages.parse_package(record)
    debian_packages.check(package, deb)
    deb.write_bytes(b"linuX")
    with pytest.raises(SetupError, match="not what Debian has signed"):
        debian_packages.check(package, deb)
    assert not deb.exists()


# -- what a user asks for ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", ["0", "-1", "256", "1000", "many", ""])
@pytest.mark.parametrize(
    "words", ["run", "shell", "check x.o", "power", "bench", "bisect case --run kernel"]
)
def test_a_number_of_cpus_that_no_guest_has_is_a_mistake(
    words: str, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([*words.split()[:1], f"--cpus={count}", *words.split()[1:]])
    assert stopped.value.code == command.USAGE
    assert "argument --cpus: " in capsys.readouterr().err


def test_what_is_appended_to_the_command_line_fits_and_stays_the_kernel_s() -> None:
    own = len(
        " ".join([*qemu_command.FAST_BOOT, *qemu_command.STOP_ON_TROUBLE, "module.sig_enforce=1"])
    )
    assert own + 1 + run_options.MOST_APPENDED < 2048  # COMMAND_LINE_SIZE, its NUL included
    assert run_options.append(' a="b c"\n\td ') == 'a="b c" d'
    assert len(run_options.append("x" * run_options.MOST_APPENDED)) == run_options.MOST_APPENDED
    with pytest.raises(Exception, match="bytes: 1536 at most"):
        run_options.append("x" * (run_options.MOST_APPENDED + 1))
    with pytest.raises(Exception, match="is for init"):
        run_options.append("quiet -- --help")


@pytest.mark.parametrize("name", ["6,12", "612", "6.13", "", "x" * 5000])
@pytest.mark.parametrize("what", ["list", "fetch", "remove"])
def test_a_name_that_no_kernel_has_is_a_mistake(
    cache: Path, what: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["kernels", what, name]) == command.USAGE
    assert "No kernel is called" in capsys.readouterr().err


def test_a_kernel_that_is_no_file_is_not_waited_for(cache: Path) -> None:
    boot = cache / "tree" / "arch" / "x86" / "boot"
    boot.mkdir(parents=True)
    for path in (cache / "fifo", boot / "bzImage"):
        os.mkfifo(path)
    (cache / "dangling").symlink_to("/nowhere")
    with pytest.raises(SetupError, match="holds no arch/x86/boot/bzImage"):
        kernel_store.look(str(cache / "tree"))
    for name in ("fifo", "dangling"):
        with pytest.raises(SetupError, match="There is no kernel at"):
            kernel_store.look(str(cache / name))


def denied(path: object, *more: object, **others: object) -> os.stat_result:
    raise PermissionError(13, "Permission denied", str(path))


def test_what_may_not_be_looked_at_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", denied)  # below a directory that one may not enter
        with pytest.raises(SetupError, match="There is no kernel at"):
            kernel_store.look(str(tmp_path / "mine"))
        with pytest.raises(UsageError, match="Cannot read .*results.jsonl .Permission denied"):
            matrix.read([tmp_path / "results.jsonl"])
        with pytest.raises(UsageError, match="There is no run in"):
            resume.read(tmp_path)


def test_check_waits_for_no_fifo_and_suggests_a_program(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "prog.o")
    for path in (tmp_path / "prog.o", tmp_path):
        with pytest.raises(UsageError, match="is no file: give a C file or an object"):
            examine.look(path)
    with pytest.raises(UsageError, match="Cannot read .* .No such file or directory"):
        examine.look(tmp_path / "nowhere.c")
    data = tmp_path / "some.o"
    data.touch()
    examine.look(data)
    found = examine.elf.Object({}, ("count_packets", "forget"), {}, "")
    with pytest.raises(UsageError, match="'cuont_packets' .did you mean 'count_packets'.*it has"):
        examine.choose(examine.Source("some.o", b"", found), ["cuont_packets"])


@pytest.mark.parametrize(
    "content, words",
    [
        (b"/* a\n \xfc */", "bad.bpf.c:2: this is no UTF-8"),
        (None, "Cannot read .*bad.bpf.c .No such file or directory"),
        ("fifo", "bad.bpf.c is no file"),
        ("directory", "bad.bpf.c is no file"),
        (b"", "bad.bpf.c:1: no program in this file"),
    ],
)
def test_a_c_file_that_cannot_be_read_is_named(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "bad.bpf.c"
    if content is None:
        path.symlink_to("/nowhere")
    elif content == "fifo":
        os.mkfifo(path)
    elif content == "directory":
        path.mkdir()
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        Programs.read(tmp_path)


# In the words of apt.
EXPIRED = (
    "E: Release file for http://deb.debian.org/debian/dists/trixie-updates/InRelease is {} (invalid"
    " {}). Updates for this repository will not be applied."
)
CUT_OFF = (
    "E: LZ4F: main_binary-amd64_Packages.lz4 Unexpected end of file\n"
    "E: The package cache file is corrupted"
)


def test_a_wrong_clock_and_a_damaged_index_are_not_blamed_on_the_network(cache: Path) -> None:
    update = ["apt-get", "update"]
    for words in (("expired", "since 3d"), ("not valid yet", "for another 5h")):
        said = debian_packages.explain(update, EXPIRED.format(*words))
        assert "set this machine's clock right" in said and "check the network" not in said
    said = debian_packages.explain(["apt-cache", "pkgnames"], CUT_OFF)
    assert said == (
        f"The package index is damaged: remove {cache}/apt, and it is fetched anew (The package"
        " cache file is corrupted)."
    )


def test_a_list_of_cases_that_cannot_be_had_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(arguments: object, plugins: object) -> pytest.ExitCode:
        print("collected nothing")
        print("ERROR: a.bpf.c:1: unknown annotation __rul.\n", file=command.sys.stderr)
        return pytest.ExitCode.USAGE_ERROR

    monkeypatch.setattr(pytest, "main", fails)
    assert command.main(["list"]) == command.USAGE
    assert capsys.readouterr() == ("", "spinlock: a.bpf.c:1: unknown annotation __rul.\n")


def test_no_room_for_temporary_files_is_not_blamed_on_the_cache(tmp_path: Path) -> None:
    class Plan:
        kernel = type("Kernel", (), {"initrd": tmp_path / "initrd"})
        _agent = b"agent"

    class Guest:
        runtime = tmp_path / "gone"

    Plan.kernel.initrd.write_bytes(b"")  # type: ignore[attr-defined]
    with pytest.raises(SetupError, match=f"^Cannot write {tmp_path}/gone/initrd .*set TMPDIR"):
        qemu_guest._Plan._launch(Plan, Guest, None, incoming=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["prog.cpp"], "prog.cpp is C++, which is not compiled here"),
        (["prog.rs"], "prog.rs is Rust"),
        (["prog.bc"], "is LLVM's bitcode (llc -march=bpf -filetype=obj): compile it to an object"),
        (["prog.skel.h"], "is a header: name the .bpf.c file"),
        (["text"], "This is not an ELF file"),
        (["prog.o", "-I", "."], "-I is for the compiler, and prog.o is compiled already"),
        (["prog.o", "-D", "X"], "-D is for the compiler, and prog.o is compiled already"),
        (["prog.c", "-I", "gone"], "-I gone: there is no such directory"),
        (["prog.c", "--sarif", "gone/x"], "Cannot write gone/x: there is no directory gone"),
        (["prog.c", "-o", "."], "Cannot write .: it is a directory"),
        (["prog.c", "gone.c"], "Cannot read gone.c (No such file or directory)"),
        (["prog.c", "prog.c", "--json"], "--json is of one file"),
        ([], "There is no file to check"),
    ],
)
def test_check_says_in_a_sentence_what_is_wrong_with_its_arguments(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("prog.c", "prog.cpp", "prog.rs", "prog.bc", "prog.skel.h", "prog.o", "text"):
        (tmp_path / name).write_text("nothing of use\n")
    assert command.main(["check", *arguments]) == command.USAGE
    assert words in capsys.readouterr().err

"""What is damaged, tampered with, out of reach or misspelt ends in a sentence, not in a traceback."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
from pathlib import Path

import pytest

from harness import __main__ as command, bzimage, catalogue, debian, image, kernel, results
from harness.errors import SetupError

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
    directory = cache / "kernels" / f"6.12-{kernel.recipe(row)}"
    directory.mkdir(parents=True)
    for name in kernel.FILES:
        (directory / name).write_text(name)
    manifest = {
        "release": "6.12.1",
        "package_version": "6.12.1-1",
        "headers": "own",
        "command_line": [],
        "digest": kernel._digest(sorted(directory.iterdir())),
        "format": kernel.FORMAT,
    }
    (directory / "kernel.json").write_text(json.dumps(manifest))
    (directory / f"initrd-{kernel._init_digest()}.cpio").write_text("")
    return directory


def silent(message: str) -> None:
    del message


def test_no_network_is_told_from_tampering() -> None:
    unreachable = debian.failure(["apt-get", "update"], NO_NETWORK)
    assert isinstance(unreachable, debian.Unreachable)
    assert str(unreachable) == (
        "The Debian mirror cannot be reached (Temporary failure resolving 'deb.debian.org'): check"
        " the network and SPINLOCK_MIRROR."
    )
    tampered = debian.failure(["apt-get", "download"], TAMPERED)
    assert not isinstance(tampered, debian.Unreachable)
    assert "not what Debian has signed" in str(tampered)


def test_only_no_network_makes_an_older_kernel_do(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = made.rename(made.with_name("6.12-0123456789ab"))
    monkeypatch.setattr(kernel, "_check_space", lambda home: None)

    def fails(error: SetupError) -> None:
        def build(row: object, final: object, progress: object) -> None:
            raise error

        monkeypatch.setattr(kernel, "_build", build)

    fails(debian.Unreachable("no network"))
    assert kernel.fetch("6.12", silent).vmlinux.parent == old
    fails(debian.failure(["apt-get", "download"], TAMPERED))
    with pytest.raises(SetupError, match="not what Debian has signed"):
        kernel.fetch("6.12", silent)


def test_a_flipped_byte_in_a_kernel_is_found(made: Path) -> None:
    assert kernel.fetch("6.12", silent).release == "6.12.1"
    assert kernel.fetch("6.12", silent).release == "6.12.1"  # not read again, only looked at
    (made / "modules.squashfs").write_text("modules.squashgs")
    with pytest.raises(SetupError, match="damaged: `spinlock kernels remove 6.12`"):
        kernel.fetch("6.12", silent)
    assert kernel.remove("6.12")


@pytest.mark.parametrize("name", kernel.FILES)
def test_a_missing_file_of_a_kernel_is_found(made: Path, name: str) -> None:
    (made / name).unlink()
    with pytest.raises(SetupError, match="damaged"):
        kernel.fetch("6.12", silent)


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "\x00"])
def test_a_damaged_manifest_is_said(made: Path, text: str) -> None:
    (made / "kernel.json").write_text(text)
    with pytest.raises(SetupError, match="damaged"):
        kernel.fetch("6.12", silent)
    home = made.parent.parent / "image" / image.recipe()
    home.mkdir(parents=True)
    (home / "image.json").write_text(text)
    with pytest.raises(SetupError, match="damaged: remove it"):
        image.cached()


def test_an_image_that_is_cut_off_is_said(cache: Path) -> None:
    home = cache / "image" / image.recipe()
    home.mkdir(parents=True)
    (home / "image.json").write_text('{"digest": "0", "versions": {}}')
    (home / "root.ext4").write_text("too short")
    with pytest.raises(SetupError, match="damaged: remove it"):
        image.cached()


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
        kernel.fetch(str(path), silent)


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
    log = results.ResultLog(Path("/dev/full"))
    log._file.write("what does not fit")
    log.close()


def test_a_package_that_is_not_the_signed_one_is_thrown_away(tmp_path: Path) -> None:
    deb = tmp_path / "linux.deb"
    deb.write_bytes(b"linux")
    record = f"Package: linux\nVersion: 1\nSHA256: {hashlib.sha256(b'linux').hexdigest()}\n"
    package = debian.parse_package(record)
    debian.check(package, deb)
    deb.write_bytes(b"linuX")
    with pytest.raises(SetupError, match="not what Debian has signed"):
        debian.check(package, deb)
    assert not deb.exists()

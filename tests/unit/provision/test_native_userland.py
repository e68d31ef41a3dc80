# SPDX-License-Identifier: GPL-2.0-only
"""The tree in which bcc runs, from a small image and a small kernel."""

import os
import stat
import subprocess
from dataclasses import replace

import pytest

from harness.errors import SetupError
from harness.provision import native_userland
from harness.provision.kernel_store import Kernel
from harness.provision.userland import Image

RELEASE = "6.12.118-test"


def run(*command):
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env={"PATH": path})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def image(tmp_path):
    usr = tmp_path / "userland" / "usr"
    for name in ("bin", "lib/x86_64-linux-gnu", "lib64", "share"):
        (usr / name).mkdir(parents=True)
    (usr / "bin/python3").write_text("python")
    (usr / "bin/su").write_text("su")
    (usr / "bin/su").chmod(0o4755)
    (usr / "lib/x86_64-linux-gnu/ld.so").write_text("loader")
    (usr / "lib64/ld.so").symlink_to("../lib/x86_64-linux-gnu/ld.so")
    root = tmp_path / "root.ext4"
    run("mke2fs", "-q", "-t", "ext4", "-d", usr.parent, root, "4m")
    return Image(root=root, include=tmp_path, ssh_key=tmp_path, digest="1" * 64, versions={})


def kernel(place, digest="2" * 64):
    tree = place / digest / "usr"
    headers = tree / "src" / f"linux-headers-{RELEASE}"
    modules = tree / "lib/modules" / RELEASE
    for directory in (headers, modules / "kernel"):
        directory.mkdir(parents=True)
    (headers / "Makefile").write_text("make")
    (modules / "kernel/veth.ko").write_text("module")
    for name in ("build", "source"):
        (modules / name).symlink_to(f"/usr/src/linux-headers-{RELEASE}")
    packed = place / f"{digest}.squashfs"
    run("mksquashfs", tree.parent, packed, "-quiet", "-no-progress")
    return Kernel(
        name="6.12",
        release=RELEASE,
        package_version="",
        vmlinux=place,
        bzimage=place,
        initrd=place,
        modules=packed,
        headers="own",
        digest=digest,
    )


def test_it_has_the_userland_and_the_headers_where_the_guest_has_them(cache, image, tmp_path):
    tree = native_userland.ensure(image, kernel(tmp_path), lambda line: None)
    root = tree.root
    assert (root / "usr/bin/python3").read_text() == "python"
    assert (root / "bin/python3").read_text() == "python"
    assert os.readlink(root / "lib64") == "usr/lib64"
    assert (root / "lib64/ld.so").read_text() == "loader"
    assert os.readlink(root / f"usr/lib/modules/{RELEASE}/build").endswith(RELEASE)
    assert (root / f"usr/src/linux-headers-{RELEASE}/Makefile").exists()
    assert not (root / f"usr/lib/modules/{RELEASE}/kernel").exists()
    assert [list((root / name).iterdir()) for name in ("dev", "proc", "sys")] == [[], [], []]
    for path in (tree.agent, tree.shim):
        assert stat.S_IMODE((root / path.lstrip("/")).stat().st_mode) == 0o644


def test_no_program_in_it_runs_as_anybody_else(cache, image, tmp_path):
    root = native_userland.ensure(image, kernel(tmp_path), lambda line: None).root
    assert stat.S_IMODE((root / "usr/bin/su").stat().st_mode) == 0o755


def test_it_is_made_once(cache, image, tmp_path):
    said = []
    booted = kernel(tmp_path)
    first = native_userland.ensure(image, booted, said.append)
    with_another_init = replace(booted, digest="4" * 64)
    assert native_userland.ensure(image, with_another_init, said.append) == first
    assert len(said) == 1


def test_another_build_of_the_kernel_takes_its_place_and_shares_the_image(cache, image, tmp_path):
    first = native_userland.ensure(image, kernel(tmp_path), lambda line: None)
    second = native_userland.ensure(image, kernel(tmp_path, "3" * 64), lambda line: None)
    assert not first.root.exists()
    links = (second.root / "usr/bin/python3").stat().st_nlink
    assert links == 2  # the image's, and this one


def test_an_image_that_cannot_be_read(cache, image, tmp_path):
    image.root.write_bytes(bytes(1 << 20))
    with pytest.raises(SetupError, match="debugfs could not copy /usr/bin out of the image"):
        native_userland.ensure(image, kernel(tmp_path), lambda line: None)
    assert not list((cache / "native").glob("6.12-*"))


@pytest.mark.parametrize(
    "line, harmless",
    [
        ("debugfs 1.47.0 (5-Feb-2023)", True),
        ("rdump: Operation not permitted while changing ownership of /x/usr/bin/su", True),
        ("/usr/bin: File not found by ext2_lookup ", False),
        ("rdump: No space left on device while writing /x/usr/lib/libbcc.so.0", False),
    ],
)
def test_what_debugfs_says(line, harmless):
    """An ordinary user's copy of root's files is the user's own."""
    assert bool(native_userland._HARMLESS.match(line)) == harmless

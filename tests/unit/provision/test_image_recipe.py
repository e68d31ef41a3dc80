# SPDX-License-Identifier: GPL-2.0-only
"""image.py and debian.py without a network: recipes, staleness, mirrors, what failures mean."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from harness import paths
from harness.errors import SetupError
from harness.provision import debian_packages, userland


def test_recipe_changes_with_what_goes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    before = userland.recipe()
    assert userland.recipe() == before
    monkeypatch.setattr(userland, "PACKAGES", (*userland.PACKAGES, "strace"))
    assert userland.recipe() != before


def test_only_a_finished_and_current_image_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))
    directory = tmp_path / "image" / userland.recipe()
    directory.mkdir(parents=True)
    (directory / "root.ext4").touch()
    os.truncate(directory / "root.ext4", userland.SIZE_BYTES)
    assert userland.cached() is None
    (directory / "image.json").write_text(json.dumps({"digest": "d", "versions": {"bcc": "1"}}))
    found = userland.cached()
    assert found is not None
    assert (found.digest, found.versions) == ("d", {"bcc": "1"})
    monkeypatch.setattr(userland, "CUSTOMIZE", userland.CUSTOMIZE + "true\n")
    assert userland.cached() is None


def test_a_full_disk_is_said_before_building(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda tool, path=None: tool)
    monkeypatch.setattr(userland, "SPACE_BYTES", 1 << 60)
    with pytest.raises(SetupError, match="SPINLOCK_CACHE"):
        userland.ensure(lambda message: None)


def test_missing_mmdebstrap_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda tool, path=None: None)
    with pytest.raises(SetupError, match="install mmdebstrap"):
        userland.ensure(lambda message: None)


def test_versions_come_from_the_packages() -> None:
    listing = "".join(f"{package}:amd64\t1.{at}\n" for at, package in enumerate(VERSIONED))
    versions = userland.parse_versions(listing + "libc6:amd64\t2.41\n")
    assert set(versions) == set(userland.VERSIONS)
    assert versions["bcc"] == f"1.{VERSIONED.index('python3-bpfcc')}"


VERSIONED = list(userland.VERSIONS.values())


def test_command_for_root_and_for_others() -> None:
    for root, mode, kind in ((True, "root", "directory"), (False, "unshare", "tar")):
        words = userland.mmdebstrap_command(Path("/t"), "ssh-ed25519 AAAA", Path("/o"), root)
        assert f"--mode={mode}" in words and f"--format={kind}" in words
        assert any("ssh-ed25519 AAAA" in word for word in words)
        assert not any("@PUBLIC_KEY@" in word for word in words)


@pytest.mark.parametrize(
    "output, expected",
    [
        ("tar: write error: No space left on device\nE: failed", "disk filled up"),
        ("E: Failed to fetch http://x/y  Could not connect", "SPINLOCK_MIRROR"),
        ("E: unshare(CLONE_NEWUSER) failed: Operation not permitted", "as root"),
        ("I: x\nE: run_chroot failed: 1", "run_chroot failed: 1"),
    ],
)
def test_failures_are_explained(output: str, expected: str) -> None:
    assert expected in userland.explain_failure(output)


@pytest.mark.parametrize(
    "uris, expected",
    [
        (["ftp://a/debian/"], debian_packages.Mirror("ftp://a/debian", "ftp://a/debian-security")),
        (
            ["ftp://s/debian-security/", "ftp://a/other", "ftp://m/debian"],
            debian_packages.Mirror("ftp://m/debian", "ftp://s/debian-security"),
        ),
        (["ftp://a/ubuntu"], None),
        ([], None),
    ],
)
def test_choose_mirror(uris: list[str], expected: debian_packages.Mirror | None) -> None:
    assert debian_packages.choose_mirror(uris) == expected


def test_suites_are_served_by_the_right_archive() -> None:
    mirror = debian_packages.Mirror("m", "s")
    assert (mirror.of("trixie"), mirror.of("trixie-security")) == ("m", "s")


def test_mirror_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINLOCK_MIRROR", "file:/srv/debian")
    assert debian_packages.mirror().security == "file:/srv/debian-security"
    monkeypatch.setenv("SPINLOCK_MIRROR", "file:/srv/elsewhere")
    with pytest.raises(SetupError, match="set SPINLOCK_MIRROR"):
        debian_packages.mirror()


def test_package_record() -> None:
    record = (
        "Package: linux-image-7\nVersion: 7.3-1~bpo13+1\nPre-Depends: linux-base (>= 4)\n"
        "Depends: dracut | initramfs-tools, linux-binary-7 (= 7.3-1), python3:any\n"
        "Description: a kernel\n More: text\n"
    )
    assert debian_packages.parse_package(record) == debian_packages.Package(
        "linux-image-7", "7.3-1~bpo13+1", ("linux-base", "dracut", "linux-binary-7", "python3")
    )


def test_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(SetupError, match="SPINLOCK_CACHE"):
        paths.cache("x")

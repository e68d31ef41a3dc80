# SPDX-License-Identifier: GPL-2.0-only
"""The Vagrant way without a VM: what is read, what is written, and what is said when it fails."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, List

import pytest

from harness.errors import SetupError
from harness.machines import choose, target, vagrant, vagrant_box
from harness.provision.kernel_store import Kernel
from harness.provision.userland import Image

SSH_CONFIG = """\
Host default
  HostName 192.168.121.42
  User vagrant
  Port 22
  LogLevel FATAL

"""

DOMAIN = """\
<domain type='{kind}' id='3'>
  <name>spinlock-1234abcd-default</name>
  <devices>
    <serial type='file'><source path='/var/tmp/spinlock-0/x/console.log'/></serial>
    <console type='file'><source path='/var/tmp/spinlock-0/x/console.log'/></console>
  </devices>
</domain>
"""

PACKAGES = """\
bpftool\t7.5.0
clang-19\t1:19.1.7-3
libbpf1:amd64\t1:1.5.0-3
python3\t3.13.5-1
python3-bpfcc\t0.31.0
python3-pyroute2\t0.7.7-4
"""

needs_qemu_img = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is not installed (package qemu-utils)"
)


def checkout(directory: Path, machine: str = "") -> Path:
    """Make a directory as Vagrant leaves it, with a machine or without."""
    place = directory / ".vagrant/machines/default/libvirt"
    place.mkdir(parents=True)
    if machine:
        (place / "id").write_text(machine)
    return directory


@pytest.fixture(autouse=True)
def own_dotfiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no surrounding Vagrant decide."""
    monkeypatch.delenv("VAGRANT_DOTFILE_PATH", raising=False)


@pytest.fixture
def virsh(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Answer virsh from a list of outputs; a missing one is a refusal."""
    answers: List[str] = []

    def answer(*arguments: str) -> str:
        if not answers:
            raise SetupError("`virsh domstate` failed: no domain with matching id.")
        return answers.pop(0)

    monkeypatch.setattr(vagrant_box, "virsh", answer)
    return answers


# -- is there a machine? -------------------------------------------------------------------------------


def test_no_vagrant_directory_is_no_machine(tmp_path: Path, virsh: List[str]) -> None:
    virsh.append("running")
    assert not vagrant.running(tmp_path)


def test_a_destroyed_machine_is_no_machine(tmp_path: Path, virsh: List[str]) -> None:
    virsh.append("running")
    assert not vagrant.running(checkout(tmp_path))


@pytest.mark.parametrize(
    "state, up", [("running\n", True), ("shut off\n", False), ("paused\n", False)]
)
def test_libvirt_says_whether_it_runs(
    tmp_path: Path, virsh: List[str], state: str, up: bool
) -> None:
    virsh.append(state)
    assert vagrant.running(checkout(tmp_path, "0e1d")) is up


def test_a_machine_libvirt_does_not_know_is_down(tmp_path: Path, virsh: List[str]) -> None:
    assert not vagrant.running(checkout(tmp_path, "0e1d"))


def test_dotfiles_may_be_elsewhere(
    tmp_path: Path, virsh: List[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    virsh.append("running")
    other = checkout(tmp_path / "other", "0e1d") / ".vagrant"
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(other))
    assert vagrant.running(tmp_path)


@pytest.mark.parametrize(
    "asked, serves",
    [
        (target.Settings(None), True),
        (target.Settings(None, kernel="7.3"), True),
        (target.Settings(None, kernel="5.10"), False),
        (target.Settings(None, append="nosmt"), False),
    ],
)
def test_a_machine_serves_who_asks_for_nothing_else(
    tmp_path: Path, virsh: List[str], asked: target.Settings, serves: bool
) -> None:
    virsh.append("running")
    root = checkout(tmp_path, "0e1d")
    (root / ".vagrant" / vagrant_box.SETTINGS).write_text('{"kernel_name": "7.3"}')
    assert vagrant.serves(asked, root) is serves


def test_asking_for_a_machine_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vagrant_box, "machine_id", lambda dotfiles: None)
    with pytest.raises(SetupError) as error:
        choose.open_target(target.Settings("vagrant"), print)
    assert str(error.value) == (
        "No Vagrant machine of this checkout is running: start it with `vagrant up`."
    )


def test_nothing_to_test_on_says_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise SetupError("mmdebstrap is missing: run `make setup`.")

    monkeypatch.setattr(vagrant_box, "machine_id", lambda dotfiles: None)
    monkeypatch.setattr(choose, "Qemu", fail)
    with pytest.raises(SetupError, match="`vagrant up`.*`make setup`"):
        choose.open_target(target.Settings(None), print)


# -- what is read ----------------------------------------------------------------------------------------


def test_ssh_config_is_ours_first() -> None:
    alias, text = vagrant.ssh_config(SSH_CONFIG, Path("/tmp/x/control"))
    assert alias == "default"
    shown = subprocess.run(
        ["ssh", "-F", "/dev/stdin", "-G", alias],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for line in ("hostname 192.168.121.42", "user vagrant", "loglevel ERROR", "controlmaster auto"):
        assert line in shown
    assert "controlpath /tmp/x/control" in shown


@pytest.mark.parametrize("text", ["", "Host default\n", "  HostName 192.168.121.42\n"])
def test_ssh_config_of_no_machine(text: str) -> None:
    with pytest.raises(SetupError, match="vagrant status"):
        vagrant.ssh_config(text, Path("/tmp/x/control"))


@pytest.mark.parametrize("kind, accelerator", [("kvm", "kvm"), ("qemu", "tcg")])
def test_domain(kind: str, accelerator: str) -> None:
    domain = vagrant.describe_domain(DOMAIN.format(kind=kind))
    assert domain.accelerator == accelerator
    assert domain.console == Path("/var/tmp/spinlock-0/x/console.log")


def test_domain_without_a_console() -> None:
    assert vagrant.describe_domain("<domain type='kvm'><devices/></domain>").console is None


def test_greeting() -> None:
    greeting = vagrant.parse_greeting("1c2d\n4\n6.12.117+deb13-cloud-amd64\n" + PACKAGES)
    assert (greeting.boot_id, greeting.cpus) == ("1c2d", 4)
    assert greeting.release == "6.12.117+deb13-cloud-amd64"
    assert greeting.versions["bcc"] == "0.31.0"


# -- the box -----------------------------------------------------------------------------------------------


@pytest.fixture
def userland(tmp_path: Path) -> Image:
    """Make an image of no use, with a known time."""
    root = tmp_path / "root.ext4"
    with root.open("wb") as file:
        file.truncate(4 << 20)
    os.utime(root, (0, 0))
    key = tmp_path / "ssh_key"
    key.write_text("key\n")
    return Image(root, tmp_path, key, "0123456789abcdef", {})


def test_metadata_counts_whole_gib() -> None:
    assert vagrant_box.metadata(4 << 30)["virtual_size"] == 4
    assert vagrant_box.metadata((4 << 30) + 1)["virtual_size"] == 5


def test_version_follows_the_image(userland: Image) -> None:
    first = vagrant_box.version(userland)
    assert first == f"19700101.000000.{vagrant_box.FORMAT}001193046"
    os.utime(userland.root, (86400, 86400))
    assert [int(part) for part in vagrant_box.version(userland).split(".")] > [
        int(part) for part in first.split(".")
    ]


@needs_qemu_img
def test_box(userland: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path / "cache"))
    said: List[str] = []
    catalogue = vagrant_box.ensure_box(userland, said.append)
    assert vagrant_box.ensure_box(userland, said.append) == catalogue
    assert len(said) == 1
    listed = json.loads(catalogue.read_text())
    assert listed["name"] == vagrant_box.NAME
    (version,) = listed["versions"]
    assert version["version"] == vagrant_box.version(userland)
    url = version["providers"][0]["url"]
    with tarfile.open(url[len("file://") :]) as made:
        members = {member.name: member for member in made}
        assert set(members) == {"metadata.json", "Vagrantfile", "ssh_key", "box.img"}
        assert members["ssh_key"].mode == 0o600
        disk = made.extractfile("box.img")
        assert disk is not None and disk.read(4) == b"QFI\xfb"


@needs_qemu_img
def test_a_new_image_replaces_the_old_box(
    userland: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path / "cache"))
    old = vagrant_box.ensure_box(userland, print)
    os.utime(userland.root, (86400, 86400))
    new = vagrant_box.ensure_box(userland, print)
    assert new != old and not old.exists()


def test_versions_of_machines(tmp_path: Path) -> None:
    root = checkout(tmp_path, "0e1d")
    assert vagrant_box.box_versions(root / ".vagrant") == []
    (root / ".vagrant/machines/default/libvirt/box_meta").write_text('{"version": "1.2.3"}')
    assert vagrant_box.box_versions(root / ".vagrant") == ["1.2.3"]


# -- files that QEMU's user reads ----------------------------------------------------------------------------


def kernel(directory: Path, digest: str) -> Kernel:
    """Make a kernel of no use."""
    directory.mkdir()
    for name in ("vmlinux", "initrd", "modules"):
        (directory / name).write_text(f"{name} {digest}")
    return Kernel(
        name="6.12",
        release="6.12.1",
        package_version="6.12.1-1",
        vmlinux=directory / "vmlinux",
        bzimage=directory / "bzimage",
        initrd=directory / "initrd",
        modules=directory / "modules",
        headers=True,
        digest=digest,
    )


def test_another_kernel_takes_the_same_places(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    first = vagrant_box.install_kernel(kernel(tmp_path / "a", "a"), place)
    with open(first["modules"]) as in_use:
        second = vagrant_box.install_kernel(kernel(tmp_path / "b", "b"), place)
        assert in_use.read() == "modules a"
    assert first == second
    assert Path(second["modules"]).read_text() == "modules b"
    assert Path(second["kernel"]).stat().st_mode & 0o777 == 0o644
    assert Path(second["console"]).stat().st_mode & 0o077 == 0


def test_shared_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vagrant_box, "SHARED", tmp_path)
    place = vagrant_box.shared_directory("x")
    assert place == vagrant_box.shared_directory("x")
    assert place.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("how", ["writable", "link", "file"])
def test_shared_directory_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(vagrant_box, "SHARED", tmp_path)
    home = tmp_path / f"spinlock-{os.getuid()}"
    if how == "writable":
        home.mkdir()
        home.chmod(0o777)
    elif how == "link":
        (tmp_path / "elsewhere").mkdir()
        home.symlink_to(tmp_path / "elsewhere")
    else:
        home.write_text("")
    with pytest.raises(SetupError, match="remove it|cannot be made"):
        vagrant_box.shared_directory("x")


# -- what is said when it fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output, advice",
    [
        (
            "error: Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file",
            "start",
        ),
        ("error: Failed to connect socket: Permission denied", "adduser"),
        ("error: authentication unavailable: no polkit agent available", "adduser"),
    ],
)
def test_libvirt_refuses(output: str, advice: str) -> None:
    assert advice in vagrant_box.explain_refusal(output)


def addresses(device: str, address: str) -> str:
    """Return what `ip -json address` prints for one device."""
    return json.dumps([{"ifname": device, "addr_info": [{"local": address}]}, {}])


def test_network_is_free() -> None:
    vagrant_box.check_network(vagrant_box.NETWORK, addresses("eth0", "192.0.2.1"))
    vagrant_box.check_network(vagrant_box.NETWORK, addresses("virbr1", "192.168.121.1"))


def test_network_is_taken() -> None:
    with pytest.raises(SetupError, match="eth0 has an address.*SPINLOCK_NETWORK"):
        vagrant_box.check_network(vagrant_box.NETWORK, addresses("eth0", "192.168.121.7"))


def test_network_is_none() -> None:
    with pytest.raises(SetupError, match="such as 192.168.121.0/24"):
        vagrant_box.check_network("here", addresses("eth0", "192.0.2.1"))


def test_what_scripts_run_is_there() -> None:
    root = Path(__file__).resolve().parents[3]
    texts = [path.read_text() for path in (root / "Vagrantfile", *root.glob("vagrant/*.sh"))]
    named = [name for text in texts for name in re.findall(r"\bharness(?:\.\w+)+\b", text)]
    assert len(named) >= 2
    for name in named:
        assert importlib.util.find_spec(name) is not None, name

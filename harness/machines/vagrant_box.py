# SPDX-License-Identifier: GPL-2.0-only
"""Prepares `vagrant up`: the userland as a Vagrant box, and a kernel in files for libvirt.

    KERNEL=6.1 python -m harness.machines.vagrant_box [DOTFILES [up | reload]]

The Vagrantfile runs this before `up` and `reload` and then reads DOTFILES/spinlock.json, DOTFILES
being Vagrant's own directory (.vagrant). The names of the kernel's files never change, because
vagrant-libvirt does not tell an existing machine about a new CD-ROM. Without DOTFILES it only
builds the box and fetches the kernel.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from harness import paths
from harness.errors import SetupError, UsageError
from harness.machines import qemu_command, qemu_guest
from harness.progress import Progress
from harness.provision import parts
from harness.provision.catalogue import DEFAULT, find
from harness.provision.kernel_store import Kernel
from harness.provision.userland import Image

NAME = "spinlock"
SETTINGS = "spinlock.json"
FORMAT = 1  # increase if boxes of the same image must be made anew
GIB = 1 << 30
_VIRSH_SECONDS = 20.0

# QEMU runs as a user of its own, without access to home directories.
SHARED = Path("/var/tmp")

LIBVIRT = os.environ.get("LIBVIRT_DEFAULT_URI") or "qemu:///system"

# Boot from the guest's own disk with its network, without slow extras.
SYSTEM_BOOT = (
    "spinlock.init=/sbin/init",
    "net.ifnames=0",
    "loglevel=5",  # after "quiet": warnings reach the console, which outlives a crashed guest
    "systemd.show_status=false",
    "systemd.log_level=warning",
    "systemd.firstboot=off",
    "TERM=dumb",  # else systemd writes queries of the terminal's size to the console
)

# The box has the ssh settings, since a machine keeps the key of the box it was made from.
BOX_VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.ssh.username = "vagrant"
  config.ssh.private_key_path = File.expand_path("ssh_key", __dir__)
  config.ssh.insert_key = false
end
"""

QEMU_USER = "libvirt-qemu"  # the user that Debian's libvirt runs QEMU as
NETWORK = "192.168.121.0/24"  # vagrant-libvirt's own choice; SPINLOCK_NETWORK overrides it

NEEDED = {
    "virsh": "libvirt-clients",
    "dnsmasq": "dnsmasq-base",
    "iptables": "iptables",
    "qemu-img": "qemu-utils",
    "ip": "iproute2",
}


def build(kernel_name: str, progress: Progress) -> Tuple[Kernel, Image, Path]:
    """Return kernel, image and the box's catalogue. Make those that are missing.

    Raises SetupError or UsageError.
    """
    image, chosen = parts.ensure(kernel_name or DEFAULT, progress)
    return chosen, image, ensure_box(image, progress)


def prepare(dotfiles: Path, kernel_name: str, rebooting: bool, progress: Progress) -> None:
    """Make all files that a machine starts from. Raises SetupError or UsageError."""
    check_host()
    machine = machine_id(dotfiles)
    if not rebooting and machine is not None and state(machine) == "running":
        if kernel_name and find(kernel_name).name != read_settings(dotfiles).get("kernel_name"):
            raise UsageError(
                f"The machine runs already: `KERNEL={kernel_name} vagrant reload` boots that kernel."
            )
        return
    network = os.environ.get("SPINLOCK_NETWORK") or NETWORK
    check_network(network, run(["ip", "-json", "-4", "address"]))
    chosen, userland, catalogue = build(kernel_name, progress)
    accelerator = qemu_guest.accelerator(chosen, progress)
    if accelerator == "kvm" and not kvm_opens_for(QEMU_USER):
        progress(f"/dev/kvm is closed to {QEMU_USER}, so the machine is emulated, which is slower")
        accelerator = "tcg"
    for made_from in box_versions(dotfiles):
        if made_from != version(userland):
            progress(
                "the machine has an older userland: `vagrant destroy -f` makes room for the new"
            )
    name = f"spinlock-{hashlib.sha256(str(dotfiles).encode()).hexdigest()[:8]}"
    place = shared_directory(name)
    settings = {
        "name": name,
        "box": NAME,
        "box_version": version(userland),
        "box_url": catalogue.as_uri(),
        "driver": "kvm" if accelerator == "kvm" else "qemu",
        "kernel_name": chosen.name,
        "kernel_release": chosen.release,
        "kernel_package": chosen.package_version,
        "cmd_line": " ".join(
            [*qemu_command.FAST_BOOT, *qemu_command.STOP_ON_TROUBLE, *SYSTEM_BOOT]
        ),
        "network": network,
        "directory": str(place),
        **install_kernel(chosen, place),
    }
    try:
        dotfiles.mkdir(parents=True, exist_ok=True)
        _replace(dotfiles / SETTINGS, json.dumps(settings, indent=1).encode())
    except OSError as error:
        raise SetupError(f"{dotfiles} cannot be written: {error.strerror}.") from error
    progress(f"kernel {chosen.release} ({accelerator}), box {NAME} {version(userland)}")


def read_settings(dotfiles: Path) -> Dict[str, Any]:
    """Return the settings that `prepare` wrote last; {} if it never ran here."""
    try:
        settings: Dict[str, Any] = json.loads((dotfiles / SETTINGS).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return settings


def version(userland: Image) -> str:
    """Return the box's version, one per image. Later ones are higher, for `vagrant box prune`."""
    made = time.strftime("%Y%m%d.%H%M%S", time.gmtime(userland.root.stat().st_mtime))
    return f"{made}.{FORMAT}{int(userland.digest[:7], 16):09d}"


def metadata(size_bytes: int) -> Dict[str, Any]:
    """Return the box's metadata.json, with the size in whole GiB for vagrant-libvirt."""
    return {
        "provider": "libvirt",
        "format": "qcow2",
        "architecture": "amd64",
        "virtual_size": -(-size_bytes // GIB),
    }


def catalogue_text(name: str, box_version: str, box: Path) -> str:
    """Return the catalogue that leads Vagrant to the box file of a version."""
    provider = {"name": "libvirt", "url": box.as_uri()}
    return json.dumps(
        {"name": name, "versions": [{"version": box_version, "providers": [provider]}]}, indent=1
    )


def ensure_box(userland: Image, progress: Progress) -> Path:
    """Return the catalogue file of the box of an image. Make both if they are missing."""
    home = paths.cache("box")
    final = home / version(userland)
    catalogue = final / "catalogue.json"
    with paths.lock(home / "lock"):
        if catalogue.exists():
            return catalogue
        progress("box: compressing the userland")
        for stale in home.iterdir():
            if stale.is_dir():
                shutil.rmtree(stale)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=home))
        try:
            _build_box(userland, building)
            (building / "catalogue.json").write_text(
                catalogue_text(NAME, version(userland), final / "spinlock.box")
            )
            building.rename(final)
        except OSError as error:
            raise SetupError(f"The box could not be written below {home}: {error}.") from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return catalogue


def _build_box(userland: Image, building: Path) -> None:
    disk = building / "box.img"
    run(
        [
            *("qemu-img", "convert", "-c", "-W", "-m", "4", "-O", "qcow2"),
            *("-o", "compression_type=zstd", str(userland.root), str(disk)),
        ]
    )
    (building / "metadata.json").write_text(json.dumps(metadata(userland.root.stat().st_size)))
    (building / "Vagrantfile").write_text(BOX_VAGRANTFILE)
    shutil.copyfile(userland.ssh_key, building / "ssh_key")
    (building / "ssh_key").chmod(0o600)
    # Plain tar, since the disk in it is compressed.
    with tarfile.open(building / "spinlock.box", "w") as box:
        for name in ("metadata.json", "Vagrantfile", "ssh_key", "box.img"):
            box.add(building / name, name)
            (building / name).unlink()


def shared_directory(name: str) -> Path:
    """Return a directory that all users may read and only this user may write."""
    home = SHARED / f"spinlock-{os.getuid()}"
    for path in (home, home / name):
        try:
            path.mkdir(mode=0o755, exist_ok=True)
            facts = path.lstat()
        except OSError as error:
            raise SetupError(f"{path} cannot be made: {error.strerror}.") from error
        # The parent is writable by all, so another user may have made the directory before us.
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
            raise SetupError(f"{path} is not a directory of yours alone: remove it.")
        path.chmod(0o755)
    return home / name


def install_kernel(chosen: Kernel, place: Path) -> Dict[str, str]:
    """Copy a kernel's files to where QEMU may read them. Return their paths.

    Each file is replaced atomically, so running machines keep the old ones that they have opened.
    """
    if chosen.modules is None:
        raise SetupError(
            "A kernel of your own lacks the modules that a Vagrant machine needs: use --target qemu."
        )
    # libvirt's AppArmor helper reads disks with names of this kind only.
    files = {"kernel": "vmlinux", "initrd": "initrd", "modules": "modules.img"}
    sources = {"kernel": chosen.vmlinux, "initrd": chosen.initrd, "modules": chosen.modules}
    stamp = place / "digest"
    result = {name: str(place / file) for name, file in files.items()}
    try:
        console = place / "console.log"
        console.touch(mode=0o600)  # else libvirt's log daemon creates it as root's
        present = all(Path(path).exists() for path in result.values())
        if not (present and stamp.exists() and stamp.read_text() == chosen.digest):
            stamp.unlink(missing_ok=True)
            for name, source in sources.items():
                fresh = place / f"{files[name]}.new"
                shutil.copyfile(source, fresh)
                fresh.chmod(0o644)
                fresh.rename(result[name])
            stamp.write_text(chosen.digest)
    except OSError as error:
        raise SetupError(f"{place} cannot be written: {error}.") from error
    return {**result, "console": str(console)}


def check_host() -> None:
    """Raise SetupError unless this user can start machines with libvirt here."""
    for tool, package in NEEDED.items():
        if shutil.which(tool, path=search_path()) is None:
            raise SetupError(f"{tool} is missing: install {package}, or run vagrant/setup.sh.")
    done = subprocess.run(
        ["virsh", "--connect", LIBVIRT, "--quiet", "uri"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    if done.returncode != 0:
        raise SetupError(explain_refusal(done.stderr))


def explain_refusal(output: str) -> str:
    """Turn virsh's connection error into one sentence with the remedy."""
    if "Permission denied" in output or "authentication" in output:
        return (
            "libvirt refuses you: run this as root, or join its group with "
            "`sudo adduser $USER libvirt` and log in again."
        )
    return (
        "libvirt does not run here: start it with `sudo systemctl start libvirtd`, "
        "or without systemd use vagrant/run-tests.sh."
    )


def check_network(network: str, addresses: str) -> None:
    """Raise SetupError if a device other than libvirt's has an address in `network`.

    `addresses` is the output of `ip -json address`.
    """
    try:
        wanted = ipaddress.ip_network(network)
    except ValueError:
        raise SetupError(
            f"SPINLOCK_NETWORK is {network!r}: set it to a network such as {NETWORK}."
        ) from None
    for device in json.loads(addresses):
        for entry in device.get("addr_info", []):
            taken = ipaddress.ip_address(entry["local"]) in wanted
            if taken and not device["ifname"].startswith("virbr"):
                raise SetupError(
                    f"{device['ifname']} has an address in {network}, where the machine's should "
                    "be: set SPINLOCK_NETWORK to a network that is free."
                )


def kvm_opens_for(user: str) -> bool:
    """Tell whether a user may open /dev/kvm, by its permissions."""
    facts = os.stat("/dev/kvm")
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return True  # another distribution's libvirt
    groups = os.getgrouplist(user, account.pw_gid)
    shift = 6 if facts.st_uid == account.pw_uid else 3 if facts.st_gid in groups else 0
    return facts.st_mode >> shift & 0o6 == 0o6


def box_versions(dotfiles: Path) -> List[str]:
    """Return the box versions of the machines that Vagrant has made."""
    found = []
    for file in dotfiles.glob("machines/*/libvirt/box_meta"):
        if (file.parent / "id").exists():
            found.append(str(json.loads(file.read_text()).get("version")))
    return found


def search_path() -> str:
    """Return PATH plus the sbin directories, which ordinary users often lack."""
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def machine_id(dotfiles: Path) -> Optional[str]:
    """Return libvirt's id of the machine that Vagrant made, or None if there is none."""
    for file in sorted(dotfiles.glob("machines/*/libvirt/id")):
        text = file.read_text().strip()
        if text:
            return text
    return None


def state(machine: str) -> Optional[str]:
    """Return libvirt's state of a machine, such as "running"; None if it has no such machine."""
    try:
        return virsh("domstate", machine).strip()
    except SetupError:
        return None


def virsh(*arguments: str) -> str:
    """Run virsh and return its output. Raises SetupError if it fails or is missing."""
    return run(["virsh", "--connect", LIBVIRT, "--quiet", *arguments], _VIRSH_SECONDS)


def run(
    command: Sequence[str], limit: Optional[float] = None, directory: Optional[Path] = None
) -> str:
    """Run a program and return its output. Raises SetupError if it fails."""
    name = command[0]
    try:
        done = subprocess.run(
            [shutil.which(name, path=search_path()) or name, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=directory,
            timeout=limit,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError as error:
        raise SetupError(f"{name} is missing: run vagrant/setup.sh.") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{name} did not end in {limit:.0f} s: is libvirt hung?") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(f"{name} failed: {last.rstrip('.')}.")
    return done.stdout


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    fresh.rename(path)


def main(arguments: Sequence[str]) -> int:
    """Build a box, or prepare a machine. Return an exit code as `spinlock` does."""

    def progress(message: str) -> None:
        print(f"spinlock: {message}", file=sys.stderr, flush=True)

    kernel_name = os.environ.get("KERNEL", "")
    try:
        if arguments:
            rebooting = "reload" in arguments[1:]
            prepare(Path(arguments[0]).absolute(), kernel_name, rebooting, progress)
        else:
            build(kernel_name, progress)
    except (SetupError, UsageError) as error:
        progress(str(error))
        return 4 if isinstance(error, SetupError) else 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

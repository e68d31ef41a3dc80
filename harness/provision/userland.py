# SPDX-License-Identifier: GPL-2.0-only
"""The guest userland, made once from Debian packages alone, for every kernel and both VM kinds."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from harness import paths
from harness.errors import SetupError
from harness.progress import Progress
from harness.provision import debian_packages

SUITES = ("trixie", "trixie-security")

PACKAGES = (
    "python3",  # runs the agent
    "python3-bpfcc",  # the bcc loader; brings libbpfcc and LLVM
    "python3-pyroute2",  # the agent's tc, veth and namespace work
    "python3-psutil",  # CPU pinning and process facts
    "libbpf1",  # the libbpf loader, through ctypes
    "clang",  # compiling a scenario by hand inside the guest
    "bpftool",  # looking at programs and maps by hand
    "iproute2",  # ip and tc, by hand and in bug reports
    "kmod",  # modprobe of the modules in the kernel's own image
    "procps",  # sysctl and ps in `spinlock shell`
    "systemd-sysv",  # init of the Vagrant VM
    "udev",  # names the Vagrant VM's network device so that networkd configures it
    "openssh-server",  # how Vagrant talks to its VM
    "sudo",  # Vagrant logs in as an ordinary user
)

# Headers for compiling BPF on the host, so that a host with old headers compiles the same.
HEADER_PACKAGES = ("libbpf-dev", "linux-libc-dev")

# The tools whose versions are reported, and the packages that carry the versions.
VERSIONS = {
    "python": "python3",
    "bcc": "python3-bpfcc",
    "libbpf": "libbpf1",
    "clang": "clang-19",  # clang itself is a metapackage with a version of its own
    "bpftool": "bpftool",
    "pyroute2": "python3-pyroute2",
}

# Files that are unused in the guest. Leaving them out saves a third of the unpacking time.
EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
)

SIZE_BYTES = 4 << 30  # sparse, with room for files of a Vagrant user
SPACE_BYTES = 4 << 30  # free space a build needs: packages, the unpacked tree and the image

# Runs with the new root's directory as $1, as (real or mapped) root. Every timer is masked, since
# background work would disturb programs under test that depend on timing. The Vagrant VM's systemd
# starts only the services of a login: without KVM every program takes half a second.
CUSTOMIZE = r"""
set -eu
cd "$1"
echo spinlock > etc/hostname
printf '127.0.0.1 localhost spinlock\n::1 localhost\n' > etc/hosts
: > etc/resolv.conf
: > etc/fstab
: > etc/machine-id
# Without its address a guest that shuts down leaves logins open at their other end for ever.
printf '%s\n' '[Match]' 'Driver=virtio_net' \
    '[Network]' 'DHCP=ipv4' 'KeepConfiguration=dhcp-on-stop' \
    '[DHCPv4]' 'ClientIdentifier=mac' 'SendRelease=no' \
    > etc/systemd/network/80-dhcp.network
chroot . useradd --create-home --shell /bin/bash --password '*' vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > etc/sudoers.d/vagrant
chmod 0440 etc/sudoers.d/vagrant
for home in root home/vagrant; do
    mkdir -p -m 0700 "$home/.ssh"
    echo '@PUBLIC_KEY@' > "$home/.ssh/authorized_keys"
    chmod 0600 "$home/.ssh/authorized_keys"
done
chroot . chown -R vagrant:vagrant /home/vagrant/.ssh
mask() {
    ln -sf /dev/null "etc/systemd/$1"
}
for timer in usr/lib/systemd/system/*.timer; do
    mask "system/$(basename "$timer")"
done
for unit in usr/lib/systemd/system/sysinit.target.wants/* etc/systemd/system/sysinit.target.wants/* \
    usr/lib/systemd/system/multi-user.target.wants/* etc/systemd/system/multi-user.target.wants/*; do
    name=$(basename "$unit")
    case $name in
    systemd-journald.service | systemd-udevd.service | systemd-udev-trigger.service) ;;
    systemd-tmpfiles-setup.service | systemd-user-sessions.service | ssh.service) ;;
    sys-kernel-debug.mount | sys-kernel-tracing.mount) ;;
    *) mask "system/$name" ;;
    esac
done
ln -sf /usr/lib/systemd/system/systemd-networkd.service \
    etc/systemd/system/multi-user.target.wants/systemd-networkd.service
for unit in systemd-networkd-wait-online.service systemd-networkd-persistent-storage.service \
    getty@.service getty-static.service modprobe@.service systemd-remount-fs.service \
    systemd-udev-load-credentials.service run-lock.mount; do
    mask "system/$unit"
done
mkdir -p etc/systemd/system-generators etc/systemd/system/ssh.service.d \
    etc/systemd/system/systemd-udev-trigger.service.d
for generator in usr/lib/systemd/system-generators/*; do
    mask "system-generators/$(basename "$generator")"
done
printf '[Service]\nExecStartPre=\n' > etc/systemd/system/ssh.service.d/quick.conf
printf '%s\n' '[Service]' 'ExecStart=' \
    'ExecStart=-udevadm trigger --action=add --subsystem-match=virtio --subsystem-match=net' \
    > etc/systemd/system/systemd-udev-trigger.service.d/quick.conf
: > etc/default/locale
mkdir -p usr/share/spinlock usr/src
chroot . dpkg-query --show > usr/share/spinlock/packages
rm -rf var/lib/apt/lists/* var/cache/apt var/log/* var/cache/ldconfig/aux-cache \
    etc/apt/apt.conf.d/99mmdebstrap etc/apt/sources.list etc/apt/sources.list.d
mkdir -p usr/lib/modules run/spinlock
"""

FORMAT = 1  # increase if the way to make an image changes in a manner that recipe() does not cover


@dataclass(frozen=True)
class Image:
    """A built userland.

    `root` is a sparse raw ext4 file system. `include` is the directory for clang's -isystem.
    `ssh_key` is the private key for the accounts vagrant and root. `versions` maps a tool's name to
    its Debian version in the image. `digest` identifies this build.
    """

    root: Path
    include: Path
    ssh_key: Path
    digest: str
    versions: dict[str, str]


def recipe() -> str:
    """Return a digest of all inputs that decide the contents of an image."""
    parts = [FORMAT, SUITES, PACKAGES, HEADER_PACKAGES, EXCLUDED, SIZE_BYTES, CUSTOMIZE, VERSIONS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def cached() -> Image | None:
    """Return the image of the current recipe, or None. Raises SetupError if it is damaged."""
    directory = paths.cache("image") / recipe()
    try:
        manifest = json.loads((directory / "image.json").read_text())
        digest, versions = manifest["digest"], manifest["versions"]
        there = (directory / "root.ext4").stat().st_size == SIZE_BYTES
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        there = False
    if not there:
        raise SetupError(f"The image in {directory} is damaged: remove it, and it is made anew.")
    return Image(
        root=directory / "root.ext4",
        include=directory / "include",
        ssh_key=directory / "ssh_key",
        digest=digest,
        versions=versions,
    )


def ensure(progress: Progress) -> Image:
    """Return the image. Build it if there is none or its recipe has changed.

    Raises SetupError if it cannot be built.
    """
    home = paths.cache("image")
    with paths.lock(home / "lock"):
        found = cached()
        if found is not None:
            return found
        _check_tools(home)
        for leftover in home.glob("building-*"):
            shutil.rmtree(leftover)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=home))
        try:
            _build(building, progress)
            for stale in home.iterdir():
                if stale.is_dir() and stale != building:
                    shutil.rmtree(stale)
            building.rename(home / recipe())
        except OSError as error:
            raise SetupError(f"The image could not be written below {home}: {error}.") from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        found = cached()
    assert found is not None
    return found


def parse_versions(listing: str) -> dict[str, str]:
    """Pick VERSIONS out of the output of `dpkg-query --show`."""
    packages = dict(line.split("\t", 1) for line in listing.splitlines() if "\t" in line)
    installed = {name.split(":")[0]: version for name, version in packages.items()}
    return {tool: installed[package] for tool, package in VERSIONS.items()}


def mmdebstrap_command(target: Path, public_key: str, apt_options: Path, root: bool) -> list[str]:
    """Return the command that makes the root directory, or for non-root users a tar of it."""
    hook = CUSTOMIZE.replace("@PUBLIC_KEY@", public_key)
    return [
        "mmdebstrap",
        "--variant=essential",
        f"--mode={'root' if root else 'unshare'}",
        f"--format={'directory' if root else 'tar'}",
        f"--architectures={debian_packages.ARCHITECTURE}",
        f"--aptopt={apt_options}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
        f"--include={','.join(PACKAGES)}",
        f"--customize-hook={hook}",
        SUITES[0],
        str(target),
        "-",
    ]


def _check_tools(home: Path) -> None:
    needed = {
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "ssh-keygen": "openssh-client",
        "dpkg-deb": "dpkg",
    }
    if os.geteuid() != 0:
        needed.update({"fakeroot": "fakeroot", "newuidmap": "uidmap"})
    for tool, package in needed.items():
        if shutil.which(tool, path=_path()) is None:
            raise SetupError(f"{tool} is missing, so no image can be built: install {package}.")
    free = shutil.disk_usage(home).free
    if free < SPACE_BYTES:
        raise SetupError(
            f"{home} has {free >> 20} MiB free and an image needs {SPACE_BYTES >> 20} MiB: "
            "free some space or set SPINLOCK_CACHE to a larger disk."
        )


def _build(building: Path, progress: Progress) -> None:
    key = building / "ssh_key"
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "spinlock", "-f", str(key)])
    options = building / "apt.conf"
    options.write_text(debian_packages.reach())
    tree = building / "tree"
    is_root = os.geteuid() == 0
    target = tree if is_root else building / "tree.tar"
    progress("image: headers")
    _headers(building / "include", building / "headers")
    public = (building / "ssh_key.pub").read_text().strip()
    _bootstrap(mmdebstrap_command(target, public, options, is_root), progress)
    progress("image: writing the file system")
    root = building / "root.ext4"
    make = f"mke2fs -q -F -t ext4 -m 0 -L spinlock -d '{tree}' '{root}' {SIZE_BYTES >> 10}k"
    if is_root:
        _run(["sh", "-euc", make])
    else:
        unpack = (
            f"mkdir '{tree}'; tar -C '{tree}' --numeric-owner --exclude='./dev/*' -xf '{target}'"
        )
        _run(["fakeroot", "sh", "-euc", f"{unpack}; {make}"])
        target.unlink()
    shutil.rmtree(tree)
    listing = _run(["debugfs", "-R", "cat /usr/share/spinlock/packages", str(root)])
    digest = hashlib.sha256((recipe() + public + listing).encode()).hexdigest()
    manifest = {"digest": digest, "versions": parse_versions(listing)}
    (building / "image.json").write_text(json.dumps(manifest, indent=1))


def _headers(include: Path, scratch: Path) -> None:
    """Collect usr/include/{bpf,linux,asm,asm-generic} from HEADER_PACKAGES."""
    archive = debian_packages.Archive(paths.cache("apt", SUITES[0]), SUITES)
    with paths.lock(archive.lock):
        archive.refresh()
        for deb in archive.download(archive.packages(HEADER_PACKAGES), scratch):
            debian_packages.unpack(deb, scratch)
    include.mkdir()
    for name in ("bpf", "linux", "asm-generic"):
        shutil.copytree(scratch / "usr/include" / name, include / name)
    shutil.copytree(scratch / "usr/include/x86_64-linux-gnu/asm", include / "asm")
    shutil.rmtree(scratch)


def _bootstrap(command: Sequence[str], progress: Progress) -> None:
    """Run mmdebstrap with sources on its standard input, and report its steps."""
    tail: collections.deque[str] = collections.deque(maxlen=30)
    with tempfile.TemporaryFile("w+") as listing:
        listing.write(debian_packages.sources(SUITES))
        listing.seek(0)
        process = subprocess.Popen(
            command,
            stdin=listing,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "PATH": _path(), "LC_ALL": "C.UTF-8"},
        )
        assert process.stderr is not None
        try:
            for line in process.stderr:
                tail.append(line.rstrip())
                step = re.match(r"I: (.*?)\.*$", tail[-1])
                if step:
                    progress(f"image: {step.group(1)}")
            status = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if status != 0:
        raise SetupError(explain_failure("\n".join(tail)))


def explain_failure(output: str) -> str:
    """Turn the end of mmdebstrap's output into one sentence with the remedy."""
    if "No space left on device" in output:
        return "The disk filled up while building the image: free some or set SPINLOCK_CACHE."
    if re.search(
        r"Temporary failure resolving|Could not connect|Cannot initiate|Failed to fetch", output
    ):
        return "The Debian mirror cannot be reached: check the network and SPINLOCK_MIRROR."
    if re.search(r"unshare|newuidmap|subuid", output):
        return (
            "Building as an ordinary user needs user namespaces, and this machine refuses them: "
            "run this once as root."
        )
    errors = re.findall(r"^E: (.*)$", output, re.MULTILINE) or output.splitlines()[-1:]
    return f"mmdebstrap could not build the image ({'; '.join(errors)}): see its message."


def _path() -> str:
    """Return PATH plus the sbin directories, which ordinary users often lack."""
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": _path(), "LC_ALL": "C.UTF-8"},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(f"{command[0]} failed while building the image: {last}.")
    return done.stdout

# SPDX-License-Identifier: GPL-2.0-only
"""Facts about the kernel, the machine and the tools."""

from __future__ import annotations

import errno
import gzip
import hashlib
import importlib.util
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from harness.guest import libbpf, loaders, system

VMLINUX_BTF = "/sys/kernel/btf/vmlinux"
SECURITY = "/sys/kernel/security"
LSM_HOOK = "bpf_lsm_"
CLOCKSOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"


def _read(path: str) -> Optional[str]:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def bcc_version() -> Optional[str]:
    """Return bcc's version, or None when it is not installed.

    To import bcc, and LLVM with it, takes seconds where the machine is emulated.
    """
    found = importlib.util.find_spec("bcc")
    if found is None or found.origin is None:
        return None
    version = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    said = re.search(r"__version__\s*=\s*['\"](.+?)['\"]", version)
    return said[1] if said else "of an unknown version"


def names(wanted: Sequence[str]) -> Dict[str, bool]:
    """Return name -> whether the string section of the kernel's BTF has it; all False without BTF.

    A hook's name such as bpf_lsm_file_open also needs an active BPF LSM. Without that the kernel
    calls no program there, and some kernels have no inode storage.
    """
    found = _btf_names(wanted)
    hooks = [name for name in wanted if found[name] and name.startswith(LSM_HOOK)]
    if hooks and not _lsm_is_active():
        found.update(dict.fromkeys(hooks, False))
    return found


def _lsm_is_active() -> bool:
    """Tell whether the BPF LSM is active; True if securityfs is absent and the answer unknown.

    A wrong True shows as a failure, but a wrong False would skip a case without a reason.
    """
    active = _read(f"{SECURITY}/lsm")
    if active is None:
        try:
            system.mount("securityfs", SECURITY, "securityfs", 0)
        except OSError:  # built without CONFIG_SECURITYFS
            return True
        active = _read(f"{SECURITY}/lsm")
    return active is None or "bpf" in active.split(",")


def _btf_names(names: Sequence[str]) -> Dict[str, bool]:
    try:
        data = Path(VMLINUX_BTF).read_bytes()
    except OSError:
        return {name: False for name in names}
    # struct btf_header: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
    header_size, start, size = (int.from_bytes(data[at : at + 4], "little") for at in (4, 16, 20))
    section = data[header_size + start : header_size + start + size]
    return {name: b"\0" + name.encode() + b"\0" in section for name in names}


def options(names: Sequence[str]) -> Dict[str, str]:
    """Return option -> value in the kernel's configuration ("n": off); {} if that is not available.

    CONFIG_BPF_LSM is "inactive" if the kernel has that LSM but its parameter lsm= leaves it out. This
    is known without the configuration too.
    """
    config, found = _config(), {}
    if config is not None:
        lines = config.splitlines()
        values = dict(line.split("=", 1) for line in lines if line.startswith("CONFIG_"))
        found = {name: values.get(name, "n") for name in names}
    hook = f"{LSM_HOOK}file_open"
    if "CONFIG_BPF_LSM" in names and _btf_names([hook])[hook] and not _lsm_is_active():
        found["CONFIG_BPF_LSM"] = "inactive"
    return found


def _config() -> Optional[str]:
    release = platform.release()
    text = _read(f"/lib/modules/{release}/config") or _read(f"/boot/config-{release}")
    if text is None:
        try:
            text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
        except OSError:
            return None
    return text


def lacking() -> List[str]:
    """Return required configuration options that the kernel lacks.

    Each is probed by using its feature, which costs some tens of milliseconds.
    """
    found = []
    if loaders.load_errno("socket") == errno.ENOSYS:
        found.append("CONFIG_BPF_SYSCALL")
    elif not loaders.bare_program_loads("tc"):
        found.append("CONFIG_NET")
    elif not loaders.bare_program_loads("cgroup_skb/egress"):
        found.append("CONFIG_CGROUP_BPF")
    if not os.path.exists(VMLINUX_BTF):
        found.append("CONFIG_DEBUG_INFO_BTF")
    # The network namespace goes when the shell ends.
    pair = "ip link add name near type veth peer name far"
    for option, command in (
        ("CONFIG_VETH", pair),
        ("CONFIG_NET_SCH_INGRESS", f"{pair} && tc qdisc add dev near clsact"),
    ):
        tried = subprocess.run(["unshare", "--net", "sh", "-c", command], capture_output=True)
        if tried.returncode != 0:
            found.append(option)
            break  # the second probe needs the first option
    return found


def collect() -> Dict[str, Any]:
    """Return the facts about kernel, machine and tools that every result carries."""
    release = platform.release()
    config = _config()
    return {
        "release": release,
        "version": _read("/proc/version"),
        "command_line": _read("/proc/cmdline"),
        "config_sha256": hashlib.sha256(config.encode()).hexdigest() if config else None,
        "cpus": len(os.sched_getaffinity(0)),
        "clocksource": _read(CLOCKSOURCE),
        "virtual": " hypervisor" in (_read("/proc/cpuinfo") or ""),  # the CPUID flag
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "btf": os.path.exists(VMLINUX_BTF),
        "headers": os.path.isdir(f"/lib/modules/{release}/build"),
        "jit": _read("/proc/sys/net/core/bpf_jit_enable"),
        "tainted": _read("/proc/sys/kernel/tainted"),
        "bcc": bcc_version(),
        "libbpf": libbpf.version(),
        "python": platform.python_version(),
    }

# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel is said to have, from files as it shows them."""

import importlib
import sys
from types import ModuleType

import pytest

HOOK, FUNCTION = "bpf_lsm_file_open", "bpf_obj_new_impl"


def btf(*names):
    """Return a BTF with nothing but its header and these names."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    header = b"\x9f\xeb\x01\0" + b"".join(
        number.to_bytes(4, "little") for number in (24, 0, 0, 0, len(strings))
    )
    return header + strings


def unmountable(*arguments):
    raise FileNotFoundError(2, "No such file or directory")


@pytest.fixture
def facts(tmp_path, monkeypatch):
    """The module, away from the machine's own libbpf, which may be too old to be loaded."""
    libbpf, loaders = ModuleType("libbpf"), ModuleType("loaders")
    for module in (libbpf, loaders):
        monkeypatch.setitem(sys.modules, f"harness.guest.{module.__name__}", module)
    monkeypatch.delitem(sys.modules, "harness.guest.facts", raising=False)
    module = importlib.import_module("harness.guest.facts")
    monkeypatch.setattr(module.system, "mount", unmountable)
    (tmp_path / "vmlinux").write_bytes(btf(HOOK, FUNCTION))
    monkeypatch.setattr(module, "VMLINUX_BTF", str(tmp_path / "vmlinux"))
    monkeypatch.setattr(module, "SECURITY", str(tmp_path))
    monkeypatch.setattr(module, "_config", lambda: "CONFIG_BPF_LSM=y\nCONFIG_NET=y\n")
    yield module
    del sys.modules["harness.guest.facts"]
    del sys.modules["harness.guest"].facts  # where "from" would find this one again


@pytest.mark.parametrize(
    "modules, known, option", [("lockdown,bpf", True, "y"), ("lockdown,yama", False, "inactive")]
)
def test_a_hook_counts_where_its_lsm_is_active(facts, tmp_path, modules, known, option):
    (tmp_path / "lsm").write_text(modules)
    asked = [HOOK, FUNCTION, "bpf_loop"]
    assert facts.names(asked) == {HOOK: known, FUNCTION: True, "bpf_loop": False}
    options = facts.options(["CONFIG_BPF_LSM", "CONFIG_NET", "CONFIG_VETH"])
    assert options == {"CONFIG_BPF_LSM": option, "CONFIG_NET": "y", "CONFIG_VETH": "n"}


def test_that_it_is_inactive_is_known_without_the_configuration(facts, tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "_config", lambda: None)
    (tmp_path / "lsm").write_text("yama")
    assert facts.options(["CONFIG_BPF_LSM", "CONFIG_NET"]) == {"CONFIG_BPF_LSM": "inactive"}
    (tmp_path / "lsm").write_text("yama,bpf")
    assert facts.options(["CONFIG_BPF_LSM", "CONFIG_NET"]) == {}


def test_a_kernel_that_cannot_be_asked_skips_nothing(facts):
    assert facts.names([HOOK]) == {HOOK: True}
    assert facts.options(["CONFIG_BPF_LSM"]) == {"CONFIG_BPF_LSM": "y"}


def test_the_version_of_bcc_is_known_without_importing_it(facts, tmp_path, monkeypatch):
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc/__init__.py").write_text("raise SystemError('it was imported')\n")
    (tmp_path / "bcc/version.py").write_text("__version__ = '0.31.0'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert facts.bcc_version() == "0.31.0"


def test_a_target_without_bcc(facts, monkeypatch):
    monkeypatch.setattr(facts.importlib.util, "find_spec", lambda name: None)
    assert facts.bcc_version() is None

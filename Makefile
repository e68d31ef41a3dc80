# SPDX-License-Identifier: GPL-2.0-only
# The two commands a newcomer needs: `make run` and `make test`. Everything else serves them.
PYTHON ?= python3
VENV := .venv
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What the host needs: to make the guest's userland (mmdebstrap, e2fsprogs, fakeroot and uidmap for
# users other than root), to unpack and prepare kernels (squashfs-tools, kmod, xz, zstd, lz4, cpio),
# to compile BPF and the guest's init (clang, libc6-dev), to run guests (QEMU).
PACKAGES := python3 python3-venv debian-archive-keyring mmdebstrap e2fsprogs fakeroot uidmap \
	openssh-client squashfs-tools kmod xz-utils zstd lz4 cpio clang libc6-dev qemu-system-x86 \
	qemu-utils util-linux

.PHONY: run test test-unit test-vagrant setup setup-vagrant image lint transcripts clean help

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

run: setup ## Every scenario through both loaders on the default kernel, with a table at the end
	$(VENV)/bin/spinlock run --loader all -j 2

# What a program does once it is loaded does not depend on who loaded it: through bcc that is asked of
# one of the kernels, which saves minutes. So is the queue of bpf_spin_lock, one code on the three; that
# of res_spin_lock is asked everywhere. `spinlock run` leaves nothing out.
ONCE := ((5.10-bcc or 7.3-bcc) and not test_verdict) or ((5.10 or 7.3) and queued and not res_spin_lock)

test: setup ## Unit tests, the harness's tests of itself, and every scenario on three real kernels
	$(VENV)/bin/pytest --target qemu --loader all -n 2 --dist loadgroup \
		--kernel 5.10 --kernel 6.12 --kernel 7.3 -k "not ($(ONCE))"

test-unit: $(VENV)/ready ## Unit tests only: no root, no VM, seconds
	$(VENV)/bin/pytest tests/unit -n 2

test-vagrant: setup setup-vagrant ## vagrant up, a selection of the tests in it, vagrant destroy
	vagrant/run-tests.sh

setup: $(VENV)/packages $(VENV)/ready image ## Debian packages, virtual environment, guest image

setup-vagrant: ## The additional Debian packages for `vagrant up`
	vagrant/setup.sh

image: $(VENV)/packages $(VENV)/ready ## Build the guest's userland and fetch its kernel
	$(VENV)/bin/spinlock image build

$(VENV)/packages: Makefile
	@mkdir -p $(VENV)
	@if ! dpkg-query --show --showformat='$${db:Status-Status}\n' $(PACKAGES) 2>&1 | \
			grep -qv '^installed$$'; then :; else \
		$(SUDO) apt-get update -q && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
			$(PACKAGES); \
	fi
	@touch $@

$(VENV)/ready: setup.cfg pyproject.toml | $(VENV)/packages
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -e '.[test]'
	@touch $@

$(VENV)/linters: $(VENV)/ready
	@command -v shellcheck >/dev/null || \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends shellcheck
	$(VENV)/bin/pip install -q -e '.[dev]'
	@touch $@

lint: $(VENV)/linters ## Formatting, types and import rules
	$(VENV)/bin/black --check -q harness tests benchmarks docs
	$(VENV)/bin/isort --check -q harness tests benchmarks docs
	$(VENV)/bin/flake8 harness tests benchmarks docs
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports setup.cfg
	shellcheck vagrant/*.sh .ci/run contrib/*/*.sh

transcripts: setup ## Make the pages' transcripts anew, on this machine
	$(VENV)/bin/python docs/transcripts.py

clean: ## Remove what was built here and in the cache
	-$(VENV)/bin/spinlock image remove
	rm -rf $(VENV) results build *.egg-info

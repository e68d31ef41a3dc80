# SPDX-License-Identifier: GPL-2.0-only
"""A real-kernel integration harness for bpf_spin_lock; docs/architecture.md has its rooms."""

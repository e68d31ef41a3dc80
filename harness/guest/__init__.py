# SPDX-License-Identifier: GPL-2.0-only
"""What runs as root in the guest: it loads, runs, drives and reports facts. It judges nothing.

The host imports only `calls`, the table of the agent's calls, and `uapi`, the kernel's constants.
May import nothing of the host.
"""

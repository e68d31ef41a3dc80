# SPDX-License-Identifier: GPL-2.0-only
"""The agent. It runs as root in the guest, loads and runs programs, and reports facts. No judging.

The host imports only `calls`, the table of the agent's calls, and `uapi`, the kernel's constants.
This package imports nothing of the host.
"""

# SPDX-License-Identifier: GPL-2.0-only
"""Provides the parts of a guest: kernels, the userland, the agent, compiled programs.

Each is fetched or built once and cached under a digest of its inputs.
May import: `scenarios`, `guest.calls`, `paths`, `progress`, `errors`.
"""

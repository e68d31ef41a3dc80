# SPDX-License-Identifier: GPL-2.0-only
"""Everything a guest is made of: kernels, the userland, the agent, compiled programs.

Each is fetched or built once and kept in the cache under a digest of what it was made from.
May import: `scenarios`, `guest.calls`, `paths`, `progress`, `errors`.
"""

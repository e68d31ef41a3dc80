# SPDX-License-Identifier: GPL-2.0-only
"""Random programs against an oracle of the lock's rules: `spinlock fuzz`.

`generate` makes programs of the small language `ir`. `oracle` says what a kernel must do with one,
by walking all its paths with exact states; `rules` has what differs between kernels. `lower` makes
instructions of it, `world` has the maps they use, and `campaign` asks the kernel and compares. All
but `campaign` are pure.
May import: `machines`, `judging.splat`, `scenarios`, `guest.calls`, `guest.uapi`, `errors`.
"""

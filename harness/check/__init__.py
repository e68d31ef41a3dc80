# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check`: a program of the user's own, loaded on real kernels and explained.

`examine` asks the kernel; `lockset`, `refusal` and `report` read the answers and the object.
May import: `machines`, `provision`, `judging.splat`, `scenarios`, `guest.calls`, `guest.uapi`,
`paths`, `errors`.
"""

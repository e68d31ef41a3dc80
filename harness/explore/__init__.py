# SPDX-License-Identifier: GPL-2.0-only
"""Schedules: two or three operations on chosen CPUs, interleaved in every way, one after the other.

`schedule` enumerates, `steps` carries out through QEMU's gdb stub, `verdicts` judges, `cases` says
what is explored, `proof` puts them together.
May import: `running`, `check`, `machines`, `results`, `provision`, `judging`, `scenarios`, `guest.calls`,
`guest.uapi`, `paths`, `errors`.
"""

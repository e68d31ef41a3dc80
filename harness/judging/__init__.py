# SPDX-License-Identifier: GPL-2.0-only
"""An observation becomes a verdict. Pure: no kernel, no file, no clock.

What was seen and what came of it are records (`verdict`), and have words (`wording`).
It judges what the verifier said (`judge`), what the kernel logged (`splat`), and what histories and
lists hold after a contest (`history`, `serialization`, `list_model`).
May import: `scenarios`, `errors`.
"""

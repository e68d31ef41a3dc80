#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What the action runs: FILES, KERNELS and ARGUMENTS are lists of words, SARIF is a file. The report is
# shown in the log and, on GitHub, in the job's summary. The exit code is that of `spinlock check`.
set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
report=$(mktemp)
trap 'rm -f "$report"' EXIT
read -ra files <<<"${FILES:?names the files to check}"
read -ra kernels <<<"${KERNELS:-}"
read -ra arguments <<<"${ARGUMENTS:-}"
options=()
for kernel in "${kernels[@]}"; do
	options+=(--kernel "$kernel")
done

"$here/.venv/bin/spinlock" check "${files[@]}" "${options[@]}" "${arguments[@]}" \
	--sarif "${SARIF:-spinlock.sarif}" >"$report"
code=$?
cat "$report"
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
	{
		printf '```\n'
		cat "$report"
		printf '```\n'
	} >>"$GITHUB_STEP_SUMMARY"
fi
exit "$code"

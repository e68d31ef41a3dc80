#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The whole way through Vagrant: up, halt, up again, a selection of the tests, destroy.
#
#     vagrant/run-tests.sh [PYTEST ARGUMENTS]
#
# The machine is one of its own: it is not that of `vagrant up` in this checkout. Where no libvirt
# runs, see with-libvirt.sh; nothing is left behind either way but the cache.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
limit=20m # for each step

step() {
    echo "run-tests: $*" >&2
    timeout --foreground --kill-after=30 "$limit" "$@"
}

finish() {
    status=$?
    trap '' INT TERM HUP
    step vagrant destroy --force || status=1
    if [ -n "$scratch" ]; then
        rm -rf "$scratch"
    fi
    exit "$status"
}

if [ "${1:-}" != --inside ]; then
    if [ ! -x "$python" ]; then
        echo "run-tests: .venv is missing: run \`make setup\`." >&2
        exit 4
    fi
    "$python" -m harness.machines.vagrant_box # a network of our own has no way out for downloads
    exec vagrant/with-libvirt.sh "vagrant/${0##*/}" --inside "$@"
fi
shift

scratch=
if [ -z "${VAGRANT_DOTFILE_PATH:-}" ]; then
    scratch=$(mktemp -d)
    export VAGRANT_DOTFILE_PATH="$scratch"
fi
quiet=
if [ ! -t 1 ]; then
    quiet=--no-tty # no progress bars
fi
trap finish EXIT
trap 'exit 130' INT TERM HUP

step vagrant up $quiet
step vagrant ssh --command 'uname -r && echo kept >kept'
step vagrant halt $quiet
step vagrant up $quiet
step vagrant ssh --command 'cat kept'
if [ $# -eq 0 ]; then
    set -- tests/lock/test_verdicts.py tests/lock/serialization/test_serialization.py \
        -k "unlock or (serialization and test_run)"
fi
step "$python" -m pytest --target vagrant "$@"

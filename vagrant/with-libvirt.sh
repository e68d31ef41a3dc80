#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Run a command with a working libvirt: the system's, or a private one.
#
#     vagrant/with-libvirt.sh vagrant status
#
# Where libvirt runs, that is all. Where there is no systemd to run it (a container, a CI machine)
# the command gets a libvirt of its own, in namespaces: network, processes and everything libvirt
# and Vagrant write down are private and gone when the command ends, even when it is killed. The
# guest's address exists in there only. Needs root.
set -eu

say() {
    echo "with-libvirt: $1" >&2
}

answers() {
    virsh --connect qemu:///system --quiet uri >/dev/null 2>&1
}

outside() {
    if [ $# -eq 0 ]; then
        say "give a command to run."
        exit 2
    fi
    for tool in virsh libvirtd virtlogd dnsmasq unshare; do
        if ! command -v "$tool" >/dev/null; then
            say "$tool is missing: run vagrant/setup.sh."
            exit 4
        fi
    done
    if answers; then
        exec "$@"
    fi
    if [ -d /run/systemd/system ]; then
        say "libvirt does not answer: start it with \`sudo systemctl start libvirtd\`, or join its group."
        exit 4
    fi
    if [ "$(id -u)" -ne 0 ]; then
        say "a libvirt of your own needs namespaces: run this as root."
        exit 4
    fi
    exec unshare --net --mount --pid --fork --kill-child --mount-proc -- "$0" --inside "$@"
}

# As process 1 of the new namespaces: when it ends, the kernel ends all others.
inside() {
    trap : INT TERM HUP # they reach the command, too: wait for what it makes of them
    # Network devices are shown per namespace. Without the cgroups below it, libvirt uses none: it
    # could not tell them from the host's.
    umount --recursive --lazy /sys
    mount -t sysfs sysfs /sys
    ip link set lo up
    for directory in /run /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt \
        "/var/tmp/spinlock-$(id -u)"; do
        mkdir -p "$directory"
        mount -t tmpfs -o mode=0755 spinlock "$directory"
    done
    # Two of these at once give their machines the same name, and so the same files in here.
    mount -t tmpfs -o mode=1777 spinlock /var/tmp
    # libvirt asks QEMU again what it can do, for a second, over and over, when root may use KVM and
    # QEMU's user may not.
    if [ -e /dev/kvm ] && ! setpriv --reuid libvirt-qemu --regid kvm --clear-groups \
        sh -c '[ -r /dev/kvm ] && [ -w /dev/kvm ]'; then
        (umask 777 && : >/run/no-kvm)
        mount --bind /run/no-kvm /dev/kvm
        echo 'namespaces = []' >/etc/libvirt/qemu.conf # could not move this mount into its own
    fi
    export VAGRANT_HOME=/run/spinlock/vagrant.d VAGRANT_DOTFILE_PATH=/run/spinlock/vagrant
    mkdir -p "$VAGRANT_HOME" "$VAGRANT_DOTFILE_PATH"
    virtlogd --daemon
    libvirtd --daemon
    if ! answers; then
        say "libvirtd does not start: see its messages above."
        exit 4
    fi
    "$@"
}

PATH=$PATH:/usr/sbin:/sbin
if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
else
    outside "$@"
fi

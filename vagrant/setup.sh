#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Install what `vagrant up` needs beside `make setup`, on Debian bookworm or trixie.
set -eu

packages="
    vagrant vagrant-libvirt
    libvirt-daemon-system libvirt-clients
    dnsmasq-base iptables iproute2
    qemu-system-x86 qemu-utils
    openssh-client
"
if [ "$(id -u)" -eq 0 ]; then
    sudo=
else
    sudo=sudo
fi
# shellcheck disable=SC2086  # one word per package
if dpkg-query --show --showformat='${db:Status-Status}\n' $packages 2>&1 | grep -qv '^installed$'; then
    $sudo apt-get update -q
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages
fi
if [ -n "$sudo" ]; then
    for group in libvirt kvm; do
        if ! id -nG | tr ' ' '\n' | grep -qx "$group"; then
            $sudo adduser "$(id -un)" "$group"
            echo "setup: log in again before \`vagrant up\`, to be in the group $group."
        fi
    done
fi

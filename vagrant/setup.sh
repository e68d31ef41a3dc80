#!/bin/sh
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
$sudo apt-get update
# shellcheck disable=SC2086  # several words each
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $packages
if [ -n "$sudo" ]; then
    for group in libvirt kvm; do
        $sudo adduser "$(id -un)" "$group"
    done
    echo "setup: log in again before \`vagrant up\`: you are in libvirt's group now."
fi

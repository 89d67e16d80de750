#!/usr/bin/env bash
# Makes what a small virtual machine on pure cgroup v2 boots from: kernel, initramfs, disk. Usage: vm.sh REEVE FOLDER
# The kernel is the distribution's own, fetched with apt-get and unpacked, not installed. Exit code 75: the package or
# a tool cannot be had here. What runs in the machine is deploy/vm/; who boots it is tests/src/vm.rs.
set -euo pipefail
cd "$(dirname "$0")/../.."
reeve=$(realpath "$1")
out=$(mkdir -p "$2" && realpath "$2")
export PATH="$PATH:/usr/sbin:/sbin"

skip() {
    echo "vm: $*" >&2
    exit 75
}
for tool in busybox qemu-system-x86_64 mke2fs dpkg-deb apt-get; do
    command -v "$tool" >/dev/null || skip "$tool is missing (deploy/scripts/deps.sh test installs it)"
done

# Debian has modules in the image's package, Ubuntu in one of its own.
fetch_kernel() {
    local meta image modules
    for meta in linux-image-cloud-amd64 linux-image-virtual; do
        image=$(apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
        [ -n "$image" ] && break
    done
    [ -n "$image" ] || skip "apt-cache knows no kernel for virtual machines (apt-get update?)"
    modules=$(apt-cache depends "$image" | sed -n 's/^ *Depends: \(linux-modules-[0-9].*\)/\1/p' | head -n 1)
    mkdir -p "$out/fetched"
    (cd "$out/fetched" && apt-get download -qq -o APT::Sandbox::User=root "$image" ${modules:+"$modules"}) >&2 || skip "cannot fetch $image"
    for package in "$out"/fetched/*.deb; do
        dpkg-deb -x "$package" "$out/unpacked"
    done
    rm -rf "$out/fetched"
}

# The parser of AppArmor profiles alone; without it the machine has none.
fetch_parser() {
    if [ -x /usr/sbin/apparmor_parser ]; then
        copy_with_libraries /usr/sbin/apparmor_parser "$1"
        return
    fi
    mkdir -p "$out/fetched"
    if (cd "$out/fetched" && apt-get download -qq -o APT::Sandbox::User=root apparmor) >&2; then
        dpkg-deb -x "$out"/fetched/apparmor_*.deb "$out/parser"
        copy_with_libraries "$(find "$out/parser" -name apparmor_parser -type f)" "$1"
    else
        echo "vm: cannot fetch apparmor" >&2
    fi
    rm -rf "$out/fetched" "$out/parser"
}

# Only what Reeve and the machine's own devices need: the whole is ten times as large.
copy_modules() { # copy_modules FROM TO
    local wanted
    (
        cd "$1"
        for wanted in kernel/net kernel/lib kernel/fs/overlayfs kernel/drivers/block kernel/drivers/virtio \
            kernel/drivers/net/veth.ko* kernel/drivers/net/vxlan; do
            if [ -e "$wanted" ]; then cp -r --parents "$wanted" "$2"; fi
        done
    )
    cp "$1"/modules.builtin* "$1"/modules.order "$2"
    # Busybox reads no compressed modules (Debian 13, Ubuntu 24.04).
    if [ -n "$(find "$2" -name '*.ko.xz' -print -quit)" ]; then
        command -v xz >/dev/null || skip "xz is missing, and the kernel's modules are compressed with it"
        find "$2" -name '*.ko.xz' -exec xz -d {} +
    fi
    if [ -n "$(find "$2" -name '*.ko.zst' -print -quit)" ]; then
        command -v zstd >/dev/null || skip "zstd is missing, and the kernel's modules are compressed with it"
        find "$2" -name '*.ko.zst' -exec zstd -q -d --rm {} +
    fi
}

copy_with_libraries() { # copy_with_libraries PROGRAM ROOT [NAME]
    local file
    install -D "$1" "$2/usr/bin/${3:-$(basename "$1")}"
    for file in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
        install -D "$file" "$2$file"
    done
}

make_disk() {
    local root="$out/root"
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,etc,root,sbin,mnt,var/lib,usr/bin}
    cp -r deploy/vm/etc "$root/"
    install deploy/vm/rc deploy/vm/agent "$root/sbin/"
    copy_with_libraries "$reeve" "$root" reeve
    copy_with_libraries "$(command -v unshare)" "$root"
    if command -v nft >/dev/null; then copy_with_libraries "$(command -v nft)" "$root"; fi
    if [ -x /usr/sbin/criu ]; then
        # It has GNU's tar save what lies in a tmpfs.
        for tool in /usr/sbin/criu "$(command -v tar)" "$(command -v gzip)"; do copy_with_libraries "$tool" "$root"; done
    fi
    fetch_parser "$root"
    if [ -e "$root/usr/bin/apparmor_parser" ]; then ln -s /usr/bin/apparmor_parser "$root/sbin/"; fi
    install "$(command -v busybox)" "$root/bin/busybox"
    for applet in $(busybox --list | grep -vx busybox); do
        ln -sf /bin/busybox "$root/bin/$applet"
    done
    ln -s /bin/modprobe "$root/sbin/modprobe"
    ln -s /bin/init "$root/sbin/init"
    mkdir -p "$root/lib/modules/$version"
    copy_modules "$modules" "$root/lib/modules/$version"
    busybox depmod -b "$root" "$version"
    rm -f "$out/disk.img"
    # Sparse: what is not used takes no room.
    mke2fs -q -t ext4 -d "$root" "$out/disk.img" 2G
}

make_initramfs() {
    local root="$out/initramfs" own="lib/modules/$version"
    rm -rf "$root"
    mkdir -p "$root"/{bin,sbin,proc,sys,dev,mnt,"$own"}
    install deploy/vm/initramfs-init "$root/init"
    install "$(command -v busybox)" "$root/bin/busybox"
    (cd "$out/root" && find "$own" -name 'virtio*.ko' -exec cp --parents {} "$root" \;)
    cp "$out/root/$own"/modules.builtin* "$root/$own"
    busybox depmod -b "$root" "$version"
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$out/initramfs.gz"
}

fetch_kernel
version=$(basename "$(find "$out/unpacked" -path '*lib/modules/*' -maxdepth 4 -name '[0-9]*' -type d | head -n 1)")
modules=$(find "$out/unpacked" -path "*lib/modules/$version" -type d | head -n 1)
cp "$out/unpacked/boot/vmlinuz-$version" "$out/kernel"
make_disk
make_initramfs
rm -rf "$out/unpacked" "$out/root" "$out/initramfs"

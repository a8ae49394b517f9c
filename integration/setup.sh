#!/usr/bin/env bash
# Makes a Debian 12 or 13 machine ready: packages that are missing, a Rust toolchain, the static target.
# Changes nothing where everything is there already, and then needs neither root nor the network.
#
#   integration/setup.sh [build] [lint] [demo] [test] [vm] [qemu] [conformance] [bench]   install what these need (default: the first four)
#   integration/setup.sh target                                 print the target that a static binary is built for
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin:/sbin"

readonly MSRV=1.85
arch=$(uname -m)
readonly arch
readonly musl=$arch-unknown-linux-musl

# group     what must exist (a command, or a file)   package
readonly NEEDS='
build       cc                                        gcc
build       /usr/include/stdlib.h                     libc6-dev
build       /etc/ssl/certs/ca-certificates.crt        ca-certificates
lint        shellcheck                                shellcheck
lint        git                                       git
demo        dockerd                                   docker.io
demo        docker                                    docker-cli
demo        containerd                                containerd
demo        busybox                                   busybox-static
demo        iptables                                  iptables
demo        jq                                        jq
demo        script                                    bsdutils
demo        setsid                                    util-linux
test        dockerd                                   docker.io
test        docker                                    docker-cli
test        docker-buildx                             docker-buildx
test        containerd                                containerd
test        busybox                                   busybox-static
test        iptables                                  iptables
test        /usr/lib/cni/bridge                       containernetworking-plugins
test        jq                                        jq
test        script                                    bsdutils
test        debootstrap                               debootstrap
test        podman                                    podman
test        newuidmap                                 uidmap
test        slirp4netns                               slirp4netns
test        /usr/lib/podman/netavark                  netavark
test        docker-compose                            docker-compose
test        buildah                                   buildah
test        /usr/bin/catatonit                        catatonit
test        runc                                      runc
test        strace                                    strace
test        ps                                        procps
test        ip                                        iproute2
vm          mmdebstrap                                mmdebstrap
vm          mke2fs                                    e2fsprogs
vm          cc                                        gcc
vm          strip                                     binutils
vm          /usr/include/stdlib.h                     libc6-dev
vm          /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
vm          jq                                        jq
vm          flock                                     util-linux
vm          debootstrap                               debootstrap
qemu        qemu-system-x86_64                        qemu-system-x86
conformance busybox                                   busybox-static
conformance script                                    bsdutils
conformance strace                                    strace
conformance runc                                      runc
conformance crun                                      crun
bench       cc                                        gcc
bench       busybox                                   busybox-static
bench       strace                                    strace
bench       runc                                      runc
bench       crun                                      crun
'

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: run \`make setup\` as root, or as root: ${*}"
    fi
}

present() {
    case $1 in
        # Docker's client has BuildKit in itself up to version 22, and as this plugin from 23 on.
        docker-buildx) [ -e /usr/libexec/docker/cli-plugins/docker-buildx ] || [[ $(/usr/bin/docker --version 2>/dev/null) =~ ^Docker\ version\ (1.|2[0-2])\. ]] ;;
        /*) [ -e "$1" ] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

candidate() { # the version that apt would install, or nothing
    apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

apt_lists_fresh=no
refresh_apt_lists() {
    [ "$apt_lists_fresh" = yes ] && return
    command -v apt-get >/dev/null || die "no apt-get here; install by hand: $*"
    say "apt-get update"
    as_root apt-get update -qq
    apt_lists_fresh=yes
}

install_packages() {
    refresh_apt_lists "$@"
    say "apt-get install $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install_missing() { # groups...
    local group what package missing=()
    while read -r group what package; do
        [[ " $* " == *" $group "* ]] || continue
        present "$what" || missing+=("$package")
    done < <(sed '/^$/d' <<<"$NEEDS")
    [ ${#missing[@]} = 0 ] && return
    refresh_apt_lists "${missing[@]}"
    # Debian 12 has the Docker client inside docker.io, and BuildKit in that; Debian 13 has them in docker-cli and docker-buildx.
    local wanted=()
    for package in $(printf '%s\n' "${missing[@]}" | sort -u); do
        if [ "$package" = docker-buildx ] && [ -z "$(candidate docker-buildx)" ]; then continue; fi
        if [ "$package" = docker-cli ] && [ -z "$(candidate docker-cli)" ]; then package=docker.io; fi
        wanted+=("$package")
    done
    [ ${#wanted[@]} = 0 ] || install_packages "${wanted[@]}"
}

cargo_version() { (cargo --version 2>/dev/null || true) | awk '{ print $2 }'; }

at_least() { # VERSION MINIMUM
    [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

install_toolchain() {
    at_least "$(cargo_version)" $MSRV && return
    if ! command -v rustup >/dev/null && ! command -v cargo >/dev/null; then
        refresh_apt_lists rustup
        if [ -n "$(candidate rustup)" ]; then
            install_packages rustup
        elif at_least "$(candidate rustc-web)" $MSRV; then
            # Debian 12: its rustc is too old, but it follows a current one for building browsers.
            install_packages rustc-web cargo-web
        fi
    fi
    if command -v rustup >/dev/null && ! at_least "$(cargo_version)" $MSRV; then
        # A default that the user chose stays; the choice made here is then for this directory only.
        local choose=(override set)
        rustup default >/dev/null 2>&1 || choose=(default)
        say "rustup toolchain install stable"
        rustup toolchain install stable --profile minimal --no-self-update
        rustup "${choose[@]}" stable
    fi
    at_least "$(cargo_version)" $MSRV || die "orlop needs Rust $MSRV or later: install it from https://rustup.rs and try again."
}

has_std() { command -v rustc >/dev/null && [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

install_target() { # TRIPLE
    has_std "$1" || ! command -v rustup >/dev/null || rustup target add "$1"
}

linter_works() { case $1 in clippy) cargo clippy --version ;; rustfmt) cargo fmt --version ;; esac >/dev/null 2>&1; }

# Fails, having said why, where `make lint` cannot work.
install_linters() {
    local tool
    local -A packages=([clippy]=rust-web-clippy [rustfmt]=rustfmt-web)
    for tool in clippy rustfmt; do
        linter_works "$tool" && continue
        if command -v rustup >/dev/null; then
            rustup component add "$tool"
        elif [ "$(command -v cargo)" = /usr/bin/cargo ] && dpkg-query -W cargo-web >/dev/null 2>&1; then
            install_packages "${packages[$tool]}"
        fi
        linter_works "$tool" || { lint_needs "$tool, which this Rust has not"; return 1; }
    done
    install_target aarch64-unknown-linux-musl
    has_std aarch64-unknown-linux-musl || { lint_needs "the target aarch64-unknown-linux-musl"; return 1; }
}

lint_needs() { say "\`make lint\` needs $1: install Rust from https://rustup.rs for it; all the rest does without."; }

# musl; with a Rust that has no standard library for musl (Debian's own), glibc linked statically.
static_target() { if has_std "$musl"; then echo "$musl"; else echo "$arch-unknown-linux-gnu"; fi; }

main() {
    # What cannot be linted can still be built and tested: only who asks for lint by name is refused.
    local asked=yes
    [ $# -gt 0 ] || { asked=no; set -- build lint demo test; }
    if [ "$1" = target ]; then static_target; return; fi
    local group
    for group in "$@"; do
        [[ $'\n'$NEEDS == *$'\n'"$group "* ]] || die "unknown argument: $group"
    done
    case $arch in x86_64 | aarch64) ;; *) die "no support for $arch: orlop runs on x86_64 and aarch64" ;; esac
    install_missing "$@"
    if [[ " $* " == *" build "* || " $* " == *" lint "* ]]; then
        install_toolchain
        install_target "$musl"
    fi
    if [[ " $* " == *" lint "* ]]; then install_linters || [ $asked = no ]; fi
}

main "$@"

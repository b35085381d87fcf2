# What the scripts of this folder share; sourced by bash after `set -euo pipefail`.
# shellcheck shell=bash disable=SC2034

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build_root=${GRADREG_BUILD_DIR:-$root/build}
export PATH="$PATH:/usr/local/cuda/bin"
export LC_ALL=C.UTF-8
# Debian's own, which knows Debian's modules; "python3" may be somebody's private one.
python=/usr/bin/python3

say() {
    printf '\n==== %s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root or sudo for: $*"
    fi
}

missing_packages() {
    local group name pattern
    pattern=" $* "
    while read -r group name; do
        case $pattern in *" $group "*) ;; *) continue ;; esac
        dpkg-query -W -f='${Status}\n' "$name" 2>/dev/null | grep -q '^install ok installed$' ||
            echo "$name"
    done < <(grep -v '^#' "$root/tools/packages")
}

# install_packages GROUP...: installs what is missing of these groups of tools/packages.
install_packages() {
    if ! command -v apt-get >/dev/null; then
        say "not a Debian system: install what tools/packages lists by hand"
        return
    fi
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "installing ${missing[*]}"
    as_root apt-get update -qq </dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" </dev/null >/dev/null
}

# configure FOLDER OPTION...: a build folder with exactly these options.
configure() {
    local folder=$1
    shift
    if [ -f "$folder/build.ninja" ]; then
        meson setup --reconfigure "$folder" "$root" "$@" </dev/null
    else
        rm -rf "$folder"
        meson setup "$folder" "$root" "$@" </dev/null
    fi
}

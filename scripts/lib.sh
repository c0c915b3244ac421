# shellcheck shell=bash
# Shared by the scripts: installs what is missing on Debian and Ubuntu. To be sourced.

# Says what a script is doing now.
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# need COMMAND PACKAGE…: makes sure that the command is there, by these packages.
need_packages() {
  local missing=()
  for package in "$@"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if ! command -v apt-get >/dev/null; then
    echo "please install: ${missing[*]} (the names are Debian's; on other systems look for Open MPI, a C compiler, libclang)" >&2
    exit 1
  fi
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "please install as root: apt-get install ${missing[*]}" >&2
      exit 1
    }
    sudo=(sudo)
  fi
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Makes sure that a Rust toolchain new enough for Cargo.toml is there.
need_rust() {
  # shellcheck disable=SC1091
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  if command -v cargo >/dev/null; then
    have=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ]; then
      return
    fi
    echo "rustc $have is older than $wanted; installing a newer one beside it with rustup" >&2
  fi
  need_packages curl ca-certificates
  say "installing Rust with rustup"
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile default
  # shellcheck disable=SC1091
  . "$HOME/.cargo/env"
}

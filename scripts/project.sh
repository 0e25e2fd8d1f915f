# shellcheck shell=bash disable=SC2034
# The facts that every script shares: where things are, which versions count, and how to become root.
# Every script sources this first. It decides and installs nothing.

# shellcheck source=scripts/say.sh
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit

# Debian keeps servers (dnsmasq) and runuser where only root's PATH looks.
PATH="$PATH:/usr/sbin:/sbin"

TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
LOGS=$TARGET/logs

# cargo-pgrx must be exactly the version of the pgrx crate; both the tool and its configuration stay
# inside the project, so nothing in the caller's home changes.
PGRX_VERSION=$(sed -n 's/^pgrx = "=\([0-9.]*\)"$/\1/p' "$ROOT/Cargo.toml")
RUST_VERSION=$(sed -n 's/^channel = "\([0-9.]*\)"$/\1/p' "$ROOT/rust-toolchain.toml")
TOOLS=$TARGET/tools
export PGRX_HOME=$TARGET/pgrx
PATH="$TOOLS/bin:$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin"
export PATH

# PG_CONFIG given by the caller wins; else PostgreSQL 17 where Debian's and the vendor's packages put it.
: "${PG_CONFIG:=/usr/lib/postgresql/17/bin/pg_config}"
export PG_CONFIG
[[ $PG_CONFIG == */* ]] || PG_CONFIG=$(command -v "$PG_CONFIG" || echo "$PG_CONFIG")
PG_MAJOR=17
[[ ! -x $PG_CONFIG ]] || PG_MAJOR=$("$PG_CONFIG" --version | grep -oE '[0-9]+' | head -n 1)

# The pinned toolchain, or, where rustup cannot fetch it, a stable one of the same version.
rust_works() { RUSTUP_AUTO_INSTALL=0 cargo --version >/dev/null 2>&1; }
if command -v rustup >/dev/null && [[ -z ${RUSTUP_TOOLCHAIN:-} ]] && ! rust_works &&
    [[ $(RUSTUP_TOOLCHAIN=stable RUSTUP_AUTO_INSTALL=0 rustc --version 2>/dev/null) == "rustc $RUST_VERSION "* ]]; then
    export RUSTUP_TOOLCHAIN=stable
fi

# AS_ROOT: what to put before a command that needs root. Empty for root itself.
AS_ROOT=()
((EUID == 0)) || AS_ROOT=(sudo)

# SERVER_USER: who runs PostgreSQL servers, which refuse to run as root; AS_SERVER: how to become it.
SERVER_USER=$(id -un)
AS_SERVER=()
if ((EUID == 0)); then
    SERVER_USER=postgres
    # From /, because that user may not be allowed to see the caller's directory.
    AS_SERVER=(runuser -u postgres -- env --chdir=/)
fi

# pg WHAT: one directory of the PostgreSQL that is built against, such as `pg bindir`.
pg() { "$PG_CONFIG" "--$1"; }

extension_installed() { [[ -x $PG_CONFIG && -e $(pg sharedir)/extension/$1.control ]]; }

# What writes to PostgreSQL's directories needs root unless they are the caller's own.
pg_is_ours() { [[ -w $(pg pkglibdir) && -w $(pg sharedir)/extension ]]; }
as_installer() { if pg_is_ours; then "$@"; else "${AS_ROOT[@]}" "$@"; fi; }

# server_dir PATTERN: a fresh directory that the servers' user owns and can reach.
server_dir() {
    local dir
    dir=$(mktemp -d "${TMPDIR:-/tmp}/$1")
    chown "$SERVER_USER" "$dir"
    "${AS_SERVER[@]}" test -w "$dir" ||
        fail "the user $SERVER_USER, who runs the servers, cannot reach $dir" \
            "Set TMPDIR to a directory that every user can enter, such as /tmp."
    say "$dir"
}

# stop_servers DIR: stops every PostgreSQL server whose data directory is below DIR.
stop_servers() {
    local pid_file data
    while IFS= read -r pid_file; do
        data=$(dirname "$pid_file")
        "${AS_SERVER[@]}" "$(pg bindir)/pg_ctl" stop -D "$data" -m fast -w -t 20 >/dev/null 2>&1 ||
            "${AS_SERVER[@]}" "$(pg bindir)/pg_ctl" stop -D "$data" -m immediate -w -t 10 >/dev/null 2>&1 || true
    done < <(find "$1" -maxdepth 3 -name postmaster.pid 2>/dev/null)
}

# shellcheck shell=bash
# What the programs of the image share: how they speak, and what they all look at before they begin.
# Sourced; changes nothing.

: "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}" "${PG_MAJOR:=17}"

say() { printf 'citus_fleet: %s\n' "$*" >&2; }

# A complaint says what is wrong first and what to do about it after.
fail() {
    printf 'citus_fleet: error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf 'citus_fleet:        %s\n' "$@" >&2
    exit 1
}

check_image() {
    local extension
    for extension in citus vector citus_fleet; do
        [[ -e /usr/share/postgresql/$PG_MAJOR/extension/$extension.control ]] ||
            fail "this image has no extension $extension for PostgreSQL $PG_MAJOR" "Build it from docker/Dockerfile."
    done
}

# read_password FILE: one line, not empty. Sets PASSWORD, which leaves this process by files and pipes only.
read_password() {
    PASSWORD=$(<"$1")
    [[ -n $PASSWORD ]] || fail "the password in $1 is empty"
    [[ $PASSWORD != *$'\n'* ]] || fail "the password in $1 has more than one line"
}

# check_version PGDATA: that this image's PostgreSQL can read the data.
check_version() {
    local version
    version=$(<"$1/PG_VERSION")
    [[ $version == "$PG_MAJOR" ]] || fail "the data in $1 is of PostgreSQL $version, and this image has $PG_MAJOR" \
        "Use an image with PostgreSQL $version, or move the data with pg_upgrade."
}

# slots DIRECTORY: the places of a shared volume, in the order of their numbers.
slots() { find "$1" -maxdepth 1 -name 'slot-*' -type d | sort -V; }

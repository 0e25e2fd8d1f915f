# shellcheck shell=bash
# How every script speaks: one line per fact, a moving line for what takes long, and the end of the
# log for what fails. Sourced through project.sh; owns no path and no decision.

say() { printf '%s\n' "$*"; }

note() { printf 'note: %s\n' "$*" >&2; }

# A complaint says what is wrong first and what to do about it after.
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '       %s\n' "$@" >&2
    exit 1
}

# tick TITLE: keeps a line moving until it is killed: in place on a terminal, else now and then.
tick() {
    local title=$1 interval=5 nap=
    # The nap is a child of its own: killing only this loop would leave it behind.
    trap '[[ -z $nap ]] || kill "$nap" 2>/dev/null; exit 0' TERM
    [[ -t 1 ]] && interval=1
    # Ctrl-C ends the script but not its background jobs: this one looks after itself.
    while kill -0 $$ 2>/dev/null; do
        sleep "$interval" >/dev/null 2>&1 &
        nap=$!
        wait "$nap" || true
        if [[ -t 1 ]]; then
            printf '\r  %s ... %d s ' "$title" "$((SECONDS - step_began))"
        else
            printf '  %s ... %d s so far\n' "$title" "$((SECONDS - step_began))"
            interval=20
        fi
    done
}

# step TITLE LOG SECONDS COMMAND...: runs a command that takes long. Its output goes to LOG; the
# tail of it is shown when the command fails or has not ended after SECONDS.
step() {
    local title=$1 log=$2 deadline=$3 ticker status=0
    shift 3
    local step_began=$SECONDS
    mkdir -p "$(dirname "$log")"
    [[ ! -t 1 ]] || printf '  %s ...' "$title"
    tick "$title" &
    ticker=$!
    # --foreground: Ctrl-C and sudo's question still reach the command.
    timeout --foreground --kill-after=10 "$deadline" "$@" >"$log" 2>&1 </dev/null || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [[ ! -t 1 ]] || printf '\r\033[K'
    local took="$((SECONDS - step_began)) s"
    case $status in
    0) say "  $title: done ($took)" ;;
    124 | 137) say "  $title: stopped, not done after $took" ;;
    *) say "  $title: failed after $took (exit status $status)" ;;
    esac
    if ((status != 0)); then
        printf -- '--- the end of %s ---\n' "$log" >&2
        tail -n "${LOG_TAIL:-25}" "$log" >&2
        printf -- '---\n' >&2
    fi
    return "$status"
}

# shellcheck shell=bash
#
# How long work tells that it goes on: a line for each step when it is done, with how long it took; on a terminal the
# line of the running step moves meanwhile. Sourced by kernels/build and images/build, which keep what their steps say
# in $log, and by images/demo and tests/run, which use `told` alone.

step_pid= # process group of the running step

# fail MESSAGE [HELP...]: ends the script.
fail() {
    status ""
    printf 'error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '  help: %s\n' "$@" >&2
    exit 1
}

# The line of a running step, where there is a terminal to move it on.
status() {
    [[ -t 2 ]] && printf '\r\033[K%s' "$*" >&2
    return 0
}

# The time since $SECONDS was $1, or since the script began.
elapsed() {
    local seconds=$((SECONDS - ${1-0}))
    printf '%d:%02d' $((seconds / 60)) $((seconds % 60))
}

# finished TITLE BEGUN: the line of a step that is done.
finished() {
    status ""
    printf '%s: done in %s\n' "$1" "$(elapsed "$2")" >&2
}

# told TITLE COMMAND...: runs a command, says before what it is, and tells afterwards how long it took.
told() {
    local title=$1 begun=$SECONDS
    shift
    printf '== %s\n' "$title" >&2
    "$@"
    finished "$title" "$begun"
}

# step TITLE COMMAND...: runs a command with its output in the log. The command gets a process group of its own, so
# that an interruption can end all of it, and not the lock (fd 9), so that nothing it leaves behind holds up the next
# run. A function `progress` may have more to say of the step with a title.
step() {
    local title=$1 begun=$SECONDS more=
    shift
    # shellcheck disable=SC2154 # whoever sources this has a log
    printf '\n== %s\n' "$title" >>"$log"
    set -m
    "$@" >>"$log" 2>&1 </dev/null 9>&- &
    step_pid=$!
    set +m
    while kill -0 "$step_pid" 2>/dev/null; do
        ! declare -F progress >/dev/null || more=$(progress "$title")
        status "$title  $(elapsed "$begun")$more"
        sleep 0.2
    done
    local failed=0
    wait "$step_pid" || failed=$?
    step_pid=
    if ((failed)); then
        status ""
        tail -n 25 -- "$log" >&2
        fail "$title failed (exit status $failed)" "the whole output is in $log"
    fi
    finished "$title" "$begun"
}

# For the trap of whoever has steps and a directory $work.
clean_up() {
    local code=$?
    trap '' INT TERM HUP
    if [[ -n $step_pid ]]; then
        kill -TERM -- "-$step_pid" 2>/dev/null || true
        wait "$step_pid" 2>/dev/null || true
    fi
    [[ -z ${work-} ]] || rm -rf -- "$work"
    exit "$code"
}

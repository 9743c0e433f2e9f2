# What the scenarios share; init.sh reads it before each. A run of a program is called NAME; NAME.out and NAME.err are what it
# printed, NAME.status is how it ended.

PATTERN_CAMERA=/dev/video0
LOOP_CAMERA=/dev/video1
LOOP_OUTPUT=/dev/video2
TINY=/plans/tiny.vitlet
FRAME='"event":"frame"'

# run NAME COMMAND…: to its end.
run() {
    local name=$1
    shift
    local status=0
    "$@" >"$name.out" 2>"$name.err" </dev/null 3<&- 4<&- || status=$?
    echo "$status" >"$name.status"
}

# start NAME COMMAND…: goes on beside the script; its process is NAME.pid.
start() {
    local name=$1
    shift
    # Now: what comes next may look into it before the command's own shell has opened it.
    : >"$name.out"
    "$@" >"$name.out" 2>"$name.err" </dev/null 3<&- 4<&- &
    echo "$!" >"$name.pid"
}

# finish NAME: waits for the end of what was started.
finish() {
    local status=0
    wait "$(cat "$1.pid")" || status=$?
    echo "$status" >"$1.status"
}

# stop NAME: asks what was started to end, and waits.
stop() {
    kill -TERM "$(cat "$1.pid")"
    finish "$1"
}

# quit NAME: ends what would never end.
quit() {
    kill -KILL "$(cat "$1.pid")"
    finish "$1"
}

# count NAME PATTERN: how many lines it printed that match.
count() {
    grep -c "$2" "$1.out"
}

# repeat SECONDS COMMAND…: until it succeeds, or so many seconds have gone.
repeat() {
    local end=$(($(date +%s) + $1))
    shift
    while ! "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        usleep 100000
    done
}

# until_printed NAME PATTERN TIMES SECONDS: waits until it printed so many lines that match; the script fails if it does not.
until_printed() {
    repeat "$4" has_printed "$1" "$2" "$3" || give_up "$@" "in $4 s"
}

has_printed() {
    [ "$(count "$1" "$2")" -lt "$3" ] || return 0
    kill -0 "$(cat "$1.pid")" 2>/dev/null || give_up "$@" '' 'before it ended'
    return 1
}

give_up() {
    echo "$1 printed $2 $(count "$1" "$2") times, not $3, $5; and on standard error:"
    cat "$1.err"
    exit 1
}

# What udev does on a board.
cameras_to_group() {
    chown root:video /dev/video*
    chmod 660 /dev/video*
}

# Takes the cameras away, and gives them back.
unplug() {
    echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
}
plug_in() {
    echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
    cameras_to_group
}

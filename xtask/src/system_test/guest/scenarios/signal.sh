# SIGINT as from a terminal, SIGTERM as from a service manager. The program runs in front, and what sends the signal behind: a shell
# makes what it starts behind ignore SIGINT.
two_frames() {
    [ "$(count "$1" "$FRAME")" -ge 2 ]
}

for signal in INT TERM; do
    : >$signal.out
    {
        repeat 60 two_frames $signal
        killall -$signal vitlet
        count $signal "$FRAME" >$signal.before
    } &
    run $signal timeout -s KILL 90 vitlet camera $PATTERN_CAMERA --headless --json
    wait
done

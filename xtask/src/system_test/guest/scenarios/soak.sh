# What the program's memory is after the first hundred frames, and after many more.
start camera vitlet camera $PATTERN_CAMERA -m $TINY --width 320 --height 180 --fps 60 --headless --json
until_printed camera "$FRAME" 100 60
cp "/proc/$(cat camera.pid)/smaps_rollup" early
until_printed camera "$FRAME" "$SOAK_FRAMES" $((SOAK_FRAMES / 5))
cp "/proc/$(cat camera.pid)/smaps_rollup" late
stop camera

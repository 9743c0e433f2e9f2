# Photos are shown on the output that the camera looks at, until the camera has seen as many different pictures.
loop_output_to_camera() {
    set-controls $LOOP_CAMERA 'OSD Text Mode=2' || return
    # Before Linux 6.11, and since.
    set-controls $LOOP_CAMERA 'Loop Video=1' || set-controls $LOOP_CAMERA 'HDMI 001-0 Is Connected To=2'
}

# all_seen FORMAT
all_seen() {
    [ "$(grep -o '"output_hash":"[^"]*"' "camera-$1.out" | sort -u | wc -l)" -ge "$(ls "$1" | wc -l)" ]
}

loop_output_to_camera || exit 1
for format in RGB3 BGR3; do
    mkdir $format
    start show-$format show-photos $LOOP_OUTPUT $format 2 $format /photos/*.jpg
    until_printed show-$format showing 1 120
    run classify-$format vitlet classify --json $format
    start camera-$format vitlet camera $LOOP_CAMERA --format $format --width 1280 --height 720 --headless --json
    # Each is shown for two seconds, over and over; what was never seen, this program's other side names.
    repeat $(($(ls $format | wc -l) * 12)) all_seen $format
    stop camera-$format
    quit show-$format
done

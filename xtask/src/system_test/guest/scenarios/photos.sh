# Photos are shown on the output that the camera looks at; each until the camera has seen it.
loop_output_to_camera() {
    set-controls $LOOP_CAMERA 'OSD Text Mode=2' || return
    # Linux 6.1's name of it, and 6.12's.
    set-controls $LOOP_CAMERA 'Loop Video=1' || set-controls $LOOP_CAMERA 'HDMI 001-0 Is Connected To=2'
}

# has_seen FORMAT COUNT: so many different pictures
has_seen() {
    [ "$(grep -o '"output_hash":"[^"]*"' "camera-$1.out" | sort -u | wc -l)" -ge "$2" ]
}

loop_output_to_camera || exit 1
for format in RGB3 BGR3; do
    mkdir $format
    rm -f next
    start show-$format show-photos $LOOP_OUTPUT $format next $format /photos/*.jpg
    until_printed show-$format showing 1 120
    run classify-$format vitlet classify --json $format
    start camera-$format vitlet camera $LOOP_CAMERA --format $format --width 1280 --height 720 --headless --json
    # What was never seen, this program's other side names.
    for seen in $(seq 1 "$(ls $format | wc -l)"); do
        repeat 120 has_seen $format "$seen" || break
        touch next
    done
    stop camera-$format
    quit show-$format
done

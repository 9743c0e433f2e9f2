# The same picture in every format. Without its clock it does not change.
set-controls $PATTERN_CAMERA 'OSD Text Mode=2' || exit 1
for format in YUYV NV12 RGB3 BGR3 GREY; do
    run $format vitlet camera $PATTERN_CAMERA --format $format --width 640 --height 480 --frames 3 --headless --json
done

start holder vitlet camera $PATTERN_CAMERA -m $TINY --headless --json
until_printed holder "$FRAME" 1 30
run second vitlet camera $PATTERN_CAMERA -m $TINY --headless --json
stop holder

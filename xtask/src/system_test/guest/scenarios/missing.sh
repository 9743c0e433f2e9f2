run missing vitlet camera /dev/video9 -m $TINY --headless --json

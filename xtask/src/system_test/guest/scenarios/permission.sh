# Somebody who is not in the devices' group.
run nobody su nobody -c "vitlet camera $PATTERN_CAMERA -m $TINY --headless --json"

# The camera is taken away while it is used, and given back.
start camera vitlet camera $PATTERN_CAMERA -m $TINY --headless --json
until_printed camera "$FRAME" 5 30
unplug
until_printed camera '"event":"lost"' 1 30
sleep 1
plug_in
until_printed camera '"event":"found"' 1 60
until_printed camera "$FRAME" $(($(count camera "$FRAME") + 5)) 30
stop camera

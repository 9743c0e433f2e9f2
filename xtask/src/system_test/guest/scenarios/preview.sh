# The host looks at the page while the camera runs.
start camera vitlet camera $PATTERN_CAMERA -m $TINY --preview 0.0.0.0:8080 --json
until_printed camera "$FRAME" 1 30
echo "say $(head -n 1 camera.out)" >&3
read -r _ <&4
stop camera

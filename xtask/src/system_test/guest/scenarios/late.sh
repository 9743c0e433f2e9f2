# At most three times: the host may let the machine wait between a frame's arrival and its copy, which makes it late.
watch() {
    local name=$1
    shift
    for try in 1 2 3; do
        run "$name" vitlet camera $PATTERN_CAMERA "$@" --headless --json
        if ! grep -q '"late":true' "$name.out"; then
            break
        fi
        cp "$name.out" "$name-$try.out"
    done
}
watch tiny -m $TINY --frames 100
# As many threads as the machine has CPUs: frames are preprocessed between inferences.
watch between -m $TINY --threads 2 --frames 100
watch real --frames 8

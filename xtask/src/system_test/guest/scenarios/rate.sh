# At most three times: the host may be busier in one of the two.
number() {
    sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" "$1.out"
}

for try in 1 2 3; do
    run bench vitlet bench --json --iterations 10 --warmup 2
    run camera vitlet camera $PATTERN_CAMERA --frames 15 --headless --json
    echo "$(number bench median) ms, $(number camera per_s) frames a second"
    if echo "$(number bench median) $(number camera per_s)" | awk '{ exit !($1 * $2 >= 900) }'; then
        break
    fi
done

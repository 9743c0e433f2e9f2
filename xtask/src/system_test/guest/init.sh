#!/bin/busybox sh
# The first process of the system test's machine. It loads the virtual camera, says "ready" on the port to the host, and does what
# the host says there:
#
#   run NAME    runs scenarios/NAME.sh in a folder of its own, then sends each file of that folder as "file NAME BYTES" and
#               the bytes, and at last "done STATUS"
#   off         switches the machine off; so does the end of the host's program
#
# A scenario may send "say TEXT" meanwhile, and read a line that the host sends back. What is sent goes to descriptor 3, what the host
# says comes from descriptor 4.

/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp /out /plans
chmod 1777 /tmp
printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >/etc/passwd
printf 'root:x:0:\nvideo:x:44:\nnogroup:x:65534:\n' >/etc/group

. /guest/lib.sh
while read -r module; do
    # vivid's two cameras: one shows a test picture; the other has an HDMI input, and an HDMI output that can be looped to it.
    # https://docs.kernel.org/admin-guide/media/vivid.html
    case $module in
    vivid.ko) options='n_devs=2 node_types=0x1,0x101 num_inputs=1,1 input_types=0,3 num_outputs=0,1 output_types=0,1' ;;
    *) options= ;;
    esac
    insmod "/modules/$module" $options
done </modules/order
cameras_to_group
ifconfig lo up
tiny-plan /plans/tiny.vitlet
# The address that QEMU forwards to.
ifconfig eth0 10.0.2.15 up

send_files() {
    for file in *; do
        [ -f "$file" ] || continue
        echo "file $file $(wc -c <"$file")" >&3
        cat "$file" >&3
    done
}

# The one port of the bus. It is read all the time, since only that tells when the host's program has gone: writing would wait.
exec 3<>"/dev/$(ls /sys/class/virtio-ports)"
mkfifo /tmp/orders
exec 4<>/tmp/orders
{ cat <&3 >&4; poweroff -f; } &
echo ready >&3
while read -r verb name <&4; do
    [ "$verb" = run ] || break
    mkdir "/out/$name" && cd "/out/$name" || break
    echo "scenario $name" >/dev/kmsg
    sh -uc '. /guest/lib.sh; . "$0"' "/guest/scenarios/$name.sh" >script.log 2>&1
    status=$?
    # What a scenario that failed left running.
    killall -q -KILL vitlet show-photos
    send_files
    echo "done $status" >&3
    cd /
done
poweroff -f

#!/usr/bin/env bash
# The container's conditions without a container: a root that holds only what the image holds, read-only, no environment, no HOME,
# an unprivileged user, no /tmp and no /proc. test.sh PROGRAM
#
# Needs root, or a system that lets users have namespaces; where neither is to be had, it says so and ends well.
set -euo pipefail

program=$(realpath "${1:?the program}")
here=$(realpath "$(dirname "$0")")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

if ! unshare --mount --net true 2> /dev/null; then
    echo "skipped: no namespace can be made here (needs root)"
    exit 0
fi
"$here/root.sh" "$program" "$root/image"
printf '{"id": 1, "image": "%s"}\n{"id": 2, "image": "bm9uZQ=="}\n' "$(base64 -w 0 "$here/../../assets/flower.jpg")" > "$root/requests"

# inside PROGRAM ARGUMENTS: as `docker run --read-only --network none --cap-drop ALL --user 65532` runs it.
inside() {
    chroot=$(command -v chroot) unshare --mount --net --pid --fork bash -c '
        mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1" && shift
        exec env -i "$chroot" --userspec=65532:65532 . "$@"' bash "$root/image" "$@"
}

echo "files of the image:" && (cd "$root/image" && find . -type f | sort && du -sh .)
inside /usr/bin/vitx worker -q < "$root/requests" > "$root/answers"
grep -q '"id":1,"part":1,"parts":1,"status":"ok".*"label":"flower"' "$root/answers"
grep -q '"id":2,"status":"error".*"kind":"input"' "$root/answers"
echo "pictures: $(wc -l < "$root/answers") answers to 2 requests"
echo '{"text": "A charming little film."}' | inside /usr/bin/vitx worker -q -m demo-bert | grep -q '"status":"ok".*"label":"positive"'
echo "texts: well"
# What has nowhere to be written is refused with a sentence, and nothing hangs.
if inside /usr/bin/vitx worker -m none/there < /dev/null 2> "$root/said"; then exit 1; fi
head -c 300 "$root/said"
# Process 1 hears only what it listens for: SIGTERM, as `docker stop` sends it.
mkfifo "$root/pipe"
inside /usr/bin/vitx worker -q < "$root/pipe" > "$root/answers" &
waits=$!
exec 3> "$root/pipe"
cat "$root/requests" >&3
for _ in $(seq 100); do [ "$(wc -l < "$root/answers")" = 2 ] && break || sleep 0.1; done
leaf=$waits
while child=$(pgrep -P "$leaf"); do leaf=$child; done
kill -TERM "$leaf"
code=0 && wait "$waits" || code=$?
exec 3>&-
test "$code" = 130
echo "SIGTERM: ends with 130"
echo "all is well"

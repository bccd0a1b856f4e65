#!/usr/bin/env bash
# Lays out the root of the image: the program, and the libraries that it is linked to. root.sh PROGRAM FOLDER
set -euo pipefail

program=${1:?the program} image=${2:?the folder to be made}
install -D -m 755 "$program" "$image/usr/bin/vitx"
# "name => /path (address)" and, of the loader, "/path (address)"; the kernel's own part has no path.
ldd "$program" | awk '$2 == "=>" && $3 ~ "^/" { print $3 } $1 ~ "^/" { print $1 }' | while read -r library; do
    install -D -m 755 "$library" "$image$library"
done
# Empty, for mounts: a read-only root lets nobody make them later.
mkdir -p "$image/models" "$image/data" "$image/run"
# Of what the program carries: its own licences, the font's, and the cards of the built-in models.
here=$(dirname "$0")/../..
for file in LICENSE-MIT LICENSE-APACHE assets/fonts/LICENSE.txt models/demo-vit/README.md models/demo-bert/README.md; do
    install -D -m 644 "$here/$file" "$image/usr/share/doc/vitx/$file"
done

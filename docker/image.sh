#!/bin/sh
# Builds and runs the image: with Docker where its engine runs, otherwise with buildah, which needs no daemon.
#   docker/image.sh build                  builds unique-users from docker/Dockerfile
#   docker/image.sh save IMAGE VERSION FILE
#                                          builds unique-users or unique-users-service as IMAGE:VERSION, and writes it to
#                                          FILE, for `docker load` or `podman load`
#   docker/image.sh tool                   says what builds: docker or buildah
#   docker/image.sh run FOLDER ARGUMENT…   runs it as user 10001 in this machine's network, on a read-only root file
#                                          system; only /tmp, in memory, and FOLDER, the checkpoint, are writable
# buildah runs as root, with chroot isolation. Without a registry the base image is made by debootstrap.
set -eu
cd "$(dirname "$0")/.."

IMAGE=unique-users
BASE=docker.io/library/debian:bookworm-slim
# The certificate of a proxy, if this machine has one. It is used while building, and is not in the image.
CERTIFICATES=/usr/local/share/ca-certificates

fail() {
    echo "image: error: $*" >&2
    exit 1
}

make_base() {
    command -v debootstrap >/dev/null || fail "$BASE can't be pulled, and debootstrap, which could make it, is not installed: apt-get install debootstrap"
    folder=$(mktemp -d)
    debootstrap --variant=minbase bookworm "$folder" >"$folder.log" 2>&1 || fail "debootstrap failed; see $folder.log"
    rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/* "$folder.log"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder" /
    buildah config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit --quiet "$container" "$BASE" >/dev/null
    buildah rm "$container" >/dev/null
    rm -rf "$folder"
}

# build DOCKERFILE TAG ARGUMENT…
build() {
    file=$1 tag=$2
    shift 2
    if [ "$TOOL" = docker ]; then
        docker build --quiet --file "$file" --tag "$tag" "$@" .
        return
    fi
    buildah inspect --type image "$BASE" >/dev/null 2>&1 || buildah pull --quiet "$BASE" >/dev/null 2>&1 || make_base
    buildah bud --quiet --isolation chroot --format docker --layers --volume "$CERTIFICATES:$CERTIFICATES:ro" \
        --file "$file" --tag "$tag" "$@" .
}

save() {
    case "$1" in
    unique-users) file=docker/Dockerfile ;;
    unique-users-service) file=docker/service.Dockerfile ;;
    *) fail "save: the images are unique-users and unique-users-service, not $1" ;;
    esac
    build "$file" "$1:$2" --build-arg "VERSION=$2"
    if [ "$TOOL" = docker ]; then
        docker save --output "$3" "$1:$2"
    else
        buildah push --quiet "localhost/$1:$2" "docker-archive:$3:$1:$2"
    fi
}

run() {
    checkpoint=$(realpath "$1")
    shift
    if [ "$TOOL" = docker ]; then
        exec docker run --rm --init=false --read-only --tmpfs /tmp --network host --cap-drop ALL \
            --volume "$checkpoint:/var/lib/unique-users" $IMAGE "$@"
    fi
    container=$(buildah from --pull-never localhost/$IMAGE)
    trap 'buildah rm "$container" >/dev/null' EXIT
    root=$(buildah mount "$container")
    user=$(buildah inspect --format '{{.OCIv1.Config.User}}' "$container")
    buildah inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$container" | sed '/^$/d' >"$root/tmp/environment"
    # Do what a container engine does, in a separate mount namespace. The shell forwards the stop signal to the job.
    unshare --mount --propagation private sh -c '
        root=$1 checkpoint=$2 user=$3
        shift 3
        set --  "$root" "$user" $(cat "$root/tmp/environment") \
            TINI_SUBREAPER=1 /usr/bin/tini -g -- /opt/unique-users/entrypoint.sh "$@"
        mount --bind "$root" "$root"
        mount --bind "$checkpoint" "$root/var/lib/unique-users"
        mount -t tmpfs tmpfs "$root/tmp"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind /etc/hosts "$root/etc/hosts" 2>/dev/null || true
        mount -o remount,bind,ro "$root"
        root=$1 user=$2
        shift 2
        exec chroot --userspec="$user" "$root" env --ignore-environment --chdir=/var/lib/unique-users "$@"
    ' sh "$root" "$checkpoint" "$user" "$@" &
    pid=$!
    trap 'kill -TERM $pid 2>/dev/null' TERM INT
    status=0
    wait $pid || status=$?
    # A signal ends the first wait, while the job still runs.
    while kill -0 $pid 2>/dev/null; do
        status=0
        wait $pid || status=$?
    done
    exit $status
}

if docker info >/dev/null 2>&1; then
    TOOL=docker
elif command -v buildah >/dev/null && [ "$(id -u)" = 0 ]; then
    TOOL=buildah
else
    fail "no Docker engine runs and buildah (as root) is not installed: install one of them"
fi
case "${1:-}" in
build) build docker/Dockerfile $IMAGE ;;
save) shift && [ $# = 3 ] || fail "usage: docker/image.sh save IMAGE VERSION FILE" && save "$@" ;;
tool) echo "$TOOL" ;;
run) shift && run "$@" ;;
*) fail "usage: docker/image.sh build, or docker/image.sh run FOLDER ARGUMENT…" ;;
esac

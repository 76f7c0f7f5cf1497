#!/usr/bin/env bash
# install.sh slurm|sge|ffmpeg|voices: install Debian's packages of a program with apt-get, as root, unless they are installed.
set -euo pipefail
case ${1-} in
    slurm) commands=(munged slurmctld slurmd sbatch) packages=(munge slurmctld slurmd slurm-client) ;;
    # gridengine-common needs a mailx, which brings exim4. Nothing here starts it.
    sge) commands=(sge_qmaster sge_execd qsub) packages=(gridengine-master gridengine-exec gridengine-client) ;;
    ffmpeg) commands=(ffmpeg) packages=(ffmpeg) ;;
    voices) commands=(espeak-ng flite) packages=(espeak-ng flite) ;;
    *)
        echo "usage: $0 slurm|sge|ffmpeg|voices" >&2
        exit 2
        ;;
esac
export PATH=${PATH}:/usr/sbin:/sbin
exec 9<"$0"
flock 9 # several processes run tests, and apt-get allows one at a time
[ "$(command -v "${commands[@]}" | wc -l)" -lt ${#commands[@]} ] || exit 0
# RUNLEVEL=1 keeps the packages from starting their daemons.
export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive
install=(apt-get -q -y install --no-install-recommends "${packages[@]}")
"${install[@]}" </dev/null || { apt-get -q update && "${install[@]}" </dev/null; }

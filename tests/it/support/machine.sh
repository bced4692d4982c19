#!/bin/sh
# usage: machine.sh ROOT CGROUP SVP
# Boots the root file system ROOT as a container boots: systemd as process 1 of namespaces of its own, with the cgroup
# CGROUP of version 2 for its root and the program SVP in /usr/bin. Ends with its parent, and the machine with it.
set -eu
mkdir "$2"
echo $$ >"$2/cgroup.procs"
exec setpriv --pdeathsig KILL unshare --mount --uts --ipc --net --pid --cgroup --propagation private --fork --kill-child sh -euc '
cd "$1"
: >>usr/bin/svp
mount --bind "$2" usr/bin/svp
mount --rbind . .
cd "$1"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm
# New device nodes: systemd changes their modes, which must not affect the host.
while read -r device major minor; do
  mknod -m 666 "dev/$device" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
net/tun 10 200
END
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
ip link set lo up
pivot_root . .
umount -l .
exec env -i container=svp-test /usr/lib/systemd/systemd
' sh "$1" "$3"

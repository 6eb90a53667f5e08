"""Records as kernels 6.1 and 6.12 made them, without their headers' randomness."""

from __future__ import annotations

SECCOMP_LOG = (
    b'audit(1795877818.454:30574): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=27324 comm="sh" '
    b'exe="/usr/bin/dash" sig=0 arch=c000003e syscall=59 compat=0 ip=0x7f0f9bf1f829 code=0x7ffc0000'
)
SECCOMP_ERRNO = (
    b"audit(1795877818.455:30575): auid=4294967295 uid=0 gid=0 ses=4294967295 subj=k8s-web-service (enforce) pid=7 "
    b"comm=6120622263 exe=2F746D702F61206221 sig=0 arch=c000003e syscall=90 compat=0 ip=0x1 code=0x50001"
)
SECCOMP_KILL = (
    b'audit(1795877818.456:30576): auid=0 uid=0 gid=0 ses=1 subj=unconfined pid=8 comm="x" exe="/x" '
    b"sig=31 arch=c00000b7 syscall=53 compat=0 ip=0xffff code=0x80000000"
)
FILE = (
    b'audit(1795877818.457:30577): apparmor="DENIED" operation="mknod" class="file" profile="k8s-deny" '
    b'name="/etc/ssl/certs/new" pid=9 comm="sh" requested_mask="c" denied_mask="c" fsuid=0 ouid=0'
)
CAPABILITY = (
    b'audit(1795877818.458:30578): apparmor="DENIED" operation="capable" class="cap" profile="k8s-hardened-default" '
    b'pid=10 comm="date" capability=25  capname="sys_time"'
)
NETWORK = (
    b'audit(1795877818.459:30579): apparmor="DENIED" operation="create" class="net" profile="p" pid=11 comm="ping" '
    b'family="inet" sock_type="raw" protocol=1 requested_mask="create" denied_mask="create"'
)
SIGNAL = (
    b'audit(1795877818.460:30580): apparmor="DENIED" operation="signal" class="signal" profile="p" pid=12 comm="kill" '
    b'requested_mask="send" denied_mask="send" signal=term peer="unconfined"'
)
MOUNT = (
    b'audit(1795877818.461:30581): apparmor="DENIED" operation="mount" class="mount" info="failed flags match" '
    b'error=-13 profile="p" name="/mnt/" pid=13 comm="mount" fstype="tmpfs" srcname="tmpfs"'
)
COMPLAIN = FILE.replace(b"DENIED", b"ALLOWED").replace(b'"/etc/ssl/certs/new"', b"2F746D702F612062")
LOADED = (
    b'audit(1795877818.462:30582): apparmor="STATUS" operation="profile_load" profile="unconfined" name="p" pid=14 '
    b'comm="apparmor_parser"'
)
SELINUX = (
    b'audit(1795877818.463:30583): avc:  denied  { read } for  pid=15 comm="x" name="f" dev="vda" ino=1 '
    b"scontext=system_u:system_r:init_t:s0 tcontext=system_u:object_r:x:s0 tclass=file permissive=0"
)
SECCOMP_RECORDS = (SECCOMP_LOG, SECCOMP_ERRNO, SECCOMP_KILL)
APPARMOR_RECORDS = (FILE, CAPABILITY, NETWORK, SIGNAL, MOUNT, COMPLAIN, LOADED, SELINUX)

"""A virtual node: started, talked to, cut off, started again; its console kept where a failing test says."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.daemons import free_ports
from tests.vm.harness import guestd
from tests.vm.harness.channel import Channel, Done, MachineGone
from tests.vm.harness.recipe import Image

BOOT_SECONDS = 240.0  # a bound for what never comes; two cores that are shared take a tenth of it
_QEMU = "/usr/bin/qemu-system-x86_64"


class CommandFailed(AssertionError):
    """A command that a test relied on ended with another code than 0."""


class Machine:
    """One virtual node over a disk of its own. `with` it, or call `close`."""

    def __init__(self, name: str, image: Image, accel: Sequence[str], logs: Path, *, cpus: int = 1, memory: int = 640):
        """Nothing runs before `start`. memory is in MiB."""
        self.name = name
        self.image = image
        self.console = logs / f"{name}.console.log"
        self.console.parent.mkdir(parents=True, exist_ok=True)
        self._accel = accel
        self._size = ("-smp", str(cpus), "-m", str(memory))
        (self.metrics_port,) = free_ports(1)  # of this host's loopback, where the agent's probes and metrics answer
        self._folder = Path(tempfile.mkdtemp(prefix="nha-vm-"))  # short: sockets' paths end at 107 bytes
        self._disk = self._folder / "disk.qcow2"
        subprocess.run(
            ["/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", image.disk_format,
             str(self._disk)],
            check=True, capture_output=True,
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- power -----------------------------------------------------------------------------------------------------

    def start(
        self, *, append: str = "", rtc: str = "", come_back: bool = True, wait: bool = True, initrd: Path | None = None
    ) -> None:
        """Power on. append: more of a kernel command line. rtc: the clock's time at power-on, as QEMU writes it.
        initrd: an initial file system of the machine's own instead of the image's.

        come_back False makes a reboot a power-off: the node that does not return. Call it from the main thread: the
        kernel ends QEMU with the thread that started it.
        """
        assert self._process is None, f"{self.name} runs"
        self._starts += 1
        socket = self._folder / f"port{self._starts}"
        line = (
            f"console=ttyS0 net.ifnames=0 systemd.hostname={self.name} mitigations=off random.trust_cpu=on loglevel=5 "
            # norandmaps: code that stays at one address stays translated, and a process starts in a fifth of the time.
            f"norandmaps rcupdate.rcu_expedited=1 init_on_alloc=0 systemd.show_status=1 panic=-1 {append}"
        )
        argv = [
            "/usr/bin/setpriv", "--pdeathsig", "KILL",
            _QEMU, *self._accel, *self._size, "-nodefaults", "-no-user-config", "-display", "none",
            "-kernel", str(self.image.kernel), "-initrd", str(initrd or self.image.initrd), "-append", line,
            "-drive", f"file={self._disk},format=qcow2,if=virtio,cache=writeback,discard=unmap",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.metrics_port}-:9105",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=port,path={socket},server=on,wait=off",
            "-device", f"virtserialport,chardev=port,name={guestd.PORT_NAME}", "-device", "virtio-rng-pci",
            "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
            *(["-rtc", f"base={rtc}"] if rtc else []), *([] if come_back else ["-no-reboot"]),
        ]  # fmt: skip
        with (self._folder / "qemu.log").open("ab") as sink:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        try:
            self._channel = Channel(socket, self.is_on)
        except MachineGone as error:
            raise MachineGone(f"{error}: {(self._folder / 'qemu.log').read_text()[-500:]}") from error
        if wait:
            self.await_up()

    def is_on(self) -> bool:
        """Whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    def await_up(self, other_than: str | None = None) -> str:
        """Waits until this (or another) boot has its file systems, profiles and devices; its boot id.

        Services start a little later; a test that needs one waits for that one.
        """
        boot = self._talk().await_boot(other_than, BOOT_SECONDS)
        self.run(["/usr/bin/systemctl", "start", "basic.target"], seconds=BOOT_SECONDS)
        return boot

    def await_off(self, seconds: float = 120.0) -> None:
        """Waits until it has powered itself off."""
        assert self._process is not None
        self._process.wait(seconds)
        self._forget()

    def cut(self) -> None:
        """The power fails: nothing in the machine's memory reaches its disk."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._forget()

    def close(self) -> None:
        """Ends it however it is, and throws its disk away."""
        if self._process is not None:
            self.cut()
        shutil.rmtree(self._folder, ignore_errors=True)

    def keep_disk(self, path: Path) -> None:
        """Hands the disk over before `close`; the machine is off."""
        assert self._process is None
        self._disk.rename(path)

    def _forget(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = None

    def _talk(self) -> Channel:
        if self._channel is None:
            raise MachineGone(f"{self.name} is off")
        return self._channel

    # -- work ------------------------------------------------------------------------------------------------------

    @property
    def boot(self) -> str | None:
        """The id of the boot that talked last; None before it did."""
        return self._channel.boot if self._channel else None

    def run(
        self,
        argv: Sequence[str],
        *,
        data: bytes = b"",
        seconds: float = 120.0,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Done:
        """A command as root, or as another user. Raises CommandFailed unless it ends with 0 or check is off."""
        done = self._talk().run(argv, seconds, data=data, user=user, env=env or {})
        if check and done.code != 0:
            raise CommandFailed(f"{self.name}: {' '.join(argv)}: exit {done.code}\n{done.text[-4000:]}")
        return done

    def sh(self, script: str, *, check: bool = True, seconds: float = 120.0, user: int | None = None) -> Done:
        """The same for a line of shell."""
        return self.run(["/bin/sh", "-c", script], check=check, seconds=seconds, user=user)

    def python(self, code: str, *args: str, user: int | None = None, check: bool = True) -> Done:
        """The same for a piece of Python (Debian's own, not the agent's)."""
        return self.run(["/usr/bin/python3", "-I", "-c", code, *args], user=user, check=check)

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Writes a file there; the folders above it are made."""
        raw = content.encode() if isinstance(content, str) else content
        self._talk().ask("put", 120.0, path=path, data=base64.b64encode(raw).decode(), mode=mode)

    def get(self, path: str, *, seconds: float = 60.0) -> str:
        """Reads a file there."""
        return self.get_bytes(path, seconds=seconds).decode(errors="replace")

    def get_bytes(self, path: str, *, seconds: float = 60.0) -> bytes:
        """Reads a file there that is no text."""
        return base64.b64decode(self._talk().ask("get", seconds, path=path)["data"])

    def eventually(self, script: str, *, seconds: float = 180.0) -> Done:
        """The first time that a line of shell ends with 0; fails with its last words when that never comes."""
        deadline = time.monotonic() + seconds
        while True:
            done = self.sh(script, check=False)
            if done.code == 0:
                return done
            if time.monotonic() >= deadline:
                raise CommandFailed(f"{self.name}: {script}: not within {seconds:g} s\n{done.text[-4000:]}")
            time.sleep(0.3)

"""Whether the initramfs may load a denied module before the agent's file counts: it carries its own modprobe.d.

Read with the node's own tool (initramfs-tools' or dracut's), and only for a module that is loaded, because unpacking an
image costs about a second. What is not known is reported as unknown, never "it stays out".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.controls.modprobe.kmod import module_of
from agent.errors import HostError
from agent.host import Host

_TIMEOUT_SECONDS = 30.0
_IMAGES = (
    "/boot/initrd.img-{}", "/boot/initramfs-{}.img", "/boot/initrd-{}", "/lib/modules/{}/initramfs.img",
    "/lib/modules/{}/initrd",
)  # fmt: skip
# The tool that lists an image, and the command that builds it again with the node's modprobe.d in it.
_TOOLS = {
    ("lsinitramfs", "-l"): "update-initramfs -u -k {}",
    ("lsinitrd",): "dracut --force --hostonly --kver {}",
}
_SIZE_COLUMN = 4


@dataclass(frozen=True, slots=True)
class Initramfs:
    """An image's contents. sizes: bytes by path, without the slash before it. problem: why nothing is known."""

    image: str = ""
    rebuild: str = ""
    problem: str = ""
    modules: frozenset[str] = field(default_factory=frozenset)
    sizes: dict[str, int] = field(default_factory=dict)

    def reboot_advice(self, module: str, file: str, content: bytes) -> str:
        """What to do so that a reboot leaves the module out. file, content: the agent's, as it should be."""
        if self.problem:
            return f"reboot the node; whether its initramfs loads {module} is unknown: {self.problem}"
        if module not in self.modules or self.sizes.get(file.lstrip("/")) == len(content):
            return "reboot the node: it stays unloaded from then on"
        return f"run `{self.rebuild}` ({self.image} holds {module} and not the agent's {file}), then reboot the node"


def listing(text: str) -> dict[str, int]:
    """Sizes by path of what `lsinitramfs -l` or `lsinitrd` prints, which is cpio's long listing."""
    found = {}
    for line in text.splitlines():
        words = line.split(maxsplit=8)
        if line.startswith("-") and len(words) == 9 and words[_SIZE_COLUMN].isdecimal():
            found[words[8]] = int(words[_SIZE_COLUMN])
    return found


def read(host: Host, release: str) -> Initramfs:
    """The initramfs of a kernel. Raises nothing: problems are in the result."""
    try:
        image = next((path for one in _IMAGES if host.is_file(path := one.format(release))), "")
        if not image:
            return Initramfs(problem=f"no image of kernel {release} below /boot or /lib/modules")
        for (name, *options), rebuild in _TOOLS.items():
            if (tool := host.find_tool(name)) is not None:
                done = host.run([tool, *options, host.real_path(image)], timeout_seconds=_TIMEOUT_SECONDS)
                sizes = listing(done.check().stdout)
                if done.cut or not sizes:
                    return Initramfs(image, problem=f"{name} does not list {image}")
                modules = frozenset(module for path in sizes if (module := module_of(path)))
                return Initramfs(image, rebuild.format(release), "", modules, sizes)
    except HostError as error:
        return Initramfs(problem=str(error))
    return Initramfs(image, problem=f"neither lsinitramfs nor lsinitrd is there to list {image}")

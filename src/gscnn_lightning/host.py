"""Which machine and which process this is, so that others can tell whether they are on the same one."""

from pathlib import Path


def machine() -> str:
    """What tells this machine since its last boot, and its space of process numbers, from others; "" if not known.

    Names of hosts do not: containers may share one, and each has process numbers of its own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_of(process: int) -> str:
    """When a process of this machine began, in ticks since the boot; "" if there is none, or it has ended."""
    try:
        words = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in "ZX" else words[19]

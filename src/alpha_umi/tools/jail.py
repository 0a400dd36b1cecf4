"""The process that shuts itself in and then runs a program: ``python -I -S jail.py``, started by `sandbox` alone.

It imports nothing of the package, is given nothing of the environment, and is three processes:

    guard       makes the namespaces and waits; ends the others when its standard input ends, so when its owner is gone
    init        process 1 of the namespace; builds the file system, gives up every privilege, waits for the program
    program     runs the code, under resource limits

The kernel ends a whole process namespace with its process 1, and ends process 1 when the guard dies. The program can't
prevent it: it sees neither of them but for ``kill``, which process 1 is not reached by.

Standard input begins with the task, as a frame; standard output is the program's; standard error takes reports, one
JSON object a line: ``setup`` (what could not be set up), ``started``, ``error`` (of the program), ``ended`` (its wait
status). What the third process does is in ``jailed.py``.

The limits are the kernel's: namespaces for users, mounts, processes, network, IPC and names; resource limits; no
capability and no new privilege. There is no filter of system calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import sysconfig
from typing import Any, NoReturn

NOBODY = 65534
_SCRATCH, _PACKAGES = "/scratch", "/packages"
_PROGRAM = os.path.join(os.path.dirname(__file__), "jailed.py")
_SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib64")
_NEW_ROOT = "/proc"  # any folder that every Linux has and from which nothing is needed inside
_NAMESPACES = 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user mount pid net ipc uts
_MS_BIND_REC, _MS_PRIVATE_REC, _MNT_DETACH = 4096 | 16384, 1 << 18 | 16384, 2
_NOSUID_NODEV = 2 | 4
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY_NOSUID_NODEV = 442, -100, 0x8000, 1 | 2 | 4
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITIES_V3 = 0x20080522
_KEYCTL, _JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """The guard."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    (length,) = struct.unpack("!I", _exactly(4))
    task = json.loads(_exactly(length))
    try:
        _enter_namespaces()
    except OSError as error:
        _report(setup=f"{error.filename}: {error.strerror}")
        return
    with open(_PROGRAM) as file:
        task["runner"] = file.read()
    alive, held = os.pipe()  # readable, because ended, once the guard is gone
    init = os.fork()
    if init == 0:
        os.close(held)
        _init(task, alive)
    waiting = select.poll()
    waiting.register(0, select.POLLIN)
    waiting.register(os.pidfd_open(init), select.POLLIN)
    if any(handle == 0 for handle, _ in waiting.poll()):
        os.kill(init, signal.SIGKILL)
    os.waitpid(init, 0)  # which is when no process of the namespace is left


def _exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            sys.exit(1)
        data += piece
    return data


def _report(**what: Any) -> None:
    os.write(2, json.dumps(what).encode() + b"\n")


def _call(name: str, *arguments: Any) -> None:
    """A function of the C library that returns -1 for an error."""
    if getattr(_libc, name)(*arguments) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


# -- namespaces and who one is in them


def _enter_namespaces() -> None:
    """Leaves all namespaces; who one is in the new ones, a child that stays behind has to write down."""
    left, leave = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        os.close(leave)
        os._exit(0 if os.read(left, 1) and _mapped(os.getppid()) else 1)
    _call("unshare", _NAMESPACES)
    os.write(leave, b".")
    if os.waitpid(mapper, 0)[1]:
        raise OSError(1, "users can't be mapped", "uid_map")
    os.close(left)
    os.close(leave)


def _mapped(process: int) -> bool:
    """An ordinary user becomes nobody inside; root stays root until all is mounted, then becomes nobody, everywhere."""
    user, group = os.geteuid(), os.getegid()
    own = {"uid_map": f"{NOBODY} {user} 1", "gid_map": f"{NOBODY} {group} 1"}
    if user == 0:
        own = dict.fromkeys(own, f"0 0 1\n{NOBODY} {NOBODY} 1")
    try:
        if user != 0:
            _write(f"/proc/{process}/setgroups", "deny")
        for name, text in own.items():
            _write(f"/proc/{process}/{name}", text)
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


# -- process 1


def _init(task: dict[str, Any], alive: int) -> NoReturn:
    """Sets everything up, starts the program and reports how it ended."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the guard's input is the guard's
        _no_more_namespaces()
        _build_root(task.pop("packages"), task["scratch_bytes"])
        socket.sethostname("sandbox")
        _give_up_privileges()
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after what would have reset it
        if select.select([alive], [], [], 0)[0]:
            os._exit(1)
        program = os.fork()
    except OSError as error:
        _report(setup=f"{error.filename}: {error.strerror}")
        os._exit(1)
    if program == 0:
        names: dict[str, Any] = {}
        exec(compile(task.pop("runner"), "jailed.py", "exec"), names)
        names["run"](task)
    _report(ended=os.waitpid(program, 0)[1])
    os._exit(0)


def _no_more_namespaces() -> None:
    with contextlib.suppress(OSError):  # there is less to attack where it works; nothing rests on it
        _write("/proc/sys/user/max_user_namespaces", "0")


def _build_root(packages: list[tuple[str, str]], scratch_bytes: int) -> None:
    """A file system of Python, its libraries and an empty scratch folder: all else is gone, and all else read-only."""
    _call("mount", None, b"/", None, ctypes.c_ulong(_MS_PRIVATE_REC), None)
    _tmpfs(_NEW_ROOT, "size=1m,mode=0755")
    for path in _libraries():
        _show(path, path)
    for name, path in packages:
        _show(path, f"{_PACKAGES}/{name}")
    os.mkdir(_NEW_ROOT + _SCRATCH)
    os.chdir(_NEW_ROOT)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    for path in _foreign_packages():
        _tmpfs(path, "size=4k,mode=0755")
    _read_only(b"/")
    _tmpfs(_SCRATCH, f"size={scratch_bytes},nr_inodes=4096,mode=0777")
    os.chdir(_SCRATCH)


def _libraries() -> list[str]:
    own = (os.path.join(prefix, "lib") for prefix in (sys.base_prefix, sys.base_exec_prefix))
    return [path for path in dict.fromkeys((*own, *_SYSTEM_LIBRARIES)) if os.path.isdir(path)]


def _foreign_packages() -> list[str]:
    """What is installed beside Python: nobody needs it, and it is nobody's business."""
    stdlib = sysconfig.get_path("stdlib")
    places = [f"{stdlib}/site-packages", f"{stdlib}/dist-packages", f"{sys.base_prefix}/lib/python3/dist-packages"]
    return [path for path in places if os.path.isdir(path)]


def _show(source: str, place: str) -> None:
    """Makes a folder visible, or the symbolic link that it is; `_read_only` comes later."""
    target = _NEW_ROOT + place
    if os.path.islink(source) and source in _SYSTEM_LIBRARIES:
        os.symlink(os.readlink(source), target)
        return
    os.makedirs(target, exist_ok=True)
    _call("mount", os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(_MS_BIND_REC), None)


def _tmpfs(path: str, options: str) -> None:
    _call("mount", b"tmpfs", path.encode(), b"tmpfs", ctypes.c_ulong(_NOSUID_NODEV), options.encode())


def _read_only(path: bytes) -> None:
    """A folder and all that is mounted below it."""
    attributes = struct.pack("QQQQ", _RDONLY_NOSUID_NODEV, 0, 0, 0)
    if _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, len(attributes)) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "mount_setattr")


def _give_up_privileges() -> None:
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        _libc.syscall(number, _JOIN_SESSION_KEYRING, None)  # the user's keys stay behind; some systems have none
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("capset", struct.pack("Ii", _CAPABILITIES_V3, 0), bytes(24))


if __name__ == "__main__":
    main()

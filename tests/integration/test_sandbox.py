"""Model-written programs get results and nothing else; each escape is tried with the audit hook and without it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools import sandbox as sandbox_module
from alpha_umi.tools.jailed import PROGRAM
from alpha_umi.tools.sandbox import JAIL, Sandbox, SandboxError, SandboxLimits, open_sandbox

LIMITS = SandboxLimits(seconds=60, cpu_seconds=20)
CTYPES = "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
CHECKED = CTYPES + "def check(result):\n    if result == -1: raise OSError(ctypes.get_errno(), '')\n"


@pytest.fixture(scope="module", autouse=True)
def available() -> None:
    try:
        asyncio.run(open_sandbox())
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = descendants()
    yield
    assert descendants() <= before


def descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def run(code: str, limits: SandboxLimits = LIMITS, audit: bool = True) -> str:
    return asyncio.run(Sandbox(limits, audit=audit).run(code))


def failed(code: str, limits: SandboxLimits = LIMITS, audit: bool = True) -> ToolError:
    with pytest.raises(ToolError) as caught:
        run(code, limits, audit)
    return caught.value


# -- what a program is for


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("1 + 1", "2\n"),
        ("print('a')\n48 / 2", "a\n24.0\n"),
        ("x = 3", ""),
        ("", ""),
        ("None", ""),
        ("print('\\ud800é')", "\\ud800é\n"),
        ("import sys\nprint('x', file=sys.stderr)\nsys.exit()", ""),
        ("from sympy import *\nx = symbols('x')\nsolve(x**2 - 2, x)", "[-sqrt(2), sqrt(2)]\n"),
        ("import dataclasses\n@dataclasses.dataclass\nclass A:\n    b: 'int'\nA(1)", "A(b=1)\n"),
        ("open('a', 'w').write('text')\nopen('a').read()", "'text'\n"),
        ("import tempfile\nwith tempfile.TemporaryFile() as f: print(f.write(b'ab'))", "2\n"),
    ],
)
def test_a_program_gives_what_it_prints_and_its_last_value(code: str, output: str) -> None:
    assert run(code) == output


def test_an_error_is_told_by_the_last_lines_of_its_traceback_without_paths_of_the_host() -> None:
    error = failed("import json\ndef f(text):\n    return json.loads(text)\nprint('first')\nf('{')")
    assert error.kind == "exception"
    lines = str(error).splitlines()
    assert lines[1] == f'  File "{PROGRAM}", line 5, in <module>'
    assert "    return json.loads(text)" in lines
    assert lines[-3].startswith("json.decoder.JSONDecodeError: Expecting property name")
    assert lines[-2:] == ["printed before:", "first"]
    assert sys.base_prefix not in str(error) and str(JAIL.parent) not in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("def f(:", "exception", "SyntaxError"),
        ("1 / 0", "exception", "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('no')", "exception", "SystemExit: no"),
        ("def f(): return f()\nf()", "exception", "RecursionError"),
        ("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E", "exception", "E: <exception str"),
        ("10**5000", "exception", "4300 digits"),
        ("input()", "exception", "EOFError"),
        ("import numpy", "exception", "ModuleNotFoundError"),
        ("x = '\\0'\nopen(x)", "exception", "null"),
        ("import os\nos.abort()", "died", "SIGABRT"),
        ("import os\nos._exit(3)", "died", "its own exit with code 3"),
        ("import signal\nsignal.raise_signal(40)", "died", "signal 40"),
    ],
)
def test_what_a_program_does_wrong_is_a_typed_error(code: str, kind: str, says: str) -> None:
    error = failed(code)
    assert error.kind == kind and says in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("while True: pass", "timeout", "computed for more than 1 seconds"),
        ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "died", "SIGKILL"),
        ("import time\ntime.sleep(1000)", "timeout", "had not ended after 3 seconds"),
        ("x = [0] * 10**9", "memory_limit", "MemoryError"),
        ("x = []\nwhile True: x.append(bytes(10**6))", "memory_limit", "MemoryError"),
        ("while True: print('x' * 1000)", "output_limit", "more than 65,536 bytes; it began with:\nxxx"),
        ("'x' * 10**6", "output_limit", "more than 65,536 bytes"),
        ("for fd in range(3, 64):\n    import os\n    try:\n        while True: os.write(fd, b'x' * 1000)\n"
         "    except OSError: pass\n", "died", "SIGKILL"),
        ("open('a', 'w').write('x' * 2**25)", "exception", "File too large"),
        ("for i in range(99): open(f'{i}', 'w').write('x' * 10**6)", "exception", "No space left"),
        ("for i in range(10**6): open(f'{i}', 'w').close()", "exception", "No space left"),
        ("x = [open('a', 'w') for _ in range(1000)]", "exception", "Too many open files"),
    ],
)  # fmt: skip
def test_every_resource_is_bounded(code: str, kind: str, says: str) -> None:
    error = failed(code, SandboxLimits(seconds=3 if "sleep" in code else 60, cpu_seconds=1))
    assert error.kind == kind and says in str(error)


@pytest.mark.parametrize(
    "told", ["{", "[]", '{"ended": -1e999}', '{"setup": "x", "ended": 99}', '{"error": 5}', "\\xff"]
)
def test_what_a_program_reports_of_itself_changes_nothing(told: str) -> None:
    code = f"import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'{told}\\n')\n    except OSError: pass\n7"
    assert run(code) == "7\n"


# -- what a program has not

ESCAPES = {
    "a connection": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)",
    "a datagram": "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "a name": "import socket\nsocket.getaddrinfo('localhost.localdomain.test', 80)",
    "a unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('{folder}/socket')",
    "its own interface": "import socket, fcntl, struct\n"
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1))",
    "a file of the system": "open('/etc/passwd')",
    "a file of the user": "open('{folder}/secret')",
    "a way up": "open('/scratch/../../../../{folder}/secret')",
    "a symbolic link": "import os\nos.symlink('{folder}/secret', 'link')\nopen('link')",
    "a hard link": "import os\nos.link('{folder}/secret', 'link')\nopen('link')",
    "the old root by its descriptors": "import os\nfor n in range(3, 64):\n"
    "    try: os.open('etc/passwd', os.O_RDONLY, dir_fd=n)\n    except OSError as error: last = error\n"
    "    else: break\nelse: raise last",
    "the process file system": "open('/proc/self/environ')",
    "mounting it": CHECKED + "check(c.mount(b'x', b'/scratch', b'proc', 0, None))",
    "unmounting": CHECKED + "check(c.umount2(b'/scratch', 2))",
    "writing beside scratch": "open('/file', 'w')",
    "changing Python": "import os\nopen(os.__file__, 'a')",
    "the project": "import sys\nsys.path += ['{project}', '{project}/..', '{packages}']\nimport alpha_umi",
    "an installed package": "import sys\nsys.path += ['{packages}']\nimport pydantic",
    "killing its owner": "import os\nos.kill({pid}, 9)",
    "killing all": "import os\nos.kill(-1, 9)",
    "a process": "import os\nos.fork()",
    "a command": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'], check=True)",
    "a system call for a process": CHECKED + "check(c.fork())",
    "a thread": "import threading\nthreading.Thread(target=print).start()",
    "a fork bomb": "import os\nwhile True: os.fork()",
    "more processes": "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (100, 100))",
    "more memory": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
    "a namespace": CHECKED + "check(c.unshare(0x10000000))",
    "a network": CHECKED + "check(c.unshare(0x40000000))",
    "another root": CHECKED + "check(c.chroot(b'/scratch'))",
    "being root": CHECKED + "check(c.setuid(0))",
    "tracing its keeper": CHECKED + "check(c.ptrace(16, 1, 0, 0))",
    "a device": "import os, stat\nos.mknod('d', stat.S_IFCHR | 0o666, os.makedev(1, 1))",
    "a shared segment": CHECKED + "check(c.shmget({pid}, 4096, 0))",
}  # fmt: skip

REFUSALS = {
    "PermissionError", "OSError", "FileNotFoundError", "BlockingIOError", "ModuleNotFoundError", "socket.gaierror",
    "RuntimeError", "ProcessLookupError", "ValueError", "NotADirectoryError",
}  # fmt: skip


@pytest.mark.parametrize("escape", ESCAPES)
def test_there_is_no_way_out_whether_or_not_the_hook_refuses_it_first(
    escape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("canary")
    tmp_path.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        monkeypatch.chdir(tmp_path)  # a path to a unix socket has to be short
        unix.bind("socket")
        unix.listen()
        code = ESCAPES[escape].format(
            port=server.getsockname()[1], folder=tmp_path, pid=os.getpid(), project=Path(JAIL).parents[2],
            packages=Path(pytest.__file__).parents[1],
        )  # fmt: skip

        async def tried() -> list[str | BaseException]:
            runs = [Sandbox(LIMITS, audit=audit).run(code) for audit in (True, False)]
            return await asyncio.gather(*runs, return_exceptions=True)

        for error in asyncio.run(tried()):
            assert isinstance(error, ToolError) and error.kind == "exception"
            assert str(error).splitlines()[-1].partition(":")[0] in REFUSALS
            assert "canary" not in str(error)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_nothing_of_the_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "canary-8d1f")
    seen = run("import os, socket\nprint(dict(os.environ), os.uname(), socket.gethostname(), os.getcwd())", audit=False)
    assert "canary-8d1f" not in seen and "SERVICE_TOKEN" not in seen
    assert socket.gethostname() not in seen and "'sandbox'" in seen and str(Path.home()) not in seen


def test_the_file_system_is_python_its_libraries_and_scratch_alone() -> None:
    code = "import os\n[os.listdir('/usr'), os.listdir('/packages'), os.listdir('.'), os.getuid(), os.getpid()]"
    usr, packages, scratch, user, process = eval(run(code))
    assert all(name.startswith("lib") or name == "local" for name in usr)
    assert set(packages) <= {"sympy", "mpmath"} and scratch == []
    assert (user, process) == (65534, 2)


def test_programs_side_by_side_share_nothing_and_leave_nothing() -> None:
    code = "import os\nprint(os.listdir('.'))\nopen('file', 'w').write('{n}')\nprint(open('file').read())"

    async def all_of_them() -> list[str]:
        sandbox = Sandbox(LIMITS)
        return await asyncio.gather(*(sandbox.run(code.format(n=n)) for n in range(6)))

    assert asyncio.run(all_of_them()) == [f"[]\n{n}\n" for n in range(6)]


# -- how it ends

STUBBORN = CTYPES + "import os, signal, time\nos.setsid()\nc.prctl(1, 0)\nfor n in range(1, 64):\n" + (
    "    if n not in (9, 19, 32, 33): signal.signal(n, signal.SIG_IGN)\nwhile True: time.sleep(100)"
)  # fmt: skip


async def begun(before: set[psutil.Process]) -> set[psutil.Process]:
    """The guard, process 1 and the program, once there are these three."""

    def three() -> bool:
        return len(descendants() - before) == 3 and all(one.num_threads() == 1 for one in descendants() - before)

    await until(three)
    return descendants() - before


@pytest.mark.parametrize("code", ["while True: pass", STUBBORN])
def test_cancellation_leaves_no_process(code: str) -> None:
    async def cancelled() -> None:
        before = descendants()
        task = asyncio.create_task(Sandbox(LIMITS, audit=False).run(code))
        await begun(before)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert descendants() == before

    asyncio.run(cancelled())


def test_a_program_does_not_outlive_its_killed_guard() -> None:
    async def killed() -> None:
        before = descendants()
        task = asyncio.create_task(Sandbox(LIMITS, audit=False).run(STUBBORN))
        processes = await begun(before)
        guard = next(one for one in processes if one.ppid() == os.getpid())
        guard.kill()
        with pytest.raises(ToolError, match="SIGKILL"):
            await task
        await until(lambda: not any(one.is_running() and one.status() != "zombie" for one in processes))

    asyncio.run(killed())


def test_a_program_does_not_outlive_its_killed_owner() -> None:
    owner = (
        f"import asyncio\nfrom alpha_umi.tools.sandbox import *\nasyncio.run(Sandbox(audit=False).run({STUBBORN!r}))"
    )

    async def killed() -> None:
        process = subprocess.Popen([sys.executable, "-c", owner])
        root = psutil.Process(process.pid)
        await until(lambda: len(root.children(recursive=True)) == 3)
        below = root.children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        await until(lambda: not any(one.is_running() and one.status() != "zombie" for one in below))

    asyncio.run(killed())


# -- where it can't be done


def test_another_platform_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module.sys, "platform", "darwin")
    with pytest.raises(UserError, match=r"can't be run safely on darwin: it needs Linux 5\.12 or newer"):
        asyncio.run(open_sandbox())


def test_where_namespaces_are_forbidden_nothing_is_run_and_what_to_do_is_told() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare command to forbid namespaces with")
    code = """
import asyncio
from alpha_umi.tools.sandbox import SandboxError, open_sandbox
open("/proc/sys/user/max_user_namespaces", "w").write("0")
try:
    asyncio.run(open_sandbox())
except SandboxError as error:
    print(error)
"""
    done = subprocess.run(["unshare", "-Ur", sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "programs can't be run safely here (unshare: No space left on device): it needs Linux"
    )
    assert "kernel.unprivileged_userns_clone=1" in done.stdout


def test_an_ordinary_user_can_do_it_too() -> None:
    """Where the tests run as root; elsewhere all of them show it."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if os.getuid() != 0 or python is None:
        pytest.skip("needs root, and a Python that everybody may run")
    task = {"code": "import os, math\nos.fork()", "packages": [], "audit": False, "cpu_seconds": 5}
    data = json.dumps(task | {"memory_bytes": 2**29, "scratch_bytes": 2**20}).encode()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for file in (JAIL, JAIL.with_name("jailed.py")):
            shutil.copy(file, folder)
        process = subprocess.Popen(
            [python, "-I", "-S", f"{folder}/jail.py"], stdin=-1, stdout=-1, stderr=-1, env={}, cwd="/",
            user=65534, group=65534, extra_groups=[],
        )  # fmt: skip
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(struct.pack("!I", len(data)) + data)
        process.stdin.flush()
        reports = [json.loads(line) for line in process.stderr]
        process.communicate()
    assert reports[0] == {"started": True} and reports[-1] == {"ended": 0}
    assert reports[1]["error"][0] == "BlockingIOError"

"""Attacks on the sandbox. Each that is harmless is shown to work without it: an attack that fails anywhere proves nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lablib.data.sandbox import available, calls, outside, run
from lablib.specs import LabError

pytestmark = pytest.mark.skipif(bool(available()), reason=f"no sandbox here: {available()}")
ROOT = Path(__file__).parents[2]


def bare(program: str, seconds: float = 20.0) -> str:
    """What a program says without walls."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=seconds).stdout


def tries(*expressions: str) -> str:
    """A program that says for each expression what became of it: its value, or the name of the error."""
    return "\n".join(
        ["import ctypes, os, socket, subprocess, sys, threading, time", "libc = ctypes.CDLL(None, use_errno=True)", "def tried(one):",
         "    try:", "        return str(eval(one))", "    except Exception as error:", "        return type(error).__name__",
         f"for one in {expressions!r}: print(tried(one))"]
    )  # fmt: skip


def walled(program: str, **limits: float) -> list[str]:
    """The lines that a program says inside."""
    found = run(program, **limits)  # type: ignore[arg-type]
    assert found.passed, found
    return found.stdout.split("\n")[:-1]


def living(token: str) -> list[int]:
    """Processes of this machine that have a word in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_program_runs_with_its_files_and_nothing_else():
    program = "import helper, json, os, sys; print(helper.ANSWER, sorted(os.environ), repr(sys.stdin.read()), os.getuid()); sys.exit(3)"
    found = run(program, files={"helper.py": "ANSWER = 42", "data/one.txt": "x"})
    assert (found.passed, found.exit, found.why, found.stderr) == (False, 3, "exit", "")
    assert found.stdout.startswith("42 ['HOME', 'LANG', 'PATH', 'PYTHONDONTWRITEBYTECODE', 'PYTHONHASHSEED'] '' 1000")
    assert run("import numpy").why == "exit", "the standard library alone"
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").why == "signal"


def test_files_of_the_machine_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "recipe.json").write_text("a run's secret")
    monkeypatch.setenv("API_TOKEN", "an environment's secret")
    reads = tries(f"open({str(tmp_path / 'recipe.json')!r}).read()", "os.environ['API_TOKEN']", "os.listdir('/home')",
                  f"os.listdir({str(ROOT)!r})", "open('/etc/hostname').read()", "len(os.listdir('/sys'))")  # fmt: skip
    assert bare(reads).startswith("a run's secret\nan environment's secret\n")
    assert walled(reads) == ["FileNotFoundError", "KeyError", *4 * ["FileNotFoundError"]]


def test_a_symlink_leads_nowhere(tmp_path):
    (tmp_path / "secret").write_text("secret")
    trick = tries(f"os.symlink({str(tmp_path / 'secret')!r}, 'link') or open('link').read()", "os.symlink(os.path.join('/proc/1', 'root', 'etc/shadow'), 'other') or open('other').read()")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", trick], cwd=tmp_path, capture_output=True, text=True).stdout.startswith("secret")  # fmt: skip
    assert walled(trick)[0] == "FileNotFoundError"
    assert walled(trick)[1] in ("FileNotFoundError", "PermissionError")
    for name in ("../out.txt", "/out.txt", "a/../../out.txt", "", "program.py"):
        with pytest.raises(LabError, match="relative path"):
            run("", files={name: "text"})
    with pytest.raises(LabError, match="bytes with the program"):
        run("", files={"large.txt": "x" * (40 << 20)})


def test_there_is_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0sandbox-{os.getpid()}")
        abstract.listen()
        port = server.getsockname()[1]
        connects = tries(f"socket.create_connection(('127.0.0.1', {port}), 2).close()",
                         f"socket.socket(socket.AF_UNIX).connect('\\0sandbox-{os.getpid()}')",
                         "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()", "len(open('/proc/net/dev').readlines())")  # fmt: skip
        assert bare(connects).split("\n")[:2] == ["None", "None"]
        assert walled(connects) == ["OSError", "ConnectionRefusedError", "OSError", "3"], (
            "two lines of heading, and the loop"
        )


def test_nothing_can_be_written_but_in_its_own_folder(tmp_path):
    writes = tries(f"open({str(tmp_path / 'mark')!r}, 'w').write('x')", "open('/usr/mark', 'w')", "open('/mark', 'w')", "os.mkdir('/etc/mark')",
                   "open('/proc/sys/kernel/core_pattern', 'w')", "open('/proc/self/oom_score_adj', 'w')", "open('/dev/mark', 'w')",
                   "open(sys.executable, 'r+b')", "open('mine', 'w').write('x')")  # fmt: skip
    bare(tries(f"open({str(tmp_path / 'mark')!r}, 'w').write('x')"))
    assert (tmp_path / "mark").read_text() == "x"
    (tmp_path / "mark").unlink()
    *refused, own = walled(writes)
    assert own == "1" and set(refused) <= {"FileNotFoundError", "OSError", "PermissionError"}
    assert not (tmp_path / "mark").exists()


def test_a_huge_file_ends_at_the_limit_of_the_folder():
    one = "data = b'x' * (1 << 20)\nwith open('huge', 'wb') as file:\n    for _ in range(200): file.write(data)"
    assert re.search("File too large|No space left", run(one).stderr)
    many = "data = b'x' * (16 << 20)\nfor n in range(20): open(f'huge{n}', 'wb').write(data)"
    assert "No space left" in run(many).stderr


def test_an_endless_loop_ends_with_its_time():
    found = run("import signal\nfor n in range(1, 32):\n    if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\nwhile True: pass", seconds=0.4)  # fmt: skip
    assert (found.passed, found.exit, found.why) == (False, None, "time")


def test_endless_output_is_not_held():
    found = run("while True: print('x' * 1000)", output_bytes=10_000)
    assert (found.why, len(found.stdout)) == ("output", 10_000)
    assert run("import os\nwhile True: os.write(2, b'x' * 1000)", output_bytes=10_000).why == "output"


def test_a_fork_bomb_is_bounded_and_leaves_nothing():
    bounded = "import os, time\nmade = 0\ntry:\n    for made in range(60):\n        if not os.fork(): time.sleep(1); os._exit(0)\nexcept OSError: pass\nprint(made)"  # fmt: skip
    assert int(bare(bounded)) == 59
    found = run(bounded)
    assert found.why == "processes" or int(found.stdout) < 32
    bomb = "import os  # bomb-7c1\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert run(bomb, seconds=0.5).why in ("time", "processes")
    _until(lambda: not living("/tmp/program.py"))
    threads = "import threading, time\ntry:\n    for n in range(100): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()\nexcept RuntimeError: print(n)"  # fmt: skip
    assert int(walled(threads)[0]) < 32


def test_memory_is_bounded_for_one_process_and_for_all():
    assert bare("print(len(bytearray(300 << 20)))") == f"{300 << 20}\n"
    assert "MemoryError" in run("bytearray(300 << 20)", memory_bytes=200 << 20).stderr
    several = "import os, time\nfor _ in range(6):\n    if not os.fork():\n        held = b'x' * (40 << 20); time.sleep(20)\ntime.sleep(20)"
    assert run(several, memory_bytes=150 << 20).why == "memory"
    hidden = tries("libc.memfd_create(b'x', 0)", "libc.shmget(0, 1 << 28, 0o1600)", "libc.syscall(447, 0)")
    assert int(bare(hidden).split()[0]) > 0
    assert walled(hidden) == ["-1", "-1", "-1"], "memory that belongs to no process"


def test_memory_that_leaves_a_process_but_not_the_machine_is_refused():
    """Pages of a shared mapping that was cut to one, datagrams of senders that are gone, connections that nobody accepts."""
    shared = tries("[(m := __import__('mmap').mmap(-1, 64 << 20)), m.write(b'x' * (64 << 20)), m.resize(4096), open('/proc/self/statm').read().split()[2]][3]",
                   "__import__('mmap').mmap(os.open('/dev/zero', os.O_RDWR), 4096).size()")  # fmt: skip
    left, zero = bare(shared).split()
    assert int(left) * 4096 < 32 << 20 and zero != "FileNotFoundError", "64 MiB are held, and not seen"
    queues = tries("socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].close()", "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close()",
                   "[(s := socket.socket(socket.AF_UNIX)), s.bind('s'), s.listen(), os.unlink('s')][3]", "socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)", "libc.syscall({'x86_64': 206}.get(os.uname().machine, 0), 8, ctypes.byref(ctypes.c_ulong()))")  # fmt: skip
    assert bare(queues).split()[:4] == ["None"] * 4
    assert walled(shared) == ["PermissionError", "FileNotFoundError"]
    assert walled(queues) == ["OSError", "OSError", "PermissionError", "PermissionError", "-1"]
    assert walled(tries("socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)")) == ["None"]


def test_what_code_of_several_processes_needs_is_there():
    program = "import asyncio, multiprocessing as many, subprocess\nwith many.get_context('fork').Pool(2) as pool: print(sum(pool.map(abs, [-1, -2])), many.Value('i', 4).value)\nprint(asyncio.run(asyncio.sleep(0, 5)), subprocess.run(['true']).returncode)"
    assert walled(program) == ["3 4", "5 0"]


def test_a_grandchild_does_not_outlive_it():
    token = f"outlives-{os.getpid()}"
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', {token!r}], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print('left')"  # fmt: skip
    assert bare(leaves) == "left\n"
    (escaped,) = living(token)
    os.kill(escaped, signal.SIGKILL)
    assert walled(leaves.replace(token, token + "-inside")) == ["left"]
    assert not living(token + "-inside")


def test_it_cannot_kill_or_see_others():
    kills = "import os, signal, sys\nfor pid in (os.getppid(), 1, -1):\n    try: os.kill(pid, signal.SIGKILL)\n    except OSError as error: print(type(error).__name__)\nprint('lives')"  # fmt: skip
    parent = subprocess.run([sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import os; os.kill(os.getppid(), 9)'])"])  # fmt: skip
    assert parent.returncode == -9
    assert walled(kills)[-1] == "lives"
    sees = tries("[n for n in os.listdir('/proc') if n.isdigit() and int(n) != os.getpid()]", "open('/proc/1/environ').read()",
                 "os.readlink('/proc/1/fd/0')", "os.listdir(os.path.join('/proc/1', 'root'))", f"os.kill({os.getpid()}, 0)")  # fmt: skip
    assert len(bare(sees).split("\n")[0]) > len("['1', '2']")
    others, *rest = walled(sees)
    assert others in ("[]", "['1']") and set(rest) <= {"FileNotFoundError", "PermissionError", "ProcessLookupError"}


def test_it_has_no_privilege_and_gets_none():
    gains = tries("open('/proc/self/status').read().split('CapBnd:')[1].split()[0]", "os.setuid(0)", "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
                  "libc.unshare(0x10000000)", "libc.ptrace(0, 0, 0, 0)", "libc.setns(0, 0)", "libc.chroot(b'/tmp')", "libc.syscall(425, 1, None)",
                  "libc.umount2(b'/proc', 2)", "libc.syscall(435, None, 0), ctypes.get_errno()",
                  "subprocess.run(['unshare', '-Ur', 'true'], stderr=subprocess.DEVNULL).returncode")  # fmt: skip
    bounding, uid, *rest = walled(gains)
    assert int(bounding, 16) == 0 and uid in ("PermissionError", "OSError")
    assert rest == [*["-1"] * 7, "(-1, 38)", "1"]
    assert "0" in bare("import subprocess; print(subprocess.run(['unshare', '-Ur', 'true']).returncode)")


def test_many_threads_run_programs_at_once():
    found: dict[int, list[str]] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: walled(f"print({n} ** 2)")})) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == {n: [str(n**2)] for n in range(4)}


def test_it_ends_with_whoever_asked_for_it():
    code = "from lablib.data.sandbox import run; run('import time, sys; time.sleep(60)', files={'mark-9ab': ''}, seconds=60)"
    asker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        _until(lambda: living("/tmp/program.py"))
    finally:
        asker.kill()
        asker.wait()
    _until(lambda: not living("/tmp/program.py"))


def _until(holds, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


ASKS = "from lablib.data.sandbox import available, run; from lablib.specs import LabError\nprint(available())\ntry: print(run('print(6 * 7)').stdout)\nexcept LabError: print('refused')"  # fmt: skip


def alone(code: str, shell: str = "") -> list[str]:
    """What Python says that asks as a user who is no other one, after a line of the shell."""
    inner = f'{shell}\nexec {sys.executable} -c "$1"'
    asked = subprocess.run(["unshare", "--user", "--map-root-user", "sh", "-c", inner, "sh", code], cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert not asked.returncode, asked.stderr
    return asked.stdout.split("\n")[:-1]


def test_a_user_who_is_not_root_is_walled_off_too():
    """Also where the user's own limits are lower; nothing that the program does to process 1, which is its user's, is a refusal."""
    assert " ".join(alone(ASKS, "ulimit -Hc 0; ulimit -Hn 60")).split() == ["None", "42"]
    attacks = ["import os; os.chmod('/dev/full', 0o666)", "import os, signal, time; os.kill(1, signal.SIGINT); time.sleep(.1)",
               "import resource, time; resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0)); time.sleep(.1)",
               "import threading, time\nthreading.stack_size(65536)\nfor _ in range(300): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()"]  # fmt: skip
    code = f"from lablib.data.sandbox import run\nfor one in {attacks!r}:\n  found = run(one); print(found.why, found.stderr.split(chr(10))[-2:][:1])"
    device, deaf, other, threads = alone(code)
    assert "Read-only file system" in device and deaf == " ['']" and "Operation not permitted" in other
    assert threads.startswith("processes") or "can't start new thread" in threads


def test_the_caller_may_have_odd_settings(tmp_path, monkeypatch):
    """Children that nobody waits for, blocked signals, files for itself alone, an interpreter below /tmp."""
    (tmp_path / "lib.py").write_text("x")
    tmp_path.chmod(0o755)
    monkeypatch.setattr(outside, "_paths", lambda python, usual=outside._paths: [*usual(python), str(tmp_path)])
    before, mask = signal.signal(signal.SIGCHLD, signal.SIG_IGN), os.umask(0o077)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    try:
        said = walled(f"import os, signal, time\nprint(os.listdir({str(tmp_path)!r}), os.getuid())\nsignal.signal(14, lambda *_: print('heard'))\nsignal.setitimer(0, .01)\ntime.sleep(.1)")  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.umask(mask)
        signal.signal(signal.SIGCHLD, before)
    assert said == ["['lib.py'] 1000", "heard"]


def test_a_refusal_is_not_remembered_and_a_bad_name_is_told_as_one(monkeypatch):
    outside._tried.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(outside, "filter_for", lambda: None)
        assert "are not known" in (available() or "")
    assert available() is None
    for files in ({"a": "", "a/b": ""}, {"x" * 300: ""}, {"\ud800": ""}):
        with pytest.raises(LabError, match=r"^files: '.*': [\w ]+$"):
            run("", files=files)
    for seconds in (0.0, float("nan"), float("inf")):
        with pytest.raises(LabError, match="seconds must be positive"):
            run("", seconds=seconds)


def test_where_the_kernel_refuses_it_refuses_and_says_what_to_do():
    inner = f'echo 0 > /proc/sys/user/max_user_namespaces; exec {sys.executable} -c "$1"'
    asked = subprocess.run(["unshare", "--user", "--map-root-user", "sh", "-c", inner, "sh", ASKS], cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert "new namespaces: No space left on device" in asked.stdout
    assert "sysctl user.max_user_namespaces" in asked.stdout
    assert asked.stdout.endswith("refused\n") and "42" not in asked.stdout


@pytest.mark.parametrize(("machine", "header"), [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")])  # fmt: skip
def test_numbers_of_calls_are_those_of_the_kernels_headers(machine, header):
    path = Path("/usr/include") / header
    if not path.is_file():
        pytest.skip(f"no {path}")
    known = {name: int(number) for name, number in re.findall(r"#define __NR3?2?6?4?_?(\w+)\s+(\d+)", path.read_text())}
    mine = calls.MACHINES[machine][1]
    wrong = {name: (number, known[name]) for name, number in mine.items() if name in known and known[name] != number}
    assert not wrong and len(set(mine) & set(known)) > 0.9 * len(mine)

"""What an application starts: children that last, by their kinds, and children that say what they have."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

KEPT = []
LAST = "import signal, time; {}time.sleep(600)"
LASTS = LAST.format("")
STUBBORN = LAST.format("signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); ")


def last(*_):
    time.sleep(600)


def popen(code=LASTS, **more):
    child = subprocess.Popen([sys.executable, "-c", code], **more)
    KEPT.append(child)
    return child.pid


def stubborn(**more):
    pid = popen(STUBBORN, stdout=subprocess.PIPE, **more)
    KEPT[-1].stdout.readline()  # by now it ignores TERM
    return pid


def process(daemon, method="fork", target=last):
    child = multiprocessing.get_context(method).Process(target=target, daemon=daemon)
    child.start()
    KEPT.append(child)
    return child.pid


def pool(method):
    executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method))
    KEPT.append(executor)
    return executor.submit(os.getpid).result()


def pool_busy():
    executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    KEPT.extend([executor, executor.submit(os.getpid)])
    pid = KEPT[-1].result()
    executor.submit(last)
    return pid


def manager():
    KEPT.append(multiprocessing.get_context("fork").Manager())
    return KEPT[-1]._process.pid


def workers():
    KEPT.append(multiprocessing.get_context("fork").Pool(1))
    return KEPT[-1].apply(os.getpid)


def plain():
    """By os.fork alone."""
    pid = os.fork()
    if pid == 0:
        try:
            last()
        finally:
            os._exit(0)
    return pid


def in_thread(start):
    """From a thread that ends at once."""
    found = []
    thread = threading.Thread(target=lambda: found.append(start()))
    thread.start()
    thread.join()
    return found[0]


def daemonized():
    """A daemon as the textbook has it: two forks, a session of its own."""
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            os.write(write, b"%d" % os.getpid())
            os.close(write)
            try:
                last()
            finally:
                os._exit(0)
        os._exit(0)
    os.close(write)
    os.waitpid(middle, 0)
    with os.fdopen(read) as pipe:
        return int(pipe.read())


KINDS = {
    "program": popen,
    "program in its own session": lambda: popen(start_new_session=True),
    "program in its own group": lambda: popen(process_group=0),
    "stubborn program": stubborn,
    "stubborn program in its own session": lambda: stubborn(start_new_session=True),
    "program by a shell": lambda: popen("import os; os.system('sleep 600')"),
    "program by preexec_fn": lambda: popen(preexec_fn=os.getpid),
    "daemonic process": lambda: process(daemon=True),
    "process": lambda: process(daemon=False),
    "process in a thread": lambda: in_thread(lambda: process(daemon=True)),
    "spawned process": lambda: process(daemon=False, method="spawn"),
    "forkserver's process": lambda: process(daemon=False, method="forkserver"),
    "fork": plain,
    "executor": lambda: pool("spawn"),
    "executor by forkserver": lambda: pool("forkserver"),
    "busy executor": pool_busy,
    "pool": workers,
    "manager": manager,
    "daemon": daemonized,
}

# -- what a child is given -----------------------------------------------------------------------------------


def see():
    """What this process has: signals, descriptors."""
    wakeup = signal.set_wakeup_fd(-1) if threading.current_thread() is threading.main_thread() else None
    handlers = {
        each.name: getattr(handler, "name", getattr(handler, "__name__", str(handler)))
        for each in signal.Signals
        for handler in [signal.getsignal(each)]
    }
    return {"wakeup": wakeup, "handlers": handlers, **of(os.getpid())}


def of(pid):
    """What /proc says of a process."""
    with open(f"/proc/{pid}/status") as file:
        rows = dict(line.rstrip("\n").split(":\t") for line in file if line.startswith("Sig"))
    held = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            held[name] = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
    return {**rows, "held": held}


def forked():
    """What a forked child sees, and how it ends by terminate()."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)  # gevent makes sockets non-blocking

    def work():
        theirs.send(see())
        last()

    child = context.Process(target=work, daemon=True)
    child.start()
    seen = ours.recv()
    child.terminate()
    child.join(30)
    code = child.exitcode
    child.kill()
    return {**seen, "code": code}


def executed():
    """What an executed program is given, and how it ends by INT and HUP."""
    found = []
    for number in (signal.SIGINT, signal.SIGHUP):
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
        deadline = time.monotonic() + 10
        while len((seen := of(child.pid))["held"]) > 3 and time.monotonic() < deadline:
            time.sleep(0.01)  # it has not executed yet, or still opens libraries
        child.send_signal(number)
        try:
            found.append(child.wait(30))
        except subprocess.TimeoutExpired:
            found.append(None)
            child.kill()
            child.wait()
    return {**seen, "codes": found}


def answer(path):
    """The answer to a request, as bytes."""
    name = path.strip("/").replace("%20", " ")
    if name == "pid":
        found = os.getpid()
    elif name == "here":
        found = of(os.getpid())
    elif name in {"forked", "executed"}:
        found = globals()[name]()
    else:
        found = KINDS[name]()
    return json.dumps(found).encode()

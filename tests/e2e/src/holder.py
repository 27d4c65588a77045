"""Stands in for systemd: holds descriptors for a daemon, and starts it again whenever it ends.

sd_notify(3) and sd_listen_fds(3) as far as the file-descriptor store goes. The names that are held now are the
lines of the file in the first argument, and what was said the lines of a file beside it: one for each message.
"""

import array
import os
import signal
import socket
import sys
import threading

names_file, command = sys.argv[1], sys.argv[2:]
held = []  # pairs of a name and a descriptor
lock = threading.Lock()
CATCH_UP = b"CATCH_UP"  # No message of a daemon.
caught_up = threading.Event()

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = names_file + ".notify"
notify.bind(address)
os.chmod(address, 0o666)


def write_names():
    with open(names_file + ".new", "w", encoding="utf-8") as names:
        names.writelines(f"{name}\n" for name, _ in held)
    os.replace(names_file + ".new", names_file)


def receive():
    while True:
        size = array.array("i").itemsize
        data, control, _, _ = notify.recvmsg(65536, socket.CMSG_SPACE(16 * size))
        fds = array.array("i")
        for _, kind, content in control:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) // size * size])
        if data == CATCH_UP:
            caught_up.set()
            continue
        state = dict(line.partition("=")[::2] for line in data.decode().splitlines())
        with lock:
            with open(names_file + ".heard", "a", encoding="utf-8") as heard:
                heard.write(data.decode().strip().replace("\n", " ") + "\n")
            if state.get("FDSTORE") == "1":
                held.extend((state["FDNAME"], fd) for fd in fds)
                fds = []
            elif state.get("FDSTOREREMOVE") == "1":
                for name, fd in [pair for pair in held if pair[0] == state["FDNAME"]]:
                    held.remove((name, fd))
                    os.close(fd)
            write_names()
        # Those of a barrier.
        for fd in fds:
            os.close(fd)


def catch_up():
    """Waits until everything is done that a daemon said before it ended: the next one must not get what was let go."""
    caught_up.clear()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as behind_it:
        behind_it.sendto(CATCH_UP, address)
    caught_up.wait()


def start():
    with lock:
        passed = list(held)
    child = os.fork()
    if child:
        return child
    # Out of the way of the numbers that they get.
    high = [os.dup2(fd, 1000 + index, inheritable=False) for index, (_, fd) in enumerate(passed)]
    for index, fd in enumerate(high):
        os.dup2(fd, 3 + index)
    os.environ["NOTIFY_SOCKET"] = address
    if passed:
        os.environ["LISTEN_FDS"] = str(len(passed))
        os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
        os.environ["LISTEN_PID"] = str(os.getpid())
    os.execvp(command[0], command)


def stop(*_):
    os.kill(daemon, signal.SIGTERM)
    os.waitpid(daemon, 0)
    os._exit(0)


write_names()
threading.Thread(target=receive, daemon=True).start()
daemon = start()
signal.signal(signal.SIGTERM, stop)
while True:
    os.waitpid(daemon, 0)
    catch_up()
    daemon = start()

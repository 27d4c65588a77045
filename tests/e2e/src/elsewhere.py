"""Connects to a socket, and passes the connection on to a process that relays it over standard input.

elsewhere.py SOCKET USER HOLDER BECOME: user USER connects, and the process that holds the connection in the
end is of user HOLDER; the one that connected becomes user BECOME once it has, and stays until it is killed.
"""
import os, select, signal, socket, sys

path = sys.argv[1]
user, holder, become = map(int, sys.argv[2:])
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
if os.fork() == 0:
    ours.close()
    os.setresuid(holder, holder, holder)
    _, (fd,), _, _ = socket.recv_fds(theirs, 1, 1)
    connection = socket.socket(fileno=fd)
    test = socket.socket(fileno=0)
    other = {connection: test, test: connection}
    while True:
        for readable in select.select(list(other), [], [])[0]:
            data = readable.recv(65536)
            if not data:
                os._exit(0)
            other[readable].sendall(data)
theirs.close()
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
os.seteuid(user)
connection.connect(path)
os.seteuid(0)
socket.send_fds(ours, [b"!"], [connection.fileno()])
connection.close()
os.setresuid(become, become, become)
os.write(1, b"!")
signal.pause()

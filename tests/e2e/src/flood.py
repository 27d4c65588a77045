"""Asks on many connections at once, several times on each without waiting for answers, until its standard input ends.

flood.py SOCKET USER GROUP TARGET CONNECTIONS PIPELINED: as this user and with this group besides. Says `!` once each
connection has had an answer. Without a TARGET, it asks for the health once, and then only keeps the connections.
"""
import os, resource, selectors, socket, sys

path = sys.argv[1]
user, group = map(int, sys.argv[2:4])
target = sys.argv[4]
connections, pipelined = map(int, sys.argv[5:])
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
# Not before the interpreter runs: it may be one that only root can reach.
os.setgroups([group])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
repeats = target != ""
target = target or "/v1/health"
request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n".encode()
begin = b"HTTP/1.1 "
waiting = selectors.EpollSelector()
waiting.register(0, selectors.EVENT_READ)
for _ in range(connections):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    connection.sendall(request * pipelined)
    waiting.register(connection, selectors.EVENT_READ, bytearray())
silent = connections
while True:
    for key, _ in waiting.select():
        if key.data is None:
            sys.exit()
        data = key.fileobj.recv(1 << 16)
        if not data:
            sys.exit("a connection was closed")
        if not key.data:
            silent -= 1
            if silent == 0:
                os.write(1, b"!")
        # What is kept is too short for the begin of an answer, and long enough for a part of one.
        key.data.extend(data)
        answers = key.data.count(begin)
        del key.data[: 1 - len(begin)]
        key.fileobj.sendall(request * answers if repeats else b"")

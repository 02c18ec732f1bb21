"""Another user of the host, who holds what it can of the names and files of a daemon: the files that
are its arguments, the folders they are in, and names in the abstract namespace of sockets."""
import fcntl, os, socket, sys, time

held, tries = [], 0


def sockets():
    """Names of sockets that were seen, and those that a lock could have by the name of its file."""
    seen = set()
    for line in open('/proc/net/unix'):
        words = line.split()
        if len(words) > 7 and words[7].startswith('@') and 'iscsi' in words[7]:
            seen.add(words[7][1:])
    return seen | {'iscsi-nbd/' + os.path.basename(path) for path in sys.argv[1:]}


def hold(what):
    global tries
    tries += 1
    try:
        held.append(what())
    except OSError:
        pass


def bound(name):
    one = socket.socket(socket.AF_UNIX)
    one.bind('\0' + name)
    return one


def locked(path, flags):
    fd = os.open(path, flags, 0o666)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


end = time.monotonic() + 60
while time.monotonic() < end:
    for name in sockets():
        hold(lambda: bound(name))
    for path in sys.argv[1:]:
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT):
            hold(lambda: locked(path, flags))
        hold(lambda: locked(os.path.dirname(path), os.O_RDONLY))
    print('tried', tries, flush=True)
    time.sleep(0.01)

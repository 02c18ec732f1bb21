"""Writes and reads ranges of a block device at random, and checks each read:

    block-user.program.py DEVICE STOP CONTENT

Threads write (some with FUA), write zeros, discard and flush, with O_DIRECT, until the file STOP is
there. Ranges that are under way never overlap; those that have ended overlap all the time. Then the
device is flushed, read as a whole, checked, and what it holds is written to the file CONTENT.
"""
import fcntl
import json
import mmap
import os
import random
import struct
import sys
import threading
import time
import traceback

DEVICE, STOP, CONTENT = sys.argv[1:]
BLOCK = 512
BLOCKS_MAX = 64
THREADS = 4
# linux/fs.h
BLKDISCARD = 0x1277
BLKZEROOUT = 0x127F

fd = os.open(DEVICE, os.O_RDWR | os.O_DIRECT)
size = os.lseek(fd, 0, os.SEEK_END)
content = bytearray(size)
# 0: a block that was discarded, whose content nobody promises.
known = bytearray(b"\1" * (size // BLOCK))
busy = bytearray(size // BLOCK)
lock = threading.Lock()
stop = threading.Event()
counts = {}


class Range:
    """A range of blocks that no other thread uses meanwhile; `None` where one does."""

    def __init__(self, rng):
        blocks = rng.randint(1, BLOCKS_MAX if rng.random() < 0.1 else 8)
        first = rng.randrange(len(busy) - blocks + 1)
        self.blocks = slice(first, first + blocks)
        self.offset, self.length = first * BLOCK, blocks * BLOCK
        self.bytes = slice(self.offset, self.offset + self.length)
        self.is_ours = False

    def __enter__(self):
        with lock:
            if any(busy[self.blocks]):
                return None
            busy[self.blocks] = b"\1" * (self.length // BLOCK)
        self.is_ours = True
        return self

    def __exit__(self, *_):
        if self.is_ours:
            busy[self.blocks] = bytes(self.length // BLOCK)


def done(what, count, length):
    if count != length:
        raise OSError(f"{what} of {length} bytes: {count}")


def check(found, offset):
    for at in range(0, len(found), BLOCK):
        block = (offset + at) // BLOCK
        wanted = content[block * BLOCK : (block + 1) * BLOCK]
        if known[block] and found[at : at + BLOCK] != wanted:
            raise AssertionError(f"block {block} reads {found[at : at + 16]}, not {wanted[:16]}")


def read(view, where):
    done("read", os.preadv(fd, [view[: where.length]], where.offset), where.length)
    check(bytes(view[: where.length]), where.offset)


def write(view, where, flags=0):
    bytes_ = os.urandom(16) * (where.length // 16)
    view[: where.length] = bytes_
    done("write", os.pwritev(fd, [view[: where.length]], where.offset, flags), where.length)
    content[where.bytes] = bytes_
    known[where.blocks] = b"\1" * (where.length // BLOCK)


def stable_write(view, where):
    write(view, where, os.RWF_DSYNC)


def zero(_, where):
    fcntl.ioctl(fd, BLKZEROOUT, struct.pack("QQ", where.offset, where.length))
    content[where.bytes] = bytes(where.length)
    known[where.blocks] = b"\1" * (where.length // BLOCK)


def discard(_, where):
    known[where.blocks] = bytes(where.length // BLOCK)
    fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", where.offset, where.length))


def flush(*_):
    os.fdatasync(fd)


ACTIONS = {read: 25, write: 50, stable_write: 8, zero: 8, discard: 8, flush: 1}


def use():
    rng = random.Random()
    view = memoryview(mmap.mmap(-1, BLOCKS_MAX * BLOCK))
    try:
        while not stop.is_set():
            with Range(rng) as where:
                if where is None:
                    continue
                (action,) = rng.choices(list(ACTIONS), list(ACTIONS.values()))
                action(view, where)
                counts[action.__name__] = counts.get(action.__name__, 0) + 1
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def read_all():
    view = memoryview(mmap.mmap(-1, size))
    done("read", os.preadv(fd, [view], 0), size)
    return bytes(view)


content[:] = read_all()
threads = [threading.Thread(target=use) for _ in range(THREADS)]
for thread in threads:
    thread.start()
while not os.path.exists(STOP):
    time.sleep(0.1)
stop.set()
for thread in threads:
    thread.join()
os.fdatasync(fd)
found = read_all()
check(found, 0)
with open(CONTENT, "wb") as file:
    file.write(found)
print(json.dumps(counts))

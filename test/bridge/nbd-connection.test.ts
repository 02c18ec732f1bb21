import { describe, expect, it } from 'vitest';
import { SlabPool } from '../../src/base/slab.js';
import { BlockRequest } from '../../src/bridge/block-device.js';
import { Budget } from '../../src/bridge/budget.js';
import { NbdConnection } from '../../src/bridge/nbd-connection.js';
import { exportInfo } from '../../src/bridge/nbd-export.js';
import { sendStructuredReply } from '../../src/bridge/nbd-replies.js';
import { UnitBudget } from '../../src/bridge/unit-budget.js';
import { HeldDisk, Peer, request } from '../helpers/nbd-peer.js';

const [READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [
  0, 1, 2, 3, 4, 5, 6, 7,
];
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN] = [1, 2, 4, 8, 16, 32];
const [EIO, EINVAL] = [5, 22];

function setUp(limits: { requestsMax?: number; bytesMax?: number } = {}) {
  const pool = new SlabPool({ slabsMax: 4096 });
  const budget = new Budget({ requestsMax: 8192, bytesMax: 1 << 30, ...limits });
  const disk = new HeldDisk();
  const unitBudget = new UnitBudget(budget);
  return { pool, budget, unitBudget, disk, peer: new Peer(pool, unitBudget, disk) };
}

describe('NbdConnection: requests', () => {
  it('requests reach the disk with all fields, and replies carry their cookie, in any order', () => {
    const { disk, peer } = setUp();
    peer.send(
      request(READ!, { cookie: 7n, offset: 4096n, length: 512 }),
      request(WRITE!, { cookie: 2n ** 64n - 1n, payload: Buffer.alloc(512, 9), flags: FUA! }),
      request(FLUSH!, { cookie: 9n }),
    );
    const [read, write, flush] = disk.requests;
    expect([read!.operation, read!.offsetBytes, read!.lengthBytes]).toEqual(['read', 4096, 512]);
    expect([write!.operation, write!.fua]).toEqual(['write', true]);
    expect(write!.data.toBuffer().equals(Buffer.alloc(512, 9))).toBe(true);
    expect(flush!.operation).toBe('flush');
    flush!.done(null);
    write!.done('EIO');
    expect(peer.errors()).toEqual([
      [9n, 0],
      [2n ** 64n - 1n, EIO],
    ]);
  });

  it('command flags reach the disk', () => {
    const { disk, peer } = setUp();
    peer.send(
      request(WRITE_ZEROES!, { flags: NO_HOLE!, length: 512 }),
      request(WRITE_ZEROES!, { flags: FAST_ZERO! | FUA!, length: 512 }),
      request(TRIM!, { flags: FUA!, length: 512 }),
    );
    expect(disk.requests.map(({ noHole, fastZero, fua }) => [noHole, fastZero, fua])).toEqual([
      [true, false, false],
      [false, true, true],
      [false, false, true],
    ]);
  });

  it.each([
    ['an unknown command', request(77, { length: 512 })],
    ['a command that is not offered', request(CACHE!, { length: 512 })],
    ['an unknown flag', request(READ!, { flags: 0x40, length: 512 })],
    ['a flag of another command', request(READ!, { flags: NO_HOLE!, length: 512 })],
    ['a flag that was not negotiated', request(WRITE!, { flags: PAYLOAD_LEN!, length: 0 })],
    ['block status without its context', request(BLOCK_STATUS!, { flags: REQ_ONE!, length: 512 })],
    ['a read that is too long', request(READ!, { flags: DF!, length: (32 << 20) + 512 })],
  ])('%s is EINVAL, and the next request is served ("Error values")', (_title, bytes) => {
    const { disk, peer, budget } = setUp();
    peer.send(bytes, request(FLUSH!, { cookie: 2n }));
    disk.done();
    expect(peer.errors()).toEqual([
      [1n, EINVAL],
      [2n, 0],
    ]);
    expect([budget.requests, budget.bytes]).toEqual([0, 0]);
  });

  it('the payload of a write over the maximum is skipped to its end, and the reply is EINVAL', () => {
    const { disk, peer } = setUp();
    const length = (32 << 20) + 512;
    const head = request(WRITE!, { length });
    peer.send(head);
    for (let left = length; left > 0; left -= 1 << 20) {
      peer.send(Buffer.alloc(Math.min(left, 1 << 20)));
    }
    peer.send(request(FLUSH!, { cookie: 2n }));
    disk.done();
    expect(peer.errors()).toEqual([
      [1n, EINVAL],
      [2n, 0],
    ]);
  });

  it('NBD_CMD_DISC has no reply and waits for the pending requests', () => {
    const { disk, peer } = setUp();
    peer.send(request(FLUSH!), request(FLUSH!, { cookie: 2n }), request(DISC!));
    expect(peer.finished).toBeNull();
    disk.done();
    expect(peer.finished).toBeNull();
    disk.done();
    expect(peer.finished).toBe('the client disconnected');
    expect(peer.errors()).toEqual([
      [1n, 0],
      [2n, 0],
    ]);
  });
});

describe('NbdConnection: back-pressure', () => {
  it('a client over the budget is not read, and resumes where it stopped', () => {
    const { disk, peer, budget } = setUp({ requestsMax: 2 });
    const all = [1n, 2n, 3n, 4n, 5n].map((cookie) => request(FLUSH!, { cookie }));
    expect(peer.send(...all)).toBe(false);
    expect([disk.requests.length, peer.reading]).toEqual([2, false]);
    for (const left of [2, 2, 2, 1, 0]) {
      disk.done();
      expect(disk.requests.length).toBe(left);
    }
    expect(peer.reading).toBe(true);
    expect(peer.errors().map(([cookie]) => cookie)).toEqual([1n, 2n, 3n, 4n, 5n]);
    expect(budget.requests).toBe(0);
  });

  it('no client is read while 2 MiB wait for the connection to the target, until all is sent', () => {
    const { disk, peer, budget } = setUp();
    let backlogBytes = 2 << 20;
    budget.backlogBytes = () => backlogBytes;
    peer.send(request(READ!, { cookie: 1n }), request(READ!, { cookie: 2n }));
    expect(disk.requests.length).toBe(0);
    budget.backlogChanged();
    expect(disk.requests.length).toBe(0);
    backlogBytes = 0;
    budget.backlogChanged();
    expect(disk.requests.length).toBe(2);
  });

  it('a single request larger than the whole budget is served', () => {
    const { disk, peer } = setUp({ bytesMax: 1024 });
    peer.send(request(READ!, { length: 4096 }), request(READ!, { length: 512 }));
    expect(disk.requests.length).toBe(1);
    disk.done('EIO');
    expect(disk.requests.length).toBe(1);
  });

  it('clients that wait for room get it in turn', () => {
    const { pool, budget, unitBudget, disk, peer } = setUp({ requestsMax: 1 });
    const others = [new Peer(pool, unitBudget, disk), new Peer(pool, unitBudget, disk)];
    const peers = [peer, ...others];
    for (const each of peers) each.send(request(FLUSH!), request(FLUSH!));
    const order: number[] = [];
    while (disk.requests.length > 0) {
      order.push(peers.findIndex(({ connection }) => connection === disk.requests[0]!.owner));
      disk.done();
    }
    expect(order).toEqual([0, 0, 1, 2, 1, 2]);
    expect(budget.waitingCount).toBe(0);
  });

  it('a client parked by its replies still wakes when the budget was full meanwhile', () => {
    const { pool, unitBudget, disk, peer } = setUp({ bytesMax: 40 << 20 });
    const slab = pool.acquire();
    peer.send(request(READ!, { length: 32 << 20 }));
    const read = disk.requests.shift()!;
    for (let part = 0; part < 32; part += 1) read.data.append(slab, part % 2, 1 << 20);
    read.done(null);
    pool.release(slab);
    peer.send(request(FLUSH!));
    expect([peer.reading, disk.requests.length]).toEqual([false, 0]);
    const other = new Peer(pool, unitBudget, disk);
    other.send(request(READ!, { length: 32 << 20 }), request(READ!, { length: 32 << 20 }));
    peer.receive();
    expect(peer.reading).toBe(false);
    disk.done('EIO');
    disk.done('EIO');
    expect([peer.reading, disk.requests.length]).toEqual([true, 1]);
  });

  it('a client that does not read its replies is not read', () => {
    const { pool, disk, peer } = setUp();
    const slab = pool.acquire();
    let served = 0;
    for (; peer.reading && served < 100; served += 1) {
      peer.send(request(READ!, { length: 1 << 20 }));
      const read = disk.requests.shift();
      if (read === undefined) break;
      read.data.append(slab, 0, 1 << 20);
      read.done(null);
    }
    expect(served).toBe(32);
    peer.receive();
    expect(peer.reading).toBe(true);
  });

  it('the memory of a thousand clients that read no replies together is bounded', () => {
    const { pool, budget, unitBudget, disk } = setUp();
    const slab = pool.acquire();
    for (let client = 0; client < 1000; client += 1) {
      const peer = new Peer(pool, unitBudget, disk);
      for (let served = 0; peer.reading && served < 10; served += 1) {
        peer.send(request(READ!, { length: 1 << 20 }));
        const read = disk.requests.shift();
        if (read === undefined) break;
        read.data.append(slab, 0, 1 << 20);
        read.done(null);
      }
    }
    expect(budget.replyBytes).toBeGreaterThanOrEqual(192 * 2 ** 20);
    expect(budget.replyBytes).toBeLessThanOrEqual((192 + 1000) * 2 ** 20);
  });

  it('the memory of clients that ask for much before the first reply is bounded', () => {
    const { pool, budget, unitBudget, disk } = setUp();
    const peers = Array.from({ length: 20 }, () => new Peer(pool, unitBudget, disk));
    for (const peer of peers) {
      for (let asked = 0; peer.reading && asked < 100; asked += 1) {
        peer.send(request(READ!, { length: 1 << 20 }));
      }
    }
    expect(disk.requests.length).toBeLessThanOrEqual(192 + 20);
    expect(budget.replyBytes).toBe(disk.requests.length * 2 ** 20);
    // Replies for a client that has gone free their room for the others.
    const before = disk.requests.length;
    const waits = peers.find((peer) => !peer.reading)!;
    for (const peer of peers) if (peer !== waits) peer.close();
    for (const read of disk.requests.splice(0)) read.done(null);
    expect(before).toBeGreaterThan(0);
    expect(waits.reading).toBe(true);
  });

  it('a read waits for its share while others hold the memory, and a small one does not', () => {
    const { pool, unitBudget, disk } = setUp();
    const hogs = Array.from({ length: 7 }, () => new Peer(pool, unitBudget, disk));
    for (const hog of hogs) hog.send(request(READ!, { length: 32 << 20 }));
    expect(disk.requests).toHaveLength(6);
    const small = new Peer(pool, unitBudget, disk);
    small.send(request(READ!, { length: 4096 }));
    expect(disk.requests).toHaveLength(7);
    expect(hogs[6]?.reading).toBe(false);
    for (const hog of hogs.slice(0, 2)) {
      hog.close();
      disk.requests.shift()?.done(null);
    }
    expect(hogs[6]?.reading).toBe(true);
    expect(disk.requests).toHaveLength(6);
  });

  it('writes of which only the header has come stop no other client', () => {
    const { pool, unitBudget, disk } = setUp({ bytesMax: 128 << 20 });
    const stalled = Array.from({ length: 20 }, () => new Peer(pool, unitBudget, disk));
    for (const peer of stalled) {
      peer.send(request(WRITE!, { length: 32 << 20, payload: Buffer.alloc(4096) }));
    }
    const other = new Peer(pool, unitBudget, disk);
    other.send(request(READ!, { length: 65_536 }));
    other.send(request(WRITE!, { payload: Buffer.alloc(65_536) }));
    expect(disk.requests).toHaveLength(2);
  });
});

describe('NbdConnection: a client that disconnected', () => {
  it('the client gets no replies, frees its budget, and its bytes stay until the disk is done', () => {
    const { pool, disk, peer, budget } = setUp();
    peer.send(request(WRITE!, { payload: Buffer.alloc(512, 1) }));
    const [write] = disk.requests;
    peer.close();
    expect(disk.gone).toEqual([peer.connection]);
    expect(write!.data.toBuffer().equals(Buffer.alloc(512, 1))).toBe(true);
    expect([pool.inUse, budget.requests]).toEqual([1, 1]);
    disk.done();
    expect([pool.inUse, budget.requests, budget.bytes, budget.replyBytes]).toEqual([0, 0, 0, 0]);
  });

  it('a disconnect in the middle of a write frees its slabs and its budget', () => {
    const { pool, disk, peer, budget } = setUp();
    peer.send(request(WRITE!, { length: 4096 }), Buffer.alloc(100));
    peer.close();
    expect([disk.requests.length, pool.inUse, budget.requests]).toEqual([0, 0, 0]);
  });

  it('a parked client that disconnected is not read on when its own request ends', () => {
    const { pool, disk, peer, budget } = setUp({ requestsMax: 1 });
    peer.send(request(FLUSH!), request(WRITE!, { payload: Buffer.alloc(512) }));
    expect(peer.reading).toBe(false);
    peer.close();
    disk.done();
    expect([disk.requests.length, budget.requests, budget.waitingCount]).toEqual([0, 0, 0]);
    expect(pool.inUse).toBe(0);
  });

  it('a client that disconnects leaves no entry in the queue for room', () => {
    const { pool, budget, unitBudget, disk, peer } = setUp({ requestsMax: 1 });
    peer.send(request(FLUSH!));
    for (let client = 0; client < 1000; client += 1) {
      const other = new Peer(pool, unitBudget, disk);
      other.send(request(FLUSH!));
      expect(other.reading).toBe(false);
      other.close();
    }
    // The first client waits too: what it has under way is all there may be.
    expect([budget.waitingCount, budget.requests, pool.inUse]).toEqual([1, 1, 1]);
  });
});

describe('NbdConnection: a client that breaks the protocol', () => {
  it('a wrong magic throws where the bytes arrive', () => {
    const { peer } = setUp();
    expect(() => peer.send(Buffer.alloc(28))).toThrow(/magic/);
  });

  it('a wrong magic of a parked client ends that client alone, not the one whose reply woke it', () => {
    const { disk, peer, budget } = setUp({ requestsMax: 1 });
    peer.send(request(FLUSH!), Buffer.alloc(28));
    expect(() => disk.done()).not.toThrow();
    expect(peer.failed).toMatch(/magic/);
    expect(budget.requests).toBe(0);
  });
});

describe('NbdConnection: handshake', () => {
  const capabilities = {
    blockStatus: true,
    trim: true,
    writeZeroes: true,
    rotational: false,
    physicalBlockBytes: 4096,
  };

  it('a handshake whose replies exceed a slab is completed', () => {
    const pool = new SlabPool({ slabsMax: 64 });
    const disk = new HeldDisk();
    const name = (at: number) => String(at).padEnd(4000, 'n');
    const exports = Array.from({ length: 100 }, (_, at) => ({
      info: exportInfo(name(at), '', disk, capabilities),
      device: disk,
      budget: new UnitBudget(new Budget({ requestsMax: 1, bytesMax: 1 })),
    }));
    const connection = new NbdConnection({
      pool,
      driver: { setReading: () => {}, finish: () => {}, fail: () => {} },
      catalog: { list: () => exports, find: () => null },
    });
    const option = Buffer.alloc(16);
    option.write('IHAVEOPT');
    option.writeUInt32BE(3, 8);
    const bytes = Buffer.concat([Buffer.from([0, 0, 0, 3]), ...Array(4).fill(option)]);
    const slab = pool.acquire();
    bytes.copy(pool.buffer(slab));
    connection.bytesReceived(slab, pool.buffer(slab), 0, bytes.length);
    // "Option reply types": 100 times NBD_REP_SERVER (20 + 4 + 4000 bytes) and an ACK, each time.
    expect(connection.queue.byteLength).toBeGreaterThanOrEqual(18 + 3 * (100 * 4024 + 20));
  });
});

describe('sendStructuredReply: block status', () => {
  const extents = [
    { lengthBytes: 512, hole: false, zero: false },
    { lengthBytes: 0xffff_fe00 - 512, hole: true, zero: true },
  ];

  it.each([
    ['all extents', false, 2],
    ['with REQ_ONE one extent', true, 1],
  ])('block status replies carry %s ("NBD_REPLY_TYPE_BLOCK_STATUS")', (_what, oneExtent, count) => {
    const { pool, peer } = setUp();
    const asked = new BlockRequest(peer.connection, pool);
    asked.operation = 'blockStatus';
    asked.oneExtent = oneExtent;
    asked.extents = extents;
    sendStructuredReply(peer.connection.queue, asked, 7);
    const bytes = peer.receive();
    expect([bytes.readUInt32BE(0), bytes.readUInt16BE(4), bytes.readUInt16BE(6)]).toEqual([
      0x668e33ef, 1, 5,
    ]);
    expect([bytes.readUInt32BE(16), bytes.length]).toEqual([4 + 8 * count, 24 + 8 * count]);
    const rows = [
      [512, 0],
      [0xffff_fe00 - 512, 3],
    ].slice(0, count);
    expect(bytes.readUInt32BE(20)).toBe(7);
    for (const [at, [length, flags]] of rows.entries()) {
      expect(bytes.readUInt32BE(24 + at * 8)).toBe(length);
      expect(bytes.readUInt32BE(28 + at * 8)).toBe(flags);
    }
  });
});

describe('exportInfo ("Transmission flags", "Size constraints")', () => {
  const capabilities = {
    blockStatus: true,
    trim: true,
    writeZeroes: true,
    rotational: false,
    physicalBlockBytes: 4096,
  };
  const device = { ...new HeldDisk(), submit: () => {}, clientGone: () => {} };

  it('the flags always offer flush, FUA, DF and several connections; trim and zeroes as the disk can', () => {
    const all = 1 | 4 | 8 | 32 | 64 | 128 | 256 | 2048;
    expect(exportInfo('', '', device, capabilities).transmissionFlags).toBe(all);
    const plain = { ...capabilities, trim: false, writeZeroes: false, rotational: true };
    expect(exportInfo('', '', device, plain).transmissionFlags).toBe(1 | 4 | 8 | 16 | 128 | 256);
    const readOnly = exportInfo('', '', { ...device, readOnly: true }, capabilities);
    expect(readOnly.transmissionFlags).toBe(1 | 2 | 4 | 8 | 128 | 256);
  });

  it('the block sizes are powers of two in order, whatever physical block the disk reports', () => {
    const info = exportInfo('', '', device, {
      ...capabilities,
      physicalBlockBytes: 512 * 2 ** 15 * 16,
    });
    expect([info.minimumBlockBytes, info.preferredBlockBytes, info.maximumBlockBytes]).toEqual([
      512,
      32 << 20,
      32 << 20,
    ]);
  });
});

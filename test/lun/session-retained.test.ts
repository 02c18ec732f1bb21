import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SlabPool } from '../../src/base/slab.js';
import { BlockRequest } from '../../src/bridge/block-device.js';
import {
  RETAINED_INDEX_BYTES,
  RetainedIndex,
  RetainedKind,
} from '../../src/bridge/retained/retained-index.js';
import { RetainedWrites } from '../../src/bridge/retained/retained-writes.js';
import { shareSlabs } from '../../src/io/native.js';
import { RetainedStore } from '../../src/lun/retained-store.js';
import { SessionRetained } from '../../src/lun/session-retained.js';
import { MemoryFolder } from '../helpers/memory-folder.js';
import { VirtualClock } from '../helpers/virtual-clock.js';

const SESSION = '00112233445566aa';

let folder: MemoryFolder;
let warnings: string[];
let killed: number;
beforeEach(() => {
  folder = new MemoryFolder();
  warnings = [];
  killed = 0;
});
afterEach(() => folder[Symbol.dispose]());

/** A process whose files are in `directory`, and its session. */
async function process_(directory = join(folder.path, 'first'), isDevice = true) {
  const pool = new SlabPool({ slabsMax: 4 });
  shareSlabs(pool);
  const store = new RetainedStore({
    ...{ directory, pool, bootId: 'boot', indexBytes: RETAINED_INDEX_BYTES },
    onWarning: (message) => warnings.push(message),
  });
  const session = await SessionRetained.make(store, { sessionId: SESSION, isDevice });
  /** Retains a write of the LUN, in a slab that `isThere`. */
  const retain = (lun: number, { isThere = true } = {}) => {
    const index = new RetainedIndex(session.open(lun) ?? new Uint8Array(0));
    const slab = pool.acquire();
    pool.buffer(slab).fill(lun + 1, 0, 4096);
    index.begin(RetainedKind.data, lun * 4096, 4096);
    index.piece(isThere ? slab : slab + 1, 0, 4096);
    index.commit(1);
  };
  /** The directory as the process leaves it if it is killed now. */
  const kill = () => {
    killed += 1;
    return folder.asLeft(directory, `left-${killed}`);
  };
  return { session, store, pool, retain, kill };
}

/** Retains a write of LUN 0 in a slab that is the set's alone, and closes the disk. */
function closedDisk({ session, pool }: Awaited<ReturnType<typeof process_>>): void {
  session.begin(0);
  session.settle();
  const retained = new RetainedWrites({
    pool,
    clock: new VirtualClock(),
    bytesMax: 64 << 20,
    isAlways: false,
    memory: () => session.open(0),
    closed: (release) => session.closed(0, release),
  });
  const request = new BlockRequest({ isGone: false, blockRequestDone: () => undefined }, pool);
  const slab = pool.acquire();
  pool.buffer(slab).fill(7, 0, 4096);
  request.operation = 'write';
  request.lengthBytes = 4096;
  request.data.append(slab, 0, 4096);
  pool.release(slab);
  retained.keep(request, 1);
  request.data.clear();
  retained.close();
}

/** A process that has retained something of each LUN, and is killed. */
async function writer(luns: readonly number[], isDevice = true): Promise<string> {
  const { session, retain, kill } = await process_(undefined, isDevice);
  session.settle();
  for (const lun of luns) session.begin(lun);
  for (const lun of luns) retain(lun);
  return kill();
}

/** Bytes of each write that was recovered, by their first one; null: unknown. */
function firstBytes(session: SessionRetained, lun: number): number[] | null {
  const recovered = session.recover(lun);
  if (recovered === null) return null;
  return recovered.flatMap(({ entries, slab }) =>
    entries.map(({ pieces: [at = -1, offset = 0] }) => slab(at)[offset] ?? -1),
  );
}

describe('what a session takes over from a process that was killed', () => {
  it('a LUN takes over what was retained of it, and not what was of another', async () => {
    const { session } = await process_(await writer([0, 1]));
    expect(firstBytes(session, 1)).toEqual([2]);
    expect(warnings).toEqual([]);
  });

  it('nothing is known of a LUN without a journal, and nothing lost with an empty one', async () => {
    const first = await process_();
    first.session.begin(0);
    first.session.settle();
    const { session } = await process_(first.kill());
    expect([session.recover(0), session.recover(1)]).toEqual([[], null]);
  });

  it('a journal whose device is gone from the kernel is set aside and not written again', async () => {
    const { session } = await process_(await writer([0, 1]));
    expect(firstBytes(session, 0)).toEqual([1]);
    session.settle();
    expect(warnings).toEqual([expect.stringContaining('LUN 1')]);
    expect(warnings[0]).toContain('because the kernel does not have their device any more');
    expect(session.recover(1)).toBe(null);
  });

  it('a process that is killed before it has taken over hides nothing of the one before', async () => {
    const second = await process_(await writer([0]));
    second.session.begin(0);
    const { session } = await process_(second.kill());
    expect(firstBytes(session, 0)).toEqual([1]);
    expect(warnings).toEqual([]);
  });

  it('a process that knows nothing of the time before it does not call the disk clean', async () => {
    const second = await process_();
    second.session.begin(0);
    expect(second.session.recover(0)).toBe(null);
    // As RetainedWrites has it when a process before it may have written.
    new RetainedIndex(second.session.open(0) ?? new Uint8Array(0)).setWhole(false);
    const left = second.kill();
    second.session.settle();
    const third = await process_(left);
    expect(third.session.recover(0)).toBe(null);
    const { session } = await process_(second.kill());
    expect(session.recover(0)).toBe(null);
    expect(warnings).toEqual([expect.stringContaining('because not all of them are there')]);
  });

  it('a journal that names a slab without room in memory is not believed', async () => {
    const first = await process_();
    first.session.begin(0);
    first.session.settle();
    first.retain(0, { isThere: false });
    const { session } = await process_(first.kill());
    expect(session.recover(0)).toBe(null);
    expect(warnings).toEqual([expect.stringContaining('because not all of them are there')]);
  });

  it('the journals of two processes in a row are taken over together, the older first', async () => {
    const second = await process_(await writer([0]));
    second.session.begin(0);
    expect(firstBytes(second.session, 0)).toEqual([1]);
    second.session.settle();
    second.retain(0);
    const { session } = await process_(second.kill());
    expect(session.recover(0)?.map(({ entries }) => entries.length)).toEqual([1, 1]);
  });
});

describe('the end of a session', () => {
  const kinds = (path: string) => readdirSync(path).map((name) => name.replace(/^.*\./, ''));

  it('a session that is over leaves nothing, of processes before neither', async () => {
    const place = await writer([0, 1]);
    const { session, store } = await process_(place);
    session.begin(0);
    session.end({ isOver: true });
    store.close();
    expect(kinds(place)).toEqual([]);
  });

  it('a session that failed in this process leaves what the one before left', async () => {
    const place = await writer([0]);
    const { session, store } = await process_(place);
    session.begin(0);
    session.end({ isOver: false });
    store.close();
    expect(kinds(place).sort()).toEqual(['index', 'slabs']);
  });

  it('a session that is left to the next process keeps the LUNs that were not flushed', async () => {
    const { session, retain, kill, store } = await process_();
    session.settle();
    for (const lun of [0, 1]) session.begin(lun);
    for (const lun of [0, 1]) retain(lun);
    session.leave(new Set([1]));
    session.end({ isOver: true });
    store.close();
    const next = await process_(kill());
    expect([firstBytes(next.session, 0), firstBytes(next.session, 1)]).toEqual([null, [2]]);
  });

  it('a LUN that comes again in one process does not bring its old writes', async () => {
    const { session, retain, kill } = await process_();
    session.settle();
    session.begin(0);
    retain(0);
    session.begin(0);
    const next = await process_(kill());
    expect(next.session.recover(0)).toEqual([]);
  });
});

describe('a disk that is closed', () => {
  it('the disk leaves its bytes as they are to the next process if its journal stays', async () => {
    const first = await process_();
    closedDisk(first);
    // Another request would use a slab that is free.
    first.pool.buffer(first.pool.acquire()).fill(0xee);
    const next = await process_(first.kill());
    expect(firstBytes(next.session, 0)).toEqual([7]);
  });

  it('the disk gives its slabs back with the end of the session', async () => {
    const { session, pool } = await process_().then((first) => {
      closedDisk(first);
      return first;
    });
    expect(pool.inUse).toBe(1);
    session.end({ isOver: true });
    expect(pool.inUse).toBe(0);
  });
});

/** Fuzz targets of what a client of an NBD export sends. */
import { isForeignFault } from '../../src/base/errors.js';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { Budget } from '../../src/bridge/budget.js';
import { UnitBudget } from '../../src/bridge/unit-budget.js';
import { type NbdExportCatalog, NbdHandshake } from '../../src/nbd/handshake.js';
import type { NbdExportInfo } from '../../src/nbd/option.js';
import { HeldDisk, Peer, request } from '../helpers/nbd-peer.js';
import { ByteReader } from './byte-reader.js';

const INFO: NbdExportInfo = {
  name: 'a',
  description: 'a disk',
  sizeBytes: 1 << 20,
  transmissionFlags: 1,
  minimumBlockBytes: 512,
  preferredBlockBytes: 4096,
  maximumBlockBytes: 2 ** 25,
  blockStatus: true,
};
const CATALOG: NbdExportCatalog = {
  list: () => [INFO],
  find: (name) => (name === '' || name === 'a' ? INFO : null),
};

function conversation(bytes: Buffer, pieceBytes: number): string {
  const handshake = new NbdHandshake(CATALOG);
  const output: Buffer[] = [handshake.greeting()];
  let used = 0;
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    used += handshake.bytesReceived(bytes.subarray(at, at + pieceBytes));
    const said = handshake.takeOutput();
    if (said !== null) output.push(said);
    // How much waits for a client that does not read depends on the cut, and so does its end.
    if (handshake.state !== 'handshaking') break;
  }
  const result = JSON.stringify(handshake.result);
  return `${handshake.state} ${handshake.state === 'closed' ? 0 : used} ${result} ${Buffer.concat(output).toString('hex')}`;
}

/** The handshake is the same in any cut, and nothing is thrown. */
export function handshake(data: Buffer): void {
  const bytes = data.subarray(1, 1 << 17);
  const whole = conversation(bytes, Math.max(1, bytes.length));
  for (const pieceBytes of [1, 2 + (data[0] ?? 0)]) {
    if (conversation(bytes, pieceBytes) !== whole) throw new Error('the cut changes the answers');
  }
}

/** Made once, for memory costs more than what is tried. */
const pool = new SlabPool({ slabsMax: 256 });

/** Requests of a client's choice, answered in an order of the fuzzer's; afterwards nothing is kept. */
export function requests(data: Buffer): void {
  const read = new ByteReader(data);
  const budget = new Budget({ requestsMax: 64, bytesMax: 64 << 20 });
  const disk = new HeldDisk();
  const peer = new Peer(pool, new UnitBudget(budget), disk);
  for (let count = 0; count < 24 && !read.isAtEnd && isOpen(peer); count += 1) {
    const kind = read.byte();
    // A client that is not read now is read again once its requests have been answered.
    if (kind & 0x40 || !peer.reading) {
      while (disk.requests.length > 0) disk.done(kind & 0x20 ? 'EIO' : null);
      peer.receive();
    }
    if (!peer.reading) break;
    const bytes = kind & 0x80 ? read.bytes(read.byte()) : someRequest(read, kind & 0x1f);
    try {
      peer.send(bytes);
    } catch (error) {
      // The socket's owner then ends the connection.
      if (!isForeignFault(error)) throw error;
      break;
    }
  }
  while (disk.requests.length > 0) disk.done();
  peer.close();
  if (budget.requests !== 0 || budget.bytes !== 0) throw new Error('the budget is not given back');
  peer.connection.queue.clear();
  if (pool.inUse > 0) throw new Error(`${pool.inUse} slabs are never given back`);
}

function isOpen(peer: Peer): boolean {
  return peer.failed === null && peer.finished === null;
}

function someRequest(read: ByteReader, type: number): Buffer {
  const flags = read.byte() & 0x3f;
  const offset = BigInt(read.byte()) * (read.bool() ? 512n : BigInt(read.word()) * 65_537n);
  const length = read.bool() ? read.word() : read.byte() * 512;
  const isWrite = (type & 7) === 1;
  const payload = isWrite ? { payload: Buffer.alloc(Math.min(length, SLAB_BYTES / 2), type) } : {};
  return request(type & 0x10 ? read.byte() : type & 7, { flags, offset, length, ...payload });
}

/**
 * What the fuzz tests of the iSCSI layer have in common: a session with commands under way, the
 * valid PDUs a target could send it, ways to damage them, and what must hold afterwards.
 */
import fc from 'fast-check';
import { ProductError } from '../../src/base/errors.js';
import { FROM, type InitiatorPdu, OP, type TargetPdu } from './peer-pdu.js';
import { patternOf, ScriptedPeer } from './scripted-peer.js';

export const READ_BYTES = 3000;
const WRITE_BYTES = 9000;

/** A session with two reads and a write under way. */
export class BusySession {
  readonly peer: ScriptedPeer;
  readonly reads: readonly { seed: number; request: InitiatorPdu; index: number }[];
  readonly write: InitiatorPdu;
  readonly commands;
  readonly #slabsBefore: number;

  constructor(digest: boolean) {
    const on = digest ? 'CRC32C' : 'None';
    this.peer = ScriptedPeer.loggedIn(
      { timers: { noopIntervalMs: 0 } },
      { keys: { HeaderDigest: on, DataDigest: on, ImmediateData: 'No', MaxOutstandingR2T: '4' } },
    );
    this.#slabsBefore = this.peer.pool.inUse;
    const first = this.peer.submit('read', READ_BYTES);
    const second = this.peer.submit('read', READ_BYTES);
    const write = this.peer.submit('write', WRITE_BYTES);
    const [one, two, three] = this.peer.sent().filter((pdu) => pdu.opcode === FROM.scsiCommand);
    this.commands = [first, second, write];
    this.reads = [
      { seed: 11, request: one!, index: 0 },
      { seed: 77, request: two!, index: 1 },
    ];
    this.write = three!;
  }

  /** PDUs of a target that does everything right, in one of many orders. */
  pdus(choices: readonly number[]): TargetPdu[] {
    const queues: TargetPdu[][] = [...this.reads.map((read) => this.#answer(read)), this.#asks()];
    queues.push([
      { opcode: OP.nopIn, ttt: 3 },
      { opcode: OP.async, word36: 250 << 24, data: Buffer.from([0, 0, 9]) },
      { opcode: OP.nopIn },
    ]);
    const order: TargetPdu[] = [];
    for (let step = 0; queues.some((queue) => queue.length > 0); step += 1) {
      const left = queues.filter((queue) => queue.length > 0);
      const next = left[(choices[step % choices.length] ?? 0) % left.length]?.shift();
      if (next !== undefined) order.push(next);
    }
    return order;
  }

  #answer(read: { seed: number; request: InitiatorPdu }): TargetPdu[] {
    const bytes = patternOf(READ_BYTES, read.seed);
    const { itt } = read.request;
    return [
      { opcode: OP.dataIn, itt, flags: 0, data: bytes.subarray(0, 1021) },
      { opcode: OP.dataIn, itt, flags: 0, word36: 1, word40: 1021, data: bytes.subarray(1021) },
      { opcode: OP.scsiResponse, itt, ttt: 0, word36: 2 },
    ];
  }

  #asks(): TargetPdu[] {
    const { itt, lun } = this.write;
    const asked = { opcode: OP.r2t, itt, lun, ttt: 5 };
    return [
      { ...asked, word36: 0, word40: 0, word44: 4000 },
      { ...asked, word36: 1, word40: 4000, word44: WRITE_BYTES - 4000 },
      { opcode: OP.scsiResponse, itt, ttt: 0, byte3: 2, data: Buffer.from('0003700006', 'hex') },
    ];
  }

  /**
   * What holds whatever came: the session lives or recovers for a reason of its own classes; each
   * command has one outcome; bytes of a read are those of that read; memory is bounded.
   */
  verify(options: { readonly undamaged: boolean }): void {
    const { peer } = this;
    const { failure } = peer;
    if (failure !== null && (!(failure instanceof ProductError) || isOurs(failure))) throw failure;
    if (peer.session.state !== 'loggedIn' && peer.session.state !== 'reconnecting') {
      throw new Error(`the session is ${peer.session.state}`);
    }
    if (new Set(peer.done).size !== peer.done.length) throw new Error('a command ended twice');
    for (const { seed, index } of this.reads) {
      const { dataIn, outcome, status } = this.commands[index]!;
      if (dataIn.byteLength > READ_BYTES) throw new Error('more bytes than were asked for');
      if (!options.undamaged) continue;
      if (outcome !== 'answered' || status !== 0) throw new Error(`a read ended as ${outcome}`);
      if (!dataIn.toBuffer().equals(patternOf(READ_BYTES, seed))) throw new Error('wrong bytes');
    }
    if (options.undamaged && failure !== null) throw failure;
    const slabs = peer.pool.inUse - this.#slabsBefore;
    if (slabs > 128) throw new Error(`${slabs} slabs are in use`);
  }

  /** After the end of everything no payload is kept. */
  verifyReleased(): void {
    const { peer } = this;
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    peer.at(peer.nowMs + 60_000);
    for (const command of this.commands) {
      command.dataIn.clear();
      command.dataOut?.clear();
    }
    peer.session.connection?.queue.clear();
    if (peer.pool.inUse > 0) throw new Error(`${peer.pool.inUse} slabs are never given back`);
  }
}

function isOurs(error: ProductError): boolean {
  return error.code === 'ERR_INVARIANT';
}

export type Damage =
  | { readonly kind: 'flip'; readonly at: number; readonly bits: number }
  | { readonly kind: 'cut'; readonly at: number; readonly length: number }
  | { readonly kind: 'insert'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'repeat'; readonly at: number; readonly length: number };

const position = fc.nat({ max: 20_000 });

export const damages = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('flip' as const),
        at: position,
        bits: fc.integer({ min: 1, max: 255 }),
      }),
    },
    fc.record({
      kind: fc.constant('cut' as const),
      at: position,
      length: fc.nat({ max: 4000 }),
    }),
    fc.record({
      kind: fc.constant('insert' as const),
      at: position,
      bytes: fc.uint8Array({ maxLength: 96 }),
    }),
    fc.record({
      kind: fc.constant('repeat' as const),
      at: position,
      length: fc.nat({ max: 4000 }),
    }),
  ),
  { minLength: 1, maxLength: 4 },
);

/** `bytes` with each damage done, positions taken modulo the length. */
export function damaged(bytes: Buffer, list: readonly Damage[]): Buffer {
  let result = Buffer.from(bytes);
  for (const damage of list) {
    const at = result.length === 0 ? 0 : damage.at % result.length;
    switch (damage.kind) {
      case 'flip':
        if (result.length > 0) result[at] = result[at]! ^ damage.bits;
        break;
      case 'cut':
        result = Buffer.concat([result.subarray(0, at), result.subarray(at + damage.length)]);
        break;
      case 'insert':
        result = Buffer.concat([result.subarray(0, at), damage.bytes, result.subarray(at)]);
        break;
      case 'repeat':
        result = Buffer.concat([
          result.subarray(0, at + damage.length),
          result.subarray(at, at + damage.length),
          result.subarray(at + damage.length),
        ]);
    }
  }
  return result;
}

import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../src/base/errors.js';
import { SlabPool } from '../../../src/base/slab.js';
import { PduEvent, PduReader } from '../../../src/iscsi/pdu/pdu-reader.js';
import { BusySession, damaged, damages } from '../../helpers/hostile-stream.js';
import { encodePdu, OP, type TargetPdu } from '../../helpers/peer-pdu.js';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';

/** One property for so many seconds: FUZZ_SECONDS makes it long; the seed is printed on failure. */
const SECONDS = Number(process.env['FUZZ_SECONDS'] ?? '1');
const SEED = Number(process.env['FUZZ_SEED'] ?? '7143');
const limits = {
  seed: SEED,
  numRuns: Number.MAX_SAFE_INTEGER,
  interruptAfterTimeLimit: SECONDS * 1000,
  markInterruptAsFailure: false,
};
const TEST_MS = SECONDS * 1000 + 60_000;

/** Says how many cases were run. */
function assertAll<T>(property: fc.IProperty<T>, name: string): void {
  const details = fc.check(property, limits) as fc.RunDetails<T>;
  if (SECONDS > 10) console.log(`${name}: ${details.numRuns} cases in ${SECONDS} s`);
  if (details.failed && !details.interrupted) throw new Error(fc.defaultReportMessage(details));
  expect(details.numRuns).toBeGreaterThan(10);
}

type Frame = { header: string; data: string; damaged: boolean };

/** Everything a reader finds in `bytes`, fed in pieces that end at `cuts`. */
function framesOf(bytes: Buffer, cuts: readonly number[], digests: boolean): Frame[] | string {
  const pool = new SlabPool({ slabsMax: 1 });
  const reader = new PduReader(pool, 8192);
  reader.headerDigest = digests;
  reader.dataDigest = digests;
  const frames: Frame[] = [];
  const slab = pool.acquire();
  const buffer = pool.buffer(slab);
  bytes.copy(buffer);
  const ends = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  let start = 0;
  try {
    for (const end of [...ends, bytes.length]) {
      reader.feed(slab, buffer, start, end);
      start = end;
      drain(reader, buffer, frames);
    }
  } catch (error) {
    if (error instanceof ProtocolError) return `${frames.length} and ${error.message}`;
    throw error;
  }
  return frames.filter((frame) => frame.data !== 'unfinished');
}

function drain(reader: PduReader, buffer: Buffer, frames: Frame[]): void {
  for (;;) {
    switch (reader.next()) {
      case PduEvent.need:
        return;
      case PduEvent.header: {
        const { header, headerAt } = reader;
        const bhs = header.subarray(headerAt, headerAt + 48).toString('hex');
        frames.push({ header: bhs, data: '', damaged: false });
        break;
      }
      case PduEvent.data: {
        const { pieceAt, pieceLength } = reader;
        frames.at(-1)!.data += buffer.subarray(pieceAt, pieceAt + pieceLength).toString('hex');
        break;
      }
      default:
        frames.at(-1)!.damaged = reader.dataDigestFailed;
    }
  }
}

const somePdu = fc.record({
  opcode: fc.constantFrom(...Object.values(OP)),
  flags: fc.nat({ max: 255 }),
  itt: fc.nat(),
  data: fc.uint8Array({ maxLength: 700 }).map((bytes) => Buffer.from(bytes)),
  ahs: fc.nat({ max: 6 }).map((words) => Buffer.alloc(4 * words, 7)),
});

describe('RFC 7143 §11.2 (PDU Template, Header, and Opcodes): any cut of the stream', () => {
  it.each([false, true])(
    'the frames are the same for every split (digests: %s)',
    (digests) => {
      const property = fc.property(
        fc.array(somePdu, { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat(), { maxLength: 12 }),
        fc.option(damages, { nil: null }),
        (pdus: TargetPdu[], cuts, damage) => {
          const use = { header: digests, data: digests };
          const valid = Buffer.concat(pdus.map((pdu) => encodePdu(pdu, use)));
          const bytes = damage === null ? valid : damaged(valid, damage);
          const whole = framesOf(bytes, [], digests);
          expect(framesOf(bytes, cuts, digests)).toEqual(whole);
          const single = Array.from({ length: bytes.length }, (_, at) => at);
          expect(framesOf(bytes, single, digests)).toEqual(whole);
          if (damage === null) expect(whole).toHaveLength(pdus.length);
        },
      );
      assertAll(property, `frames, digests ${digests}`);
    },
    TEST_MS,
  );

  it(
    'any bytes yield frames or a ProtocolError',
    () => {
      const property = fc.property(fc.uint8Array({ maxLength: 600 }), fc.boolean(), (some, on) => {
        framesOf(Buffer.from(some), [1, 50, 100], on);
      });
      assertAll(property, 'any bytes');
    },
    TEST_MS,
  );
});

describe('RFC 7143 §7.7 (Format Errors): a target that sends anything', () => {
  const orders = fc.array(fc.nat({ max: 7 }), { minLength: 1, maxLength: 12 });
  const pieces = fc.integer({ min: 1, max: 3000 });

  it(
    'each read gets its own bytes in any legal order and cut',
    () => {
      const property = fc.property(orders, pieces, fc.boolean(), (order, pieceBytes, digest) => {
        const busy = new BusySession(digest);
        const bytes = Buffer.concat(busy.pdus(order).map((pdu) => busy.peer.encode(pdu)));
        busy.peer.feed(bytes, Math.max(pieceBytes, bytes.length / 100));
        busy.verify({ undamaged: true });
        busy.verifyReleased();
      });
      assertAll(property, 'legal orders');
    },
    TEST_MS,
  );

  it(
    'a damaged stream ends the connection at worst',
    () => {
      const property = fc.property(
        orders,
        pieces,
        damages,
        fc.boolean(),
        (order, pieceBytes, damage, digest) => {
          const busy = new BusySession(digest);
          const valid = Buffer.concat(busy.pdus(order).map((pdu) => busy.peer.encode(pdu)));
          const bytes = damaged(valid, damage);
          busy.peer.feed(bytes, Math.max(pieceBytes, Math.ceil(bytes.length / 100)));
          busy.verify({ undamaged: false });
          busy.verifyReleased();
        },
      );
      assertAll(property, 'damaged streams');
    },
    TEST_MS,
  );

  it(
    'a target with fields of its own choice ends the connection at worst',
    () => {
      const word = fc.oneof(fc.constantFrom(0, 1, 0x7fffffff, 0x80000000, 0xffffffff), fc.nat());
      const pdu = fc.record({
        opcode: fc.oneof(fc.constantFrom(...Object.values(OP)), fc.nat({ max: 63 })),
        flags: fc.nat({ max: 255 }),
        byte2: fc.nat({ max: 255 }),
        byte3: fc.nat({ max: 255 }),
        ttt: word,
        word36: word,
        word40: word,
        word44: word,
        data: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      });
      const property = fc.property(
        fc.array(fc.tuple(pdu, fc.nat({ max: 3 })), { minLength: 1, maxLength: 8 }),
        fc.boolean(),
        (list, logout) => {
          const busy = new BusySession(false);
          const tags = [...busy.reads.map((read) => read.request.itt), busy.write.itt, 0xffffffff];
          if (logout) busy.peer.send({ opcode: OP.async, word36: 1 << 24 });
          for (const [one, which] of list) {
            const lun = one.flags & 1 ? busy.write.lun : ([0, 0] as const);
            if (busy.peer.linkIsOpen) busy.peer.send({ ...one, itt: tags[which]!, lun });
          }
          busy.verify({ undamaged: false });
          busy.verifyReleased();
        },
      );
      assertAll(property, 'any fields');
    },
    TEST_MS,
  );

  it(
    'a target with any bytes during the login ends the attempt at worst',
    () => {
      const property = fc.property(damages, pieces, (damage, pieceBytes) => {
        const peer = ScriptedPeer.started();
        const request = peer.sent()[0]!;
        const lines = ['TargetPortalGroupTag=1', 'AuthMethod=None'];
        const answer = { opcode: OP.login, flags: 0x81, itt: request.itt, ttt: 0 };
        const bytes = peer.encode({ ...answer, data: Buffer.from(`${lines.join('\0')}\0`) });
        request.header.copy(bytes, 8, 8, 14);
        peer.feed(damaged(bytes, damage), pieceBytes);
        expect(['loggingIn', 'loggedIn']).toContain(peer.session.state);
      });
      assertAll(property, 'logins');
    },
    TEST_MS,
  );
});

describe('test/corpus', () => {
  const folder = new URL('../../corpus/', import.meta.url);
  const names = readdirSync(folder).filter((name) => name.endsWith('.hex'));

  it('the corpus has ten streams at least', () => {
    expect(names.length).toBeGreaterThanOrEqual(10);
  });

  it.each(names)(
    'the stream %s ends the connection at worst, in one piece and byte by byte',
    (name) => {
      const text = readFileSync(new URL(name, folder), 'utf8').replace(/#.*$/gm, '');
      for (const pieceBytes of [1 << 20, 1]) {
        const busy = new BusySession(false);
        const tags = [busy.reads[0]!.request.itt, busy.reads[1]!.request.itt, busy.write.itt];
        const filled = text.replace(/<tag(\d)>/g, (_all, index: string) =>
          (tags[Number(index)] ?? 0).toString(16).padStart(8, '0'),
        );
        const statSN = busy.peer.statSN;
        const numbered = filled.replace(/<stat\+(\d+)>/g, (_all, more: string) =>
          (statSN + Number(more)).toString(16).padStart(8, '0'),
        );
        busy.peer.feed(Buffer.from(numbered.replace(/\s+/g, ''), 'hex'), pieceBytes);
        busy.verify({ undamaged: false });
        busy.verifyReleased();
      }
    },
  );
});

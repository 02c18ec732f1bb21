/** The handshake as a stream: the cuts between received pieces mean nothing, memory is bounded. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type NbdExportCatalog, NbdHandshake } from '../../src/nbd/handshake.js';
import type { NbdExportInfo } from '../../src/nbd/option.js';

const INFO: NbdExportInfo = {
  name: 'a',
  description: 'd'.repeat(4096),
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

/** IHAVEOPT, number, length, data. */
function option(number: number, dataHex = '', length = dataHex.length / 2): Buffer {
  const header = Buffer.from('49484156454f50540000000000000000', 'hex');
  header.writeUInt32BE(number, 8);
  header.writeUInt32BE(length, 12);
  return Buffer.concat([header, Buffer.from(dataHex, 'hex')]);
}

const FIXED = Buffer.from('00000001', 'hex');
/** Name "a", one query "base:allocation"; name "a", information requests 1 and 3. */
const QUERY = `0000000161000000010000000f${Buffer.from('base:allocation').toString('hex')}`;
const GO = '0000000161000200010003';

function run(pieces: readonly Buffer[]) {
  const handshake = new NbdHandshake(CATALOG);
  let used = 0;
  let output = Buffer.alloc(0);
  for (const piece of pieces) {
    used += handshake.bytesReceived(piece);
    output = Buffer.concat([output, handshake.takeOutput() ?? Buffer.alloc(0)]);
  }
  return { used, output, state: handshake.state, result: handshake.result };
}

test('the conversation is the same when it is cut at every byte in turn, and between all bytes', () => {
  const negotiation = Buffer.concat([
    FIXED,
    option(3),
    option(99, '0102030405'),
    option(8),
    option(10, QUERY),
    option(7, GO),
  ]);
  const stream = Buffer.concat([negotiation, Buffer.alloc(28, 0x25)]);
  const whole = run([stream]);
  expect(whole.state).toBe('transmission');
  expect(whole.used).toBe(negotiation.length);
  expect(whole.result?.metaContexts).toEqual([{ name: 'base:allocation', id: 1 }]);
  for (let cut = 0; cut <= stream.length; cut += 1) {
    expect(run([stream.subarray(0, cut), stream.subarray(cut)])).toEqual(whole);
  }
  const bytes = Array.from(stream.keys(), (at) => stream.subarray(at, at + 1));
  expect(run(bytes)).toEqual(whole);
});

test('a client that never reads its replies is closed before they fill the memory', () => {
  const handshake = new NbdHandshake(CATALOG);
  handshake.bytesReceived(FIXED);
  for (let count = 0; count < 1000; count += 1) handshake.bytesReceived(option(3));
  expect(handshake.state).toBe('closed');
  expect(handshake.takeOutput()?.length).toBeLessThan(2 << 20);
});

test('any bytes are answered, skipped or end the connection; nothing is thrown, output is bounded', () => {
  const piece = fc.oneof(
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((it) => Buffer.from(it)) },
    {
      weight: 8,
      arbitrary: fc
        .tuple(fc.nat(12), fc.uint8Array({ maxLength: 40 }), fc.constantFrom(0, 0, 0, 0, 1, -1))
        .map(([number, data, lie]) => {
          const dataHex = Buffer.from(data).toString('hex');
          return option(number, dataHex, Math.max(0, data.length + lie));
        }),
    },
    { weight: 2, arbitrary: fc.constantFrom(option(7, GO), option(10, GO), option(8), option(3)) },
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), fc.boolean(), (pieces, isFixed) => {
      const handshake = new NbdHandshake(CATALOG);
      for (const received of isFixed ? [FIXED, ...pieces] : pieces) {
        const used = handshake.bytesReceived(received);
        expect(used).toBeLessThanOrEqual(received.length);
        if (used < received.length) expect(handshake.state).toBe('transmission');
        expect(handshake.takeOutput()?.length ?? 0).toBeLessThan(2 << 20);
        expect(handshake.result !== null).toBe(handshake.state === 'transmission');
        expect(handshake.closeReason !== null).toBe(handshake.state === 'closed');
      }
    }),
    { numRuns: 2000 },
  );
});

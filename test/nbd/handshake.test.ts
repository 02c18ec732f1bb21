/**
 * Both sides' bytes are written out from the NBD protocol document; the quoted titles are its
 * sections.
 */
import { describe, expect, test } from 'vitest';
import { type NbdExportCatalog, NbdHandshake } from '../../src/nbd/handshake.js';
import type { NbdExportInfo } from '../../src/nbd/option.js';

const INFO: NbdExportInfo = {
  name: '0',
  description: 'disk é',
  sizeBytes: 0x123_4567_8a00,
  transmissionFlags: 0x08ed,
  minimumBlockBytes: 512,
  preferredBlockBytes: 4096,
  maximumBlockBytes: 2 ** 25,
  blockStatus: true,
};
const OTHER: NbdExportInfo = {
  ...INFO,
  name: '17',
  description: '',
  transmissionFlags: 0x0004,
  blockStatus: false,
};

const CATALOG: NbdExportCatalog = {
  list: () => [INFO, OTHER],
  find: (name) => (name === '' ? INFO : ([INFO, OTHER].find((it) => it.name === name) ?? null)),
};

const hex = (...groups: string[]) => Buffer.from(groups.join('').replaceAll(' ', ''), 'hex');
const u16 = (value: number) => hex(value.toString(16).padStart(4, '0'));
const u32 = (value: number) => hex(value.toString(16).padStart(8, '0'));
const text = (value: string) => Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);
/** "Newstyle negotiation": IHAVEOPT, option, length, data. */
const option = (number: number, ...data: Buffer[]) =>
  Buffer.concat([hex('49484156454f5054'), u32(number), u32(Buffer.concat(data).length), ...data]);
/** "Fixed newstyle negotiation": reply magic, option, reply type, length, data. */
const reply = (number: number, type: number, ...data: Buffer[]) =>
  Buffer.concat([
    hex('0003e889045565a9'),
    u32(number),
    u32(type),
    u32(Buffer.concat(data).length),
    ...data,
  ]);
const ack = (number: number) => reply(number, 1);
const info = (number: number, name: string, ...wanted: number[]) =>
  option(number, text(name), u16(wanted.length), ...wanted.map(u16));
const query = (number: number, name: string, ...queries: string[]) =>
  option(number, text(name), u32(queries.length), ...queries.map(text));

const FIXED = u32(1);
const FIXED_NO_ZEROES = u32(3);
const STRUCTURED = option(8);
const ALLOCATION = 'base:allocation';
const ERR_UNSUP = 0x80000001;
const ERR_INVALID = 0x80000003;
const ERR_UNKNOWN = 0x80000006;
const ERR_TOO_BIG = 0x80000009;

/** A handshake that was sent `parts`; its output, state, and how many bytes it used. */
function converse(...parts: Buffer[]) {
  const handshake = new NbdHandshake(CATALOG);
  const input = Buffer.concat(parts);
  const used = handshake.bytesReceived(input);
  const output = handshake.takeOutput() ?? Buffer.alloc(0);
  return { handshake, used, left: input.length - used, output, state: handshake.state };
}

/** Type of each option reply in `output`; fails when they do not fill it. */
function replyTypes(output: Buffer): number[] {
  const types: number[] = [];
  let at = 0;
  while (at < output.length) {
    expect(output.subarray(at, at + 8)).toEqual(hex('0003e889045565a9'));
    types.push(output.readUInt32BE(at + 12));
    at += 20 + output.readUInt32BE(at + 16);
  }
  expect(at).toBe(output.length);
  return types;
}

describe('"Newstyle negotiation"', () => {
  test('the greeting is both magics, FIXED_NEWSTYLE and NO_ZEROES', () => {
    expect(new NbdHandshake(CATALOG).greeting()).toEqual(
      hex('4e42444d41474943', '49484156454f5054', '0003'),
    );
  });

  test('"Client flags": an unknown flag drops the connection', () => {
    for (const flags of [4, 8, 0x80000001]) {
      expect(converse(u32(flags), option(3)).state).toBe('closed');
    }
  });

  test('a wrong option magic ends the connection', () => {
    const bad = option(3);
    bad[7] = 0;
    const { state, output, handshake } = converse(FIXED, bad);
    expect([state, output.length]).toEqual(['closed', 0]);
    expect(handshake.closeReason).toMatch('magic');
  });

  test('the only valid option without fixed newstyle is EXPORT_NAME', () => {
    expect(converse(u32(0), option(3)).state).toBe('closed');
    expect(converse(u32(0), option(1, Buffer.from('0'))).state).toBe('transmission');
  });
});

describe('NBD_OPT_EXPORT_NAME', () => {
  const fields = hex('000001234567', '8a00', '086d');

  test('the reply has size, flags and 124 zeros; SEND_DF is clear without structured replies', () => {
    const { output, state, handshake, left } = converse(
      FIXED,
      option(1, Buffer.from('0')),
      hex('2560'),
    );
    expect(output).toEqual(Buffer.concat([fields, Buffer.alloc(124)]));
    expect([state, left]).toEqual(['transmission', 2]);
    expect(handshake.result).toMatchObject({
      exportName: '0',
      structuredReplies: false,
      noZeroes: false,
      metaContexts: [],
      transmissionFlags: 0x086d,
    });
    expect(handshake.result?.export).toBe(INFO);
  });

  test('the reply has no zeros if the client set NBD_FLAG_C_NO_ZEROES', () => {
    const { output, handshake } = converse(FIXED_NO_ZEROES, option(1, Buffer.from('0')));
    expect(output).toEqual(fields);
    expect(handshake.result?.noZeroes).toBe(true);
  });

  test('the empty name is the default export', () => {
    const { handshake } = converse(FIXED, option(1));
    expect(handshake.result?.exportName).toBe('');
    expect(handshake.result?.export.name).toBe('0');
  });

  test('an export that does not exist ends the session without a reply', () => {
    for (const name of [Buffer.from('nope'), Buffer.alloc(4097, 'x'), Buffer.alloc(1 << 17, 'x')]) {
      const { output, state } = converse(FIXED, option(1, name));
      expect([output.length, state]).toEqual([0, 'closed']);
    }
  });
});

describe('NBD_OPT_GO and NBD_OPT_INFO', () => {
  const exported = (number: number) =>
    reply(number, 3, hex('0000', '000001234567', '8a00', '086d'));
  const blockSize = (number: number) => reply(number, 3, hex('0003 00000200 00001000 02000000'));

  test('GO replies INFO_EXPORT, block sizes, ACK and no zeros; the bytes after it are requests', () => {
    const { output, state, left } = converse(FIXED, info(7, '0'), hex('25609513'));
    expect(output).toEqual(Buffer.concat([exported(7), blockSize(7), ack(7)]));
    expect([state, left]).toEqual(['transmission', 4]);
  });

  test('INFO has the same replies and does not end the negotiation', () => {
    const { output, state, handshake } = converse(FIXED, info(6, '0'));
    expect(output).toEqual(Buffer.concat([exported(6), blockSize(6), ack(6)]));
    expect(state).toBe('handshaking');
    expect(handshake.result).toBeNull();
  });

  test('NAME and DESCRIPTION are sent on request; unknown requests are ignored', () => {
    const { output } = converse(FIXED, info(6, '', 1, 2, 3, 99));
    const name = reply(6, 3, hex('0001'), Buffer.from('0'));
    const description = reply(6, 3, hex('0002'), Buffer.from('disk é'));
    expect(output).toEqual(Buffer.concat([exported(6), name, description, blockSize(6), ack(6)]));
  });

  test('"Transmission flags": HAS_FLAGS is always set; an empty description is not sent', () => {
    const { output } = converse(FIXED, info(6, '17', 2));
    const seen = reply(6, 3, hex('0000', '000001234567', '8a00', '0005'));
    expect(output).toEqual(Buffer.concat([seen, blockSize(6), ack(6)]));
  });

  test('a name is compared with all its characters, a leading U+FEFF too', () => {
    expect(replyTypes(converse(FIXED, info(6, '\ufeff0')).output)).toEqual([ERR_UNKNOWN]);
  });

  test('SEND_DF is set once structured replies are negotiated', () => {
    const { output, handshake } = converse(FIXED, STRUCTURED, info(7, '0'));
    expect(output.subarray(20, 52)).toEqual(
      reply(7, 3, hex('0000', '000001234567', '8a00', '08ed')),
    );
    expect(handshake.result).toMatchObject({ structuredReplies: true, transmissionFlags: 0x08ed });
  });

  test('an option for an unknown export is ERR_UNKNOWN and the negotiation continues', () => {
    const { output, state } = converse(FIXED, info(7, 'nope'), info(7, '17'));
    expect(replyTypes(output)).toEqual([ERR_UNKNOWN, 3, 3, 1]);
    expect(state).toBe('transmission');
  });

  test('data that does not fit exactly is ERR_INVALID', () => {
    const bad = [
      option(7),
      option(7, hex('00000000 00')),
      option(7, u32(2), Buffer.from('0'), u16(0)),
      option(7, u32(0xffffffff), Buffer.from('0'), u16(0)),
      option(7, text('0'), u16(1)),
      option(7, text('0'), u16(0), u16(0)),
      option(7, text('0'), u16(2), u16(0)),
      option(7, u32(1), hex('ff'), u16(0)),
      option(7, text('a\0b'), u16(0)),
      option(7, text('x'.repeat(4097)), u16(0)),
    ];
    for (const message of bad) {
      const { output, state } = converse(FIXED, message);
      expect([replyTypes(output), state]).toEqual([[ERR_INVALID], 'handshaking']);
    }
  });
});

describe('other options', () => {
  test('LIST replies one SERVER an export with its description, then ACK', () => {
    expect(converse(FIXED, option(3)).output).toEqual(
      Buffer.concat([
        reply(3, 2, text('0'), Buffer.from('disk é')),
        reply(3, 2, text('17')),
        ack(3),
      ]),
    );
  });

  test('LIST and STRUCTURED_REPLY with data are ERR_INVALID', () => {
    expect(replyTypes(converse(FIXED, option(3, hex('00'))).output)).toEqual([ERR_INVALID]);
    const { output, handshake } = converse(FIXED, option(8, hex('00')), info(7, '0'));
    expect(replyTypes(output)[0]).toBe(ERR_INVALID);
    expect(handshake.result?.structuredReplies).toBe(false);
  });

  test('ABORT is acknowledged, its data ignored, and later bytes dropped', () => {
    for (const size of [0, 5, 100_000]) {
      const { output, state, left } = converse(FIXED, option(2, Buffer.alloc(size)), option(3));
      expect(output).toEqual(ack(2));
      expect([state, left]).toEqual(['closed', 0]);
    }
  });

  test('PEEK_EXPORT, STARTTLS, EXTENDED_HEADERS and unknown options are ERR_UNSUP', () => {
    for (const number of [0, 4, 5, 11, 12, 0xffffffff]) {
      for (const size of [0, 3, 100_000, 1 << 20]) {
        const { output, state } = converse(FIXED, option(number, Buffer.alloc(size)), option(3));
        expect(output.readUInt32BE(8)).toBe(number);
        expect(replyTypes(output)).toEqual([ERR_UNSUP, 2, 2, 1]);
        expect(state).toBe('handshaking');
      }
    }
  });

  test('known options with more than 64 KiB of data are ERR_TOO_BIG; over 1 MiB ends the connection', () => {
    const { output } = converse(FIXED, option(7, Buffer.alloc(65537)), option(8));
    expect(replyTypes(output)).toEqual([ERR_TOO_BIG, 1]);
    const header = Buffer.concat([hex('49484156454f5054'), u32(99), u32((1 << 20) + 1)]);
    expect(converse(FIXED, header).state).toBe('closed');
  });

  test('1024 options are answered, the next one ends the connection', () => {
    const handshake = new NbdHandshake(CATALOG);
    handshake.bytesReceived(FIXED);
    for (let count = 0; count < 1024; count += 1) {
      handshake.bytesReceived(option(8));
      expect(handshake.takeOutput()).toEqual(ack(8));
    }
    handshake.bytesReceived(option(8));
    expect([handshake.state, handshake.takeOutput()]).toEqual(['closed', null]);
  });
});

describe('"Metadata querying"', () => {
  const selected = Buffer.concat([reply(10, 4, u32(1), Buffer.from(ALLOCATION)), ack(10)]);
  const contexts = [{ name: ALLOCATION, id: 1 }];

  test('SET selects base:allocation once, whatever else is requested', () => {
    const set = query(10, '0', 'x-lab:a', 'base:', ALLOCATION, 'base:nope', ALLOCATION);
    const { output, handshake } = converse(FIXED, STRUCTURED, set, info(7, '0'));
    expect(output.subarray(20, 20 + selected.length)).toEqual(selected);
    expect(handshake.result?.metaContexts).toEqual(contexts);
  });

  test('SET without queries, or with base: alone, selects nothing', () => {
    for (const queries of [[], ['base:'], ['base'], ['base:allocations']]) {
      const { output, handshake } = converse(
        FIXED,
        STRUCTURED,
        query(10, '0', ...queries),
        info(7, '0'),
      );
      expect(replyTypes(output).slice(1)).toEqual([1, 3, 3, 1]);
      expect(handshake.result?.metaContexts).toEqual([]);
    }
  });

  test('LIST replies the name with context id 0 to no query, base: and the name', () => {
    const listed = Buffer.concat([reply(9, 4, u32(0), Buffer.from(ALLOCATION)), ack(9)]);
    for (const queries of [[], ['base:'], [ALLOCATION], ['base:', ALLOCATION]]) {
      const { output } = converse(FIXED, STRUCTURED, query(9, '0', ...queries));
      expect(output.subarray(20)).toEqual(listed);
    }
    const { output } = converse(FIXED, STRUCTURED, query(9, '0', 'qemu:'));
    expect(output.subarray(20)).toEqual(ack(9));
  });

  test('LIST selects nothing and keeps what SET selected', () => {
    const set = query(10, '0', ALLOCATION);
    const list = query(9, '0', ALLOCATION);
    const { handshake } = converse(FIXED, STRUCTURED, set, list, info(7, '0'));
    expect(handshake.result?.metaContexts).toEqual(contexts);
    const listedOnly = converse(FIXED, STRUCTURED, list, info(7, '0'));
    expect(listedOnly.handshake.result?.metaContexts).toEqual([]);
  });

  test('a query before structured replies are negotiated is ERR_INVALID', () => {
    for (const number of [9, 10]) {
      const { output } = converse(FIXED, query(number, '0', ALLOCATION));
      expect(replyTypes(output)).toEqual([ERR_INVALID]);
    }
  });

  test('a later SET replaces the selection, even if it fails', () => {
    const failures = [
      query(10, '0'),
      query(10, 'nope', ALLOCATION),
      option(10, hex('00')),
      option(10, Buffer.alloc(65537)),
    ];
    for (const later of failures) {
      const { handshake } = converse(
        FIXED,
        STRUCTURED,
        query(10, '0', ALLOCATION),
        later,
        info(7, '0'),
      );
      expect(handshake.result?.metaContexts).toEqual([]);
    }
  });

  test('contexts selected for another export name do not count', () => {
    const { handshake } = converse(FIXED, STRUCTURED, query(10, '0', ALLOCATION), info(7, '17'));
    expect(handshake.result?.metaContexts).toEqual([]);
    const named = converse(FIXED, STRUCTURED, query(10, '0', ALLOCATION), option(1));
    expect(named.handshake.result?.metaContexts).toEqual([]);
  });

  test('an export without block status has no contexts', () => {
    for (const number of [9, 10]) {
      const { output } = converse(FIXED, STRUCTURED, query(number, '17', ALLOCATION));
      expect(output.subarray(20)).toEqual(ack(number));
    }
  });

  test('an unknown export is ERR_UNKNOWN; data that does not fit exactly is ERR_INVALID', () => {
    for (const number of [9, 10]) {
      const unknown = converse(FIXED, STRUCTURED, query(number, 'nope', ALLOCATION));
      expect(replyTypes(unknown.output)).toEqual([1, ERR_UNKNOWN]);
      const bad = [
        option(number),
        option(number, u32(5), Buffer.from('0'), u32(0)),
        option(number, text('0'), u32(1)),
        option(number, text('0'), u32(0xffffffff)),
        option(number, text('0'), u32(1), u32(2), Buffer.from('b')),
        option(number, text('0'), u32(2), text('base:'), hex('0000')),
        option(number, text('0'), u32(0), hex('00')),
        option(number, text('0'), u32(1), text('x'.repeat(4097))),
      ];
      for (const message of bad) {
        expect(replyTypes(converse(FIXED, STRUCTURED, message).output)).toEqual([1, ERR_INVALID]);
      }
    }
  });
});

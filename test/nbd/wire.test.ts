/**
 * Expected bytes are written out from the layouts and numbers of the NBD protocol document; the
 * quoted titles are its sections.
 */
import { describe, expect, test } from 'vitest';
import { ProductError } from '../../src/base/errors.js';
import { viewOf } from '../../src/base/view.js';
import {
  decodeRequest,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_FLAG,
  NBD_REPLY_FLAG,
  NBD_REPLY_TYPE,
  NBD_STATE,
  NbdProtocolError,
  NbdRequestHeader,
  nbdErrorNumber,
  writeBlockDescriptor,
  writeBlockStatusChunk,
  writeChunkHeader,
  writeErrorChunk,
  writeNoneChunk,
  writeOffsetDataChunk,
  writeSimpleReply,
  writeUint64,
} from '../../src/nbd/wire.js';

const COOKIE = [0xfedcba98, 0x76543210] as const;
const COOKIE_HEX = 'fedcba9876543210';

function bytes(...groups: string[]): Buffer {
  return Buffer.from(groups.join('').replaceAll(' ', ''), 'hex');
}

/** What `write` puts at offset 3 of a buffer of 0xaa; fails when it writes anywhere else. */
function written(write: (view: DataView, at: number) => number): Buffer {
  const buffer = Buffer.alloc(600, 0xaa);
  const length = write(viewOf(buffer), 3);
  expect(buffer.subarray(0, 3).every((byte) => byte === 0xaa)).toBe(true);
  expect(buffer.subarray(3 + length).every((byte) => byte === 0xaa)).toBe(true);
  return buffer.subarray(3, 3 + length);
}

describe('NBD numbers', () => {
  test('request types are those of "Request types"', () => {
    expect(NBD_CMD).toEqual({
      READ: 0,
      WRITE: 1,
      DISC: 2,
      FLUSH: 3,
      TRIM: 4,
      CACHE: 5,
      WRITE_ZEROES: 6,
      BLOCK_STATUS: 7,
    });
  });

  test('command flags are those of "Command flags"', () => {
    expect(NBD_CMD_FLAG).toEqual({
      FUA: 0x01,
      NO_HOLE: 0x02,
      DF: 0x04,
      REQ_ONE: 0x08,
      FAST_ZERO: 0x10,
      PAYLOAD_LEN: 0x20,
    });
  });

  test('transmission flags are those of "Transmission flags"', () => {
    expect(NBD_FLAG).toEqual({
      HAS_FLAGS: 0x001,
      READ_ONLY: 0x002,
      SEND_FLUSH: 0x004,
      SEND_FUA: 0x008,
      ROTATIONAL: 0x010,
      SEND_TRIM: 0x020,
      SEND_WRITE_ZEROES: 0x040,
      SEND_DF: 0x080,
      CAN_MULTI_CONN: 0x100,
      SEND_CACHE: 0x400,
      SEND_FAST_ZERO: 0x800,
    });
  });

  test('reply types, flags and states are those of "Structured reply types"', () => {
    expect(NBD_REPLY_TYPE).toEqual({
      NONE: 0,
      OFFSET_DATA: 1,
      OFFSET_HOLE: 2,
      BLOCK_STATUS: 5,
      ERROR: 32769,
      ERROR_OFFSET: 32770,
    });
    expect(NBD_REPLY_FLAG.DONE).toBe(1);
    expect(NBD_STATE).toEqual({ HOLE: 1, ZERO: 2 });
  });

  test('error numbers are those of "Error values", not the system\'s', () => {
    expect(nbdErrorNumber('EPERM')).toBe(1);
    expect(nbdErrorNumber('EIO')).toBe(5);
    expect(nbdErrorNumber('ENOMEM')).toBe(12);
    expect(nbdErrorNumber('EINVAL')).toBe(22);
    expect(nbdErrorNumber('ENOSPC')).toBe(28);
    expect(nbdErrorNumber('ENOTSUP')).toBe(95);
    expect(nbdErrorNumber('ESHUTDOWN')).toBe(108);
    expect(NBD_ERROR.EOVERFLOW).toBe(75);
  });

  test('a broken protocol is a ProductError with a stable code and the section', () => {
    const error = new NbdProtocolError('Request message', 'wrong magic');
    expect(error).toBeInstanceOf(ProductError);
    expect(error.code).toBe('ERR_NBD_PROTOCOL');
    expect(error.section).toBe('Request message');
  });
});

describe('"Request message"', () => {
  const request = bytes('25609513', '0001', '0006', COOKIE_HEX, '0000000180000200', '00010000');

  test('every field is read from its place, at any offset of the buffer', () => {
    const header = new NbdRequestHeader();
    header.tooLong = true;
    expect(decodeRequest(viewOf(Buffer.concat([Buffer.alloc(5), request])), 5, header)).toBe(true);
    expect(header).toMatchObject({
      flags: 1,
      type: 6,
      cookieUpper: COOKIE[0],
      cookieLower: COOKIE[1],
      offsetUpper: 1,
      offsetLower: 0x80000200,
      length: 65536,
      tooLong: false,
    });
    expect(header.offsetBytes).toBe(0x180000200);
  });

  test('a wrong magic is rejected and leaves the header as it was', () => {
    const header = new NbdRequestHeader();
    const reply = Buffer.concat([bytes('67446698'), request.subarray(4)]);
    expect(decodeRequest(viewOf(reply), 0, header)).toBe(false);
    expect(header).toEqual(new NbdRequestHeader());
  });

  test('offsets and lengths are unsigned up to their last bit', () => {
    const header = new NbdRequestHeader();
    const all = bytes('25609513', 'ffffffff', 'ff'.repeat(20));
    expect(decodeRequest(viewOf(all), 0, header)).toBe(true);
    expect(header.length).toBe(0xffffffff);
    expect(header.offsetBytes).toBe(2 ** 64);
  });
});

describe('replies, byte for byte', () => {
  test('"Simple reply message": the bytes are magic, error, cookie', () => {
    expect(written((view, at) => writeSimpleReply(view, at, 28, ...COOKIE))).toEqual(
      bytes('67446698', '0000001c', COOKIE_HEX),
    );
  });

  test('"Structured reply chunk message": the bytes are magic, flags, type, cookie, length', () => {
    const chunk = written((view, at) =>
      writeChunkHeader(view, at, 0x0102, 0x0304, ...COOKIE, 0x80000001),
    );
    expect(chunk).toEqual(bytes('668e33ef', '0102', '0304', COOKIE_HEX, '80000001'));
  });

  test('NBD_REPLY_TYPE_NONE always has the DONE flag and no payload', () => {
    expect(written((view, at) => writeNoneChunk(view, at, ...COOKIE))).toEqual(
      bytes('668e33ef', '0001', '0000', COOKIE_HEX, '00000000'),
    );
  });

  test('NBD_REPLY_TYPE_OFFSET_DATA counts its offset in its length', () => {
    const chunk = written((view, at) =>
      writeOffsetDataChunk(view, at, 0, ...COOKIE, 0x12_3456_7800, 4096),
    );
    expect(chunk).toEqual(
      bytes('668e33ef', '0000', '0001', COOKIE_HEX, '00001008', '0000001234567800'),
    );
  });

  test('NBD_REPLY_TYPE_BLOCK_STATUS has a length of 4 and 8 for each descriptor', () => {
    const chunk = written((view, at) => {
      const start = at + writeBlockStatusChunk(view, at, 1, ...COOKIE, 7, 2);
      const second = start + writeBlockDescriptor(view, start, 65536, 0);
      return second + writeBlockDescriptor(view, second, 0x80000000, 3) - at;
    });
    expect(chunk).toEqual(
      bytes(
        '668e33ef 0001 0005',
        COOKIE_HEX,
        '00000014 00000007',
        '00010000 00000000',
        '80000000 00000003',
      ),
    );
  });

  test('NBD_REPLY_TYPE_ERROR has error, message length and message', () => {
    const chunk = written((view, at) => writeErrorChunk(view, at, 1, ...COOKIE, 5, 'lost'));
    expect(chunk).toEqual(
      bytes('668e33ef 0001 8001', COOKIE_HEX, '0000000a 00000005 0004', '6c6f7374'),
    );
  });

  test('NBD_REPLY_TYPE_ERROR without a message has the least length, 6', () => {
    const chunk = written((view, at) => writeErrorChunk(view, at, 1, ...COOKIE, 22));
    expect(chunk).toEqual(bytes('668e33ef 0001 8001', COOKIE_HEX, '00000006 00000016 0000'));
  });

  test('an error message is cut at 256 bytes, between characters ("Conventions")', () => {
    const message = `x${'é'.repeat(300)}`;
    const chunk = written((view, at) => writeErrorChunk(view, at, 1, ...COOKIE, 5, message));
    expect(chunk.readUInt32BE(16)).toBe(6 + 255);
    expect(chunk.readUInt16BE(24)).toBe(255);
    expect(chunk.toString('utf8', 26)).toBe(`x${'é'.repeat(127)}`);
  });

  test('64-bit numbers are exact up to 2^63', () => {
    for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, 2 ** 53 + 2 ** 10, 2 ** 63]) {
      const buffer = Buffer.alloc(8);
      writeUint64(viewOf(buffer), 0, value);
      expect(buffer.readBigUInt64BE(0)).toBe(BigInt(value));
    }
  });
});

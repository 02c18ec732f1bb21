import { describe, expect, it } from 'vitest';
import * as codec from '../../src/target/codec.js';
import { digestBytes, targetCrc32c } from '../../src/target/crc32c.js';
import { FrameReader } from '../../src/target/frame-reader.js';
import { parseKeys } from '../../src/target/text-keys.js';

const bytes = (hex: string): Buffer => Buffer.from(hex.replace(/\s/g, ''), 'hex');
const numbers = { statSN: 0x11111111, expCmdSN: 0x22222222, maxCmdSN: 0x33333333 };
const stamped = (header: Buffer): string => {
  codec.stampNumbers(header, numbers);
  return header.toString('hex');
};

describe('RFC 7143 Appendix A.4 (CRC Examples)', () => {
  const counting = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
  it.each([
    ['32 bytes of zeroes', Buffer.alloc(32), 'aa36918a'],
    ['32 bytes of ones', Buffer.alloc(32, 0xff), '43aba862'],
    ['32 bytes of incrementing 00..1f', counting, '4e79dd46'],
    ['32 bytes of decrementing 1f..00', Buffer.from(counting).reverse(), '5cdb3f11'],
    [
      'an iSCSI SCSI Read (10) Command PDU',
      bytes(`01c00000 00000000 00000000 00000000 14000000 00000400
             00000014 00000018 28000000 00000000 02000000 00000000`),
      '563a96d9',
    ],
  ])('the digest of %s is that of the RFC', (_title, input, digest) => {
    expect(digestBytes(input).toString('hex')).toBe(digest);
  });

  it('the digest is the same over parts of any length', () => {
    const whole = targetCrc32c(counting);
    for (let cut = 0; cut <= 32; cut += 1) {
      expect(targetCrc32c(counting.subarray(0, cut), counting.subarray(cut))).toBe(whole);
    }
  });
});

describe('target PDUs (RFC 7143 §11 (iSCSI PDU Formats))', () => {
  it('§11.4 (SCSI Response): a response with an underflow has the bytes of its map', () => {
    const header = codec.scsiResponse({
      initiatorTaskTag: 0xa1a2a3a4,
      response: 0,
      status: 2,
      expDataSN: 5,
      residual: 0x200,
    });
    expect(stamped(header)).toBe(
      '21820002' +
        '00000000' +
        '0000000000000000' +
        'a1a2a3a4' +
        '00000000' +
        '111111112222222233333333' +
        '00000005' +
        '00000000' +
        '00000200',
    );
  });

  it('§11.4.5 (Residual Count): the O bit reports an overflow', () => {
    const header = codec.scsiResponse({
      initiatorTaskTag: 1,
      response: 0,
      status: 0,
      expDataSN: 0,
      residual: -512,
    });
    expect(header[1]).toBe(0x84);
    expect(header.readUInt32BE(44)).toBe(512);
  });

  it('§11.7 (SCSI Data-Out and SCSI Data-In): a Data-In has the status in the last PDU', () => {
    const header = codec.dataIn({
      initiatorTaskTag: 0xa1a2a3a4,
      dataSN: 7,
      bufferOffset: 0x1000,
      final: true,
      status: { status: 0, residual: 3 },
    });
    expect(stamped(header)).toBe(
      '25830000' +
        '00000000' +
        '0000000000000000' +
        'a1a2a3a4' +
        'ffffffff' +
        '111111112222222233333333' +
        '00000007' +
        '00001000' +
        '00000003',
    );
  });

  it('§11.8 (Ready To Transfer (R2T)): an R2T has the bytes of its map', () => {
    const header = codec.readyToTransfer({
      lun: bytes('0001000000000000'),
      initiatorTaskTag: 0xa1a2a3a4,
      targetTransferTag: 0xb1b2b3b4,
      r2tSN: 2,
      bufferOffset: 0x10000,
      desiredBytes: 0x8000,
    });
    expect(stamped(header)).toBe(
      '31800000' +
        '00000000' +
        '0001000000000000' +
        'a1a2a3a4' +
        'b1b2b3b4' +
        '111111112222222233333333' +
        '00000002' +
        '00010000' +
        '00008000',
    );
  });

  it('§11.9 (Asynchronous Message): a message has the bytes of its map', () => {
    const header = codec.asyncMessage({
      lun: Buffer.alloc(8),
      event: 3,
      vendorCode: 9,
      parameters: [1, 2, 20],
    });
    expect(stamped(header)).toBe(
      '32800000' +
        '00000000' +
        '0000000000000000' +
        'ffffffff' +
        '00000000' +
        '111111112222222233333333' +
        '03090001' +
        '00020014' +
        '00000000',
    );
  });

  it('§11.13 (Login Response): a response has the bytes of its map', () => {
    const header = codec.loginResponse({
      flags: 0x87,
      isid: bytes('400001370000'),
      tsih: 0x0102,
      initiatorTaskTag: 0xa1a2a3a4,
      statusClass: 2,
      statusDetail: 1,
    });
    expect(stamped(header)).toBe(
      '23870000' +
        '00000000' +
        '4000013700000102' +
        'a1a2a3a4' +
        '00000000' +
        '111111112222222233333333' +
        '02010000' +
        '0000000000000000',
    );
  });

  it('§11.15 (Logout Response): the response has Time2Wait and Time2Retain at bytes 40 and 42', () => {
    const header = codec.logoutResponse({
      initiatorTaskTag: 0xa1a2a3a4,
      response: 1,
      time2WaitSeconds: 2,
      time2RetainSeconds: 20,
    });
    expect(stamped(header)).toBe(
      '26800100' +
        '00000000' +
        '0000000000000000' +
        'a1a2a3a4' +
        '00000000' +
        '111111112222222233333333' +
        '00000000' +
        '00020014' +
        '00000000',
    );
  });

  it.each([
    ['§11.6 (Task Management Function Response)', codec.taskManagementResponse(1, 5), '22800500'],
    ['§11.17 (Reject)', codec.reject(0x0c), '3f800c00'],
    [
      '§11.11 (Text Response)',
      codec.textResponse({
        flags: 0x40,
        lun: Buffer.alloc(8),
        initiatorTaskTag: 1,
        targetTransferTag: 2,
      }),
      '24400000',
    ],
    [
      '§11.19 (NOP-In)',
      codec.nopIn({ lun: Buffer.alloc(8), initiatorTaskTag: 1, targetTransferTag: 2 }),
      '20800000',
    ],
  ])('%s begins as its map says', (_title, header, start) => {
    expect(header.length).toBe(48);
    expect(header.subarray(0, 4).toString('hex')).toBe(start);
  });
});

describe('RFC 7143 §11.1 (iSCSI PDU Length and Padding)', () => {
  const nop = bytes(`40800000 00000005 0000000000000000 00000001 ffffffff
    00000001 00000001 00000000 00000000 00000000 00000000 68656c6c 6f000000`);

  it('a stream is cut into PDUs wherever its bytes are cut', () => {
    const stream = Buffer.concat([nop, nop, nop]);
    for (let cut = 1; cut < stream.length; cut += 1) {
      const reader = new FrameReader();
      const seen: string[] = [];
      for (const part of [stream.subarray(0, cut), stream.subarray(cut)]) {
        reader.push(part, (pdu) => seen.push(pdu.data.toString()) > 0);
      }
      expect(seen).toEqual(['hello', 'hello', 'hello']);
    }
  });

  it('a stream of single bytes yields its PDUs', () => {
    const reader = new FrameReader();
    let seen = 0;
    for (const byte of nop) reader.push(Buffer.from([byte]), () => ++seen > 0);
    expect(seen).toBe(1);
  });

  it('§13.12 (MaxRecvDataSegmentLength): the limit bounds what is accepted', () => {
    const reader = new FrameReader();
    const header = Buffer.from(nop.subarray(0, 48));
    header.writeUIntBE(8193, 5, 3);
    expect(() => reader.push(header, () => true)).toThrow(/8193/);
  });

  it('§7.8 (Digest Errors): a wrong header digest ends the stream, a wrong data digest is reported', () => {
    const header = nop.subarray(0, 48);
    const data = nop.subarray(48);
    const reader = new FrameReader();
    reader.headerDigest = true;
    reader.dataDigest = true;
    const good = [header, digestBytes(header), data];
    const verdicts: boolean[] = [];
    const take = (pdu: codec.Pdu): boolean => verdicts.push(pdu.dataDigestGood) > 0;
    reader.push(Buffer.concat([...good, digestBytes(data)]), take);
    reader.push(Buffer.concat([...good, Buffer.alloc(4)]), take);
    expect(verdicts).toEqual([true, false]);
    expect(() =>
      reader.push(Buffer.concat([header, Buffer.alloc(4), data, Buffer.alloc(4)]), take),
    ).toThrow(/digest/);
  });
});

describe('RFC 7143 §6.1 (Text Format)', () => {
  it('keys end at zero bytes and values may hold "="', () => {
    expect(parseKeys(Buffer.from('A=1\0B=x=y\0C=\0'))).toEqual([
      ['A', '1'],
      ['B', 'x=y'],
      ['C', ''],
    ]);
  });

  it('an item without a key is a protocol error', () => {
    expect(() => parseKeys(Buffer.from('nothing\0'))).toThrow(/key/);
    expect(() => parseKeys(Buffer.from(`${'k'.repeat(64)}=1\0`))).toThrow(/key/);
  });
});

import { describe, expect, it } from 'vitest';
import { InvariantError } from '../../src/base/errors.js';
import {
  unmapParameterList,
  writeGetLbaStatusCdb,
  writeInquiryCdb,
  writeModeSense6Cdb,
  writeModeSense10Cdb,
  writeReadCapacity10Cdb,
  writeReadCapacity16Cdb,
  writeReadCdb,
  writeReportLunsCdb,
  writeSynchronizeCacheCdb,
  writeTestUnitReadyCdb,
  writeUnmapCdb,
  writeWriteCdb,
  writeWriteSame16Cdb,
} from '../../src/scsi/cdb.js';
import { decodeLbaStatus } from '../../src/scsi/lba-status.js';
import { cdbName, opcodeName } from '../../src/scsi/opcodes.js';
import { ScsiDataError } from '../../src/scsi/response-data.js';

function cdbOf(write: (cdb: Buffer) => void): string {
  const cdb = Buffer.alloc(16);
  write(cdb);
  return cdb.toString('hex');
}

describe('READ and WRITE', () => {
  it('a CDB has the 10-byte form while address and count fit it (SBC-3 READ(10))', () => {
    expect(cdbOf((cdb) => writeReadCdb(cdb, 0x12345678, 0xabcd, false))).toBe(
      '280012345678' + '00abcd00000000000000',
    );
    expect(cdbOf((cdb) => writeWriteCdb(cdb, 8, 1, false))).toBe(
      '2a0000000008' + '00000100000000000000',
    );
  });

  it('a CDB has the 16-byte form for a count over 65535 (SBC-3 READ(16))', () => {
    expect(cdbOf((cdb) => writeReadCdb(cdb, 1, 0x1_0000, false))).toBe(
      '8800' + '0000000000000001' + '00010000' + '0000',
    );
  });

  it('a CDB has the 16-byte form if the last block is past 32 bits', () => {
    expect(cdbOf((cdb) => writeWriteCdb(cdb, 0xffff_ffff, 2, false))).toBe(
      '8a00' + '00000000ffffffff' + '00000002' + '0000',
    );
  });

  it('addresses of READ and WRITE are exact up to 2^53-1', () => {
    expect(cdbOf((cdb) => writeReadCdb(cdb, 2 ** 53 - 1, 1, false))).toBe(
      '8800' + '001fffffffffffff' + '00000001' + '0000',
    );
  });

  it('the bits of byte 1 are FUA in bit 3 and DPO in bit 4', () => {
    expect(cdbOf((cdb) => writeWriteCdb(cdb, 0, 1, true)).slice(0, 4)).toBe('2a08');
    expect(cdbOf((cdb) => writeReadCdb(cdb, 2 ** 40, 1, true, true)).slice(0, 4)).toBe('8818');
  });

  it('a value that no field can hold throws an InvariantError', () => {
    const cdb = Buffer.alloc(16);
    expect(() => writeReadCdb(cdb, -1, 1, false)).toThrow(InvariantError);
    expect(() => writeReadCdb(cdb, 2 ** 53, 1, false)).toThrow(InvariantError);
    expect(() => writeReadCdb(cdb, 0, 2 ** 32, false)).toThrow(InvariantError);
    expect(() => writeReadCdb(cdb, 0.5, 1, false)).toThrow(InvariantError);
  });
});

describe('other commands', () => {
  it('SYNCHRONIZE CACHE of 0 and 0 is the whole medium, without IMMED (SBC-3)', () => {
    expect(cdbOf((cdb) => writeSynchronizeCacheCdb(cdb, 0, 0))).toBe(`35${'00'.repeat(15)}`);
    expect(cdbOf((cdb) => writeSynchronizeCacheCdb(cdb, 2 ** 33, 7))).toBe(
      '9100' + '0000000200000000' + '00000007' + '0000',
    );
  });

  it('WRITE SAME(16) has UNMAP in bit 3 and NDOB in bit 0 of byte 1 (SBC-3)', () => {
    const both = cdbOf((cdb) =>
      writeWriteSame16Cdb(cdb, 0x10, 0x20, { unmap: true, noDataOut: true }),
    );
    expect(both).toBe('9309' + '0000000000000010' + '00000020' + '0000');
    const neither = cdbOf((cdb) =>
      writeWriteSame16Cdb(cdb, 0x10, 0x20, { unmap: false, noDataOut: false }),
    );
    expect(neither.slice(0, 4)).toBe('9300');
  });

  it('WRITE SAME of 0 blocks would be all blocks to the end, and is never sent (SBC-3)', () => {
    const options = { unmap: false, noDataOut: true };
    expect(() => writeWriteSame16Cdb(Buffer.alloc(16), 0, 0, options)).toThrow(InvariantError);
  });

  it('UNMAP has the length of its list, whose header has the length of what follows (SBC-3)', () => {
    const list = unmapParameterList([
      { lba: 0x1_0000_0002, blockCount: 3 },
      { lba: 16, blockCount: 0xffff_ffff },
    ]);
    expect(list.toString('hex')).toBe(
      '0026' +
        '0020' +
        '00000000' +
        '0000000100000002' +
        '00000003' +
        '00000000' +
        '0000000000000010' +
        'ffffffff' +
        '00000000',
    );
    expect(cdbOf((cdb) => writeUnmapCdb(cdb, list.length))).toBe(
      '42000000000000' + '0028' + '00000000000000',
    );
  });

  it('commands of libiscsi and ours have the same bytes (captured on the wire)', () => {
    expect(cdbOf((cdb) => writeInquiryCdb(cdb, null, 64))).toBe('12000000400000000000000000000000');
    expect(cdbOf((cdb) => writeInquiryCdb(cdb, 0x83, 76))).toBe('120183004c0000000000000000000000');
    expect(cdbOf((cdb) => writeReadCapacity16Cdb(cdb, 32))).toBe(
      '9e100000000000000000000000200000',
    );
    expect(cdbOf(writeReadCapacity10Cdb)).toBe('25000000000000000000000000000000');
    expect(cdbOf(writeTestUnitReadyCdb)).toBe('00000000000000000000000000000000');
  });

  it('MODE SENSE sets DBD, page and allocation length (SPC-4)', () => {
    expect(cdbOf((cdb) => writeModeSense6Cdb(cdb, 0x3f, 252))).toBe(
      '1a083f00fc0000000000000000000000',
    );
    expect(cdbOf((cdb) => writeModeSense10Cdb(cdb, 0x08, 0x200))).toBe(
      '5a080800000000020000000000000000',
    );
  });

  it('REPORT LUNS and GET LBA STATUS have their lengths in place', () => {
    expect(cdbOf((cdb) => writeReportLunsCdb(cdb, 0x4008, 2))).toBe(
      'a00002000000000040080000' + '00000000',
    );
    expect(cdbOf((cdb) => writeGetLbaStatusCdb(cdb, 0x100, 0x18))).toBe(
      '9e12' + '0000000000000100' + '00000018' + '0000',
    );
  });
});

describe('opcodeName and cdbName', () => {
  it('a name includes the service action if the command has one', () => {
    expect(opcodeName(0x88)).toBe('READ(16)');
    expect(opcodeName(0x9e, 0x10)).toBe('READ CAPACITY(16)');
    expect(opcodeName(0x9e)).toBe('SERVICE ACTION IN(16)');
    expect(opcodeName(0xc5)).toBe('opcode C5h');
    expect(cdbName(Buffer.from('9e12', 'hex'))).toBe('GET LBA STATUS');
    expect(cdbName(Buffer.from('2a08', 'hex'))).toBe('WRITE(10)');
  });
});

describe('decodeLbaStatus', () => {
  const answer = (...descriptors: string[]): Buffer => {
    const bytes = Buffer.from(`0000000000000000${descriptors.join('')}`, 'hex');
    bytes.writeUInt32BE(bytes.length - 4, 0);
    return bytes;
  };
  const mapped = '0000000000000000' + '00000008' + '00000000';
  const hole = '0000000000000008' + '00000010' + '01000000';

  it('the answer is a list of runs of blocks with a provisioning status (SBC-3)', () => {
    expect(decodeLbaStatus(answer(mapped, hole), 3)).toEqual([
      { lba: 0, blockCount: 8, status: 'mapped' },
      { lba: 8, blockCount: 16, status: 'deallocated' },
    ]);
  });

  it('an answer that leaves a gap, is empty or misses the first block is rejected', () => {
    const empty = '0000000000000000' + '00000000' + '00000000';
    expect(() => decodeLbaStatus(answer(hole), 0)).toThrow(ScsiDataError);
    const emptyEnd = '0000000000000008' + '00000000' + '00000000';
    expect(() => decodeLbaStatus(answer(empty), 0)).toThrow(ScsiDataError);
    expect(() => decodeLbaStatus(answer(mapped, emptyEnd), 0)).toThrow(ScsiDataError);
    expect(() => decodeLbaStatus(answer(mapped), 8)).toThrow(ScsiDataError);
    expect(() => decodeLbaStatus(answer(mapped, mapped), 0)).toThrow(ScsiDataError);
    expect(() => decodeLbaStatus(Buffer.alloc(7), 0)).toThrow(ScsiDataError);
  });

  it('an answer that claims more than arrived yields the runs that are whole', () => {
    const cut = answer(mapped, hole).subarray(0, 30);
    expect(decodeLbaStatus(cut, 0)).toHaveLength(1);
  });
});

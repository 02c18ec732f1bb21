import { describe, expect, it } from 'vitest';
import { InvariantError } from '../../src/base/errors.js';
import {
  decodeReportLuns,
  lunEquals,
  lunField,
  lunNumber,
  lunToText,
  wellKnownLunNumber,
} from '../../src/scsi/lun.js';
import { ScsiDataError } from '../../src/scsi/response-data.js';

describe('LUN fields (SAM-5 §4.7)', () => {
  it('LUNs 0 … 255 use peripheral device addressing', () => {
    expect(lunField(0)).toEqual({ upper: 0, lower: 0 });
    expect(lunField(255)).toEqual({ upper: 0x00ff_0000, lower: 0 });
  });

  it('LUNs 256 … 16383 use flat space addressing', () => {
    expect(lunField(256)).toEqual({ upper: 0x4100_0000, lower: 0 });
    expect(lunField(16383)).toEqual({ upper: 0x7fff_0000, lower: 0 });
  });

  it('higher LUNs use extended flat space addressing of four bytes', () => {
    expect(lunField(16384)).toEqual({ upper: 0xd200_4000, lower: 0 });
    expect(lunField(0xff_ffff)).toEqual({ upper: 0xd2ff_ffff, lower: 0 });
  });

  it('other numbers have no field', () => {
    expect(() => lunField(-1)).toThrow(InvariantError);
    expect(() => lunField(0x100_0000)).toThrow(InvariantError);
    expect(() => lunField(1.5)).toThrow(InvariantError);
  });

  it('fields of any single-level method yield their number', () => {
    expect(lunNumber({ upper: 0x0005_0000, lower: 0 })).toBe(5);
    expect(lunNumber({ upper: 0x4005_0000, lower: 0 })).toBe(5);
    expect(lunNumber({ upper: 0xd200_0005, lower: 0 })).toBe(5);
    expect(lunNumber({ upper: 0x7fff_0000, lower: 0 })).toBe(16383);
  });

  it('fields of hierarchies, other buses and well-known units have no number', () => {
    expect(lunNumber({ upper: 0x0105_0002, lower: 0 })).toBeNull();
    expect(lunNumber({ upper: 0x0105_0000, lower: 0 })).toBeNull();
    expect(lunNumber({ upper: 0x0005_0000, lower: 1 })).toBeNull();
    expect(lunNumber({ upper: 0x8005_0000, lower: 0 })).toBeNull();
    expect(lunNumber({ upper: 0xc101_0000, lower: 0 })).toBeNull();
    expect(lunNumber({ upper: 0xffff_ffff, lower: 0xffff_ffff })).toBeNull();
  });

  it('the field of the well-known REPORT LUNS unit is C101h', () => {
    expect(wellKnownLunNumber({ upper: 0xc101_0000, lower: 0 })).toBe(1);
    expect(wellKnownLunNumber({ upper: 0x0001_0000, lower: 0 })).toBeNull();
  });

  it('a field is shown as a number, as well-known, or whole', () => {
    expect(lunToText(lunField(300))).toBe('300');
    expect(lunToText({ upper: 0xc101_0000, lower: 0 })).toBe('well-known 1');
    expect(lunToText({ upper: 0x0105_0002, lower: 0 })).toBe('0x0105000200000000');
  });
});

describe('REPORT LUNS answers (SPC-4)', () => {
  it('REPORT LUNS data are eight bytes a LUN after a header of eight', () => {
    const data = Buffer.from('0000001000000000' + '0000000000000000' + '4101000000000000', 'hex');
    expect(decodeReportLuns(data)).toEqual({
      luns: [
        { upper: 0, lower: 0 },
        { upper: 0x4101_0000, lower: 0 },
      ],
      neededBytes: 24,
    });
  });

  it('REPORT LUNS data that were cut off yield the allocation that they need', () => {
    const data = Buffer.from('0000100000000000' + '0001000000000000' + '00020000', 'hex');
    const { luns, neededBytes } = decodeReportLuns(data);
    expect(luns).toEqual([{ upper: 0x0001_0000, lower: 0 }]);
    expect(neededBytes).toBe(0x1008);
  });

  it('a LUN is listed once even if the target repeats it', () => {
    const data = Buffer.from(`0000001000000000${'0001000000000000'.repeat(2)}`, 'hex');
    expect(decodeReportLuns(data).luns).toHaveLength(1);
  });

  it('REPORT LUNS data with no header or a broken length are rejected', () => {
    expect(() => decodeReportLuns(Buffer.alloc(7))).toThrow(ScsiDataError);
    expect(() => decodeReportLuns(Buffer.from('0000000900000000', 'hex'))).toThrow(ScsiDataError);
  });

  it('a field is compared whole, as its other forms may name another unit', () => {
    expect(lunEquals({ upper: 0x4005_0000, lower: 0 }, lunField(5))).toBe(false);
    expect(lunEquals({ upper: 0x0005_0000, lower: 0 }, lunField(5))).toBe(true);
  });
});

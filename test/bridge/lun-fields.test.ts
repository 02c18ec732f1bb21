import { describe, expect, it } from 'vitest';
import { LunFields } from '../../src/bridge/lun-fields.js';
import { lunField } from '../../src/scsi/lun.js';

const PERIPHERAL_5 = { upper: 0x0005_0000, lower: 0 };
const FLAT_5 = { upper: 0x4005_0000, lower: 0 };
const EXTENDED_5 = { upper: 0xd200_0005, lower: 0 };
const WELL_KNOWN = { upper: 0xc101_0000, lower: 0 };

function newFields() {
  const told: string[] = [];
  const fields = new LunFields();
  fields.onLeftOut = (words) => told.push(words);
  return { fields, told };
}

describe('LunFields (SAM-5 §4.7)', () => {
  it('a LUN has the usual field of its number until the target reports another', () => {
    const { fields } = newFields();
    expect(fields.fieldOf(5)).toEqual(lunField(5));
    expect(fields.hexOf(5)).toBeUndefined();
    expect(fields.reported([FLAT_5, WELL_KNOWN])).toEqual([5]);
    expect(fields.fieldOf(5)).toEqual(FLAT_5);
    expect(fields.hexOf(5)).toBe('4005000000000000');
    expect(fields.reported([])).toEqual([]);
    expect(fields.fieldOf(5)).toEqual(PERIPHERAL_5);
  });

  it.each([
    ['the usual one, whatever the order', [FLAT_5, PERIPHERAL_5], PERIPHERAL_5],
    ['the first where none is the usual one', [EXTENDED_5, FLAT_5], EXTENDED_5],
  ])('the field used among two reported ones is %s', (_which, reported, used) => {
    const { fields, told } = newFields();
    expect(fields.reported(reported)).toEqual([5]);
    expect(fields.fieldOf(5)).toEqual(used);
    expect(told).toHaveLength(1);
    fields.reported(reported);
    expect(told).toHaveLength(1);
  });

  it('the field of a LUN does not change once a disk is made of it', () => {
    const { fields, told } = newFields();
    fields.reported([FLAT_5]);
    expect(fields.fix(5)).toEqual(FLAT_5);
    expect(fields.reported([PERIPHERAL_5])).toEqual([]);
    expect(fields.fieldOf(5)).toEqual(FLAT_5);
    expect(told[0]).toMatch(/^LUN 5 has the address 4005.*reports 0005/);
    expect(fields.fix(5, '0005000000000000')).toEqual(FLAT_5);
  });

  it('a process that takes over uses the field of the record', () => {
    const { fields } = newFields();
    expect(fields.fix(5, '4005000000000000')).toEqual(FLAT_5);
    expect(fields.reported([FLAT_5])).toEqual([5]);
    expect(newFields().fields.fix(5)).toEqual(PERIPHERAL_5);
  });
});

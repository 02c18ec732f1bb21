import { describe, expect, it } from 'vitest';
import { isSameUnit, unitNames } from '../../src/scsi/designator.js';

const NAA = 'naa.6001405aabbccdd00112233445566778';
const LONG_T10 = 't10.LIO-ORG IBLOCK:aabbccdd-0011';

describe('the names by which a logical unit is known over every target', () => {
  it.each([
    ['an NAA name of a company', [NAA, LONG_T10], [NAA]],
    ['an EUI-64', ['eui.0025385b71b0a1c2', LONG_T10], ['eui.0025385b71b0a1c2']],
    [
      'a UUID',
      ['uuid.6ba7b810-9dad-11d1-80b4-00c04fd430c8'],
      ['uuid.6ba7b810-9dad-11d1-80b4-00c04fd430c8'],
    ],
    [
      'a SCSI name string',
      ['iqn.2001-04.com.example:array.lun7'],
      ['iqn.2001-04.com.example:array.lun7'],
    ],
    ['a T10 name with more than a number', [LONG_T10], [LONG_T10]],
  ])('the names are those of its best kind: %s', (_what, identifiers, names) => {
    expect(unitNames(identifiers)).toEqual(names);
    expect(isSameUnit(identifiers, identifiers)).toBe(true);
  });

  it.each([
    ['none at all', []],
    ['zeros', ['naa.60000000000000000000000000000000']],
    ['an EUI-64 of zeros', ['eui.0000000000000000']],
    ['a registered form without a company', ['naa.60000000000000000e00000000010001', LONG_T10]],
    ['one of local administration', ['naa.3123456789abcdef', LONG_T10]],
    ['a T10 name that is only a vendor', ['t10.IET     ']],
    ['a T10 name that is a number', ['t10.IET     00010001']],
    ['a text of the vendor', ['vendor.disk1']],
    ['an MD5 of who knows what', ['md5.0123456789abcdef0123456789abcdef']],
  ])('a unit has none if it has %s', (_what, identifiers) => {
    expect(unitNames(identifiers)).toEqual([]);
    expect(isSameUnit(identifiers, identifiers)).toBe(false);
  });

  it('a unit with another name beside the common one is not proven to be the same', () => {
    const other = 'naa.6001405aabbccdd00112233445566779';
    expect(isSameUnit([NAA], [NAA, other])).toBe(false);
    expect(isSameUnit([NAA, other], [other, NAA])).toBe(true);
    expect(isSameUnit([NAA], [other])).toBe(false);
    expect(isSameUnit([NAA, LONG_T10], [LONG_T10])).toBe(false);
  });
});

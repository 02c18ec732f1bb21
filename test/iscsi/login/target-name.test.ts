import { describe, expect, it } from 'vitest';
import { iscsiNameFault, iscsiNamesEqual } from '../../../src/iscsi/login/target-name.js';

describe('RFC 7143 §4.2.7.3 (iSCSI Name Structure)', () => {
  it.each([
    'iqn.2001-04.com.example:storage:diskarrays-sn-a8675309',
    'iqn.2001-04.com.example',
    'iqn.2001-04.com.example:storage.tape1.sys1.xyz',
    'eui.02004567A425678D',
    'naa.52004567BA64678D',
    'naa.62004567BA64678D0123456789ABCDEF',
    'iqn.1993-11.com.disk-vendor:diskarrays.sn.45678',
  ])('the example %s of the RFC is a valid name', (name) => {
    expect(iscsiNameFault(name)).toBeNull();
  });

  it.each([
    ['', /empty/],
    ['disk', /iqn\., eui\. or naa\./],
    ['iqn.2001-4.com.example', /yyyy-mm/],
    ['iqn.2001-13.com.example', /month 13/],
    ['iqn.2001-00.com.example', /month 00/],
    ['iqn.2001-04', /domain name .* missing/],
    ['iqn.2001-04.', /domain name .* missing/],
    ['iqn.2001-04.com..example', /empty label/],
    ['iqn.2001-04.com.example:a b', /" " cannot be/],
    ['iqn.2001-04.com.example:a/b', /"\/" cannot be/],
    ['iqn.2001-04.com.example:a\0b', /cannot be/],
    ['eui.02004567A425678', /16 hexadecimal/],
    ['eui.02004567A425678G', /16 hexadecimal/],
    ['naa.52004567BA64678D0', /16 or 32/],
  ])('the name %j is rejected, and the text says why', (name, why) => {
    expect(iscsiNameFault(name)).toMatch(why);
  });
});

describe('RFC 7143 §4.2.7.2 (iSCSI Name Encoding)', () => {
  it.each([
    ['iqn.2001-04.com.example:disk', 'IQN.2001-04.COM.Example:Disk'],
    ['eui.02004567a425678d', 'eui.02004567A425678D'],
    ['naa.52004567ba64678d', 'NAA.52004567BA64678D'],
    ['iqn.2001-04.com.example:\u00e9', 'iqn.2001-04.com.example:E\u0301'],
    ['iqn.2001-04.com.example:strasse', 'iqn.2001-04.com.example:stra\u00dfe'],
    ['iqn.2001-04.com.example:disk', 'iqn.2001-04.com.example:\uff44isk'],
  ])('%s and %s are one name', (left, right) => {
    expect(iscsiNamesEqual(left, right)).toBe(true);
    expect(iscsiNamesEqual(right, left)).toBe(true);
  });

  it('names that differ in more than their spelling are two', () => {
    const name = 'iqn.2001-04.com.example:disk1';
    for (const other of ['iqn.2001-04.com.example:disk2', 'iqn.2001-04.com.example:disk_1', '']) {
      expect(iscsiNamesEqual(name, other)).toBe(false);
    }
  });

  it('a name has at most 223 bytes of UTF-8', () => {
    const base = 'iqn.2001-04.com.example:';
    expect(iscsiNameFault(base + 'x'.repeat(223 - base.length))).toBeNull();
    expect(iscsiNameFault(base + 'x'.repeat(224 - base.length))).toMatch(/224 bytes/);
    expect(iscsiNameFault(base + 'é'.repeat(112))).toMatch(/248 bytes/);
  });
});

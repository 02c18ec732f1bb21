import { describe, expect, it } from 'vitest';
import {
  identityMismatch,
  identityNotRead,
  isUnidentified,
} from '../../src/bridge/disk-identity.js';
import { QueueDepthControl } from '../../src/bridge/queue-depth-control.js';
import type { DiskFacts } from '../../src/scsi/disk-facts.js';
import { diskFacts } from '../helpers/block-client.js';

/** After an outage, with the default of the option. */
const OUTAGE = { mayBeExchanged: true, allowUnidentified: false };

describe('the identity gate', () => {
  it.each([
    ['no change', {}],
    ['more blocks', { blockCount: 1 << 22 }],
    ['write protection', { readOnly: true }],
    ['another firmware', { revision: '2' }],
    ['one identifier more', { identifiers: ['eui.1', 'naa.3000000000000001'] }],
  ])('the gate accepts a disk with %s', (_how, change) => {
    expect(identityMismatch(diskFacts(), diskFacts(change), OUTAGE)).toBeNull();
  });

  it.each([
    ['another identifier', { identifiers: ['naa.3000000000000002'] }],
    ['no identifier any more', { identifiers: [] }],
    ['another serial number', { serial: 'S2' }],
    ['another block size', { blockSizeBytes: 4096 }],
    ['fewer blocks', { blockCount: (1 << 21) - 1 }],
    ['another product name', { product: 'TAPE' }],
    ['another device type', { deviceType: 5 }],
  ])(
    'the gate rejects a disk with %s, with the reason, whatever the occasion and the option',
    (_how, change) => {
      for (const mayBeExchanged of [true, false]) {
        for (const allowUnidentified of [true, false]) {
          const occasion = { mayBeExchanged, allowUnidentified };
          const why = identityMismatch(diskFacts(), diskFacts(change), occasion);
          expect(why).toMatch(/^another disk has this LUN now: its /);
        }
      }
    },
  );

  it('the gate rejects a disk that has an identifier where there was none', () => {
    const before = diskFacts({ identifiers: [] });
    expect(identityMismatch(before, diskFacts(), OUTAGE)).toMatch(/identifier/);
    expect(identityMismatch(before, diskFacts({ identifiers: [] }), OUTAGE)).toBeNull();
  });

  it.each([
    ['an NAA name', 'naa.6001405000000000000000000000000a'],
    ['an EUI-64', 'eui.0014050000000000'],
    ['a UUID', 'uuid.01234567-89ab-4cde-8f01-23456789abcd'],
  ])(
    'the gate accepts a renamed disk (FreeNAS to TrueNAS) with %s that is equal',
    (_name, identifier) => {
      const before = diskFacts({ identifiers: [identifier], vendor: 'FreeNAS' });
      const names = { vendor: 'TrueNAS', product: 'iSCSI Disk', serial: 'S2' };
      const after = diskFacts({ identifiers: [identifier], ...names });
      expect(identityMismatch(before, after, OUTAGE)).toBeNull();
      const smaller = { ...after, blockCount: before.blockCount - 1 };
      expect(identityMismatch(before, smaller, OUTAGE)).toMatch(/size/);
    },
  );

  it.each([
    ['a local name', 'naa.3000000000000001'],
    ['an NAA name without a company (tgt)', 'naa.60000000000000000e00000000010001'],
    ['an NAA name of the form 5h without a company', 'naa.5000000012345678'],
    ['an NAA name of the form 2h without a company', 'naa.2abc000000123456'],
    ['an EUI-64 without a company', 'eui.0000000012345678'],
    ['a T10 text', 't10.X       1'],
    ['a SCSI name', 'iqn.2001-04.com.example:disk'],
  ])('the gate rejects a disk with another serial number and make and %s', (_name, identifier) => {
    const before = diskFacts({ identifiers: [identifier] });
    for (const change of [{ serial: 'S2' }, { vendor: 'OTHER' }]) {
      const after = diskFacts({ identifiers: [identifier], ...change });
      expect(identityMismatch(before, after, OUTAGE)).not.toBeNull();
    }
  });

  const WORLDWIDE = 'naa.6001405000000000000000000000000a';
  it('a disk whose identity cannot be read is waited for if another one may have come', () => {
    const known = diskFacts({ identifiers: [WORLDWIDE] });
    const unread = (parts: Partial<DiskFacts>) => diskFacts({ ...parts, notes: ['VPD'] });
    const nothing = unread({ serial: '', identifiers: [], unread: ['serial', 'identifiers'] });
    const serialOnly = unread({ identifiers: [], unread: ['identifiers'] });
    const nameOnly = unread({ identifiers: [WORLDWIDE], serial: '', unread: ['serial'] });
    const localOnly = unread({ serial: '', unread: ['serial'] });
    expect(identityNotRead(known, nothing, OUTAGE)).toMatch(/identity cannot be read now \(VPD\)/);
    expect(identityNotRead(known, serialOnly, OUTAGE)).not.toBeNull();
    expect(identityNotRead(known, nameOnly, OUTAGE)).toBeNull();
    expect(identityNotRead(diskFacts(), localOnly, OUTAGE)).not.toBeNull();
    const allowed = { ...OUTAGE, allowUnidentified: true };
    expect(identityNotRead(known, nothing, allowed)).not.toBeNull();
    expect(identityNotRead(nothing, nothing, allowed)).toBeNull();
    expect(identityNotRead(nothing, nothing, OUTAGE)).not.toBeNull();
    expect(identityNotRead(known, nothing, { ...OUTAGE, mayBeExchanged: false })).toBeNull();
  });

  it('an identity that could not be read before is learnt only while no other disk may have come', () => {
    const known = diskFacts({ serial: '', identifiers: [], unread: ['serial', 'identifiers'] });
    const found = diskFacts();
    expect(identityMismatch(known, found, { ...OUTAGE, mayBeExchanged: false })).toBeNull();
    expect(identityMismatch(known, found, OUTAGE)).not.toBeNull();
    const neverThere = diskFacts({ serial: '', identifiers: [] });
    expect(
      identityMismatch(neverThere, found, { ...OUTAGE, mayBeExchanged: false }),
    ).not.toBeNull();
  });

  it.each([
    ['identifiers', { identifiers: [] }, { serial: 'S2' }, { serial: '' }],
    ['serial', { serial: '' }, { identifiers: ['naa.3000000000000002'] }, { identifiers: [] }],
  ] as const)(
    'the gate compares the other part of the identity of a disk whose %s could never be read',
    (part, absent, other, blank) => {
      const known = diskFacts({ ...absent, unread: [part] });
      // As unread as before, and read now: both are the disk that is known.
      expect(identityNotRead(known, known, OUTAGE)).toBeNull();
      expect(identityMismatch(known, diskFacts(), OUTAGE)).toBeNull();
      for (const change of [other, blank]) {
        const found = diskFacts({ ...absent, unread: [part], ...change });
        expect(identityNotRead(known, found, OUTAGE)).not.toBeNull();
        expect(identityMismatch(known, diskFacts(change), OUTAGE)).not.toBeNull();
      }
      const nothing = diskFacts({ serial: '', identifiers: [], unread: ['serial', 'identifiers'] });
      expect(identityNotRead(known, nothing, OUTAGE)).not.toBeNull();
    },
  );

  const A = 'naa.6001405000000000000000000000000a';
  const B = 'naa.6001405000000000000000000000000b';
  it.each([
    ['two registered names and an equal T10 text', [A, 't10.X 1'], [B, 't10.X 1']],
    ['two registered names and an equal vendor text', [A, 'vendor.disk'], [B, 'vendor.disk']],
    [
      'two registered names and an equal local one',
      [A, 'naa.3000000000000001'],
      [B, 'naa.3000000000000001'],
    ],
    [
      'two registered names and an equal EUI-64',
      [A, 'eui.0000000000000001'],
      [B, 'eui.0000000000000001'],
    ],
    ['two EUI-64 and an equal MD5', ['eui.1', 'md5.1'], ['eui.2', 'md5.1']],
    ['two UUIDs and an equal T10 text', ['uuid.1-2', 't10.X 1'], ['uuid.1-3', 't10.X 1']],
    [
      'two names without a company and an equal local one',
      ['naa.50000001', 'naa.31'],
      ['naa.50000002', 'naa.31'],
    ],
    ['two SCSI names and an equal T10 text', ['iqn.a', 't10.X 1'], ['iqn.b', 't10.X 1']],
    ['two local names and an equal T10 text', ['naa.31', 't10.X 1'], ['naa.32', 't10.X 1']],
    [
      'two T10 texts and an equal vendor text',
      ['t10.X       1', 'vendor.d'],
      ['t10.X       2', 'vendor.d'],
    ],
    ['names of no kind in common', [A], ['eui.1']],
    [
      'equal names that are all zeros',
      ['naa.6000000000000000', 't10.X       1'],
      ['naa.6000000000000000', 't10.X       2'],
    ],
  ])('the gate rejects a disk with %s', (_how, known, found) => {
    const before = diskFacts({ identifiers: known });
    expect(identityMismatch(before, diskFacts({ identifiers: found }), OUTAGE)).toMatch(
      /identifier/,
    );
  });

  it.each([
    ['one of two registered names', [A, B], ['naa.5000000000000001', B]],
    ['a registered name and another vendor text', [A, 'vendor.a'], [A, 'vendor.b']],
    ['the EUI-64 that is the best kind both have', [A, 'eui.1'], ['eui.1', 't10.X       1']],
    ['a T10 text, where the registered name is new', ['t10.X       1'], [A, 't10.X       1']],
    ['a vendor text, beside names of zeros that differ', ['vendor.a', 'eui.00'], ['vendor.a']],
  ])('the gate accepts a disk that shares %s', (_how, known, found) => {
    const before = diskFacts({ identifiers: known });
    expect(identityMismatch(before, diskFacts({ identifiers: found }), OUTAGE)).toBeNull();
  });
});

describe('a disk that reports neither a serial number nor an identifier', () => {
  it.each([
    ['nothing at all', '', []],
    ['a serial number of zeros', '0000', []],
    ['a serial number of spaces and dashes', ' - ', []],
    ['a NAA name of zeros', '', ['naa.6000000000000000000000000000000']],
    ['an EUI-64 of zeros', '', ['eui.0000000000000000']],
    ['an EUI-64 of ones', '', ['eui.ffffffffffffffff']],
    ['a UUID of zeros', '', ['uuid.00000000-0000-0000-0000-000000000000']],
    ['a T10 text of a vendor only', '', ['t10.EXAMPLE']],
    ['a T10 text with zeros', '', ['t10.EXAMPLE 0000']],
    ['an empty vendor text', '', ['vendor.']],
    ['an empty SCSI name', '', ['']],
  ])('a disk with %s counts as unidentified', (_what, serial, identifiers) => {
    const facts = diskFacts({ serial, identifiers });
    expect(isUnidentified(facts)).toBe(true);
    expect(identityMismatch(facts, facts, OUTAGE)).toMatch(
      /^another disk may have this LUN now: .*83h.*80h.*allowUnidentified/,
    );
    expect(identityMismatch(facts, facts, { ...OUTAGE, allowUnidentified: true })).toBeNull();
    expect(identityMismatch(facts, facts, { ...OUTAGE, mayBeExchanged: false })).toBeNull();
  });

  it.each([
    ['a serial number', 'S', []],
    ['an identifier', '', ['t10.EXAMPLE 1']],
    ['a SCSI name', '', ['iqn.2001-04.com.example:0']],
  ])('a disk with %s does not count as unidentified', (_what, serial, identifiers) => {
    const facts = diskFacts({ serial, identifiers });
    expect(isUnidentified(facts)).toBe(false);
    expect(identityMismatch(facts, facts, OUTAGE)).toBeNull();
  });
});

describe('QueueDepthControl', () => {
  it('the depth falls by a quarter of the commands in flight, once a burst, and not below one', () => {
    const control = new QueueDepthControl(128);
    control.congested(1000, 100);
    expect(control.depth).toBe(75);
    for (let at = 0; at < 50; at += 1) control.congested(1000 + at, 75);
    expect(control.depth).toBe(75);
    for (let at = 1; at < 100; at += 1) control.congested(1000 + at * 100, control.depth);
    expect(control.depth).toBe(1);
  });

  it('the depth rises step by step after each second without congestion, up to the maximum', () => {
    const control = new QueueDepthControl(128);
    expect(control.nextStepAtMs).toBe(Number.POSITIVE_INFINITY);
    control.congested(1000, 40);
    expect([control.depth, control.nextStepAtMs]).toEqual([30, 2000]);
    control.timeReached(1999);
    expect(control.depth).toBe(30);
    let nowMs = 2000;
    for (; control.nextStepAtMs < Number.POSITIVE_INFINITY; nowMs += 1000) {
      control.timeReached(nowMs);
    }
    expect([control.depth, nowMs]).toEqual([128, 2000 + 25 * 1000]);
  });
});

import { describe, expect, it } from 'vitest';
import { METHOD_NAMES } from '../../src/control/control-methods.js';
import type { FoundDisk } from '../../src/lun/disk-probe.js';
import type { SessionRecord } from '../../src/supervisor/session-record.js';
import { LoginHomes } from '../../src/workers/login-homes.js';
import { spreadOver } from '../../src/workers/restored-logins.js';
import { workerCount } from '../../src/workers/worker-count.js';
import { METHOD_ROUTES } from '../../src/workers/worker-methods.js';

const NAA = 'naa.6001405aaaaaaaaabbbbbbbbcccccccc';

function disk(lun: number, identifiers: readonly string[], serial = ''): FoundDisk {
  const facts = { identifiers, serial, vendor: 'V', product: 'P', deviceType: 0 };
  // What the identity of a disk is made of; the rest is not looked at here.
  return { lun, facts: { ...facts, blockSizeBytes: 512, blockCount: 8 } } as unknown as FoundDisk;
}

const found = (disks: readonly FoundDisk[], mayMove = true) => {
  return { disks, own: [], mayMove, targetName: 'iqn.b', sessionId: '0'.repeat(16) };
};

describe('the homes of logins', () => {
  it('a login that has a disk of another worker moves there once, after its end here', async () => {
    const homes = new LoginHomes();
    homes.begun('a', 0);
    homes.place('a', 0, found([disk(0, [NAA])]));
    homes.enter('b', 1);
    homes.begun('b', 1);
    expect(homes.place('b', 1, found([disk(3, [NAA])]))).toEqual({ moveTo: 0 });
    let hasMoved = false;
    const moved = homes.moved('b').then(() => {
      hasMoved = true;
    });
    await Promise.resolve();
    expect(hasMoved).toBe(false);
    expect(homes.over('b', 1)).toBe(0);
    await moved;
    expect(homes.workerOf('b')).toBe(0);
    homes.begun('b', 0);
    expect(homes.place('b', 0, found([disk(3, [NAA])]))).toEqual({ leaveOut: [], warnings: [] });
  });

  it('a disk of another worker stays out of a session that is in use, or has moved already', () => {
    const homes = new LoginHomes();
    for (const [key, name] of [
      ['a', NAA],
      ['c', `${NAA.slice(0, -1)}d`],
    ] as const) {
      homes.begun(key, key === 'a' ? 0 : 2);
      homes.place(key, key === 'a' ? 0 : 2, found([disk(0, [name])]));
    }
    homes.begun('b', 1);
    const both = [disk(0, [NAA]), disk(1, [`${NAA.slice(0, -1)}d`]), disk(2, [])];
    expect(homes.place('b', 1, found(both, false))).toMatchObject({ leaveOut: [0, 1] });
    expect(homes.place('b', 1, found(both))).toEqual({ moveTo: 0 });
    homes.over('b', 1);
    expect(homes.place('b', 0, found(both))).toMatchObject({ leaveOut: [1] });
  });

  it('disks that only seem to be one stay where they are, with a warning', () => {
    const homes = new LoginHomes();
    homes.begun('a', 0);
    homes.place('a', 0, found([disk(0, [NAA], 'one'), disk(1, ['t10.IET     00010001'], 's')]));
    const seeming = [disk(0, [NAA], 'two'), disk(1, ['t10.IET     00010001'], 's')];
    expect(homes.place('b', 1, found(seeming))).toEqual({
      leaveOut: [],
      warnings: [
        expect.stringContaining('its serial number is different'),
        expect.stringContaining('they stay two disks. If'),
      ],
    });
  });

  it('a login that has ended is forgotten, but not while a request or a retry is under way', () => {
    const homes = new LoginHomes();
    homes.enter('a', 1);
    homes.begun('a', 1);
    homes.begun('a', 1);
    homes.over('a', 1);
    homes.leave('a');
    expect(homes.workerOf('a')).toBe(1);
    homes.over('a', 1);
    expect(homes.workerOf('a')).toBeUndefined();
  });

  it('the logins of a worker that has died stay its own until they are restored', () => {
    const homes = new LoginHomes();
    for (const key of ['a', 'b']) homes.begun(key, 1);
    homes.lost(1);
    expect(homes.keysOf(1)).toEqual(['a', 'b']);
    homes.begun('a', 1);
    homes.settle(1);
    expect(homes.keysOf(1)).toEqual(['a']);
  });
});

describe('logins that are restored', () => {
  const record = (targetName: string, disks: readonly FoundDisk[], over?: string) =>
    ({
      initiatorName: 'iqn.i',
      sessionType: 'data',
      targetName,
      disks,
      paths: over === undefined ? [] : [{ other: { targetName: over, units: [] } }],
    }) as unknown as SessionRecord;

  it('those with a disk in common go to one worker, the others are spread by their disks', () => {
    const records = [
      record('iqn.a', [disk(0, [NAA])], 'iqn.b'),
      record('iqn.b', []),
      record('iqn.c', [disk(5, [NAA])]),
      record('iqn.d', [disk(0, []), disk(1, []), disk(2, [])]),
      record('iqn.e', [disk(0, [])]),
    ];
    const places = [...spreadOver(records, 2)].sort(([a], [b]) => a.localeCompare(b));
    const [a, b, c, d, e] = places.map(([, worker]) => worker);
    expect([b, c]).toEqual([a, a]);
    expect(d).not.toBe(a);
    expect([a, d]).toContain(e);
  });
});

it('every method of the control socket has a route', () => {
  expect(Object.keys(METHOD_ROUTES).sort()).toEqual([...METHOD_NAMES].sort());
});

it.each([
  [{}, 8, 0],
  [{ workers: 3 }, 1, 3],
  [{ workers: 'auto' as const }, 1, 0],
  [{ workers: 'auto' as const }, 8, 8],
  [{ workers: 'auto' as const, cpuAffinity: [2, 3] }, 8, 2],
])('%j on %i processors makes %i workers', (settings, processors, count) => {
  expect(workerCount(settings, processors)).toBe(count);
});

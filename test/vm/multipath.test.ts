import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startIstgt } from '../helpers/istgt.js';
import { freePort, startTgt } from '../helpers/tgt.js';
import { cleanUp } from './attached.js';
import { attachPaths } from './attached-paths.js';
import { dmMultipath } from './dm-multipath.js';
import { startMeasuredLoad } from './measured-load.js';
import {
  type EventResult,
  IQN,
  OF_BOTH,
  PORTALS,
  pathEvents,
  throughEvents,
} from './path-events.js';
import { MIB } from './targets.js';
import { Wire } from './wire.js';

let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paths-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

const NOOP_S = { interval: 1, timeout: 2 };
/** Of the silent path: longer than what is waited for a sign of life. */
const SILENCE_S = 12;
/** What a busy machine may add, whose processor is one program of ours: no path comes back in it. */
const SLOWNESS_MS = 2000;
const FLAGS = [
  ...['--noop-interval', `${NOOP_S.interval}`, '--noop-timeout', `${NOOP_S.timeout}`],
  ...['--reconnect-interval', '1'],
];

it('no request to a disk of LIO fails or waits for its path, whatever happens to one of two', async () => {
  const events = pathEvents({ silence: SILENCE_S, ping: NOOP_S.interval + NOOP_S.timeout });
  const results = await throughEvents(folder, events, () =>
    attachPaths({ target: IQN, luns: [0, 1] }, OF_BOTH, FLAGS),
  );
  for (const { name, readMs, writeMs, goalMs } of results) {
    console.log(`${name}: longest read ${readMs.toFixed(0)} ms, write ${writeMs.toFixed(0)} ms`);
    expect(readMs, name).toBeLessThan(goalMs + SLOWNESS_MS);
    expect(writeMs, name).toBeLessThan(goalMs + SLOWNESS_MS);
  }
});

const TARGETS = {
  tgt: async () => {
    const tgt = await startTgt({ luns: [{ sizeBytes: 32 * MIB }] });
    const other = `127.0.0.1:${await freePort()}`;
    const add = ['--op', 'new', '--mode', 'portal', '--param', `portal=${other}`];
    await tgt.adm('--lld', 'iscsi', ...add);
    return { target: tgt, portals: [`127.0.0.1:${tgt.port}`, other] as const, lun: 1 };
  },
  istgt: async () => {
    const istgt = await startIstgt({ lunsMiB: [32], hasOtherPortal: true });
    return { target: istgt, portals: [istgt.portal, istgt.otherPortal] as const, lun: 0 };
  },
};

it.each(['tgt', 'istgt'] as const)(
  'no request to a disk of %s with two portals fails while each is cut and the process is killed',
  async (name) => {
    const { target, portals, lun } = await TARGETS[name]();
    await using _target = target;
    const [portal, otherPortal] = portals;
    await using first = await Wire.to(portal);
    await using second = await Wire.to(otherPortal);
    // Neither has states of access.
    const wished = [[portal, 'ready'] as const, [otherPortal, 'ready'] as const];
    const user = await attachPaths({ target: target.iqn, luns: [lun] }, wished, FLAGS);
    await user.untilBothPaths();
    const load = startMeasuredLoad(folder, user.devices[0] ?? '');
    const meanwhile = (work: Promise<void>) => Promise.race([work, load.failed.then(() => work)]);
    await meanwhile(sleep(1000));
    for (const wire of [first, second]) {
      await wire.cut(wire === first ? 'reset' : 'drop');
      await meanwhile(sleep(5000));
      await wire.mend();
      await meanwhile(user.untilBothPaths());
    }
    await first.cut('reset');
    await meanwhile(user.takeOver());
    await meanwhile(sleep(2000));
    await first.mend();
    await meanwhile(user.untilBothPaths());
    await load.end();
    expect(await user.troubles()).toEqual([]);
    await user.end();
  },
);

/** Set by scripts/bench-parts/paths; it takes a kernel with SCSI device handlers, and a while. */
if (process.env['ISCSI_NBD_PATHS_BESIDE'] === '1') {
  it('the longest requests stand beside those of open-iscsi with dm-multipath', async () => {
    // Defaults of ours, of the iscsid.conf that Debian has, and of multipathd.
    const noop = { interval: 5, timeout: 5 };
    const events = pathEvents({ silence: 30, ping: noop.interval + noop.timeout });
    const timeouts = { noopInterval: noop.interval, noopTimeout: noop.timeout, replacement: 5 };
    const users = {
      'dm-multipath': () => dmMultipath(IQN, PORTALS, timeouts),
      'iscsi-nbd': () => attachPaths({ target: IQN, luns: [0, 1] }, OF_BOTH, []),
    };
    const columns: EventResult[][] = [];
    for (const [name, start] of Object.entries(users)) {
      const own = join(folder, name);
      await mkdir(own);
      columns.push(await throughEvents(own, events, start));
      for (const result of columns.at(-1) ?? []) console.log(name, JSON.stringify(result));
    }
    const seconds = (ms = Number.NaN) => (ms / 1000).toFixed(2);
    const rows = events.map(({ name }, index) => {
      const cells = columns.flatMap((column) => [column[index]?.readMs, column[index]?.writeMs]);
      return `| ${[name, ...cells.map(seconds)].join(' | ')} |`;
    });
    const names = Object.keys(users).flatMap((name) => [`${name}: read`, 'write']);
    const head = ['the active path', ...names].join(' | ');
    console.log([`| ${head} |`, '|---|---|---|---|---|', ...rows].join('\n'));
  }, 3_000_000);
}

import { expect, test } from 'vitest';
import { parseTargetUrl } from '../../src/config/target-url.js';
import { discover } from '../../src/session/discovery-session.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { serveUrl } from '../helpers/served.js';
import { sessionOptions } from '../helpers/session-options.js';
import {
  disksOf,
  PROFILE_TARGET,
  TARGET_PROFILES,
  type TargetProfile,
} from '../helpers/target-profiles.js';

/** The machine of a test may be busy; nothing here is about speed. */
const SLOW = 60_000;

async function startProfile(profile: TargetProfile) {
  const { portalGroupTag, faults, negotiation } = profile;
  const target = await embeddedTarget(
    { name: PROFILE_TARGET, luns: disksOf(profile) },
    { faults: faults?.() ?? {}, ...(negotiation === undefined ? {} : { negotiation }) },
  );
  const there = target.node.targets.get(PROFILE_TARGET);
  const { port } = parseTargetUrl(target.url);
  if (there !== undefined && portalGroupTag !== undefined) {
    there.portals = [{ address: '127.0.0.1', port, portalGroupTag }];
  }
  return { ...target, port };
}

test.each(TARGET_PROFILES.map((profile) => [profile.name, profile] as const))(
  '%s: its disk is found, served, verified before and after an outage',
  { timeout: SLOW },
  async (_name, profile) => {
    await using target = await startProfile(profile);
    const { url, port, node } = target;
    const portal = { host: '127.0.0.1', port };
    const found = await discover(portal, sessionOptions(), AbortSignal.timeout(SLOW));
    expect(found.map(({ name, portals }) => [name, portals.map((one) => one.port)])).toEqual([
      [PROFILE_TARGET, [port]],
    ]);

    const { lun = 0, options } = profile;
    await using served = await serveUrl(lun === null ? url : `${url}/${lun}`, options);
    const uri = lun === null ? served.uri.replace('///', '///0') : served.uri;
    const shell = (...lines: string[]) => served.run('nbdsh', '-u', uri, '-c', lines.join('\n'));
    // Long enough for several R2Ts and for a transfer in parts.
    await shell(
      'import random',
      'data = random.Random(1).randbytes(4 << 20)',
      'h.pwrite(data, 0)',
      'assert h.pread(4 << 20, 0) == data',
    );
    const broken = node.stats.connections;
    if (profile.outage === undefined) target.server.dropConnections();
    else profile.outage(target);
    await shell(
      'import random',
      'data = random.Random(1).randbytes(4 << 20)',
      'assert h.pread(4 << 20, 0) == data',
      'h.pwrite(data[::-1], 0)',
      'assert h.pread(4 << 20, 0) == data[::-1]',
      'h.flush()',
    );
    expect(node.stats.connections).toBeGreaterThan(broken);
    expect(node.stats.violations).toEqual([]);
    expect(served.events.some((event) => event.event === 'deviceRemoved')).toBe(false);
    const quirks = served.events.flatMap((event) =>
      event.event === 'targetQuirk' ? [event.quirk] : [],
    );
    expect(quirks.sort()).toEqual(profile.quirks);
  },
);

import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { HostClaims } from '../../src/lun/host-claims.js';
import { newIdentity } from '../../src/session/session-identity.js';

/** Locks are shared with whatever else runs on this machine. */
const targetName = `iqn.2001-04.com.example:${randomBytes(8).toString('hex')}`;
const portal = { host: '192.0.2.1', port: 3260 };
const REFUSED = { code: 'ERR_LUN_IN_USE', exitCode: 15 };
const OPTIONS = { initiatorName: 'iqn.2001-04.com.example:me', readOnly: false };
const taken: HostClaims[] = [];

afterEach(async () => {
  for (const claims of taken.splice(0)) await claims.release();
});

function claims(
  options: { readOnly?: boolean; shared?: boolean; portals?: (typeof portal)[] } = {},
) {
  const { portals = [portal], ...rest } = options;
  const identity = newIdentity();
  const made = new HostClaims({ targetName, portals, identity }, { ...OPTIONS, ...rest });
  taken.push(made);
  return { claims: made, identity };
}

function writer(portals = [portal]): HostClaims {
  return claims({ portals }).claims;
}

describe('HostClaims of a session that may write', () => {
  it('the LUN is refused to another session, with the process and the session that has it', async () => {
    const { claims: first, identity } = claims();
    await first.take(1, null);
    await expect(writer().take(1, null)).rejects.toMatchObject(REFUSED);
    await expect(writer().take(1, null)).rejects.toThrow(
      `Process ${process.pid} has LUN 1 of ${targetName} already, in session ${identity.sessionId}`,
    );
  });

  it('the LUN may be taken again by the session that has it, and by others after it', async () => {
    const first = writer();
    await first.take(1, null);
    await first.take(1, null);
    await first.release();
    await writer().take(1, null);
  });

  it('a session claims the address of its portal after the login, and warns if another session has it', async () => {
    const named = writer([{ host: 'portal.example', port: 3260 }]);
    await named.take(1, null);
    const other = writer([portal]);
    await other.take(1, null);
    const told: string[] = [];
    await named.takeAll([1], portal, (message) => told.push(message));
    expect(told).toEqual([expect.stringContaining('has LUN 1 of')]);
    await other.release();
    await named.takeAll([1], portal, (message) => told.push(message));
    await expect(writer([portal]).take(1, null)).rejects.toMatchObject(REFUSED);
    expect(told.length).toBe(1);
  });

  it('a claim of one LUN leaves the other LUNs free', async () => {
    await writer().take(1, null);
    await writer().take(2, null);
  });

  it('the LUN is the same over any portal that both sessions know, by name or by address', async () => {
    const other = { host: '2001:db8::1', port: 3260 };
    await writer([portal, other]).take(1, null);
    await expect(writer([other]).take(1, null)).rejects.toMatchObject(REFUSED);
    const named = { host: 'storage.example.com', port: 3260 };
    await expect(writer([named]).take(1, portal)).rejects.toMatchObject(REFUSED);
  });

  it('the LUN and the ISID are the same by any spelling of the names', async () => {
    const identity = newIdentity();
    const spelt = (name: string, initiatorName: string, of = newIdentity()) => {
      const subject = { targetName: name, portals: [portal], identity: of };
      const made = new HostClaims(subject, { ...OPTIONS, initiatorName });
      taken.push(made);
      return made;
    };
    await spelt(targetName, OPTIONS.initiatorName, identity).take(1, null);
    const [other, me] = [targetName.toUpperCase(), OPTIONS.initiatorName.toUpperCase()];
    await expect(spelt(other, OPTIONS.initiatorName).take(1, null)).rejects.toMatchObject(REFUSED);
    await expect(spelt(other, me, identity).takeIdentity()).rejects.toMatchObject(REFUSED);
  });

  it('the LUN is free for sessions with readOnly or shared', async () => {
    await writer().take(1, null);
    await claims({ readOnly: true }).claims.take(1, null);
    await claims({ shared: true }).claims.take(1, null);
  });
});

it('two sessions of one ISID, as of a state directory and its copy, never both start', async () => {
  const identity = newIdentity();
  const subject = { targetName, portals: [], identity };
  const [first, copy] = [new HostClaims(subject, OPTIONS), new HostClaims(subject, OPTIONS)];
  taken.push(first, copy);
  await first.takeIdentity();
  await first.takeIdentity();
  await expect(copy.takeIdentity()).rejects.toMatchObject(REFUSED);
  await expect(copy.takeIdentity()).rejects.toThrow(/one state directory is a copy of the other/);
  // Another initiator's name is another identity.
  const other = new HostClaims(subject, { ...OPTIONS, initiatorName: 'iqn.2001-04.com.example:b' });
  taken.push(other);
  await other.takeIdentity();
});

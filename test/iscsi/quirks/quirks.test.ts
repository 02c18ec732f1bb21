import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { QUIRK_ROWS, QuirkLog, type TargetQuirk } from '../../../src/iscsi/quirks/quirks.js';
import { FROM } from '../../helpers/peer-pdu.js';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';
import titles from '../../rfc7143-sections.json' with { type: 'json' };

const SRC = new URL('../../../src/', import.meta.url);
const ROWS = Object.entries(QUIRK_ROWS);

describe('the table of quirks', () => {
  it.each(ROWS)(
    '%s names a section of RFC 7143 and says in sentences what can be done',
    (_, row) => {
      expect(Object.keys(titles)).toContain(row.section);
      expect(row.reason).not.toBe('');
      expect(row.nextStep).toMatch(/^[A-Z].*\.$/);
      expect(row.nextStep).not.toMatch(/update/);
    },
  );

  it('every row has a place in the sources that names it', () => {
    const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' });
    const text = files
      .filter((name) => name.endsWith('.ts') && !name.startsWith('iscsi/quirks/'))
      .map((name) => readFileSync(new URL(name, SRC), 'utf8'))
      .join('\n');
    expect(ROWS.map(([id]) => id).filter((id) => !text.includes(`'${id}'`))).toEqual([]);
  });
});

describe('QuirkLog', () => {
  it('a quirk is reported once, with the words of the first time', () => {
    const told: TargetQuirk[] = [];
    const log = new QuirkLog((quirk) => told.push(quirk));
    log.met('login-isid', 'first');
    log.met('login-isid', 'second');
    expect(told).toEqual([{ quirk: 'login-isid', section: '11.13', what: 'first' }]);
    expect(log.all).toEqual(told);
  });
});

/** Logs in with the ISID of each response zeroed. */
function logInWithoutIsid(peer: ScriptedPeer): void {
  const isid = Buffer.alloc(6);
  for (const lines of [['TargetPortalGroupTag=1', 'AuthMethod=None'], []]) {
    peer.answerLogin(peer.sentOne(FROM.login), { lines, isid });
  }
}

describe('a session with a target that has a quirk', () => {
  it('gotgt answers with ISID 0: the session tells it once over all its connections', () => {
    const peer = ScriptedPeer.started();
    logInWithoutIsid(peer);
    expect(peer.session.state).toBe('loggedIn');
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    logInWithoutIsid(peer);
    expect(peer.session.logins).toBe(2);
    expect(peer.take('targetQuirk')).toMatchObject([{ quirk: 'login-isid', section: '11.13' }]);
    expect(peer.session.quirks.all).toHaveLength(1);
  });
});

describe('a target that breaks the same rule on each connection', () => {
  /** One connection that ends because a Logout Response comes unasked. */
  function breakRule(peer: ScriptedPeer, opcode = 0x26): void {
    peer.send({ opcode });
    expect(peer.session.state).toBe('reconnecting');
    peer.at(peer.session.attemptAtMs);
    peer.login();
  }

  it('three connections without an answered command are reported once, with the reason', () => {
    const peer = ScriptedPeer.loggedIn();
    breakRule(peer);
    breakRule(peer);
    expect(peer.take('stuck')).toEqual([]);
    expect(peer.session.stuckOn).toBeNull();
    breakRule(peer);
    breakRule(peer);
    const [stuck, ...more] = peer.take('stuck');
    expect(more).toEqual([]);
    expect(stuck).toMatchObject({ connections: 3, error: { rule: 'logout-unasked' } });
    expect(peer.session.stuckOn?.message).toMatch(/Logout Response/);
  });

  it('the session keeps trying, and an answered command ends the streak', () => {
    const peer = ScriptedPeer.loggedIn();
    for (let count = 0; count < 3; count += 1) breakRule(peer);
    expect(peer.session.state).toBe('loggedIn');
    peer.submit('none');
    peer.respond(peer.sentOne(FROM.scsiCommand));
    expect(peer.session.stuckOn).toBeNull();
    breakRule(peer);
    breakRule(peer);
    expect(peer.session.stuckOn).toBeNull();
  });

  it('rules of different sections, and links that are cut, are no streak', () => {
    const peer = ScriptedPeer.loggedIn();
    breakRule(peer);
    breakRule(peer);
    breakRule(peer, 0x3a);
    breakRule(peer);
    breakRule(peer);
    peer.loseLink();
    peer.at(peer.session.attemptAtMs);
    peer.login();
    breakRule(peer);
    expect(peer.session.stuckOn).toBeNull();
    expect(peer.take('stuck')).toEqual([]);
  });
});

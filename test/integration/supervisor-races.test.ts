import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { productError } from '../../src/base/errors.js';
import { SessionRecords } from '../../src/supervisor/session-records.js';
import { Supervisor } from '../../src/supervisor/supervisor.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });
const TARGET = 'iqn.2001-04.com.example:race';
const ME = 'iqn.2001-04.com.example:me';

let directory: string;
let server: TargetServer;
let supervisor: Supervisor;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'iscsi-nbd-race-'));
  const luns = { 0: TargetDisk.ram({ sizeBytes: 1 << 20 }) };
  const targets = [{ name: TARGET, luns }];
  server = await startTargetServer(
    new TargetNode({ targets, negotiation: { defaultTime2Wait: 0 } }),
  );
  supervisor = await Supervisor.make({
    surroundings: { environment: {}, stateDirectory: directory },
    exportPlan: { kind: 'sockets', directory },
    loginsMax: 4,
    log: pino({ level: 'silent' }),
  });
});
afterEach(async () => {
  await supervisor.close();
  await server.close();
  rmSync(directory, { recursive: true, force: true });
});

function request() {
  return {
    targetName: TARGET,
    portal: { host: '127.0.0.1', port: server.port },
    sessionType: 'data' as const,
    persistent: false,
    options: { initiatorName: ME },
  };
}

const sockets = () => readdirSync(directory).filter((name) => name.endsWith('.sock'));

test('a login that is faster than the restore of its record is the only session', async () => {
  await new SessionRecords(directory).save({
    version: 2,
    sessionId: '0123456789abcdef',
    isid: '800123456789',
    persistent: true,
    active: false,
    bootId: 'before',
    initiatorName: ME,
    targetName: TARGET,
    sessionType: 'data',
    portal: { host: '127.0.0.1', port: server.port },
    options: {},
    disks: [],
  });
  const login = supervisor.login(request());
  await supervisor.restore();
  const { session } = await login;
  expect(supervisor.sessions.map((one) => one === session)).toEqual([true]);
  await supervisor.logout('0123456789abcdef', { force: false });
  expect(sockets()).toEqual([]);
});

test('a logout during the opening of a session leaves no socket behind', async () => {
  let logout = Promise.resolve();
  const closed = new Promise<void>((resolve) => {
    supervisor.listen(({ event }) => event === 'closed' && resolve());
  });
  const { save } = SessionRecords.prototype;
  let saves = 0;
  vi.spyOn(SessionRecords.prototype, 'save').mockImplementation(async function slow(
    this: SessionRecords,
    record,
  ) {
    saves += 1;
    // The second one is of the disks that were found: writing it takes longer than the logout.
    if (saves === 2) {
      logout = supervisor.logout(record.sessionId, { force: false });
      await closed;
    }
    return save.call(this, record);
  });
  const outcome = await supervisor.login(request()).then(() => 'logged in', productError);
  expect(outcome).toMatchObject({ code: 'ERR_LOGGED_OUT' });
  await logout;
  expect([saves, sockets(), supervisor.sessions.length]).toEqual([2, [], 0]);
  vi.restoreAllMocks();
});

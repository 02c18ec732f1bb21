import { closeSync, fstatSync, openSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { EventBody, ProductEvent } from '../../src/config/contract.js';
import { createLog, isJournal, journalStream, type LogLevel } from '../../src/config/log.js';
import { SessionLogs } from '../../src/daemon/event-log.js';

function logTo(level: LogLevel, wrap: typeof journalStream = (stream) => stream) {
  const stream = new PassThrough();
  const log = createLog({ level, pretty: false, stream: wrap(stream) });
  const lines = () =>
    String(stream.read() ?? '')
      .trimEnd()
      .split('\n');
  return { log, lines };
}

describe("the daemon's log", () => {
  const sessionId = '0123456789abcdef';
  const event = (body: EventBody): ProductEvent => ({
    ...body,
    time: '2025-01-01T00:00:00Z',
    sessionId,
  });

  it('a log line has the session, its target and the LUN of the event, once each', () => {
    const { log, lines } = logTo('info');
    const logs = new SessionLogs(log, (id) =>
      id === sessionId ? 'iqn.2001-04.com.example:a' : '',
    );
    logs.write(event({ event: 'sessionState', from: 'loggingIn', to: 'loggedIn', reason: 'x' }));
    logs.write(event({ event: 'deviceRemoved', lun: 7, device: '/dev/nbd3', reason: 'away' }));
    const [state = '', removed = ''] = lines();
    const target = 'iqn.2001-04.com.example:a';
    expect(JSON.parse(state)).toMatchObject({ level: 30, sessionId, target, to: 'loggedIn' });
    expect(JSON.parse(state)).not.toHaveProperty('lun');
    expect(JSON.parse(removed)).toMatchObject({
      level: 50,
      sessionId,
      target,
      lun: 7,
      device: '/dev/nbd3',
    });
    for (const key of ['sessionId', 'target', 'lun', 'time']) {
      expect(removed.split(`"${key}":`), key).toHaveLength(2);
    }
  });

  it('a log line has no secret that is in its fields', () => {
    const { log, lines } = logTo('trace');
    const hidden = { secret: 'hunter2', password: 'hunter2', response: 'hunter2' };
    log.trace({ ...hidden, chap: { secret: 'hunter2' }, a: { b: hidden } }, 'x');
    log.child({ options: { chap: hidden } }).error({ err: new Error('x') }, 'y');
    const text = lines().join();
    expect(text).toContain('[secret]');
    expect(text).not.toContain('hunter2');
  });
});

describe('the log on a terminal', () => {
  const written = (hasColor: boolean, write: (log: ReturnType<typeof createLog>) => void) => {
    const stream = new PassThrough();
    write(createLog({ level: 'debug', pretty: { hasColor }, stream }));
    return String(stream.read());
  };

  it('a line for a person has the time, the level and the message, without fields', () => {
    expect(written(false, (log) => log.info({ lun: 7 }, 'ready'))).toMatch(
      /^\[\d\d:\d\d:\d\d\] INFO: ready\n$/,
    );
    expect(written(true, (log) => log.warn('slow'))).toContain('\u001b[33mWARN\u001b[39m: slow');
    expect(written(false, (log) => log.debug('x') ?? log.error('y'))).toMatch(
      /DEBUG: x\n.*ERROR: y\n$/,
    );
  });

  it('a line for a person has the stack of an error', () => {
    const text = written(false, (log) => log.error({ err: new Error('why') }, 'it broke'));
    expect(text).toMatch(/ERROR: it broke\nError: why\n {4}at /);
  });

  it('a message cannot move the cursor', () => {
    expect(written(false, (log) => log.info('a\u001b[2Jb\u0007'))).toMatch(/INFO: a\?\[2Jb\?\n$/);
  });
});

describe('the log in the journal', () => {
  it('a line begins with the priority of syslog (sd-daemon(3)) of its pino level', () => {
    const { log, lines } = logTo('trace', journalStream);
    log.error('e');
    log.warn('w');
    log.info('i');
    log.debug('d');
    // LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG of syslog(3).
    expect(lines().map((line) => line.slice(0, 4))).toEqual(['<3>{', '<4>{', '<6>{', '<7>{']);
  });

  it('JOURNAL_STREAM counts only if it names the stream that is written (systemd.exec(5))', () => {
    const file = openSync('/dev/null', 'r');
    const { dev, ino } = fstatSync(file);
    const names = [`${dev}:${ino}`, `${dev}:${ino + 1}`, '', undefined];
    expect(names.map((name) => isJournal(name, file))).toEqual([true, false, false, false]);
    closeSync(file);
  });
});

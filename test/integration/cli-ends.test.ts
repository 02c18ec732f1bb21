import { afterEach, describe, expect, it } from 'vitest';
import { lazyBackend } from '../../src/cli/backend.js';
import { CliRun } from '../cli/fake-io.js';
import { HOSTILE_NAME, type HostileOptions, HostileTarget } from '../helpers/hostile-target.js';
import { FROM, type InitiatorPdu, OP } from '../helpers/peer-pdu.js';

/** When and how the commands that ask a target end, whatever the target does. */

const SLOW = 60_000;
const OPERATION = { inquiry: 0x12, reportLuns: 0xa0, readCapacity16: 0x9e } as const;
/** One login and one outage: this is how long a question may take. */
const TIMES = ['--login-timeout', '1', '--removal-latency', '1', '--reconnect-interval', '0.1'];

const targets: HostileTarget[] = [];
afterEach(async () => {
  for (const target of targets.splice(0)) await target[Symbol.asyncDispose]();
});

async function start(options: HostileOptions): Promise<HostileTarget> {
  const target = await HostileTarget.start({ keys: { DefaultTime2Wait: '0' }, ...options });
  targets.push(target);
  return target;
}

function command(target: HostileTarget, name: string, ...flags: readonly string[]): CliRun {
  const url = `iscsi://127.0.0.1:${target.port}/${HOSTILE_NAME}/0`;
  return new CliRun([name, url, ...flags], lazyBackend);
}

/** A target that reads every request after the login and answers none. */
async function silentTarget() {
  let asked = () => {};
  const isAsked = new Promise<void>((resolve) => {
    asked = resolve;
  });
  const target = await start({
    fullFeature: () => {
      asked();
      return true;
    },
  });
  return { target, isAsked };
}

const isCommand = (pdu: InitiatorPdu, operation: number) =>
  pdu.opcode === FROM.scsiCommand && pdu.header[32] === operation;

describe('a command that asks a target', { timeout: SLOW }, () => {
  it.each([
    ['luns', OPERATION.reportLuns],
    ['inquiry', OPERATION.inquiry],
  ])(
    '%s ends after one login and one outage if the link drops at each command',
    async (name, operation) => {
      const target = await start({
        fullFeature: (pdu, link) => {
          if (!isCommand(pdu, operation)) return false;
          link.socket.destroy();
          return true;
        },
      });
      const startedAt = performance.now();
      const run = command(target, name, ...TIMES);
      expect(await run.result).toBe(11);
      expect(performance.now() - startedAt).toBeLessThan(10_000);
      expect(target.links.length).toBeGreaterThan(2);
      expect(run.err).toMatch(/No answer came within 2 s, over all reconnects: .*closed/);
    },
  );

  it.each(['luns', 'inquiry', 'capacity', 'ping'])(
    '%s ends after one login and one outage if the target does not answer',
    async (name) => {
      const target = await start({ fullFeature: () => true });
      const run = command(target, name, ...TIMES, '--noop-interval', '0');
      expect(await run.result).toBe(11);
      expect(run.err).toMatch(/no answer came within 2 s/i);
    },
  );

  it.each(['SIGINT', 'SIGTERM'] as const)(
    'luns ends at the first %s while the link drops at each command',
    async (signal) => {
      let reached = () => {};
      const isReached = new Promise<void>((resolve) => {
        reached = resolve;
      });
      const target = await start({
        fullFeature: (pdu, link) => {
          if (!isCommand(pdu, OPERATION.reportLuns)) return false;
          link.socket.destroy();
          if (target.links.length === 3) reached();
          return true;
        },
      });
      const run = command(target, 'luns', '--reconnect-interval', '0.1');
      await isReached;
      run.signals.emit(signal);
      expect(await run.result).toBe(signal === 'SIGINT' ? 130 : 143);
      expect(run.err).toBe('iscsi-nbd: Interrupted before it was done.\n');
    },
  );

  it.each(['luns', 'inquiry', 'capacity', 'ping'])(
    '%s ends at the first SIGTERM while the target does not answer, also not to the logout',
    async (name) => {
      const { target, isAsked } = await silentTarget();
      const run = command(target, name, '--noop-interval', '0');
      await isAsked;
      const signalledAt = performance.now();
      run.signals.emit('SIGTERM');
      expect(await run.result).toBe(143);
      expect(performance.now() - signalledAt).toBeLessThan(5_000);
    },
  );

  it.each([
    ['at the first SIGTERM', ['SIGTERM'], 143],
    ['at the first SIGINT', ['SIGINT'], 130],
  ] as const)(
    'serve that is looking for its disks ends %s while the target does not answer, also not to the logout',
    async (_name, [signal], status) => {
      const { target, isAsked } = await silentTarget();
      const run = command(target, 'serve', '--run', 'true', '--noop-interval', '0');
      await isAsked;
      const signalledAt = performance.now();
      run.signals.emit(signal);
      expect(await run.result).toBe(status);
      expect(performance.now() - signalledAt).toBeLessThan(2000);
    },
  );

  it('serve ends with the reason of the last connection if the link drops at each command', async () => {
    const target = await start({
      fullFeature: (_pdu, link) => {
        link.socket.destroy();
        return true;
      },
    });
    const startedAt = performance.now();
    const run = command(target, 'serve', '--run', 'true', ...TIMES);
    expect(await run.result).toBe(4);
    expect(run.err).toMatch(/The connection went before the answer: .*closed/);
    expect(performance.now() - startedAt).toBeLessThan(10_000);
  });

  it.each(['capacity', 'serve'])(
    '%s says which rule the target has broken, and not that a firewall may be in the way',
    async (name) => {
      const target = await start({
        fullFeature: (pdu, link) => {
          if (!isCommand(pdu, OPERATION.readCapacity16)) return false;
          link.send({
            opcode: OP.dataIn,
            itt: pdu.itt,
            flags: 0,
            word40: 4096,
            data: Buffer.alloc(4),
          });
          return true;
        },
      });
      const run = command(target, name, ...(name === 'serve' ? ['--run', 'true'] : []));
      expect(await run.result).toBe(4);
      expect(run.err).toMatch(/The connection went before the answer: .*\(RFC 7143 §11\.7\)/);
      expect(run.err).not.toMatch(/firewall|address and port/);
      expect(run.err).toMatch(/report this message to its vendor/);
    },
  );
});

import { existsSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { LinkError } from '../../src/base/errors.js';
import type { ProductEvent, SessionHooks } from '../../src/config/contract.js';
import { CliRun, FakeStack, fakeBackend, NAME, temporaryDirectory, URL_LUN0 } from './fake-io.js';

const FACTS = { lun: 0, sizeBytes: 1_073_741_824, blockSizeBytes: 512, readOnly: false };
const reconnecting: ProductEvent = {
  event: 'sessionState',
  time: '2025-01-01T00:00:00.000Z',
  sessionId: '0123456789abcdef',
  from: 'loggedIn',
  to: 'reconnecting',
  reason: 'the connection was reset',
};

function serveWith(argv: readonly string[], stack: FakeStack, early: readonly ProductEvent[] = []) {
  const seen: { hooks?: SessionHooks; socketPath?: string } = {};
  const backend = fakeBackend({
    serve: async (_url, options, hooks) => {
      seen.hooks = hooks;
      seen.socketPath = options.socketPath;
      for (const event of early) hooks.onEvent(event);
      return stack;
    },
    attach: async (_url, _options, hooks) => {
      seen.hooks = hooks;
      return stack;
    },
  });
  return { cli: new CliRun(argv, backend), seen };
}

const socketStack = () => new FakeStack([{ ...FACTS, socket: '/s' }]);

describe('serve', () => {
  it('serve prints one line when it is ready, and exits with 0 after SIGTERM', async () => {
    const stack = socketStack();
    const { cli } = serveWith(['serve', URL_LUN0, '--socket', '/s'], stack);
    expect(await cli.lines(1)).toEqual([
      `serving ${URL_LUN0} at nbd+unix:///?socket=/s (1.0 GiB, 512-byte blocks)`,
    ]);
    cli.signals.emit('SIGTERM');
    expect(await cli.result).toBe(0);
    expect(stack.closeCalls).toEqual([false]);
    expect(cli.signals.eventNames()).toEqual([]);
  });

  it('serve --json prints ready first, even if events came before it', async () => {
    const stack = socketStack();
    const argv = ['serve', URL_LUN0, '--socket', '/s', '--json'];
    const { cli, seen } = serveWith(argv, stack, [{ ...reconnecting, to: 'loggedIn' }]);
    await cli.lines(2);
    seen.hooks?.onEvent(reconnecting);
    const objects = (await cli.lines(3)).map((line) => JSON.parse(line));
    expect(objects[0]).toEqual({
      event: 'ready',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      sessionId: '0123456789abcdef',
      socket: '/s',
      uri: 'nbd+unix:///?socket=/s',
      ...FACTS,
    });
    expect(objects[1]).toMatchObject({ event: 'sessionState', to: 'loggedIn' });
    expect(objects[2]).toEqual(reconnecting);
    cli.signals.emit('SIGINT');
    expect(await cli.result).toBe(0);
  });

  it('serve prints the error alone, in one line, if it never becomes ready', async () => {
    const backend = fakeBackend({
      serve: async (_url, _options, hooks) => {
        hooks.onEvent(reconnecting);
        throw new LinkError('ECONNREFUSED', 'no connection to 192.0.2.1');
      },
    });
    const cli = new CliRun(['serve', URL_LUN0, '--socket', '/s'], backend);
    expect(await cli.result).toBe(4);
    expect(cli.err).toMatch(/^iscsi-nbd: No connection to 192\.0\.2\.1.*\n$/);
  });

  it('serve without --json prints events in words to standard error', async () => {
    const { cli, seen } = serveWith(['serve', URL_LUN0, '--socket', '/s'], socketStack());
    await cli.lines(1);
    seen.hooks?.onEvent(reconnecting);
    cli.signals.emit('SIGINT');
    await cli.result;
    expect(cli.err).toMatch(/loggedIn → reconnecting: the connection was reset/);
  });

  it('a second signal forces the end at once', async () => {
    const stack = socketStack();
    stack.hangs = true;
    const { cli } = serveWith(['serve', URL_LUN0, '--socket', '/s'], stack);
    await cli.lines(1);
    cli.signals.emit('SIGINT');
    cli.signals.emit('SIGINT');
    expect(await cli.result).toBe(0);
    expect(stack.closeCalls).toEqual([false, true]);
  });

  it('serve exits with 130, as a shell shows it, if SIGINT comes before it is ready', async () => {
    const backend = fakeBackend({
      serve: (_url, _options, hooks) =>
        new Promise((_resolve, reject) => {
          hooks.signal.addEventListener('abort', () => reject(hooks.signal.reason));
        }),
    });
    const cli = new CliRun(['serve', URL_LUN0, '--socket', '/s'], backend);
    while (cli.signals.listenerCount('SIGINT') === 0) await new Promise(setImmediate);
    cli.signals.emit('SIGINT');
    expect(await cli.result).toBe(130);
  });

  it('serve exits with the status of the error that ends its session', async () => {
    const stack = socketStack();
    const { cli } = serveWith(['serve', URL_LUN0, '--socket', '/s'], stack);
    await cli.lines(1);
    stack.end(new LinkError('ECONNRESET', 'gone'));
    expect(await cli.result).toBe(4);
    expect(cli.err).toMatch(/gone/);
  });
});

describe('serve --run', () => {
  it('serve --run passes $uri and $socket, exits with the status of the command, and cleans up', async () => {
    const directory = temporaryDirectory();
    const file = join(directory, 'seen');
    const stack = socketStack();
    const command = `printf '%s %s' "$uri" "$socket" > ${file}; exit 42`;
    const { cli, seen } = serveWith(['serve', URL_LUN0, '--run', command], stack);
    expect(await cli.result).toBe(42);
    expect(readFileSync(file, 'utf8')).toBe('nbd+unix:///?socket=/s /s');
    expect(stack.closeCalls).toEqual([false]);
    expect(seen.socketPath).toMatch(/\/iscsi-nbd-[^/]+\/nbd\.sock$/);
    expect(existsSync(dirname(seen.socketPath ?? ''))).toBe(false);
    rmSync(directory, { recursive: true });
  });

  it('serve --run leaves standard output to the command', async () => {
    const { cli } = serveWith(['serve', URL_LUN0, '--run', 'true'], socketStack());
    expect(await cli.result).toBe(0);
    expect(cli.out).toBe('');
    expect(cli.err).toContain('serving iscsi://');
  });

  it('serve --run forwards SIGTERM, and exits with 128 + its number', async () => {
    const { cli } = serveWith(['serve', URL_LUN0, '--run', 'exec sleep 100'], socketStack());
    while (cli.err === '') await new Promise(setImmediate);
    cli.signals.emit('SIGTERM');
    expect(await cli.result).toBe(143);
  });

  it('serve --run ends the command when the session ends with an error', async () => {
    const stack = socketStack();
    const { cli } = serveWith(['serve', URL_LUN0, '--run', 'exec sleep 100'], stack);
    while (cli.err === '') await new Promise(setImmediate);
    stack.end(new LinkError('ECONNRESET', 'gone'));
    expect(await cli.result).toBe(4);
  });
});

describe('attach', () => {
  it('attach prints a line per device', async () => {
    const stack = new FakeStack([
      { ...FACTS, device: '/dev/nbd0' },
      { ...FACTS, lun: 1, device: '/dev/nbd1' },
    ]);
    const { cli } = serveWith(['attach', `iscsi://192.0.2.1/${NAME}`], stack);
    expect(await cli.lines(2)).toEqual([
      `/dev/nbd0  1.0 GiB  ${URL_LUN0}`,
      `/dev/nbd1  1.0 GiB  iscsi://192.0.2.1/${NAME}/1`,
    ]);
    cli.signals.emit('SIGINT');
    expect(await cli.result).toBe(0);
  });

  it('attach --boot makes a Boot session', async () => {
    let type = '';
    const backend = fakeBackend({
      attach: async (_url, options) => {
        type = `${options.sessionType} ${options.boot}`;
        throw new LinkError('ECONNREFUSED', 'x');
      },
    });
    const cli = new CliRun(['attach', URL_LUN0, '--boot'], backend);
    expect(await cli.result).toBe(4);
    expect(type).toBe('boot true');
  });
});

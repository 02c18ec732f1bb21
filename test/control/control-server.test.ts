import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import type { CallMethod, ControlClient } from '../../src/control/control-connection.js';
import { ControlServer } from '../../src/control/control-server.js';

/** A client that is as raw as can be: bytes out, lines in. */
class RawClient {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  text = '';

  constructor(path: string) {
    this.socket = connect(path);
    this.socket.on('data', (chunk) => {
      this.text += chunk;
    });
    this.socket.on('error', () => {});
    this.closed = new Promise((resolve) => this.socket.on('close', () => resolve()));
  }

  send(text: string): void {
    this.socket.write(text);
  }

  async line(number = 1): Promise<Record<string, unknown>> {
    await until(() => this.text.split('\n').length > number);
    return JSON.parse(this.text.split('\n')[number - 1] ?? '');
  }

  async code(number = 1): Promise<unknown> {
    return ((await this.line(number))['error'] as { code: number } | undefined)?.code;
  }
}

async function until(condition: () => boolean, timeoutMs = 15_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error('it did not come about in time');
    await sleep(5);
  }
}

const echo = (id: unknown, value = 1) =>
  `${JSON.stringify({ jsonrpc: '2.0', id, method: 'echo', params: { value } })}\n`;

let directory: string;
let path: string;
let server: ControlServer;
let subscribers: ControlClient[];
let calls: number;
let failures: unknown[];
let release: () => void;

const call: CallMethod = async (request, client) => {
  calls += 1;
  switch (request.method) {
    case 'echo':
      return request.params['value'];
    case 'big':
      return 'x'.repeat(500_000);
    case 'subscribe':
      subscribers.push(client);
      client.onGone(() => subscribers.splice(subscribers.indexOf(client), 1));
      return {};
    case 'wait':
      await new Promise<void>((resolve) => {
        const before = release;
        release = () => {
          before();
          resolve();
        };
      });
      return 'waited';
    case 'refuse':
      throw new UsageError('no such thing', { exitCode: 21, code: 'ERR_NOTHING' });
    default:
      throw new TypeError('secret detail');
  }
};

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'control-'));
  path = join(directory, 'run', 'control.sock');
  subscribers = [];
  calls = 0;
  failures = [];
  release = () => {};
  server = new ControlServer({ path, call, onFailure: (error) => failures.push(error) });
  await server.listen();
});

afterEach(async () => {
  await server.close();
  rmSync(directory, { recursive: true, force: true });
});

describe('the control socket', () => {
  it('the socket is for its owner only (mode 0600), from its creation', () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('the socket is removed by close', async () => {
    await server.close();
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });

  it('the socket of a living daemon is not taken over (exit status 28)', async () => {
    const other = new ControlServer({ path, call, onFailure: () => {} });
    await expect(other.listen()).rejects.toMatchObject({ exitCode: 28 });
  });

  it('the socket of a dead daemon is taken over', async () => {
    const stale = join(directory, 'stale.sock');
    const { spawnSync } = await import('node:child_process');
    const script = `require('net').createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 9))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(statSync(stale).isSocket()).toBe(true);
    const other = new ControlServer({ path: stale, call, onFailure: () => {} });
    await other.listen();
    const client = new RawClient(stale);
    client.send(echo(1));
    expect(await client.line()).toEqual({ jsonrpc: '2.0', id: 1, result: 1 });
    await other.close();
  });

  it('a file is not replaced unless it is a socket', async () => {
    const file = join(directory, 'file');
    writeFileSync(file, 'precious');
    const other = new ControlServer({ path: file, call, onFailure: () => {} });
    await expect(other.listen()).rejects.toMatchObject({ exitCode: 7 });
  });
});

describe('a request (JSON-RPC 2.0)', () => {
  it('a response has the id of its request, be it a number, a text or null', async () => {
    const client = new RawClient(path);
    client.send(echo(7) + echo('seven') + echo(null));
    expect((await client.line(1))['id']).toBe(7);
    expect((await client.line(2))['id']).toBe('seven');
    expect((await client.line(3))['id']).toBe(null);
  });

  it('a request without an id is executed without a response', async () => {
    const client = new RawClient(path);
    client.send(echo(undefined) + echo(2));
    expect(await client.line(1)).toEqual({ jsonrpc: '2.0', id: 2, result: 1 });
    expect(calls).toBe(2);
  });

  it('a request may arrive in any pieces, down to single bytes', async () => {
    const client = new RawClient(path);
    for (const byte of echo(1)) {
      client.send(byte);
      await new Promise(setImmediate);
    }
    expect(await client.line()).toEqual({ jsonrpc: '2.0', id: 1, result: 1 });
  });

  it.each([
    ['no JSON', 'hello', -32700],
    ['half an object', '{"jsonrpc":"2.0"', -32700],
    ['a number', '42', -32600],
    ['null', 'null', -32600],
    ['no version', '{"id":1,"method":"echo"}', -32600],
    ['another version', '{"jsonrpc":"1.0","id":1,"method":"echo"}', -32600],
    ['no method', '{"jsonrpc":"2.0","id":1}', -32600],
    ['a batch', '[{"jsonrpc":"2.0","id":1,"method":"echo"}]', -32600],
    ['an object for an id', '{"jsonrpc":"2.0","id":{},"method":"echo"}', -32600],
    ['params by position', '{"jsonrpc":"2.0","id":1,"method":"echo","params":[1]}', -32602],
    ['100,000 brackets', '['.repeat(100_000), -32700],
    ['bytes that are no UTF-8', '\u0000\uffff', -32700],
  ])(
    'a request with %s is rejected with the code of the standard, and the next is served',
    async (...row) => {
      const [, text, code] = row;
      const client = new RawClient(path);
      client.send(`${text}\n${echo(5)}`);
      expect(await client.code(1)).toBe(code);
      expect(await client.line(2)).toEqual({ jsonrpc: '2.0', id: 5, result: 1 });
    },
  );

  it('a request that fails reports the error with its exit status', async () => {
    const client = new RawClient(path);
    client.send('{"jsonrpc":"2.0","id":1,"method":"refuse"}\n');
    const { error } = await client.line();
    expect(error).toMatchObject({
      code: -32000,
      message: 'no such thing',
      data: { exitCode: 21, code: 'ERR_NOTHING' },
    });
  });

  it('an internal error is reported to the log, not to the client', async () => {
    const client = new RawClient(path);
    client.send('{"jsonrpc":"2.0","id":1,"method":"break"}\n');
    expect(await client.code()).toBe(-32603);
    expect(client.text).not.toContain('secret detail');
    expect(failures).toHaveLength(1);
  });
});

describe('a misbehaving client of the control socket', () => {
  it('a client that disconnects in the middle of a message is removed', async () => {
    const client = new RawClient(path);
    client.send('{"jsonrpc":"2.0","id":1,"met');
    await until(() => server.clientCount === 1);
    client.socket.destroy();
    await until(() => server.clientCount === 0);
    expect(calls).toBe(0);
  });

  it('a line of 100 MB is rejected, the client is disconnected, and memory stays bounded', async () => {
    const before = process.memoryUsage.rss();
    const client = new RawClient(path);
    const chunk = 'x'.repeat(1 << 20);
    for (let sent = 0; sent < 100 && !client.socket.destroyed; sent += 1) {
      const hasRoom = client.socket.write(chunk);
      if (!hasRoom) {
        await Promise.race([
          new Promise((resolve) => client.socket.once('drain', resolve)),
          client.closed,
        ]);
      }
    }
    await client.closed;
    expect(await client.code()).toBe(-32600);
    expect(process.memoryUsage.rss() - before).toBeLessThan(150 << 20);
    const other = new RawClient(path);
    other.send(echo(1));
    expect(await other.line()).toMatchObject({ result: 1 });
  });

  it('a line just within the bound is served', async () => {
    const client = new RawClient(path);
    client.send(
      `${echo(1)
        .trimEnd()
        .padEnd(1 << 20)}\n`,
    );
    expect(await client.line()).toMatchObject({ result: 1 });
  });

  it('connections beyond the bound are rejected, and the others are served', async () => {
    const first = new RawClient(path);
    first.send(echo(1));
    await first.line();
    const crowd = Array.from({ length: 1000 }, () => new RawClient(path));
    await until(() => server.clientCount === 128);
    await Promise.all(crowd.slice(200).map((client) => client.closed));
    expect(crowd.some((client) => client.text.includes('-32001'))).toBe(true);
    first.send(echo(2));
    expect(await first.line(2)).toMatchObject({ id: 2, result: 1 });
    for (const client of crowd) client.socket.destroy();
    await until(() => server.clientCount === 1);
    const late = new RawClient(path);
    late.send(echo(1));
    expect(await late.line()).toMatchObject({ result: 1 });
  });

  it('requests beyond the maximum of pending ones wait in the socket', async () => {
    const client = new RawClient(path);
    const wait = '{"jsonrpc":"2.0","id":1,"method":"wait"}\n';
    client.send(wait.repeat(100));
    await until(() => calls === 16);
    await sleep(50);
    expect(calls).toBe(16);
    const timer = setInterval(() => release(), 5);
    await until(() => client.text.split('\n').length === 101);
    clearInterval(timer);
    expect(calls).toBe(100);
  });

  it('a client that never reads its responses is not read, and costs a bounded memory', async () => {
    const client = new RawClient(path);
    client.socket.pause();
    client.send('{"jsonrpc":"2.0","id":1,"method":"big"}\n'.repeat(60));
    await until(() => calls > 0);
    await sleep(200);
    expect(calls).toBeLessThan(40);
    const other = new RawClient(path);
    other.send(echo(1));
    expect(await other.line()).toMatchObject({ result: 1 });
    client.socket.resume();
    await until(() => client.text.length > 29_000_000, 60_000);
  });

  it('a subscriber that never reads is dropped, and the others get every event', async () => {
    const deaf = new RawClient(path);
    deaf.socket.pause();
    const good = new RawClient(path);
    for (const client of [deaf, good]) {
      client.send('{"jsonrpc":"2.0","id":1,"method":"subscribe"}\n');
    }
    await until(() => subscribers.length === 2);
    const text = 'x'.repeat(10_000);
    for (let count = 0; count < 2000; count += 1) {
      for (const client of [...subscribers]) client.notify('event', { count, text });
      if (count % 20 === 0) await sleep(1);
    }
    await until(() => subscribers.length === 1);
    await until(() => good.text.split('\n').length === 2002, 30_000);
    expect(await good.line(2001)).toMatchObject({ params: { count: 1999 } });
  });

  it('a client that never reads does not delay the close of the server', async () => {
    const client = new RawClient(path);
    client.socket.pause();
    client.send('{"jsonrpc":"2.0","id":1,"method":"big"}\n'.repeat(10));
    await until(() => calls > 0);
    await server.close();
    await until(() => server.clientCount === 0);
  });
});

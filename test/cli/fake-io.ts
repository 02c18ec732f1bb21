import { EventEmitter, once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { CliIo } from '../../src/cli/context.js';
import { runCli } from '../../src/cli/program.js';
import type {
  Backend,
  InformationalSession,
  OpenSession,
  ScsiAnswer,
  ScsiRequest,
  SessionHooks,
} from '../../src/config/contract.js';

export const NAME = 'iqn.2001-04.com.example:disk1';
export const URL_LUN0 = `iscsi://192.0.2.1/${NAME}/0`;

function unexpected(): never {
  throw new Error('the data path was not expected to be used');
}

/** A data path where every call that a test does not replace is an error. */
export function fakeBackend(parts: Partial<Backend>): Backend {
  const none = async () => unexpected();
  return {
    discover: none,
    openInformational: none,
    serve: none,
    attach: none,
    bootTest: none,
    runDemo: none,
    check: none,
    ...parts,
  };
}

/** A session that answers each CDB with the first answer whose key begins its hex. */
export function fakeSession(answers: Record<string, ScsiAnswer | ScsiAnswer[]>): {
  session: InformationalSession;
  requests: ScsiRequest[];
  closed: () => boolean;
} {
  const requests: ScsiRequest[] = [];
  let isClosed = false;
  const session: InformationalSession = {
    sessionId: '0123456789abcdef',
    async execute(request) {
      requests.push(request);
      const hex = request.cdb.toString('hex');
      const key = Object.keys(answers).find((start) => hex.startsWith(start));
      const found = key === undefined ? undefined : answers[key];
      const answer = Array.isArray(found) ? found.shift() : found;
      return answer ?? unexpected();
    },
    ping: async () => 1.5,
    close: async () => {
      isClosed = true;
    },
  };
  return { session, requests, closed: () => isClosed };
}

export function good(hex: string): ScsiAnswer {
  const data = Buffer.from(hex.replaceAll(' ', ''), 'hex');
  return { status: 0, data, sense: Buffer.alloc(0) };
}

/** CHECK CONDITION with fixed format sense: 18 bytes, key in 2, ASC in 12, ASCQ in 13. */
export function check(senseKey: number, asc: number, ascq: number): ScsiAnswer {
  const sense = Buffer.alloc(18);
  sense[0] = 0x70;
  sense[2] = senseKey;
  sense[7] = 10;
  sense[12] = asc;
  sense[13] = ascq;
  return { status: 2, data: Buffer.alloc(0), sense };
}

export class FakeStack implements OpenSession {
  readonly sessionId = '0123456789abcdef';
  readonly exports: OpenSession['exports'];
  readonly closeCalls: boolean[] = [];
  readonly closed: Promise<void>;
  /** Ends the stack from its own side. */
  end!: (error?: Error) => void;
  hangs = false;

  constructor(exports: OpenSession['exports']) {
    this.exports = exports;
    this.closed = new Promise((resolve, reject) => {
      this.end = (error) => (error ? reject(error) : resolve());
    });
  }

  close(options?: { readonly force?: boolean }): Promise<void> {
    const force = options?.force ?? false;
    this.closeCalls.push(force);
    if (this.hangs && !force) return new Promise(() => {});
    this.end();
    return Promise.resolve();
  }
}

export class CliRun {
  readonly signals = new EventEmitter();
  readonly stdout = new PassThrough();
  readonly stderr = new PassThrough();
  readonly result: Promise<number>;
  out = '';
  err = '';

  constructor(argv: readonly string[], backend: Backend, environment: Record<string, string> = {}) {
    this.stdout.on('data', (chunk) => {
      this.out += chunk;
    });
    this.stderr.on('data', (chunk) => {
      this.err += chunk;
    });
    const io: CliIo = {
      stdin: new PassThrough(),
      stdout: this.stdout,
      stderr: this.stderr,
      environment: { PATH: process.env['PATH'] ?? '', ...environment },
      signals: this.signals,
    };
    const named = argv.includes('explain') || argv.includes('demo') || argv.length < 2;
    const name = named ? [] : ['--initiator-name', 'iqn.2001-04.com.example:me'];
    this.result = runCli([...argv, ...name], io, backend);
  }

  /** Waits until standard output has `count` whole lines. */
  async lines(count: number): Promise<string[]> {
    while (this.out.split('\n').length <= count) await once(this.stdout, 'data');
    return this.out.split('\n').slice(0, count);
  }
}

export async function run(
  argv: readonly string[],
  parts: Partial<Backend> = {},
  environment: Record<string, string> = {},
): Promise<{ code: number; out: string; err: string }> {
  const cli = new CliRun(argv, fakeBackend(parts), environment);
  const code = await cli.result;
  return { code, out: cli.out, err: cli.err };
}

export function temporaryDirectory(): string {
  return mkdtempSync(join(tmpdir(), 'cli-test-'));
}

export type { SessionHooks };

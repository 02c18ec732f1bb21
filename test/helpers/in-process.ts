/** `serve` in the process of the test: its options, its events, and clients that judge the disk. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenSession, ProductEvent, SessionOptions } from '../../src/config/contract.js';
import { serve } from '../../src/supervisor/serve.js';
import { run } from './served-disk.js';
import { sessionOptions } from './session-options.js';

export const SESSION_OPTIONS: SessionOptions = sessionOptions({
  reconnectIntervalSeconds: 1,
  loginTimeoutSeconds: 10,
  queueDepthMax: 64,
  heldBytesMax: 32 << 20,
  firstBurstLength: 65_536,
  maxOutstandingR2T: 4,
});

export class InProcessDisk {
  readonly events: ProductEvent[] = [];
  readonly folder: string;
  readonly #stack: OpenSession;

  private constructor(folder: string, stack: OpenSession, events: ProductEvent[]) {
    this.folder = folder;
    this.#stack = stack;
    this.events = events;
  }

  /** Rejects with the error of the login. */
  static async start(
    url: { readonly port: number; readonly targetName: string; readonly lun: number | null },
    options: Partial<SessionOptions> = {},
    signal: AbortSignal = AbortSignal.timeout(60_000),
  ): Promise<InProcessDisk> {
    const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-in-process-'));
    const events: ProductEvent[] = [];
    try {
      const stack = await serve(
        { host: '127.0.0.1', ...url },
        { ...SESSION_OPTIONS, ...options, socketPath: join(folder, 'nbd.sock') },
        { onEvent: (event) => events.push(event), signal },
      );
      return new InProcessDisk(folder, stack, events);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  get uri(): string {
    return this.uriOf('');
  }

  uriOf(name: string): string {
    return `nbd+unix:///${name}?socket=${join(this.folder, 'nbd.sock')}`;
  }

  /** Random bytes written with nbdcopy and read back through a second connection. */
  async verify(name = '', sizeBytes = 3 << 20): Promise<void> {
    const source = join(this.folder, `source${name}`);
    const copy = join(this.folder, `copy${name}`);
    await writeFile(source, randomBytes(sizeBytes));
    const many = ['--requests=16', '--request-size=262144'];
    await run('nbdcopy', ['--flush', ...many, source, this.uriOf(name)], { timeoutMs: 60_000 });
    await run('nbdcopy', [...many, this.uriOf(name), copy], { timeoutMs: 60_000 });
    const [written, read] = await Promise.all([readFile(source), readFile(copy)]);
    if (!written.equals(read.subarray(0, written.length))) throw new Error('the disk lies');
  }

  /** Waits until `isSo` for some event. */
  async heard(isSo: (event: ProductEvent) => boolean, waitMs = 20_000): Promise<ProductEvent> {
    const deadlineMs = performance.now() + waitMs;
    for (;;) {
      const found = this.events.find(isSo);
      if (found !== undefined) return found;
      if (performance.now() > deadlineMs) {
        throw new Error(`it never happened; heard ${JSON.stringify(this.events)}`);
      }
      await sleep(10);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.close({ force: true });
    await rm(this.folder, { recursive: true, force: true });
  }
}

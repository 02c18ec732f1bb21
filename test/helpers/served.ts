import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ProductEvent, ServeOptions, SessionOptions } from '../../src/config/contract.js';
import { parseTargetUrl } from '../../src/config/target-url.js';
import { serve } from '../../src/supervisor/serve.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import { embeddedTarget } from './embedded-target.js';
import { sessionOptions } from './session-options.js';
import { startTgt, type TgtLun } from './tgt.js';

const NAME = 'iqn.2001-04.com.example:served';

const OPTIONS: SessionOptions = sessionOptions({
  initiatorName: 'iqn.2001-04.com.example:me',
  reconnectIntervalSeconds: 0.2,
  noopTimeoutSeconds: 20,
  firstBurstLength: 65_536,
});

/** An export on a unix socket, served by this process, and the tools of others that judge it. */
export type Served = {
  readonly socket: string;
  readonly uri: string;
  readonly events: readonly ProductEvent[];
  /** Runs a tool to its end: what it prints, or an error with all it said. */
  run(tool: string, ...args: string[]): Promise<string>;
  /** Runs Python with libnbd; `h` is a handle that asks for nothing but what is said. */
  nbdsh(...lines: string[]): Promise<string>;
  [Symbol.asyncDispose](): Promise<void>;
};

export function runTool(tool: string, args: readonly string[]): Promise<string> {
  const env = { ...process.env, PATH: `/usr/bin:/bin:/usr/sbin:${process.env['PATH'] ?? ''}` };
  return new Promise((resolve, reject) => {
    const options = { env, timeout: 120_000, maxBuffer: 64 << 20 };
    execFile(tool, [...args], options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${tool} ${args.join(' ')}: ${stderr}\n${stdout}`));
      else resolve(stdout);
    });
  });
}

/** Serves `url`, a LUN of it, until the returned value is disposed of. */
export async function serveUrl(url: string, options: Partial<ServeOptions> = {}): Promise<Served> {
  const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-served-'));
  const socket = join(folder, 's');
  const events: ProductEvent[] = [];
  const stack = await serve(
    parseTargetUrl(url),
    { ...OPTIONS, ...options, socketPath: socket },
    { onEvent: (event) => events.push(event), signal: new AbortController().signal },
  );
  const uri = `nbd+unix:///?socket=${socket}`;
  return {
    socket,
    uri,
    events,
    run: (tool, ...args) => runTool(tool, args),
    nbdsh: (...lines) =>
      runTool(
        'nbdsh',
        lines.flatMap((line) => ['-c', line]),
      ),
    [Symbol.asyncDispose]: async () => {
      await stack.close({ force: true });
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A disk of the embedded target, served. */
export async function serveEmbedded(
  diskOptions: TargetDiskOptions & { readonly sizeBytes?: number } = {},
  options: Partial<ServeOptions> = {},
) {
  const disk = TargetDisk.ram({ sizeBytes: 64 << 20, ...diskOptions });
  const { node, server, url } = await embeddedTarget({ name: NAME, luns: { 0: disk } });
  const served = await serveUrl(`${url}/0`, options);
  return {
    ...served,
    disk,
    node,
    server,
    targetName: NAME,
    [Symbol.asyncDispose]: async () => {
      await served[Symbol.asyncDispose]();
      await server.close();
    },
  };
}

/** A disk of tgt, served. */
export async function serveTgt(lun: TgtLun, options: Partial<ServeOptions> = {}) {
  const tgt = await startTgt({ luns: [lun] });
  try {
    const served = await serveUrl(tgt.url(), options);
    return {
      ...served,
      tgt,
      [Symbol.asyncDispose]: async () => {
        await served[Symbol.asyncDispose]();
        await tgt.stop();
      },
    };
  } catch (error) {
    await tgt.stop();
    throw error;
  }
}

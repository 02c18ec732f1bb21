import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { type EmbeddedTarget, embeddedTarget } from '../helpers/embedded-target.js';

const ROOT = new URL('../../', import.meta.url);
const PAGE = readFileSync(new URL('docs/LIBRARY.md', ROOT), 'utf8');
const NAME = 'iqn.2001-04.com.example:disk1';

/** Each example of the page with the output that follows it. */
const EXAMPLES = [...PAGE.matchAll(/^```ts\n(.*?)^```\n\n```text\n(.*?)^```$/gms)].map(
  ([, program = '', output = '']) => ({ program, output, first: output.split('\n')[0] }),
);

let target: EmbeddedTarget;
let folder: string;

beforeAll(async () => {
  const disk = TargetDisk.ram({ sizeBytes: 32 << 20 });
  target = await embeddedTarget({ name: NAME, luns: { 0: disk } });
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-library-page-'));
});
afterAll(async () => {
  await target[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Runs an example as a program of its own; the portal of the page is that of the target. */
async function outputOf(program: string): Promise<string> {
  const library = fileURLToPath(new URL('src/library.ts', ROOT));
  const { outputFiles } = await build({
    stdin: { contents: program.replaceAll('192.0.2.1', target.server.portal), loader: 'ts' },
    alias: { 'iscsi-nbd': library },
    nodePaths: [fileURLToPath(new URL('node_modules', ROOT))],
    absWorkingDir: fileURLToPath(ROOT),
    define: { 'import.meta.url': JSON.stringify(new URL('src/io/native.ts', ROOT).href) },
    banner: {
      js: `import { createRequire as r0 } from 'node:module'; const require = r0('${library}');`,
    },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'error',
  });
  const path = join(folder, 'example.mjs');
  await writeFile(path, outputFiles[0]?.contents ?? '');
  const { stdout } = await promisify(execFile)(process.execPath, [path], { timeout: 15_000 });
  return stdout;
}

describe('the examples of docs/LIBRARY.md', () => {
  it('every program of the page has an output', () => {
    expect(EXAMPLES.length).toBe(PAGE.match(/^```ts$/gm)?.length);
    expect(EXAMPLES.length).toBeGreaterThan(3);
  });

  it.each(EXAMPLES)('the example that prints "$first" runs and prints it', async (example) => {
    expect(await outputOf(example.program)).toBe(example.output);
  });
});

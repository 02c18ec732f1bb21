import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import * as targets from './targets.js';

/** FUZZ_SECONDS makes it long; scripts/fuzz/run is the same for people. */
const SECONDS = process.env['FUZZ_SECONDS'] ?? '0.5';
const ROOT = new URL('../../', import.meta.url).pathname;

async function fuzz(environment: Record<string, string>, ...args: string[]): Promise<string> {
  const env = { ...process.env, FUZZ_SEED: '7143', ...environment };
  const options = { cwd: ROOT, env, timeout: 120_000 };
  const done = await promisify(execFile)('scripts/fuzz/run', args, options).catch(
    (error: { stdout: string; stderr: string }) => error,
  );
  return `${done.stdout}${done.stderr}`;
}

const NAMES = Object.keys(targets).sort();

describe('inputs that a fuzzer makes, guided by the code that they reach', () => {
  it('each target lives through its corpus and what is made of it', {
    timeout: 300_000,
  }, async () => {
    const said = await fuzz({ FUZZ_KEEP: '' }, SECONDS);
    const lived = said.split('\n').filter((line) => / inputs .* blocks/.test(line));
    expect(lived.map((line) => line.split(':')[0])).toEqual(NAMES);
    expect(said).not.toMatch(/input [0-9a-f]/);
  });

  it('a fault behind four conditions is found, and its input is reported', {
    timeout: 150_000,
  }, async () => {
    const said = await fuzz({ FUZZ_ENTRY: 'test/fuzz/planted.ts', FUZZ_KEEP: '' }, '60', 'planted');
    expect(said).toMatch(/the planted fault[\s\S]*input 6e62642169716e2ead1b4c554e/);
  });

  it('an input that hangs is reported', async () => {
    const more = { FUZZ_ENTRY: 'test/fuzz/planted.ts', FUZZ_KEEP: '', FUZZ_HANG_MS: '1000' };
    expect(await fuzz(more, '60', 'endless')).toMatch(/endless: it hangs\n.* input 2a/);
  });

  it.each(NAMES)('the corpus of %s is small, and has an input', (name) => {
    const inputs = readdirSync(new URL(`../corpus/${name}/`, import.meta.url));
    expect(inputs.length).toBeGreaterThan(0);
    expect(inputs.length).toBeLessThanOrEqual(30);
  });
});

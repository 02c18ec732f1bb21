import { readFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { run } from './fake-io.js';

const PAGE = readFileSync(new URL('../../man/iscsi-nbd.8', import.meta.url), 'utf8')
  .replaceAll('\\-', '-')
  .replace(/^\.(?:BI|BR|B|IP|I|TP|TQ|RS|RE) ?/gm, '')
  .replace(/["\n]/g, ' ')
  .replace(/ +/g, ' ');

/** Flags with a default, and the place in iscsi-nbd(8) that has it. */
const DEFAULTS: readonly (readonly [command: string, flag: string, place: RegExp])[] = [
  ['ping', 'count', /--count \((\w+)\)/],
  ['ping', 'bytes', /--bytes \((\w+)\)/],
  ['ping', 'interval', /--interval \((\w+)\) seconds apart\. These/],
  [
    'boot-test',
    'timeout',
    /--timeout seconds Status 33 if the test takes longer; (\w+) by default/,
  ],
  ['boot-test', 'memory', /no network, (\w+) MiB and one CPU by default/],
  ['daemon', 'control', /--control path The socket to listen on, for root only; (\S+) by default/],
  ['daemon', 'wait-timeout', /--wait-timeout seconds \((\w+)\)/],
  ['daemon', 'logins-max', /concurrently at its start; (\w+)\./],
  ['daemon', 'busy-poll', /improves throughput; (\w+), and 0 for off/],
  ['top', 'interval', /read every --interval \((\w+)\) seconds/],
];

/** `[5]` or `[default: "5"]` behind a flag. */
async function defaultOf(command: string, flag: string): Promise<string | undefined> {
  // The parser prints help itself.
  using print = vi.spyOn(console, 'log').mockImplementation(() => {});
  await run([command, '--help']);
  const flat = print.mock.calls.join('\n').replace(/\s+/g, ' ');
  const text = flat.split(` --${flag} `)[1]?.split(/ --[a-z]/)[0] ?? '';
  const plain = text.replace(/\[(?:string|number|boolean)\]/, '');
  return /\[(?:default: )?"?([/.\w-]+)"?\]/.exec(plain)?.[1];
}

describe('the defaults in iscsi-nbd(8)', () => {
  it.each(DEFAULTS)('the default of %s --%s is that of --help', async (command, flag, place) => {
    const told = place.exec(PAGE)?.[1];
    expect(told).toBeDefined();
    expect(told).toBe(await defaultOf(command, flag));
  });
});

import { describe, expect, it } from 'vitest';
import { lazyBackend } from '../../src/cli/backend.js';
import { TargetDisk } from '../../src/target/disk.js';
import { CliRun } from '../cli/fake-io.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { published } from '../helpers/published-schema.js';

const NAME = 'iqn.2001-04.com.example:quirks';
const LOGIN_RESPONSE = 0x23;

/** A target that leaves the ISID and the TSIH 0 in its login responses (gotgt). */
async function start() {
  const target = await embeddedTarget({
    name: NAME,
    luns: { 0: TargetDisk.ram({ sizeBytes: 1 << 20 }) },
  });
  target.node.faults.onSend = (header) => {
    if ((header.readUInt8(0) & 0x3f) === LOGIN_RESPONSE) header.fill(0, 8, 16);
    return undefined;
  };
  return target;
}

const WARNINGS = [
  /^warning: the target does not keep to RFC 7143 §11\.13 \(login-isid\): .+$/,
  /^warning: the target does not keep to RFC 7143 §11\.13\.3 \(login-tsih-zero\): .+$/,
];

describe('a command that asks a target with quirks (gotgt)', () => {
  it.each([
    ['luns', 'luns', []],
    ['inquiry', 'inquiry', []],
    ['capacity', 'capacity', []],
    ['ping', 'ping', ['--count', '1']],
  ] as const)(
    '%s warns of each quirk in one line on standard error, and answers on standard output',
    async (command, schema, flags) => {
      await using target = await start();
      for (const format of [[], ['--json']]) {
        const run = new CliRun([command, `${target.url}/0`, ...flags, ...format], lazyBackend);
        expect(await run.result).toBe(0);
        const lines = run.err.trimEnd().split('\n');
        expect(lines).toHaveLength(WARNINGS.length);
        for (const [at, warning] of WARNINGS.entries()) expect(lines[at]).toMatch(warning);
        expect(run.out).not.toMatch(/warning|RFC/);
        if (format.length > 0) published(schema).parse(JSON.parse(run.out));
      }
    },
    60_000,
  );
});

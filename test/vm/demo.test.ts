import { resolve } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { cleanUp, configuredDevices, run } from './attached.js';

afterEach(cleanUp);

it('the demo shows its outage on a kernel device if the kernel supports one', async () => {
  const said = await run(process.execPath, resolve('dist/cli/main.js'), 'demo', '--json');
  const lines = said.trim().split('\n');
  const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const disk = events.find((event) => event['event'] === 'demo' && event['step'] === 'disk');
  expect(disk?.['device']).toMatch(/^\/dev\/nbd\d+$/);
  const held = events.filter((event) => event['event'] === 'deviceHeld');
  expect(held.length).toBeGreaterThan(0);
  expect(events.at(-1)).toMatchObject({ step: 'result', passed: true });
  expect(await configuredDevices()).toEqual([]);
});

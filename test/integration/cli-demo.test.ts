import { describe, expect, it } from 'vitest';
import { Workplace } from '../helpers/command-process.js';
import { checked } from '../helpers/published-schema.js';

const SLOW = 120_000;

describe('demo', { timeout: SLOW }, () => {
  it('the demo survives an outage and verifies every byte, in a few lines with times', async () => {
    await using place = await Workplace.make();
    const { code, out, err } = await place.run(['demo']);
    expect(err).toBe('');
    expect(code).toBe(0);
    const lines = out.trimEnd().split('\n');
    expect(lines.length).toBeLessThan(20);
    for (const line of lines) expect(line).toMatch(/^ *\d+\.\d\d s {2}/);
    expect(out).toMatch(/listens on 127\.0\.0\.1:\d+ again; [1-9]\d* requests \(.* MiB\) are held/);
    expect(out).toMatch(/32 more requests, no error; the slowest waited \d\.\d\d s/);
    expect(lines.at(-1)).toMatch(/result +passed in \d+\.\d s$/);
    expect(await place.content()).toEqual([]);
  });

  it('the output of --json has the same as objects: the session stays the same over the outage', async () => {
    await using place = await Workplace.make();
    const { code, out } = await place.run(['demo', '--json']);
    expect(code).toBe(0);
    const objects = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    for (const line of out.trimEnd().split('\n')) {
      checked(line.includes('"event":"demo"') ? 'demo' : 'event', line);
    }
    const step = (name: string) => objects.filter((each) => each.step === name);
    const [{ sessionId }] = step('session');
    const states = objects.filter((each) => each.event === 'sessionState');
    expect(states.map((each) => each.to)).toEqual([
      'loggedIn',
      'reconnecting',
      'loggedIn',
      'loggingOut',
      'closed',
    ]);
    expect(new Set(states.map((each) => each.sessionId))).toEqual(new Set([sessionId]));
    const [before, after] = step('write');
    expect(before.slowestMs).toBeLessThan(after.slowestMs);
    // The target was gone for 2 s, and the requests under way then waited for it.
    expect(after).toMatchObject({ errors: 0, requests: 32 });
    expect(after.slowestMs).toBeGreaterThan(1800);
    expect(step('read')[0].sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(step('result')).toMatchObject([{ passed: true }]);
  });

  it('a SIGINT in the outage ends the demo with 130 and leaves no file', async () => {
    await using place = await Workplace.make();
    await using demo = place.start(['demo', '--json']);
    const inOutage = () => demo.out.includes('"to":"reconnecting"');
    await expect.poll(inOutage, { timeout: SLOW }).toBe(true);
    demo.kill('SIGINT');
    const { code, err } = await demo.result;
    expect(code).toBe(130);
    expect(JSON.parse(err)).toMatchObject({ code: 'ERR_INTERRUPTED' });
    expect(await place.content()).toEqual([]);
  });
});

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BootJudge } from '../../src/boot-test/boot-test-judge.js';
import type { BootTestHooks, BootTestOptions, BootVerdict } from '../../src/config/contract.js';

const OPTIONS = {
  expect: /login:/,
  fail: /Kernel panic|^grub> /,
  timeoutSeconds: 60,
} as unknown as BootTestOptions;

const HOOKS = { onConsole: () => undefined } as unknown as BootTestHooks;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

function judge() {
  const boot = new BootJudge(OPTIONS, HOOKS);
  const seen: { verdict?: BootVerdict; error?: unknown } = {};
  boot.verdict.then(
    (verdict) => {
      seen.verdict = verdict;
    },
    (error: unknown) => {
      seen.error = error;
    },
  );
  const say = (text: string) => boot.consoleSaid(Buffer.from(text));
  return { boot, seen, say };
}

describe('the judge of a boot', () => {
  it('the judge waits for the rest of a failing line, which holds the reason', async () => {
    const { seen, say } = judge();
    say('Kernel panic - not sync');
    await vi.advanceTimersByTimeAsync(500);
    expect(seen).toEqual({});
    say('ing: no init\r\nand more\r\n');
    await vi.advanceTimersByTimeAsync(100);
    const line = 'Kernel panic - not syncing: no init';
    expect(seen.verdict).toMatchObject({ passed: false, reason: 'failPattern', line });
    expect(seen.verdict?.lastLines).toEqual([line, 'and more']);
  });

  it('the judge stops waiting for the end of a failing line: a prompt has none', async () => {
    const { seen, say } = judge();
    say('grub> ');
    await vi.advanceTimersByTimeAsync(2000);
    expect(seen.verdict).toMatchObject({ reason: 'failPattern', line: 'grub> ' });
  });

  it('a line written before the machine ended passes the boot', async () => {
    const { boot, seen, say } = judge();
    say('login:');
    boot.machineEnded('');
    await vi.advanceTimersByTimeAsync(0);
    expect(seen.verdict).toMatchObject({ passed: true, reason: 'expected' });
  });

  it.each([
    ['a panic the guest tells the machine of', 'GUEST_PANICKED', {}, 'panicked'],
    ['the guest switching itself off', 'SHUTDOWN', { guest: true }, 'shutdown'],
  ])('the boot fails by %s', async (_, event, data, reason) => {
    const { boot, seen } = judge();
    boot.machineTold({ event, data });
    await vi.advanceTimersByTimeAsync(0);
    expect(seen.verdict).toMatchObject({ passed: false, reason });
  });

  it('a full overlay is an error and no verdict on the image', async () => {
    const { boot, seen } = judge();
    const data = { action: 'stop', nospace: true, reason: 'No space left on device' };
    boot.machineTold({ event: 'BLOCK_IO_ERROR', data });
    await vi.advanceTimersByTimeAsync(0);
    expect(seen.error).toMatchObject({ code: 'ERR_DISK_FULL', exitCode: 1 });
  });

  it('the judge keeps the last 20 lines, and reports a timeout when the time has passed', async () => {
    const { boot, seen, say } = judge();
    for (let line = 1; line <= 50; line += 1) say(`line ${line}\n`);
    boot.machineTold({ event: 'RESET', data: { guest: true } });
    await vi.advanceTimersByTimeAsync(60_000);
    const { verdict } = seen;
    expect(verdict).toMatchObject({ passed: false, reason: 'timeout', resets: 1 });
    expect(verdict?.lastLines).toHaveLength(20);
    expect(verdict?.lastLines.at(-1)).toBe('line 50');
  });
});

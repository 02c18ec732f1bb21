import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { withProgress } from '../../src/cli/progress.js';
import { CliRun, fakeBackend } from './fake-io.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function terminal(isTTY: boolean) {
  const { stdout, signals } = new CliRun(['explain', 'EIO'], fakeBackend({}));
  const stderr = Object.assign(new PassThrough(), { isTTY });
  const io = { stdin: new PassThrough(), stdout, stderr, environment: {}, signals };
  return { io, shown: () => String(stderr.read() ?? '') };
}

describe('withProgress', () => {
  it('a terminal shows what is pending after a second, and its line is cleared at the end', async () => {
    const { io, shown } = terminal(true);
    const work = withProgress(
      io,
      'logging in',
      new Promise((resolve) => setTimeout(resolve, 2500)),
    );
    await vi.advanceTimersByTimeAsync(900);
    expect(shown()).toBe('');
    await vi.advanceTimersByTimeAsync(1300);
    expect(shown()).toBe('\r\u001b[Klogging in … 1 s\r\u001b[Klogging in … 2 s');
    await vi.advanceTimersByTimeAsync(1000);
    await work;
    expect(shown()).toBe('\r\u001b[K');
  });

  it('progress shows nothing for quick work and for programs, and fails as its work does', async () => {
    const quick = terminal(true);
    await expect(withProgress(quick.io, 'x', Promise.reject(new Error('no')))).rejects.toThrow(
      'no',
    );
    expect(quick.shown()).toBe('');
    const program = terminal(false);
    const slow = withProgress(program.io, 'x', new Promise((resolve) => setTimeout(resolve, 9000)));
    await vi.advanceTimersByTimeAsync(10_000);
    await slow;
    expect(program.shown()).toBe('');
    expect(vi.getTimerCount()).toBe(0);
  });
});

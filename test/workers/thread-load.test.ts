import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ThreadLoad } from '../../src/workers/thread-load.js';

let folder = '';
let cpuMs = 0;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] });
  folder = mkdtempSync(join(tmpdir(), 'thread-load-'));
  cpuMs = 1_000_000;
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true });
});

/** A thread that uses this part of a processor for so long. */
function busy(part: number, seconds: number): void {
  for (let second = 0; second < seconds; second += 1) {
    cpuMs += part * 1000;
    writeFileSync(join(folder, 'schedstat'), `${cpuMs * 1e6} 5 7\n`);
    vi.advanceTimersByTime(1000);
  }
}

function thread(): ThreadLoad {
  busy(0, 1);
  return new ThreadLoad(join(folder, 'schedstat'));
}

describe('the load of a thread', () => {
  it('a thread has the load of its last seconds, however long it was not asked for', () => {
    const load = thread();
    busy(0, 600);
    busy(0.5, 11);
    expect(load.read()).toBeCloseTo(0.5, 1);
    busy(0, 11);
    expect(load.read()).toBe(0);
    load.close();
  });

  it('readings in quick succession are each over five seconds or more', () => {
    const load = thread();
    busy(1, 20);
    busy(0, 1);
    const one = load.read();
    expect(one).toBeGreaterThan(0.75);
    expect(load.read()).toBe(one);
    load.close();
  });

  it('the load of a thread that has ended goes to zero', () => {
    const load = thread();
    busy(1, 7);
    rmSync(join(folder, 'schedstat'));
    vi.advanceTimersByTime(11_000);
    expect(load.read()).toBe(0);
    load.close();
  });

  it('the load of a thread that works is above that of one that is not there', () => {
    vi.useRealTimers();
    const [working, absent] = [ThreadLoad.ofThread(process.pid), ThreadLoad.ofThread(999_999_999)];
    const end = performance.now() + 50;
    while (performance.now() < end);
    expect(working.read()).toBeGreaterThan(0.001);
    expect(absent.read()).toBe(0);
    for (const load of [working, absent]) load.close();
  });
});

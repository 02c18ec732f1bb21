import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import {
  AttachedSession,
  type AttachedSessionOptions,
} from '../../src/supervisor/attached-session.js';

/** Answers each close in turn; the last answer for good. */
function fixture(answers: readonly ('inUse' | 'lost' | 'fails' | 'closes')[], keepDevices = false) {
  const world = { closes: [] as boolean[], left: 0, mode: 'open' };
  let end = () => {};
  const over = new Promise<void>((resolve) => {
    end = resolve;
  });
  const unit = {
    queue: {
      get mode() {
        return world.mode;
      },
    },
  };
  const session = {
    sessionId: '0011223344556677',
    exports: [],
    stack: { closed: new Promise<void>(() => {}), units: [unit] },
    leave: async () => {
      world.left += 1;
    },
    close: async (options: { force: boolean }) => {
      const answer = answers[Math.min(world.closes.length, answers.length - 1)];
      world.closes.push(options.force);
      if (answer === 'inUse' && !options.force) {
        throw new UsageError('mounted', { exitCode: 28, code: 'ERR_DEVICE_IN_USE' });
      }
      if (answer === 'lost') {
        throw new UsageError('lost', { exitCode: 10, code: 'ERR_FLUSH_FAILED' });
      }
      if (answer === 'fails') throw new UsageError('broken', { exitCode: 1 });
      end();
    },
  } as unknown as AttachedSessionOptions['session'];
  return { world, attached: new AttachedSession({ session, over, keepDevices }) };
}

describe('AttachedSession.close', () => {
  it('an orderly close waits while a device is in use', async () => {
    const { world, attached } = fixture(['inUse', 'inUse', 'closes']);
    await attached.close();
    expect(world.closes).toEqual([false, false, false]);
  });

  it('a close that reports lost writes removes all disks, as a disk reports a loss once', async () => {
    const { world, attached } = fixture(['lost', 'inUse', 'closes']);
    await expect(attached.close()).rejects.toMatchObject({ exitCode: 10 });
    expect(world.closes).toEqual([false, false, false]);
  });

  it('a close fails if a disk reports losses again', async () => {
    const { world, attached } = fixture(['lost']);
    await expect(attached.close()).rejects.toMatchObject({ exitCode: 10 });
    expect(world.closes).toEqual([false, false]);
  });

  it('a forced close does not wait, and ends a close that waits', async () => {
    const { world, attached } = fixture(['inUse']);
    const waiting = attached.close();
    await attached.close({ force: true });
    await waiting;
    expect(world.closes).toEqual([false, true]);
  });

  it('a forced close tries again if it joined an orderly close that failed', async () => {
    const { world, attached } = fixture(['fails', 'closes']);
    await attached.close({ force: true });
    expect(world.closes).toEqual([true, true]);
  });

  it('a close is not tried in an outage while a device is in use: that would lose data', async () => {
    const { world, attached } = fixture(['inUse', 'closes']);
    const waiting = attached.close();
    world.mode = 'holding';
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(world.closes).toEqual([false]);
    world.mode = 'open';
    await waiting;
    expect(world.closes).toEqual([false, false]);
  });

  it('a close fails with the error of the stack', async () => {
    const { attached } = fixture(['fails']);
    await expect(attached.close()).rejects.toThrow('broken');
  });

  it('a close with keepDevices leaves them and the session, even if a forced one follows', async () => {
    const { world, attached } = fixture(['closes'], true);
    await attached.close();
    await attached.closed;
    expect([world.left, world.closes]).toEqual([1, []]);
    // They are the next process's: a logout now would end its session under its devices.
    await attached.close({ force: true });
    expect(world.closes).toEqual([]);
  });

  it('a forced close with keepDevices logs out if nothing has been left yet', async () => {
    const { world, attached } = fixture(['closes'], true);
    await attached.close({ force: true });
    expect([world.left, world.closes]).toEqual([0, [true]]);
  });
});

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

describe('closing what is attached', () => {
  it('waits while a device is in use, and then is an orderly close', async () => {
    const { world, attached } = fixture(['inUse', 'inUse', 'closes']);
    await attached.close();
    expect(world.closes).toEqual([false, false, false]);
  });

  it('takes all away and then says that writes are lost, which the disk tells of once', async () => {
    const { world, attached } = fixture(['lost', 'inUse', 'closes']);
    await expect(attached.close()).rejects.toMatchObject({ exitCode: 10 });
    expect(world.closes).toEqual([false, false, false]);
  });

  it('gives up on a disk that goes on losing', async () => {
    const { world, attached } = fixture(['lost']);
    await expect(attached.close()).rejects.toMatchObject({ exitCode: 10 });
    expect(world.closes).toEqual([false, false]);
  });

  it('by force does not wait, and ends a close that waits', async () => {
    const { world, attached } = fixture(['inUse']);
    const waiting = attached.close();
    await attached.close({ force: true });
    await waiting;
    expect(world.closes).toEqual([false, true]);
  });

  it('by force tries again where it joined an orderly close that failed', async () => {
    const { world, attached } = fixture(['fails', 'closes']);
    await attached.close({ force: true });
    expect(world.closes).toEqual([true, true]);
  });

  it('is not tried while the target is away and users are waited for: that would lose data', async () => {
    const { world, attached } = fixture(['inUse', 'closes']);
    const waiting = attached.close();
    world.mode = 'holding';
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(world.closes).toEqual([false]);
    world.mode = 'open';
    await waiting;
    expect(world.closes).toEqual([false, false]);
  });

  it('fails with what failed', async () => {
    const { attached } = fixture(['fails']);
    await expect(attached.close()).rejects.toThrow('broken');
  });

  it('with keepDevices leaves them and the session, unless it is forced', async () => {
    const { world, attached } = fixture(['closes'], true);
    await attached.close();
    await attached.closed;
    expect([world.left, world.closes]).toEqual([1, []]);
    await attached.close({ force: true });
    expect(world.closes).toEqual([true]);
  });
});

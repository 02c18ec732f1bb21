import { afterEach, expect, it, vi } from 'vitest';
import { native } from '../../src/io/native.js';
import { settleProcess } from '../../src/lun/process-settings.js';

afterEach(() => {
  vi.restoreAllMocks();
});

it('the process looks for answers as long as it is told to, and without a word not at all', async () => {
  const setBusyPoll = vi.spyOn(native, 'setBusyPoll');
  await settleProcess({ busyPollMicroseconds: 70 });
  await settleProcess({});
  expect(setBusyPoll.mock.calls).toEqual([[70], [0]]);
});

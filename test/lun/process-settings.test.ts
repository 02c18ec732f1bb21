import { afterEach, expect, it, vi } from 'vitest';
import { native } from '../../src/io/native.js';
import { applyProcessSettings } from '../../src/lun/process-settings.js';

afterEach(() => {
  vi.restoreAllMocks();
});

it('the process polls for the configured time, and not at all without the option', async () => {
  const setBusyPoll = vi.spyOn(native, 'setBusyPoll');
  await applyProcessSettings({ busyPollMicroseconds: 70 });
  await applyProcessSettings({});
  expect(setBusyPoll.mock.calls).toEqual([[70], [0]]);
});

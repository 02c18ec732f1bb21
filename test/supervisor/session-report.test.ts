import { expect, it } from 'vitest';
import { eventSchema } from '../../src/control/control-results.js';

it.each([
  [0, true],
  [2 ** 62 - 512, true],
  [2 ** 63 - 4096, true],
  [0.5, false],
  [-512, false],
])('an event with a disk of %d bytes fits the schema: %s', (sizeBytes, isTold) => {
  const event = {
    event: 'deviceResized',
    time: '2026-01-01T00:00:00.000Z',
    sessionId: '0123456789abcdef',
    lun: 0,
    sizeBytes,
  };
  expect(eventSchema.safeParse(event).success).toBe(isTold);
});

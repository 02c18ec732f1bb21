import { expect, test } from 'vitest';
import { LinkError, LoginRefusedError } from '../../src/base/errors.js';
import { AttemptReporter, type LoginRefusal } from '../../src/session/attempt-reporter.js';

const refused = (detail: number, message: string) =>
  new LoginRefusedError(message, { statusClass: 2, statusDetail: detail });

function listening() {
  const told: LoginRefusal[] = [];
  const failures: string[] = [];
  const reporter = new AttemptReporter({
    refused: (refusal) => told.push(refusal),
    failed: (message) => failures.push(message),
  });
  return { told, failures, reporter };
}

test('refusals of two portals in turn, each for its own reason, are not all reported', () => {
  const { told, reporter } = listening();
  for (let attempt = 0; attempt < 1000; attempt += 1) {
    reporter.failed(refused(2, 'one does not know us'));
    reporter.failed(refused(3, 'the other does not have it'));
  }
  // 1, 2, 4 … 512 of each.
  expect(told.length).toBe(20);
  expect(told.at(-1)?.explanation).toBe('the other does not have it (512 times)');
});

test('a portal that cannot be reached is reported too, at the same rate', () => {
  const { failures, reporter } = listening();
  for (let attempt = 0; attempt < 1000; attempt += 1) {
    reporter.failed(new LinkError('ECONNREFUSED', 'no connection to 192.0.2.1:3260'));
  }
  expect(failures).toHaveLength(10);
  expect(failures[0]).toBe('a login attempt failed: no connection to 192.0.2.1:3260');
  expect(failures[1]).toBe(`${failures[0]} (2 times)`);
});

test('a reason counts as new after a login', () => {
  const { told, reporter } = listening();
  reporter.failed(refused(2, 'no'));
  reporter.failed(refused(2, 'no'));
  reporter.failed(refused(2, 'no'));
  reporter.succeeded();
  reporter.failed(refused(2, 'no'));
  expect(told.map((refusal) => refusal.explanation)).toEqual(['no', 'no (2 times)', 'no']);
});

test('reasons that are new each time are not all reported', () => {
  const { told, reporter } = listening();
  for (let attempt = 0; attempt < 1000; attempt += 1) reporter.failed(refused(0, `${attempt}`));
  expect(told.length).toBe(64);
});

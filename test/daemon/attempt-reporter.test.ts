import { expect, test } from 'vitest';
import { LinkError, LoginRefusedError } from '../../src/base/errors.js';
import { AttemptReporter, type LoginRefusal } from '../../src/daemon/attempt-reporter.js';

const refused = (detail: number, message: string) =>
  new LoginRefusedError(message, { statusClass: 2, statusDetail: detail });

test('two portals that refuse in turn, each for its own reason, do not flood', () => {
  const told: LoginRefusal[] = [];
  const reporter = new AttemptReporter((refusal) => told.push(refusal));
  for (let attempt = 0; attempt < 1000; attempt += 1) {
    reporter.failed(refused(2, 'one does not know us'));
    reporter.failed(refused(3, 'the other does not have it'));
    reporter.failed(new LinkError('ECONNREFUSED', 'nobody is told of these'));
  }
  // 1, 2, 4 … 512 of each.
  expect(told.length).toBe(20);
  expect(told.at(-1)?.explanation).toBe('the other does not have it (512 times)');
});

test('after a login a reason is new again', () => {
  const told: LoginRefusal[] = [];
  const reporter = new AttemptReporter((refusal) => told.push(refusal));
  reporter.failed(refused(2, 'no'));
  reporter.failed(refused(2, 'no'));
  reporter.failed(refused(2, 'no'));
  reporter.succeeded();
  reporter.failed(refused(2, 'no'));
  expect(told.map((refusal) => refusal.explanation)).toEqual(['no', 'no (2 times)', 'no']);
});

test('reasons that are ever new are not all told', () => {
  const told: LoginRefusal[] = [];
  const reporter = new AttemptReporter((refusal) => told.push(refusal));
  for (let attempt = 0; attempt < 1000; attempt += 1) reporter.failed(refused(0, `${attempt}`));
  expect(told.length).toBe(64);
});

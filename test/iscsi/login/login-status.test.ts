import { describe, expect, it } from 'vitest';
import { describeLoginStatus, formatLoginStatus } from '../../../src/iscsi/login/login-status.js';

describe('RFC 7143 §11.13.5 (Status-Class and Status-Detail)', () => {
  it.each([
    [0x0101, 'Target moved temporarily', 'redirect-temporary'],
    [0x0102, 'Target moved permanently', 'redirect-permanent'],
    [0x0200, 'Initiator error', 'refused-for-good'],
    [0x0201, 'Authentication failure', 'authentication'],
    [0x0202, 'Authorization failure', 'refused-for-good'],
    [0x0203, 'Not found', 'refused-for-good'],
    [0x0204, 'Target removed', 'refused-for-good'],
    [0x0205, 'Unsupported version', 'refused-for-good'],
    [0x0206, 'Too many connections', 'refused-for-good'],
    [0x0207, 'Missing parameter', 'refused-for-good'],
    [0x0208, "Can't include in session", 'refused-for-good'],
    [0x0209, 'Session type not supported', 'refused-for-good'],
    [0x020a, 'Session does not exist', 'refused-for-good'],
    [0x020b, 'Invalid during login', 'refused-for-good'],
    [0x0300, 'Target error', 'retry'],
    [0x0301, 'Service unavailable', 'retry'],
    [0x0302, 'Out of resources', 'retry'],
  ])('code %i has the name %s and is %s', (code, name, policy) => {
    const status = describeLoginStatus(code >> 8, code & 0xff);
    expect(status).toMatchObject({ name, policy });
    expect(status.explanation.length).toBeGreaterThan(10);
    expect(status.nextStep.length).toBeGreaterThan(5);
  });

  it('the class alone decides if the detail is unknown', () => {
    expect(describeLoginStatus(1, 0x77).policy).toBe('redirect-temporary');
    expect(describeLoginStatus(2, 0x77).policy).toBe('refused-for-good');
    expect(describeLoginStatus(3, 0x77).policy).toBe('retry');
    expect(describeLoginStatus(0, 0x77).policy).toBeNull();
  });

  it('a class that is not defined ends nothing permanently', () => {
    expect(describeLoginStatus(0x99, 0).policy).toBe('retry');
  });

  it('a status is shown as the four hexadecimal digits of the table', () => {
    expect(formatLoginStatus(2, 0x0a)).toBe('020a');
  });
});

import { describe, expect, it } from 'vitest';
import {
  BlockError,
  InvariantError,
  LinkError,
  LoginRefusedError,
  ProductError,
  ProtocolError,
  ScsiError,
  UsageError,
} from '../../src/base/errors.js';
import { EXIT_CODES, exitCodeOf, exitNameOfCode } from '../../src/errors/exit-codes.js';

const refusal = (statusClass: number, statusDetail: number) =>
  new LoginRefusedError('no', { statusClass, statusDetail });

describe('exit codes', () => {
  it('the exit codes are those that iscsiadm documents', () => {
    const codes = Object.values(EXIT_CODES).map((row) => row.code);
    expect(codes).toEqual([
      0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 15, 18, 19, 20, 21, 24, 27, 28, 32, 33, 130, 143,
    ]);
  });

  it.each([
    [new LinkError('ECONNREFUSED', 'x'), 4],
    [new LinkError('EHOSTUNREACH', 'x'), 4],
    [new LinkError('ECONNRESET', 'x'), 4],
    [new LinkError('ETIMEDOUT', 'x'), 8],
    [new LinkError('ETIME', 'x'), 11],
    [Object.assign(new Error('x'), { code: 'ENOTFOUND' }), 4],
    [Object.assign(new AggregateError([], 'x'), { code: 'ECONNREFUSED' }), 4],
    [Object.assign(new Error('x'), { code: 'EACCES' }), 13],
    [Object.assign(new Error('x'), { code: 'EADDRINUSE' }), 28],
    [new ProductError('ERR_AUTHENTICATION', 'x'), 24],
    [new ProductError('ERR_CHAP_REFLECTED', 'x'), 24],
    [new UsageError('x'), 7],
    [new UsageError('x', { exitCode: 27 }), 27],
    [new ScsiError('x', { status: 2, senseKey: 5, asc: 0x20, ascq: 0 }), 1],
    [new BlockError('EPERM', 'x'), 1],
    [new ProtocolError('11.13', 'x'), 5],
    [new ScsiError('x', { status: 2, senseKey: 5, asc: 0x25, ascq: 0 }), 21],
    [new InvariantError('x'), 1],
    [AbortSignal.abort().reason, 130],
    ['text', 1],
    [undefined, 1],
  ])('the exit code of %s is %i', (error, code) => {
    expect(exitCodeOf(error)).toBe(code);
  });

  it('RFC 7143 §11.13.5: status class 2 is permanent (19), 0201 authentication (24), 3 temporary (5)', () => {
    expect(exitCodeOf(refusal(2, 0))).toBe(19);
    expect(exitCodeOf(refusal(2, 1))).toBe(24);
    expect(exitCodeOf(refusal(2, 3))).toBe(19);
    expect(exitCodeOf(refusal(3, 1))).toBe(5);
    expect(exitCodeOf(refusal(1, 1))).toBe(19);
  });

  it('each exit code has a name', () => {
    expect(exitNameOfCode(24)).toBe('authenticationFailed');
    expect(exitNameOfCode(99)).toBeUndefined();
  });
});

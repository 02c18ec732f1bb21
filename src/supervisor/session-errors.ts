import { type ProductError, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';

/** The session was ended while it was being opened. */
export function loggedOut(sessionId: string): ProductError {
  return new UsageError(`Session ${sessionId} was logged out before it was ready.`, {
    exitCode: EXIT_CODES.sessionNotFound.code,
    code: 'ERR_LOGGED_OUT',
  });
}

/** Nobody ends the boot session by accident. */
export function bootInUse(sessionId: string): ProductError {
  return new UsageError(
    `Session ${sessionId} has the disk this system was started from; without it nothing ` +
      'here goes on. --force logs it out all the same.',
    { exitCode: EXIT_CODES.busy.code, code: 'ERR_BOOT_SESSION' },
  );
}

import { type ProductError, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';

/** A device that waits for its disk takes no other one. */
export function anotherDisk(
  { lun, why }: { readonly lun: number; readonly why: string },
  targetName: string,
): ProductError {
  return new UsageError(
    `LUN ${lun} of ${targetName}: ${why}. ` +
      'Nothing was written. If that is meant to be, log out and in again.',
    { exitCode: EXIT_CODES.error.code, code: 'ERR_ANOTHER_DISK' },
  );
}

export function noSession(sessionId: string): ProductError {
  return new UsageError(`There is no session ${sessionId}.`, {
    exitCode: EXIT_CODES.sessionNotFound.code,
    code: 'ERR_NO_SESSION',
  });
}

/** Its devices wait for another process. */
export function sessionLeft(sessionId: string): ProductError {
  return new UsageError(`Session ${sessionId} is left to the daemon that comes next.`, {
    exitCode: EXIT_CODES.busy.code,
    code: 'ERR_SESSION_LEFT',
  });
}

/** The session was ended while it was being opened. */
export function loggedOut(sessionId: string): ProductError {
  return new UsageError(`Session ${sessionId} was logged out before it was ready.`, {
    exitCode: EXIT_CODES.sessionNotFound.code,
    code: 'ERR_LOGGED_OUT',
  });
}

/** The boot session must not end by accident. */
export function bootInUse(sessionId: string): ProductError {
  return new UsageError(
    `Session ${sessionId} has the disk this system was started from; without it nothing ` +
      'here goes on. --force logs it out all the same.',
    { exitCode: EXIT_CODES.busy.code, code: 'ERR_BOOT_SESSION' },
  );
}

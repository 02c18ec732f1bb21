import {
  codeOf,
  LinkError,
  LoginRefusedError,
  ProductError,
  ProtocolError,
  ScsiError,
  UsageError,
} from '../base/errors.js';

/** The exit statuses of every command; the numbers are those of iscsiadm. */
export const EXIT_CODES = {
  ok: { code: 0, words: 'success' },
  error: { code: 1, words: 'an error without a more exact code' },
  sessionNotFound: { code: 2, words: 'the session was not found' },
  transport: { code: 4, words: 'the connection to the target could not be made or was lost' },
  loginFailed: { code: 5, words: 'the login failed; it may work later' },
  invalidUse: { code: 7, words: 'the command, an option or the configuration is wrong' },
  connectTimeout: { code: 8, words: 'the target did not answer in time' },
  logoutFailed: { code: 10, words: 'the logout failed' },
  pduTimeout: { code: 11, words: 'the target stopped answering' },
  notPermitted: { code: 13, words: 'the operating system does not permit it' },
  sessionExists: { code: 15, words: 'such a session exists already' },
  daemonUnreachable: { code: 18, words: 'the daemon cannot be reached' },
  loginRefused: { code: 19, words: 'the target refused the login for good' },
  daemonNotRunning: { code: 20, words: 'the daemon is not running' },
  nothingFound: { code: 21, words: 'nothing was found' },
  authenticationFailed: { code: 24, words: 'the authentication failed' },
  notSupported: { code: 27, words: 'this system does not support it' },
  busy: { code: 28, words: 'the device or the file is in use' },
  notConnected: { code: 32, words: 'the session is not connected' },
  timedOut: { code: 33, words: 'the time for it ran out' },
  interrupted: { code: 130, words: 'interrupted from the keyboard before it was done' },
  terminated: { code: 143, words: 'asked to terminate before it was done' },
} as const satisfies Record<string, { readonly code: number; readonly words: string }>;

export type ExitName = keyof typeof EXIT_CODES;

/** Errno names of the network and of files, with the exit status each ends in. */
const EXIT_OF_ERRNO: Readonly<Record<string, ExitName>> = {
  ETIMEDOUT: 'connectTimeout',
  ETIME: 'pduTimeout',
  EACCES: 'notPermitted',
  EPERM: 'notPermitted',
  EBUSY: 'busy',
  EADDRINUSE: 'busy',
  ENOTCONN: 'notConnected',
  ENOTSUP: 'notSupported',
  EOPNOTSUPP: 'notSupported',
};

/** Network errnos that reach us in a bare system error, not in a LinkError. */
const NETWORK_ERRNOS: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'ENETDOWN',
  'EPIPE',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EAI_FAIL',
  'EADDRNOTAVAIL',
]);

/** Stable `code`s of the product's errors that say more than their class. */
const EXIT_OF_CODE: Readonly<Record<string, ExitName>> = {
  ERR_AUTHENTICATION: 'authenticationFailed',
};

/** The exit status an error ends the process with. Looks at class and code, never at the text. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return error.exitCode;
  return EXIT_CODES[exitNameOf(error)].code;
}

/** The row of `EXIT_CODES` for a number, if it has one. */
export function exitNameOfCode(code: number): ExitName | undefined {
  const names = Object.keys(EXIT_CODES) as ExitName[];
  return names.find((name) => EXIT_CODES[name].code === code);
}

function exitNameOf(error: unknown): ExitName {
  if (error instanceof LoginRefusedError) return exitNameOfLoginStatus(error);
  if (error instanceof LinkError) return EXIT_OF_ERRNO[error.errno] ?? 'transport';
  // What a target breaks later the session recovers from: this one came with the login.
  if (error instanceof ProtocolError) return 'loginFailed';
  // LOGICAL UNIT NOT SUPPORTED (SPC-4, additional sense code 25h).
  if (error instanceof ScsiError) return error.asc === 0x25 ? 'nothingFound' : 'error';
  if (error instanceof Error && error.name === 'AbortError') return 'interrupted';
  const code = codeOf(error);
  if (code.startsWith('ERR_CHAP_')) return 'authenticationFailed';
  const named = EXIT_OF_CODE[code];
  if (named !== undefined) return named;
  if (error instanceof ProductError) return 'error';
  if (NETWORK_ERRNOS.has(code)) return 'transport';
  return EXIT_OF_ERRNO[code] ?? 'error';
}

/**
 * Class 2 says the same request will be refused again, class 3 that it may work later
 * (RFC 7143 §11.13.5 (Status-Class and Status-Detail)); detail 1 of class 2 is the
 * authentication.
 */
function exitNameOfLoginStatus(error: LoginRefusedError): ExitName {
  if (error.statusClass === 3) return 'loginFailed';
  if (error.statusClass === 2 && error.statusDetail === 1) return 'authenticationFailed';
  return 'loginRefused';
}

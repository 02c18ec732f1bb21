import {
  codeOf,
  LinkError,
  LoginRefusedError,
  ProtocolError,
  ScsiError,
  UsageError,
} from '../base/errors.js';
import { AuthenticationError, type AuthenticationFault } from '../iscsi/login/chap.js';
import { describeLoginStatus, formatLoginStatus } from '../iscsi/login/login-status.js';
import { EXIT_CODES, type ExitName, exitCodeOf, exitNameOfCode } from './exit-codes.js';

/** Where something failed, as far as it is known. */
export type ErrorPlace = {
  readonly portal?: string;
  readonly target?: string;
  readonly lun?: number;
};

/** An error as `--json` prints it; `nextStep` is empty where the message says it already. */
type ErrorReport = ErrorPlace & {
  readonly event: 'error';
  readonly code: string;
  readonly exitCode: number;
  readonly message: string;
  readonly nextStep: string;
};

const LOOK_AT_LOG =
  "Look at the target's log; a firewall or a balancer on the way may end connections, too.";
const ROUTE = "Check the address, and this host's routes and interfaces.";

const NEXT_STEPS: Partial<Record<ExitName, string>> = {
  transport: LOOK_AT_LOG,
  connectTimeout: 'Check the address, routes and firewall; --login-timeout sets how long to wait.',
  pduTimeout: 'Check the load of the target and of the network; then try again.',
  authenticationFailed: 'Check the CHAP user and secret of each direction, here and at the target.',
  notPermitted: 'Run it as root, or choose a path you may use.',
  busy: 'Find out which process uses it, or choose another.',
};

/** What helps with an errno of the network, where that is not the row of its exit status. */
const ERRNO_STEPS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'Check the address and port, the firewall, and that the target is running.',
  EHOSTUNREACH: ROUTE,
  EHOSTDOWN: ROUTE,
  ENETUNREACH: ROUTE,
  ENETDOWN: ROUTE,
  EADDRNOTAVAIL: ROUTE,
  ENOTFOUND: 'Check how the name is written, or give the address.',
  EAI_AGAIN: 'Check the name servers of this host (/etc/resolv.conf), or give the address.',
  EAI_FAIL: 'Check the name servers of this host (/etc/resolv.conf), or give the address.',
  ENOTCONN: 'Log in again, or wait until the session is back.',
  ENOBUFS: 'Wait until the session is back.',
};

const WHOSE_SECRET =
  'Compare --target-chap-user and --target-chap-secret-file with the user and secret that the ' +
  'target proves itself with.';

/** Why the authentication failed at this end. */
const FAULT_STEPS: Readonly<Record<AuthenticationFault, string>> = {
  noCommonMethod:
    'Compare --chap-user, --chap-secret-file and --chap-algorithms with what the target accepts.',
  targetNotAuthenticated:
    'Give the target a user and secret of its own, or omit --target-chap-secret-file.',
  targetUser: WHOSE_SECRET,
  targetNotAuthentic: WHOSE_SECRET,
  sameSecret: 'Give each direction a secret of its own, here and at the target.',
  reflectedChallenge: 'Find out what is between this host and the target, and do not log in yet.',
  reusedChallenge: "The target's CHAP is not safe: look for its updates, or report it.",
};

/** Errors whose code says more than their class and exit status. */
const CODE_STEPS: Readonly<Record<string, string>> = {
  ERR_DIGEST_REFUSED:
    'Allow None as well (--header-digest CRC32C,None or --data-digest CRC32C,None), or enable ' +
    'the digest at the target.',
};

/** What happened, in a form for people and programs. No secret is in an error's message. */
export function reportError(error: unknown, place: ErrorPlace): ErrorReport {
  const exitCode = exitCodeOf(error);
  return {
    event: 'error',
    code: codeOf(error) || 'ERR_UNKNOWN',
    exitCode,
    message: messageOf(error, exitCode),
    nextStep: nextStepOf(error, exitCode),
    ...place,
  };
}

/** Why a connection fails, in words; an errno alone says little to most people. */
const NETWORK_WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the host responds, but nothing listens on this port',
  ECONNRESET: 'the other side ended the connection',
  ECONNABORTED: 'the connection was ended before it was ready',
  EHOSTUNREACH: 'no way leads to this host, or it is switched off',
  ENETUNREACH: 'no route leads to this network',
  ENOTFOUND: 'there is no such name',
  EAI_AGAIN: 'no name server answers',
  ETIMEDOUT: 'no answer came in time',
};

/** What an errno of the network means; `undefined` for another. */
export function networkWords(errno: string): string | undefined {
  return NETWORK_WORDS[errno];
}

/** Where a wrong command line or a missing driver has nothing to do with the place. */
const PLACELESS: ReadonlySet<number> = new Set([
  EXIT_CODES.invalidUse.code,
  EXIT_CODES.notPermitted.code,
  EXIT_CODES.notSupported.code,
  EXIT_CODES.interrupted.code,
  EXIT_CODES.terminated.code,
]);

/** One paragraph: what failed, where, why, what to do next. */
export function errorToText(report: ErrorReport): string {
  const what = report.message.replace(/\.$/, '');
  const place = PLACELESS.has(report.exitCode) ? '' : placeOf(report);
  return sentence([`${what}${place}.`, report.nextStep].filter((part) => part !== '').join(' '));
}

/** What the message does not name itself. */
function placeOf(report: ErrorReport): string {
  const { lun, target, portal, message } = report;
  const where = [
    lun === undefined || message.includes(`LUN ${lun}`) ? '' : `LUN ${lun}`,
    target === undefined || message.includes(target) ? '' : `target ${target}`,
    portal === undefined || message.includes(portal) ? '' : `portal ${portal}`,
  ].filter((part) => part !== '');
  return where.length === 0 ? '' : ` (${where.join(', ')})`;
}

/** Words begin with a capital letter; a command, a flag or a name is left as it is. */
function sentence(text: string): string {
  return /^(?:the|this|no|an?) /.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
}

function messageOf(error: unknown, exitCode: number): string {
  if (exitCode === EXIT_CODES.interrupted.code || exitCode === EXIT_CODES.terminated.code) {
    return 'Interrupted before it was done';
  }
  if (error instanceof LoginRefusedError) {
    const { statusClass, statusDetail } = error;
    const { name, explanation } = describeLoginStatus(statusClass, statusDetail);
    const status = `${formatLoginStatus(statusClass, statusDetail)} ${name}`;
    return `The target refused the login with status ${status}: ${explanation}`;
  }
  if (error instanceof LinkError && error.message.includes(error.errno)) {
    const words = networkWords(error.errno);
    return words === undefined ? error.message : `${error.message}: ${words}`;
  }
  if (error instanceof Error) return error.message === '' ? error.name : error.message;
  return String(error);
}

function hexByte(value: number): string {
  return value.toString(16).padStart(2, '0');
}

/** The rule whose breaking ended the connection, or the command with it. */
function brokenRuleOf(error: unknown): ProtocolError | null {
  if (error instanceof ProtocolError) return error;
  return error instanceof LinkError && error.cause instanceof ProtocolError ? error.cause : null;
}

function nextStepOf(error: unknown, exitCode: number): string {
  const known = CODE_STEPS[codeOf(error)];
  if (known !== undefined) return known;
  if (error instanceof UsageError) return '';
  if (error instanceof AuthenticationError) return FAULT_STEPS[error.fault];
  // LOGICAL UNIT NOT SUPPORTED (SPC-4, additional sense code 25h).
  if (error instanceof ScsiError && error.asc === 0x25)
    return 'The command `iscsi-nbd luns` lists those there are.';
  if (error instanceof ScsiError && error.senseKey !== 0) {
    const code = [error.senseKey, error.asc, error.ascq].map(hexByte).join('/');
    return `\`iscsi-nbd explain ${code}\` says what it means.`;
  }
  if (error instanceof LoginRefusedError) {
    const { nextStep } = describeLoginStatus(error.statusClass, error.statusDetail);
    return `${nextStep.charAt(0).toUpperCase()}${nextStep.slice(1)}.`;
  }
  const broken = brokenRuleOf(error);
  if (broken !== null) return broken.nextStep;
  // A code of the system may come in an error of its own, which has no class of ours.
  const step = ERRNO_STEPS[error instanceof LinkError ? error.errno : codeOf(error)];
  if (step !== undefined) return step;
  const name = exitNameOfCode(exitCode);
  return name === undefined ? '' : (NEXT_STEPS[name] ?? '');
}

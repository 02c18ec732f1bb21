import { LoginRefusedError, ProductError, ScsiError, UsageError } from '../base/errors.js';
import { describeLoginStatus, formatLoginStatus } from '../iscsi/login-status.js';
import { EXIT_CODES, type ExitName, exitCodeOf, exitNameOfCode } from './exit-codes.js';

/** Where something failed, as far as it is known. */
export type ErrorPlace = {
  readonly portal?: string;
  readonly target?: string;
  readonly lun?: number;
};

/** An error as `--json` prints it; `nextStep` is empty where the message says it already. */
export type ErrorReport = ErrorPlace & {
  readonly event: 'error';
  readonly code: string;
  readonly exitCode: number;
  readonly message: string;
  readonly nextStep: string;
};

const NEXT_STEPS: Partial<Record<ExitName, string>> = {
  transport: 'Check the address and port, the firewall, and that the target is running.',
  connectTimeout: 'Check the address, routes and firewall; --login-timeout sets how long to wait.',
  pduTimeout: 'Check the load of the target and of the network; then try again.',
  authenticationFailed: 'Check the CHAP user and secret of each direction, here and at the target.',
  notPermitted: 'Run it as root, or choose a path you may use.',
  busy: 'Find out who uses it, or choose another.',
};

/** What happened, in a form for people and programs. No secret is in an error's message. */
export function reportError(error: unknown, place: ErrorPlace): ErrorReport {
  const exitCode = exitCodeOf(error);
  return {
    event: 'error',
    code: codeOf(error),
    exitCode,
    message: messageOf(error, exitCode),
    nextStep: nextStepOf(error, exitCode),
    ...place,
  };
}

/** One paragraph: what failed, where, why, what to do next. */
export function errorToText(report: ErrorReport): string {
  const where = [
    report.lun === undefined ? '' : `LUN ${report.lun}`,
    report.target === undefined ? '' : `target ${report.target}`,
    report.portal === undefined ? '' : `portal ${report.portal}`,
  ].filter((part) => part !== '' && !report.message.includes(part));
  const place = where.length === 0 ? '' : ` (${where.join(', ')})`;
  const what = report.message.replace(/\.$/, '');
  return [`${what}${place}.`, report.nextStep].filter((part) => part !== '').join(' ');
}

function codeOf(error: unknown): string {
  if (error instanceof ProductError) return error.code;
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : 'ERR_UNKNOWN';
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
  if (error instanceof Error) return error.message === '' ? error.name : error.message;
  return String(error);
}

function nextStepOf(error: unknown, exitCode: number): string {
  if (error instanceof UsageError) return '';
  // LOGICAL UNIT NOT SUPPORTED (SPC-4, additional sense code 25h).
  if (error instanceof ScsiError && error.asc === 0x25) return '`luns` lists those there are.';
  if (error instanceof LoginRefusedError) {
    const { nextStep } = describeLoginStatus(error.statusClass, error.statusDetail);
    return `${nextStep.charAt(0).toUpperCase()}${nextStep.slice(1)}.`;
  }
  const name = exitNameOfCode(exitCode);
  return name === undefined ? '' : (NEXT_STEPS[name] ?? '');
}

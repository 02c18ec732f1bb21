/**
 * The error classes of the product. The class says whose fault it is and therefore what happens
 * next; `code` is stable and is what callers dispatch on, never the message text.
 */

type ErrorOptionsWithCode = ErrorOptions & { readonly code?: string };

/** Base of every error this product throws on purpose. */
export class ProductError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A bug of ours. No code catches it: it is logged and the process exits; devices survive. */
export class InvariantError extends ProductError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_INVARIANT', message, options);
  }
}

/** The operator asked for something wrong or impossible; `exitCode` is a row of `EXIT_CODES`. */
export class UsageError extends ProductError {
  readonly exitCode: number;

  constructor(message: string, options?: ErrorOptionsWithCode & { readonly exitCode?: number }) {
    super(options?.code ?? 'ERR_USAGE', message, options);
    this.exitCode = options?.exitCode ?? 7;
  }
}

/** The target broke the protocol: the connection is closed and the session recovers. */
export class ProtocolError extends ProductError {
  /** Section number of RFC 7143 that was broken. */
  readonly section: string;
  /** The initiator's row for the rule; empty for a rule of the embedded target. */
  readonly rule: string;
  /** What the operator can do, a whole sentence; empty where the error has no row. */
  readonly nextStep: string;

  constructor(
    section: string,
    message: string,
    options?: ErrorOptionsWithCode & { readonly rule?: string; readonly nextStep?: string },
  ) {
    super(options?.code ?? 'ERR_PROTOCOL', `${message} (RFC 7143 §${section})`, options);
    this.section = section;
    this.rule = options?.rule ?? '';
    this.nextStep = options?.nextStep ?? '';
  }
}

/**
 * The target refused the login with Status-Class/Status-Detail of RFC 7143 §11.13.5 (Status-Class
 * and Status-Detail).
 */
export class LoginRefusedError extends ProductError {
  readonly statusClass: number;
  readonly statusDetail: number;

  constructor(
    message: string,
    options: ErrorOptionsWithCode & { readonly statusClass: number; readonly statusDetail: number },
  ) {
    super(options.code ?? 'ERR_LOGIN_REFUSED', message, options);
    this.statusClass = options.statusClass;
    this.statusDetail = options.statusDetail;
  }
}

/** The network failed: the session recovers. `errno` is the system's name, e.g. `ECONNREFUSED`. */
export class LinkError extends ProductError {
  readonly errno: string;

  constructor(errno: string, message: string, options?: ErrorOptions) {
    super('ERR_LINK', message, options);
    this.errno = errno;
  }
}

/** The device answered a command with something other than GOOD. */
export class ScsiError extends ProductError {
  readonly status: number;
  readonly senseKey: number;
  readonly asc: number;
  readonly ascq: number;

  constructor(
    message: string,
    facts: { status: number; senseKey: number; asc: number; ascq: number },
    options?: ErrorOptions,
  ) {
    super('ERR_SCSI', message, options);
    this.status = facts.status;
    this.senseKey = facts.senseKey;
    this.asc = facts.asc;
    this.ascq = facts.ascq;
  }
}

/** Errno names that a block client can get (NBD protocol, "Error values"). */
export type BlockErrno = 'EIO' | 'ENOSPC' | 'EPERM' | 'EINVAL' | 'ENOMEM' | 'ENOTSUP' | 'ESHUTDOWN';

/** What the kernel or a socket client gets as the result of one request; made only in `bridge/`. */
export class BlockError extends ProductError {
  readonly errno: BlockErrno;

  constructor(errno: BlockErrno, message: string, options?: ErrorOptions) {
    super('ERR_BLOCK', message, options);
    this.errno = errno;
  }
}

/** Throws InvariantError unless `condition` holds. For our own mistakes only, never for input. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** `code` of any error: the system's (`ENOENT`), Node's or ours (`ERR_…`); empty without one. */
export function codeOf(error: unknown): string {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : '';
}

/** Errno name of a failed system call (Node's or the addon's); empty for any other value. */
export function errnoOf(error: unknown): string {
  const isSystems = error instanceof Error && 'errno' in error && typeof error.errno === 'number';
  return isSystems ? codeOf(error) : '';
}

/** True for an error of the target, the network or the operator; any other one is a bug of ours. */
export function isForeignFault(error: unknown): error is ProductError {
  return error instanceof ProductError && error.code !== 'ERR_INVARIANT';
}

/** `error` itself when it is the target's, the network's or the operator's; ours are thrown on. */
export function productError(error: unknown): ProductError {
  if (isForeignFault(error)) return error;
  throw error;
}

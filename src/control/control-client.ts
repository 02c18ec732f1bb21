import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import * as z from 'zod';
import { codeOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';

/** The codes of errors where the daemon has ended the connection, and without a daemon. */
export const DAEMON_GONE = 'ERR_DAEMON_GONE';
export const DAEMON_UNREACHABLE = 'ERR_DAEMON_UNREACHABLE';

type Pending = {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
};

/** A connection to a daemon's control socket. */
export class ControlClient {
  readonly #socket: Socket;
  readonly #path: string;
  readonly #pending = new Map<number, Pending>();
  #id = 0;
  #closed: UsageError | null = null;
  /** Called for each event once `SubscribeEvents` is answered. */
  onEvent: (event: unknown) => void = () => {};
  /** Called when the daemon ends the connection. */
  onClosed: (error: UsageError) => void = () => {};

  private constructor(socket: Socket, path: string) {
    this.#socket = socket;
    this.#path = path;
    const lines = createInterface({ input: socket, crlfDelay: Number.POSITIVE_INFINITY });
    lines.on('line', (line) => this.#received(line));
    // What went wrong shows in `close`, which always follows.
    lines.on('error', () => {});
    socket.on('error', () => {});
    socket.on('close', () => this.#ended());
  }

  /** Throws UsageError 20 if no daemon runs, 13 or 18 when it cannot be reached. */
  static connect(path: string): Promise<ControlClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once('error', (error) => reject(unreachable(path, error)));
      socket.once('connect', () => {
        socket.removeAllListeners('error');
        resolve(new ControlClient(socket, path));
      });
    });
  }

  /** The result of a method. Rejects with the daemon's own error and its exit status. */
  call(method: string, params: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    this.#id += 1;
    const id = this.#id;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
    });
  }

  [Symbol.dispose](): void {
    this.onClosed = () => {};
    this.#socket.destroy();
  }

  #received(line: string): void {
    let message: Record<string, unknown>;
    try {
      message = Object(JSON.parse(line));
    } catch {
      this.#socket.destroy();
      return;
    }
    if (message['method'] === 'event') {
      this.onEvent(message['params']);
      return;
    }
    const pending = this.#pending.get(Number(message['id']));
    if (pending === undefined) {
      if (message['error'] !== undefined) this.#fail(errorOf(message['error']));
      return;
    }
    this.#pending.delete(Number(message['id']));
    if (message['error'] === undefined) pending.resolve(message['result']);
    else pending.reject(errorOf(message['error']));
  }

  #ended(): void {
    this.#fail(
      new UsageError(`The daemon at ${this.#path} ended the connection. See its log.`, {
        exitCode: EXIT_CODES.daemonUnreachable.code,
        code: DAEMON_GONE,
      }),
    );
  }

  #fail(error: UsageError): void {
    if (this.#closed !== null) return;
    this.#closed = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.onClosed(error);
  }
}

/** What the daemon answered, checked. Throws UsageError 18 for an answer of another version. */
export async function askDaemon<T>(
  client: ControlClient,
  schema: z.ZodType<T>,
  method: string,
  params: Readonly<Record<string, unknown>> = {},
): Promise<T> {
  const parsed = schema.safeParse(await client.call(method, params));
  if (parsed.success) return parsed.data;
  throw new UsageError(
    `The daemon's answer to ${method} is not understood: is it of another version? ` +
      `(${z.prettifyError(parsed.error).split('\n')[0]})`,
    { exitCode: EXIT_CODES.daemonUnreachable.code, code: 'ERR_DAEMON_ANSWER' },
  );
}

/** An error of the daemon as if it had happened here. */
function errorOf(error: unknown): UsageError {
  const fields: Record<string, unknown> = Object(error);
  const report: Record<string, unknown> = Object(fields['data']);
  const message = String(fields['message'] ?? 'the daemon failed');
  const nextStep = typeof report['nextStep'] === 'string' ? report['nextStep'] : '';
  const words = message.replace(/\.$/, '');
  const isOurs = typeof report['exitCode'] === 'number';
  return new UsageError(nextStep === '' ? `${words}.` : `${words}. ${nextStep}`, {
    code: typeof report['code'] === 'string' ? report['code'] : 'ERR_DAEMON',
    exitCode: isOurs ? Number(report['exitCode']) : exitOfRpcCode(Number(fields['code'])),
  });
}

/** Codes of JSON-RPC 2.0: wrong parameters are the caller's, the rest is between the programs. */
function exitOfRpcCode(code: number): number {
  const isParams = code === -32_602;
  return (isParams ? EXIT_CODES.invalidUse : EXIT_CODES.daemonUnreachable).code;
}

function unreachable(path: string, cause: Error): UsageError {
  const { daemonNotRunning, daemonUnreachable, notPermitted } = EXIT_CODES;
  const options = { cause, code: DAEMON_UNREACHABLE };
  const errno = codeOf(cause);
  if (errno === 'ENOENT' || errno === 'ECONNREFUSED') {
    return new UsageError(
      `No daemon listens at ${path}. Start one with \`systemctl start iscsi-nbd\` or ` +
        '`iscsi-nbd daemon`, or name its socket with --control.',
      { ...options, exitCode: daemonNotRunning.code },
    );
  }
  if (errno === 'EACCES' || errno === 'EPERM') {
    return new UsageError(`The daemon's socket ${path} is not for you. Run it as root.`, {
      ...options,
      exitCode: notPermitted.code,
    });
  }
  return new UsageError(`The daemon at ${path} cannot be reached (${errno}).`, {
    ...options,
    exitCode: daemonUnreachable.code,
  });
}
